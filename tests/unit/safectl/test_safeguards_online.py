"""The safety layer that learns while it guards."""

import dataclasses

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


def rows_of(count, *, seed):
    generator = torch.Generator().manual_seed(seed)
    observation = 2.0 * torch.rand(count, 2, generator=generator) - 1.0
    action = 2.0 * torch.rand(count, 1, generator=generator) - 1.0
    return observation, action, move(observation, action)


def test_the_margin_is_measured_on_transitions_that_did_not_train_the_model():
    plain, shifted = make(), make()
    for layer, error in ((plain, 0.0), (shifted, 0.5)):
        layer.observe(*rows_of(400, seed=1))
        observation, action, speed = rows_of(200, seed=2)
        layer.observe(observation, action, speed + error)
    one, other = plain.layer, shifted.layer
    weights = [each.model.state_dict() for each in (one, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert one.calibration.samples == other.calibration.samples == 200
    assert float(other.calibration.margin - one.calibration.margin) == pytest.approx(0.5, abs=1e-5)


def test_the_layer_that_guards_is_the_one_that_was_calibrated():
    layer = make()
    layer.observe(*rows_of(600, seed=1))
    served = layer.layer
    before = {name: value.clone() for name, value in served.model.state_dict().items()}
    layer.observe(*rows_of(200, seed=3))
    assert layer.layer is not served
    assert all(torch.equal(before[name], v) for name, v in served.model.state_dict().items())
    observation, action, speed = rows_of(200, seed=3)
    error = speed - layer.layer.model.predict(observation, action)
    beyond = (error > layer.layer.calibration.margin).float().mean()
    assert beyond <= 0.01 + 1e-6


def test_only_transitions_near_the_limit_measure_the_margin_where_there_are_enough():
    options = dataclasses.replace(SMALL, delta=0.1, near=0.5)
    layer = make(options)
    layer.observe(*rows_of(400, seed=1))
    observation, action, speed = rows_of(200, seed=2)
    near = torch.arange(200) < 100
    layer.observe(observation, action, torch.where(near[:, None], speed + 5.0, speed - 5.0))
    assert layer.layer.calibration.samples == 100
    assert float(layer.layer.calibration.margin) > 4.0


def test_statistics_come_from_the_data():
    layer = make()
    observation, action, speed = rows_of(600, seed=1)
    layer.observe(100.0 + observation, action, speed)
    assert layer.layer.model.mean[0] == pytest.approx(100.0, abs=0.5)


def test_transitions_that_are_not_finite_are_left_out_and_counted():
    layer = make()
    observation, action, speed = rows_of(700, seed=1)
    observation[3, 0], action[5, 0], speed[7, 0] = torch.nan, torch.inf, -torch.inf
    layer.observe(observation, action, speed)
    assert layer.dropped == 3
    assert all(value.isfinite().all() for value in layer.layer.model.state_dict().values())


def test_the_newest_are_held_back_also_when_the_ring_has_wrapped():
    options = dataclasses.replace(SMALL, warm_up=2000, capacity=2000)
    plain, shifted = make(options), make(options)
    for layer, error in ((plain, 0.0), (shifted, 0.5)):
        layer.observe(*rows_of(1500, seed=1))
        layer.observe(*rows_of(499, seed=4))
        observation, action, speed = rows_of(200, seed=2)
        layer.observe(observation, action, speed + error)
    weights = [each.layer.model.state_dict() for each in (plain, shifted)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


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


@pytest.mark.parametrize(
    ("shapes", "name"),
    [(((3, 2), (2, 1), (3, 1)), "actions"), (((3, 5), (3, 1), (3, 1)), "observations")],
)
def test_rows_and_widths_must_match(shapes, name):
    with pytest.raises(ShapeError, match=f"{name} has shape"):
        make().observe(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("change", [{"delta": 0.2}, {"near": 0.5}, {"rate": 0.9}])
def test_a_state_of_another_promise_is_refused(change):
    other = make(dataclasses.replace(SMALL, **change))
    with pytest.raises(FileFormatError, match=r"delta, near, rate, interval, capacity is"):
        make().load_state(other.state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": 0.0}, "delta"),
        ({"near": 1.5}, "near"),
        ({"rate": 0.0}, "rate"),
        ({"batch": 0}, "batch"),
        ({"warm_up": 100, "interval": 100}, "each fit holds one interval back"),
        ({"capacity": 100}, "warm_up <= capacity"),
        ({"interval": 50, "warm_up": 100}, "delta has no quantile"),
    ],
)
def test_senseless_options_are_refused(options, message):
    with pytest.raises(RangeError, match=message):
        OnlineOptions(**options)
