"""The safety layer that learns while it guards."""

import pytest
import torch

from safectl.errors import FileFormatError, RangeError, ShapeError
from safectl.safeguards.online import OnlineOptions, OnlineSafetyLayer
from safectl.spec import Signal, Spec
from safectl.types import Safeguard, Status

SPEC = Spec(
    observation=(Signal("speed", "m/s", -9.0, 9.0), Signal("slope", "1", -1.0, 1.0)),
    action=(Signal("push", "N", -1.0, 1.0),),
    period=0.1,
)
LIMIT = 1.0
SMALL = OnlineOptions(
    hidden=(16,), warm_up=600, interval=200, capacity=2000, first_steps=300, steps=50, batch=128
)


def make(options=SMALL):
    return OnlineSafetyLayer(
        SPEC,
        limit=LIMIT,
        signal=lambda observation: observation[:, :1],
        generator=torch.Generator().manual_seed(0),
        options=options,
    )


def move(observation, action):
    """The true robot: it keeps 90 % of its speed, the push and the slope change it."""
    return 0.9 * observation[:, :1] + 0.3 * action + 0.1 * observation[:, 1:]


def run(layer, steps, *, seed=1, batch=20):
    """Push hard forward under the layer; return speeds and statuses, one row per step."""
    generator = torch.Generator().manual_seed(seed)
    observation = torch.zeros(batch, 2)
    speeds, statuses = [], []
    for _ in range(steps):
        proposal = 2.0 * torch.rand(batch, 1, generator=generator) - 0.2
        decision = layer.filter(observation, proposal)
        speed = move(observation, decision.action)
        layer.observe(observation, decision.action, speed)
        slope = 2.0 * torch.rand(batch, 1, generator=generator) - 1.0
        observation = torch.cat([speed, slope], 1)
        speeds.append(speed[:, 0])
        statuses.append(decision.certificate.status)
    return torch.stack(speeds), torch.stack(statuses)


def test_it_claims_nothing_before_it_has_a_model():
    layer = make()
    assert isinstance(layer, Safeguard)
    assert layer.claim.startswith("none but the action limits")
    decision = layer.filter(torch.zeros(2, 2), torch.tensor([[0.5], [3.0]]))
    assert decision.certificate.risk.tolist() == [1.0, 1.0]
    assert decision.certificate.status.tolist() == [Status.KEPT, Status.CORRECTED]
    assert decision.action.tolist() == [[0.5], [1.0]]


def test_it_learns_to_hold_the_limit_that_it_broke_before():
    layer = make()
    before, _ = run(layer, 30)
    assert (before > LIMIT).float().mean() > 0.3
    assert layer.layer is not None
    run(layer, 40)
    after, statuses = run(layer, 100, seed=2)
    assert (after > LIMIT).float().mean() <= 0.02
    assert (after[-50:] > 0.8).float().mean() > 0.3
    assert (statuses == Status.CORRECTED).any()
    assert "probability >= 0.99" in layer.claim


def test_margin_is_measured_on_transitions_that_were_not_trained_on():
    layer = make()
    run(layer, 30)
    assert layer.layer is not None
    assert layer.layer.calibration.samples == 200


def test_state_goes_on_bit_for_bit():
    whole = make()
    run(whole, 35)
    state = whole.state()
    again = make()
    again.load_state(state)
    first, second = run(whole, 30, seed=3), run(again, 30, seed=3)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert all(
        torch.equal(a, b)
        for a, b in zip(*(x.state().values() for x in (whole, again)), strict=True)
    )


def test_state_before_the_first_fit_goes_on_too():
    layer, again = make(), make()
    run(layer, 5)
    again.load_state(layer.state())
    assert again.layer is None
    assert torch.equal(run(layer, 40)[0], run(again, 40)[0])


def test_foreign_state_is_refused():
    other = make(OnlineOptions(hidden=(8,), warm_up=600, interval=200, capacity=2000))
    with pytest.raises(FileFormatError, match="does not fit"):
        make().load_state(other.state())
    with pytest.raises(FileFormatError, match="does not fit"):
        make().load_state({})


def test_rows_must_match():
    with pytest.raises(ShapeError, match="action has shape"):
        make().observe(torch.zeros(3, 2), torch.zeros(2, 1), torch.zeros(3, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": 0.0}, "delta"),
        ({"near": 1.5}, "near"),
        ({"rate": 0.0}, "rate"),
        ({"batch": 0}, "batch"),
        ({"warm_up": 100, "interval": 100}, "the first fit holds one interval back"),
        ({"capacity": 100}, "warm_up <= capacity"),
    ],
)
def test_senseless_options_are_refused(options, message):
    with pytest.raises(RangeError, match=message):
        OnlineOptions(**options)
