import pytest
import torch
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.safeguards import Brake, Clip, Fallback, Hold, RateLimit, Remembering
from safectl.safeguards.memory import Memory
from safectl.spec import Signal, Spec
from safectl.types import Decision, Status

SPEC = Spec(
    observation=tuple(Signal(name, "m", -9.0, 9.0) for name in ("p", "q", "v", "w")),
    action=(Signal("a", "m/s^2", -1.0, 1.0), Signal("b", "m/s^2", 0.25, 2.0)),
    period=0.1,
)
INSIDE = torch.tensor([[0.5, 1.5]])


class Only:
    """Certifies the marked rows and nothing else."""

    claim = "none; for tests"

    def __init__(self, fallback: Fallback) -> None:
        self.fallback, self.certified = fallback, torch.tensor([True, True])

    def filter(self, observation: Tensor, action: Tensor, /) -> Decision:
        broken = torch.where(self.certified.unsqueeze(-1), observation, torch.nan)
        return Clip(SPEC, fallback=self.fallback).filter(broken, action)


def observations(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows)


def test_brake_is_zero_within_the_limits() -> None:
    torch.testing.assert_close(
        Brake(SPEC).action(torch.zeros(2, 4)), torch.tensor([[0.0, 0.25]]).repeat(2, 1)
    )


def test_brake_stops_within_a_period_or_brakes_fully() -> None:
    action = Brake(SPEC, velocities=(2, 3)).action(observations((0.0, 0.0, 0.05, -9.0)))
    torch.testing.assert_close(action, torch.tensor([[-0.5, 2.0]]))


def test_brake_uses_the_fixed_action_where_its_law_is_not_finite() -> None:
    brake = Brake(SPEC, fixed=[0.5, 1.0], law=lambda observation: observation[:, :2] * 9.0)
    action = brake.action(observations((torch.nan, 0.0, 0.0, 0.0), (1.0, -1.0, 0.0, 0.0)))
    torch.testing.assert_close(action, torch.tensor([[0.5, 1.0], [1.0, 0.25]]))


def test_brake_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ShapeError):
        Brake(SPEC, fixed=[1.0])
    with pytest.raises(ShapeError):
        Brake(SPEC, velocities=(1,))
    with pytest.raises(RangeError):
        Brake(SPEC, fixed=[torch.nan, 0.0])
    with pytest.raises(RangeError):
        Brake(SPEC, velocities=(2, 3), law=lambda observation: observation[:, :2])


def test_hold_repeats_for_its_patience_and_then_gives_up() -> None:
    hold = Hold(Brake(SPEC), rows=2, patience=2)
    inner = Only(hold)
    safeguard, seen = Remembering(inner, [hold]), torch.zeros(2, 4)
    assert isinstance(hold, Fallback)
    safeguard.filter(seen, torch.tensor([[0.5, 1.5], [-0.5, 1.0]]))
    inner.certified = torch.tensor([False, True])
    for expected in ([0.5, 1.5], [0.5, 1.5], [0.0, 0.25]):
        decision = safeguard.filter(seen, torch.tensor([[0.9, 0.9], [0.1, 1.1]]))
        torch.testing.assert_close(decision.action[0], torch.tensor(expected))
        torch.testing.assert_close(decision.action[1], torch.tensor([0.1, 1.1]))
        assert decision.certificate.status.tolist() == [Status.FALLBACK, Status.KEPT]


def test_hold_forgets_only_the_rows_that_are_reset() -> None:
    hold = Hold(Brake(SPEC), rows=2)
    safeguard, seen = Remembering(Only(hold), [hold]), torch.zeros(2, 4)
    safeguard.filter(seen, INSIDE.repeat(2, 1))
    safeguard.reset(torch.tensor([True, False]))
    action = hold.action(seen)
    torch.testing.assert_close(action, torch.tensor([[0.0, 0.25], [0.5, 1.5]]))


def test_memories_refuse_another_number_of_rows() -> None:
    with pytest.raises(ShapeError):
        Hold(Brake(SPEC), rows=2).action(torch.zeros(3, 4))
    with pytest.raises(ShapeError):
        RateLimit(SPEC, [1.0, 1.0], rows=2).filter(torch.zeros(3, 4), torch.zeros(3, 2))
    with pytest.raises(RangeError):
        Hold(Brake(SPEC), rows=0)
    with pytest.raises(RangeError):
        Hold(Brake(SPEC), rows=1, patience=0)


def test_clip_says_how_far_the_limits_are() -> None:
    decision = Clip(SPEC).filter(torch.zeros(2, 4), torch.tensor([[0.5, 1.5], [3.0, 1.5]]))
    torch.testing.assert_close(decision.certificate.margin, torch.tensor([0.5, 0.0]))
    assert decision.certificate.status.tolist() == [Status.KEPT, Status.CORRECTED]


def test_rate_limit_moves_a_step_at_a_time() -> None:
    limit = RateLimit(SPEC, [2.0, 5.0], rows=1, start=[0.0, 1.0])
    assert isinstance(limit, Memory)
    safeguard, far = Remembering(limit, [limit]), torch.tensor([[1.0, 2.0]])
    for expected in ([0.2, 1.5], [0.4, 2.0], [0.6, 2.0]):
        decision = safeguard.filter(torch.zeros(1, 4), far)
        torch.testing.assert_close(decision.action, torch.tensor([expected]))
    safeguard.reset(torch.tensor([True]))
    decision = safeguard.filter(torch.zeros(1, 4), far)
    torch.testing.assert_close(decision.action, torch.tensor([[0.2, 1.5]]))


def test_rate_limit_approaches_its_fallback_at_the_allowed_rate() -> None:
    limit = RateLimit(SPEC, [2.0, 5.0], rows=1, start=[1.0, 1.0])
    decision = limit.filter(torch.full((1, 4), torch.nan), INSIDE)
    torch.testing.assert_close(decision.action, torch.tensor([[0.8, 0.5]]))
    assert decision.certificate.status.tolist() == [Status.FALLBACK]


def test_rate_limit_without_remembering_does_not_drift() -> None:
    limit = RateLimit(SPEC, [2.0, 5.0], rows=1, start=[0.0, 1.0])
    for _ in range(3):
        decision = limit.filter(torch.zeros(1, 4), torch.tensor([[1.0, 1.0]]))
        torch.testing.assert_close(decision.action, torch.tensor([[0.2, 1.0]]))


@pytest.mark.parametrize("rate", [[1.0], [0.0, 1.0]])
def test_rate_limit_refuses_impossible_rates(rate: list[float]) -> None:
    with pytest.raises((ShapeError, RangeError)):
        RateLimit(SPEC, rate, rows=1)
