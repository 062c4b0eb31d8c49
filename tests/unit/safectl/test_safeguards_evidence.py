import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.safeguards import Brake, Chain, Clip, Fallback, RateLimit
from safectl.safeguards.evidence import (
    Candidate,
    Limits,
    action_limits,
    decide,
    decide_row,
    evidence,
)
from safectl.spec import Signal, Spec
from safectl.types import Certificate, Decision, Safeguard, Status

SPEC = Spec(
    observation=(Signal("p", "m", -9.0, 9.0),),
    action=(Signal("u", "m/s", -1.0, 1.0), Signal("w", "m/s", 0.5, 2.5)),
    period=0.1,
)
LIMITS = Limits(torch.tensor([-1.0, 0.5]), torch.tensor([1.0, 2.5]))
MIDDLE = torch.tensor([0.0, 1.5])
SEEN, INSIDE = torch.zeros(1, 1), torch.tensor([[0.5, 1.0]])
ALL = torch.tensor([True])


def candidate(
    action: Tensor = INSIDE, margin: float = 1.0, residual: float = 0.0, risk: float = 0.25
) -> Candidate:
    return Candidate(action, *(torch.tensor([value]) for value in (margin, residual, risk)))


def decided(proposed: Candidate, fallback: Candidate | None = None) -> Decision:
    last = candidate(MIDDLE.unsqueeze(0)) if fallback is None else fallback
    return decide(INSIDE, proposed, last, limits=LIMITS, usable=ALL)


def status(decision: Decision) -> int:
    return int(decision.certificate.status[0])


@pytest.mark.parametrize(
    "broken",
    [
        candidate(margin=-1e-9),
        candidate(margin=torch.nan),
        candidate(residual=1e-9),
        candidate(residual=torch.nan),
        candidate(residual=torch.inf),
        candidate(torch.tensor([[torch.nan, 1.0]])),
        candidate(torch.tensor([[torch.inf, 1.0]])),
    ],
)
def test_what_its_evidence_does_not_certify_falls_back(broken: Candidate) -> None:
    decision = decided(broken)
    assert status(decision) == Status.FALLBACK
    assert torch.equal(decision.action[0], MIDDLE)


def test_kept_returns_the_bits_of_the_proposal() -> None:
    proposal, equal = torch.tensor([[-0.0, 1.0]]), torch.tensor([[0.0, 1.0]])
    decision = decide(proposal, candidate(equal), candidate(), limits=LIMITS, usable=ALL)
    assert status(decision) == Status.KEPT
    assert decision.action[0, 0].signbit()


@pytest.mark.parametrize(
    ("action", "returned"),
    [
        ([torch.nan, 1.0], MIDDLE),
        ([0.5, torch.inf], MIDDLE),
        ([7.0, -7.0], torch.tensor([1.0, 0.5])),
    ],
)
def test_an_impossible_fallback_is_replaced_and_loses_its_evidence(
    action: list[float], returned: Tensor
) -> None:
    decision = decided(candidate(margin=-1.0), candidate(torch.tensor([action])))
    assert torch.equal(decision.action[0], returned)
    assert decision.certificate.margin.tolist() == [-torch.inf]
    assert decision.certificate.residual.tolist() == [torch.inf]


def test_a_fallback_keeps_its_margin_but_has_no_risk_bound() -> None:
    certificate = decided(candidate(margin=-1.0), candidate(margin=0.5)).certificate
    assert certificate.margin.tolist() == [0.5]
    assert certificate.risk.tolist() == [1.0]
    unknown = decided(candidate(margin=-1.0), candidate(margin=torch.nan, residual=torch.nan))
    assert unknown.certificate.margin.tolist() == [-torch.inf]
    assert unknown.certificate.residual.tolist() == [torch.inf]


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_constraint_that_is_not_finite_does_not_count_as_met(value: float) -> None:
    found = evidence(INSIDE, torch.tensor([[1.0, value]]), LIMITS)
    assert found.margin.tolist() == [-torch.inf]
    assert found.residual.tolist() == [torch.inf]


def test_no_constraint_at_all_leaves_infinite_room() -> None:
    assert evidence(INSIDE, torch.zeros(1, 0), LIMITS).margin.tolist() == [torch.inf]


class Wild:
    """A fallback that breaks its promises; for tests."""

    name, spec = "wild", SPEC

    def __init__(self, *entries: float) -> None:
        self.entries = entries

    def action(self, observation: Tensor, /) -> Tensor:
        return torch.tensor(self.entries).repeat(len(observation), 1)


def guards(fallback: Fallback) -> list[Safeguard]:
    return [
        Clip(SPEC, fallback=fallback),
        RateLimit(SPEC, [90.0, 90.0], rows=1, fallback=fallback),
        Chain(Clip(SPEC), fallback=fallback),
    ]


@pytest.mark.parametrize("entries", [(9.0, -9.0), (torch.nan, 1.0), (torch.inf, torch.inf)])
def test_no_fallback_is_trusted(entries: tuple[float, ...]) -> None:
    for guard in guards(Wild(*entries)):
        decision = guard.filter(SEEN, torch.full((1, 2), torch.nan))
        assert status(decision) == Status.FALLBACK
        assert ((decision.action >= LIMITS.low) & (decision.action <= LIMITS.high)).all()


def test_a_fallback_of_another_shape_is_refused() -> None:
    for guard in guards(Wild(0.0, 1.0, 2.0)):
        with pytest.raises(ShapeError, match="fallback"):
            guard.filter(SEEN, torch.full((1, 2), torch.nan))
    with pytest.raises(ShapeError, match="fallback"):
        Brake(SPEC, law=lambda observation: observation).action(SEEN)
    with pytest.raises(ShapeError, match="observation"):
        Brake(SPEC, velocities=(0, 1)).action(SEEN)


def told(action: Tensor) -> Decision:
    one = torch.ones(len(action))
    return Decision(action, Certificate(torch.zeros(len(action), dtype=torch.int8), one, one, one))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e6])
def test_a_rate_limit_is_not_broken_by_what_it_remembers(value: float) -> None:
    limit = RateLimit(SPEC, [2.0, 2.0], rows=1, start=[0.0, 1.0])
    limit.remember(told(torch.tensor([[value, 1.0]])))
    for proposal in (INSIDE, torch.tensor([[torch.nan, 1.0]])):
        decision = limit.filter(SEEN, proposal)
        assert decision.action.isfinite().all()
        assert (decision.action <= LIMITS.high).all()
        assert decision.certificate.margin.isfinite().all()
        if status(decision) != Status.FALLBACK:
            assert (decision.certificate.margin >= 0.0).all()


def test_a_row_that_is_not_finite_is_not_remembered() -> None:
    limit = RateLimit(SPEC, [2.0, 2.0], rows=1, start=[0.0, 1.0])
    limit.remember(told(torch.tensor([[torch.nan, 1.0]])))
    decision = limit.filter(SEEN, torch.tensor([[1.0, 1.0]]))
    torch.testing.assert_close(decision.action, torch.tensor([[0.2, 1.0]]))


def test_memories_refuse_what_they_cannot_store() -> None:
    limit = RateLimit(SPEC, [2.0, 2.0], rows=1)
    for action in (torch.zeros(1, 1), torch.zeros(1, 3), torch.zeros(2, 2)):
        with pytest.raises(ShapeError):
            limit.remember(told(action))
    with pytest.raises(ShapeError):
        limit.reset(torch.tensor([True, False]))


@pytest.mark.parametrize("start", [[torch.nan, 1.0], [0.0, torch.inf]])
def test_a_rate_limit_refuses_to_start_nowhere(start: list[float]) -> None:
    with pytest.raises(RangeError, match="start"):
        RateLimit(SPEC, [2.0, 2.0], rows=1, start=start)


def test_arrays_are_sequences_too() -> None:
    start = np.array([0.5, 1.0])
    limit = RateLimit(SPEC, np.array([2.0, 2.0]), rows=1, start=start)
    torch.testing.assert_close(limit.filter(SEEN, INSIDE).action, INSIDE)
    brake = Brake(SPEC, fixed=start)
    torch.testing.assert_close(brake.action(SEEN), torch.tensor([[0.5, 1.0]]))


def test_limits_have_the_dtype_of_the_action() -> None:
    assert action_limits(SPEC, INSIDE.double()).low.dtype == torch.float64


ACTIONS = [INSIDE, INSIDE + 0.25, INSIDE + 1.0, torch.tensor([[torch.nan, 1.0]])]
MARGINS = [0.5, 0.0, -0.25, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize(("action", "margin"), list(product(ACTIONS, MARGINS)))
@pytest.mark.parametrize("recovers", [False, True])
def test_a_row_is_decided_as_a_batch_is_or_not_at_all(
    action: Tensor, margin: float, *, recovers: bool
) -> None:
    room = torch.tensor([[margin]])
    found = evidence(action, room, LIMITS, risk=0.25)
    row = decide_row(
        INSIDE[0].numpy(),
        action[0].numpy(),
        margin,
        (LIMITS.low.numpy(), LIMITS.high.numpy()),
        risk=0.25,
        recovers=recovers,
    )
    whole = decided(found, found)
    certified = status(whole) != Status.FALLBACK
    is_plain = bool(found.residual.isfinite()) and bool((action <= LIMITS.high).all())
    assert (row is not None) == (certified or (recovers and is_plain))
    if row is not None:
        assert torch.equal(row.action, whole.action)
        for name in ("status", "margin", "risk", "residual"):
            one, other = getattr(row.certificate, name), getattr(whole.certificate, name)
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
