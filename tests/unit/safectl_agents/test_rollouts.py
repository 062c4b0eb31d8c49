"""Executed rollouts: what is measured, what the guard keeps, what is refused."""

import pytest
import torch

from safectl.barriers import Superellipse
from safectl.errors import RangeError
from safectl.planners import PlanFollower
from safectl.seed import torch_generator
from safectl_agents.diffusion.compare import SHIPPED, draw_starts, set_up
from safectl_agents.diffusion.methods import make_planner
from safectl_agents.diffusion.rollouts import draw_free_starts, maze_guard, roll_out
from safectl_agents.diffusion.specifications import named_barriers
from safectl_envs import maze2d
from safectl_envs.maze_controller import WaypointPlanner

OPEN = maze2d("open")
DISC = {"disc": Superellipse((2.0, 3.0), (0.7, 0.7))}


class Push:
    """A policy that pushes the same way all the time."""

    def __init__(self, *action):
        self.action = torch.tensor(action)

    def act(self, observation):
        return self.action.expand(len(observation), 2)


def follower(world, *, every=None, horizon=128):
    planner = WaypointPlanner(world, horizon, torch_generator(0, "plan"))
    return PlanFollower(planner, world.spec, every=every)


def test_a_way_through_an_obstacle_between_two_states_is_a_violation():
    start = torch.tensor([[2.0, 1.0, 0.0, 0.0]])
    free = roll_out(OPEN, Push(0.0, 1.0), start, DISC, guard=None, steps=100)
    between = 0.5 * float(free.states[0, 50, 1] + free.states[0, 51, 1])
    thin = {"wall": Superellipse((2.0, between), (0.5, 0.005))}
    found = roll_out(OPEN, Push(0.0, 1.0), start, thin, guard=None, steps=100)
    outside = thin["wall"].value(found.states[0]).amin()
    assert float(outside) > 0.0  # every state is free, no way between two of them need be
    assert float(found.margin) < 0.0
    assert found.violations() == 1


def test_a_wall_that_is_touched_is_a_violation():
    start = torch.tensor([[2.0, 1.0, 0.0, 0.0]])
    found = roll_out(OPEN, Push(1.0, 0.0), start, DISC, guard=None, steps=80)
    assert float(found.margin) > 0.0
    assert float(found.touched) > 0.0
    assert found.violations() == 1


def test_the_guard_stops_what_pushes_into_an_obstacle_or_a_wall():
    guard = maze_guard(OPEN, DISC)
    start = torch.tensor([[2.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    found = roll_out(OPEN, Push(0.3, 1.0), start, DISC, guard=guard, steps=80)
    assert found.violations() == 0
    assert float(found.corrected.min()) > 0.0
    assert found.states.shape == (2, 81, 4)


def test_without_obstacles_in_the_way_the_waypoint_planner_reaches_the_goal():
    world = maze2d("umaze")
    start = world.initial(20, torch_generator(0, "starts"))
    none = {"far": Superellipse((9.0, 9.0), (0.1, 0.1))}
    found = roll_out(world, follower(world, horizon=300), start, none, guard=None)
    assert bool(found.reached.all())
    facts = found.facts(world)
    assert facts["success"] == 1.0
    assert facts["violations"] == 0.0
    assert facts["score"] > 1.0


@pytest.mark.slow
def test_guarded_replanning_keeps_every_obstacle_and_still_arrives():
    world, barriers = maze2d("umaze"), named_barriers("umaze")
    guard = maze_guard(world, barriers)
    start = draw_free_starts(world, guard, 24, torch_generator(0, "starts"))
    free = roll_out(world, follower(world, every=20), start, barriers, guard=None)
    kept = roll_out(world, follower(world, every=20), start, barriers, guard=guard)
    assert free.violations() > 12
    assert kept.violations() == 0
    assert float(kept.reached.double().mean()) >= 0.9


def test_starts_are_where_the_guard_can_keep_its_barriers():
    guard = maze_guard(OPEN, DISC)
    start = draw_free_starts(OPEN, guard, 100, torch_generator(0, "starts"))
    assert start.shape == (100, 4)
    assert float(guard.barrier.value(start).min()) > 0.0


def test_a_specification_that_fills_the_maze_is_refused():
    all_of_it = {"all": Superellipse((2.0, 3.0), (9.0, 9.0))}
    with pytest.raises(RangeError, match="starts outside of all obstacles"):
        draw_free_starts(OPEN, maze_guard(OPEN, all_of_it), 3, torch_generator(0, "starts"))


def test_a_start_in_an_obstacle_is_refused():
    start = torch.tensor([[2.0, 3.0, 0.0, 0.0]])
    with pytest.raises(RangeError, match="inside an obstacle"):
        roll_out(OPEN, Push(0.0, 0.0), start, DISC, guard=None)


@pytest.mark.slow
def test_guarded_plans_by_diffusion_arrive_without_a_violation():
    setup = set_up(SHIPPED)
    world, barriers = maze2d(setup.world), setup.specification.barriers
    starts = draw_starts(setup, 8)
    planner = make_planner("best", setup.model, setup.specification, setup.goal, steps=8)
    plans = planner.propose(starts).states
    rate = (plans[:, 2:, :2] - plans[:, :-2, :2]) / (2.0 * setup.model.period)
    torch.testing.assert_close(plans[:, 1:-1, 2:], rate, atol=1e-3, rtol=1e-3)
    policy = PlanFollower(planner, world.spec)
    found = roll_out(world, policy, starts, barriers, guard=maze_guard(world, barriers))
    assert found.violations() == 0
    assert bool(found.reached.all())
    # Velocities as drawn push against the guard two thirds of the time.
    assert float(found.corrected.mean()) < 0.1
