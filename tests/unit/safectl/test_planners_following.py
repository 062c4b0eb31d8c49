"""A plan that is followed: waypoints, the end, replanning, fallbacks."""

import pytest
import torch

from safectl.errors import RangeError, ShapeError
from safectl.planners import PlanFollower
from safectl.planners.towards import no_claim
from safectl.spec import Signal, Spec
from safectl.types import Certificate, Plan, Planner, Policy, Status

SPEC = Spec(
    tuple(Signal(name, "m", -9.0, 9.0) for name in ("x", "y", "vx", "vy")),
    tuple(Signal(name, "1", -1.0, 1.0) for name in ("ax", "ay")),
    0.1,
)


class Line:
    """Plans of three states from the start along x; certified where `good`."""

    def __init__(self, good=(True,)):
        self.good, self.starts = list(good), []

    def plan(self, observation):
        good = self.good[min(len(self.starts), len(self.good) - 1)]
        self.starts.append(observation)
        steps = torch.tensor([0.0, 0.1, 0.2]).reshape(1, 3, 1)
        states = observation.unsqueeze(1) + steps * torch.tensor([1.0, 0.0, 0.0, 0.5])
        claim = no_claim(observation)
        status = Status.KEPT if good else Status.FALLBACK
        status = torch.full_like(claim.status, status.value)
        certificate = Certificate(status, claim.margin, claim.risk, claim.residual)
        return Plan(states, states[:, :, 2:], certificate)


def test_a_follower_is_a_policy_of_a_planner():
    assert isinstance(Line(), Planner)
    assert isinstance(PlanFollower(Line(), SPEC), Policy)


def test_the_action_is_the_way_to_the_next_state_plus_the_missing_velocity():
    follower = PlanFollower(Line(), SPEC)
    rest = torch.zeros(2, 4)
    torch.testing.assert_close(follower.act(rest), torch.tensor([[0.1, 0.05]] * 2))
    torch.testing.assert_close(follower.act(rest), torch.tensor([[0.2, 0.1]] * 2))


def test_after_the_end_it_holds_the_last_position_at_rest():
    follower = PlanFollower(Line(), SPEC)
    for _ in range(2):
        follower.act(torch.zeros(1, 4))
    moving = torch.tensor([[0.2, 0.0, 0.0, 0.3]])
    torch.testing.assert_close(follower.act(moving), torch.tensor([[0.0, -0.3]]))
    torch.testing.assert_close(follower.act(moving), torch.tensor([[0.0, -0.3]]))


def test_gains_and_limits_count():
    follower = PlanFollower(Line(), SPEC, gains=(5.0, 2.0))
    torch.testing.assert_close(follower.act(torch.zeros(1, 4)), torch.tensor([[0.5, 0.1]]))
    follower.act(torch.zeros(1, 4))
    far = torch.tensor([[-7.0, 7.0, 0.0, 0.0]])
    torch.testing.assert_close(follower.act(far), torch.tensor([[1.0, -1.0]]))


def test_it_plans_again_every_so_many_steps_and_after_a_reset():
    planner = Line()
    follower = PlanFollower(planner, SPEC, every=2)
    for index in range(5):
        follower.act(torch.full((1, 4), float(index)))
    assert [float(start[0, 0]) for start in planner.starts] == [0.0, 2.0, 4.0]
    once = PlanFollower(planner, SPEC)
    for _ in range(5):
        once.act(torch.zeros(1, 4))
    assert len(planner.starts) == 4
    once.reset()
    assert once.plan is None
    once.act(torch.zeros(3, 4))
    assert len(planner.starts) == 5


def test_a_plan_that_is_a_fallback_does_not_replace_a_better_one():
    follower = PlanFollower(Line(good=(True, False)), SPEC, every=1)
    follower.act(torch.zeros(1, 4))
    away = torch.full((1, 4), 0.3)
    action = follower.act(away)  # towards state 2 of the first plan, velocity 0.1
    torch.testing.assert_close(action, torch.tensor([[0.2 - 0.6, 0.1 - 0.6]]))
    assert int(follower.plan.certificate.status[0]) == Status.KEPT


def test_without_a_better_one_the_newest_fallback_is_followed():
    follower = PlanFollower(Line(good=(False,)), SPEC, every=1)
    follower.act(torch.zeros(1, 4))
    away = torch.full((1, 4), 0.3)
    torch.testing.assert_close(follower.act(away), torch.tensor([[0.1, 0.05]]))


def test_another_number_of_rows_without_a_reset_is_refused():
    follower = PlanFollower(Line(), SPEC)
    follower.act(torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="batch"):
        follower.act(torch.zeros(3, 4))


def test_a_plan_with_a_reach_waits_at_rest_for_a_row_that_was_held_up():
    follower = PlanFollower(Line(), SPEC, reach=0.15, gains=(1.0, 1.0))
    follower.act(torch.zeros(2, 4))
    here = torch.tensor([[0.1, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])  # the second was held up
    torch.testing.assert_close(follower.act(here), torch.tensor([[0.1, 0.1], [0.2, 0.0]]))
    torch.testing.assert_close(follower.act(here)[1], torch.tensor([0.2, 0.0]))
    near = torch.tensor([[0.2, 0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(follower.act(near)[1], torch.tensor([0.1, 0.1]))


def test_only_a_row_that_waited_for_long_plans_again():
    planner = Line()
    follower = PlanFollower(planner, SPEC, reach=0.15, every=3)
    stuck = torch.tensor([[0.1, 0.0, 0.0, 0.0], [0.7, 0.0, 0.0, 0.0]])
    follower.act(torch.zeros(2, 4))
    for _ in range(3):
        follower.act(stuck)
    assert len(planner.starts) == 1
    follower.act(stuck)
    assert len(planner.starts) == 2
    torch.testing.assert_close(planner.starts[1], stuck[1:])
    torch.testing.assert_close(follower.plan.states[0, 0], torch.zeros(4))
    torch.testing.assert_close(follower.plan.states[1, 0], stuck[1])


def test_a_row_that_follows_a_fallback_plans_again_though_it_is_where_that_says():
    planner = Line(good=(False, True))
    follower = PlanFollower(planner, SPEC, reach=0.5, every=3)
    for _ in range(4):
        follower.act(torch.zeros(1, 4))
    assert len(planner.starts) == 2
    assert int(follower.plan.certificate.status[0]) == Status.KEPT
    for _ in range(4):
        follower.act(torch.tensor([[0.2, 0.0, 0.0, 0.0]]))
    assert len(planner.starts) == 2  # a certified plan that is kept up with is not renewed


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (RangeError, {"every": 0}),
        (RangeError, {"gains": (1.0, 0.0)}),
        (RangeError, {"reach": 0.0}),
        (ShapeError, {"positions": (0,)}),
        (ShapeError, {"velocities": (1, 2, 3)}),
    ],
)
def test_settings_out_of_range_are_refused(error, options):
    with pytest.raises(error):
        PlanFollower(Line(), SPEC, **options)


def test_a_planner_that_knows_what_moves_is_told_the_time_since_the_reset():
    class Timed(Line):
        def plan_at(self, observation, begins_s):
            times.append(round(begins_s, 6))
            return self.plan(observation)

    times = []
    follower = PlanFollower(Timed(), SPEC, every=3)
    for _ in range(7):
        follower.act(torch.zeros(1, 4))
    assert times == [0.0, 0.3, 0.6]
    follower.reset()
    follower.act(torch.zeros(1, 4))
    assert times[-1] == 0.0
