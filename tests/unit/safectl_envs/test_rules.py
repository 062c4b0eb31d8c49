"""Rewards, costs and ends, worked out by hand."""

import math

import gymnasium
import numpy as np
import pytest
import torch

from safectl.errors import RangeError
from safectl_envs import CartPoleStab, DoubleIntegrator, PlanarReach, PointHazard, SpeedLimit
from safectl_envs.placement import place

CLOSE = {"rtol": 0.0, "atol": 1e-6}  # float32 rounding of numbers of order one


def hazard_state(pose=(0.0, 0.0, 0.0), disc=(1.0, 1.0), goal=(0.5, 0.0), following=(-1.0, 0.0)):
    """One disc; the last seven goals are all `following`."""
    flat = [*pose, *disc, 0.0, 0.0, 0.0, *goal, *(following * 7)]
    return torch.tensor([flat])


WORLD = PointHazard(hazards=1)


def test_progress_is_rewarded_by_the_metre():
    outcome = WORLD.step(hazard_state(), torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(outcome.reward, torch.tensor([0.05]), **CLOSE)
    back = WORLD.step(hazard_state(), torch.tensor([[-1.0, 1.0]]))
    torch.testing.assert_close(back.reward, torch.tensor([-0.05]), **CLOSE)
    torch.testing.assert_close(back.state[:, :3], torch.tensor([[-0.05, 0.0, 0.1]]), **CLOSE)


def test_arrival_gives_one_and_the_next_goal():
    outcome = WORLD.step(hazard_state(goal=(0.34, 0.0)), torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(outcome.reward, torch.tensor([1.05]), **CLOSE)
    # The next goal lies behind, at a distance of 1.05 m: the bins beside the direction "behind".
    lidar = WORLD.observe(outcome.state)[0, 4:20]
    assert sorted(torch.nonzero(lidar).flatten().tolist()) == [7, 8]
    torch.testing.assert_close(lidar[8], torch.tensor(1.0 - 1.05 / 3.0), **CLOSE)


def test_goals_repeat_after_the_last():
    state = hazard_state(goal=(-1.0, 0.0), following=(0.3, 0.0))
    state[0, 7] = 7.0
    outcome = WORLD.step(state, torch.zeros(1, 2))
    assert float(outcome.state[0, 7]) == 0.0


@pytest.mark.parametrize(("distance", "cost"), [(0.199, 1.0), (0.201, 0.0)])
def test_a_hazard_costs_one_inside(distance, cost):
    state = hazard_state(disc=(distance, 0.0))
    assert float(WORLD.step(state, torch.zeros(1, 2)).cost) == cost


def test_the_observation_holds_the_velocities_and_the_compass():
    outcome = WORLD.step(hazard_state(), torch.tensor([[0.5, -1.0]]))
    expected = torch.tensor([0.5, -2.0, math.cos(-0.1), math.sin(-0.1)])
    torch.testing.assert_close(WORLD.observe(outcome.state)[0, :4], expected, **CLOSE)


def test_hazards_and_goals_keep_out_of_each_other():
    world = PointHazard()
    state = world.initial(500, torch.Generator().manual_seed(0))
    robot, discs = state[:, None, :2], state[:, 3:19].reshape(500, 8, 2)
    goals = state[:, 22:].reshape(500, 8, 2)
    assert float((discs - robot).norm(dim=-1).min()) >= 0.58
    assert float((goals[:, :1] - robot).norm(dim=-1).min()) >= 0.705
    assert float((goals[:, 1:] - goals[:, :-1]).norm(dim=-1).min()) >= 0.705
    apart = (discs.unsqueeze(1) - discs.unsqueeze(2)).norm(dim=-1) + 9.0 * torch.eye(8)
    assert float(apart.min()) >= 0.36
    assert float((goals.unsqueeze(1) - discs.unsqueeze(2)).norm(dim=-1).min()) >= 0.485
    assert float(robot.abs().max()) <= 1.1
    assert float(discs.abs().max()) <= 1.32
    assert float(goals.abs().max()) <= 1.195


def test_a_full_square_gives_the_least_bad_place():
    placed = torch.zeros(3, 1, 2)
    point = place(placed, torch.tensor([9.0]), 1.0, torch.Generator().manual_seed(0))
    assert float(point.norm(dim=-1).min()) > 1.0


def test_hazards_too_large_for_their_keep_out_are_refused():
    with pytest.raises(RangeError, match=r"0\.58"):
        PointHazard(radius=0.6)


def mass(p=(0.0, 0.0), v=(0.0, 0.0), goal=(0.5, 0.0)):
    return torch.tensor([[*p, *v, 0.0, *goal, *([0.0, 0.5] * 7)]])


def test_the_double_integrator_moves_exactly():
    new = DoubleIntegrator().step(mass(v=(1.0, 0.0)), torch.tensor([[1.0, -1.0]])).state
    expected = torch.tensor([[0.05125, -0.00125, 1.05, -0.05]])
    torch.testing.assert_close(new[:, :4], expected, **CLOSE)


def test_the_double_integrator_rewards_progress_and_arrival():
    world = DoubleIntegrator()
    moved = world.step(mass(v=(1.0, 0.0)), torch.zeros(1, 2))
    torch.testing.assert_close(moved.reward, torch.tensor([0.05]), **CLOSE)
    arrived = world.step(mass(p=(0.38, 0.0), v=(1.0, 0.0)), torch.zeros(1, 2))
    torch.testing.assert_close(arrived.reward, torch.tensor([1.05]), **CLOSE)
    offset = world.observe(arrived.state)[0, 4:]
    torch.testing.assert_close(offset, torch.tensor([-0.43, 0.5]), **CLOSE)


@pytest.mark.parametrize(
    ("p", "cost", "ended"),
    [((0.999, -0.999), 0.0, False), ((0.0, -1.001), 1.0, False), ((2.001, 0.0), 1.0, True)],
)
def test_the_double_integrator_costs_beyond_one_and_ends_beyond_two(p, cost, ended):
    outcome = DoubleIntegrator().step(mass(p=p), torch.zeros(1, 2))
    assert (float(outcome.cost), bool(outcome.terminated)) == (cost, ended)


def test_speed_limit_follows_the_drag():
    world, state = SpeedLimit(), torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    outcome = world.step(state, torch.zeros(1, 2))
    decay = math.exp(-0.25 * 0.05)
    expected = torch.tensor([[0.0, decay, 0.0, (1.0 - decay) / 0.25]])
    torch.testing.assert_close(outcome.state, expected, **CLOSE)
    torch.testing.assert_close(outcome.reward, torch.tensor([decay]), **CLOSE)


@pytest.mark.parametrize(
    ("y", "vx", "vy", "cost"),
    [
        (0.0, 1.51, 0.0, 0.0),  # the drag takes 0.019 m/s in a step
        (0.0, 1.53, 0.0, 1.0),
        (0.0, 1.1, 1.1, 1.0),  # the planar speed counts
        (0.0, 1.0, 1.0, 0.0),
        (2.01, 0.0, 0.0, 1.0),
        (-2.01, 0.0, 0.0, 1.0),
        (1.99, 0.0, 0.0, 0.0),
    ],
)
def test_speed_limit_costs_for_speed_and_for_leaving_the_lane(y, vx, vy, cost):
    outcome = SpeedLimit().step(torch.tensor([[y, vx, vy, 0.0]]), torch.zeros(1, 2))
    assert float(outcome.cost) == cost
    assert not bool(outcome.terminated)


def test_the_cart_pole_moves_as_gymnasiums():
    reference = gymnasium.make("CartPole-v1").unwrapped
    reference.reset(seed=0)
    start = np.array([0.1, -0.2, 0.05, 0.1])
    reference.state, state = start, torch.tensor(start[None], dtype=torch.float64)
    for push in (1, 1, 0, 1, 0, 0, 0, 1):
        reference.step(push)
        action = torch.tensor([[2.0 * push - 1.0]], dtype=torch.float64)
        state = CartPoleStab().step(state, action).state
        np.testing.assert_allclose(state[0].numpy(), reference.state, rtol=0.0, atol=1e-12)


def test_the_cart_pole_rewards_the_middle_and_little_force():
    outcome = CartPoleStab().step(torch.tensor([[0.2, 0.0, 0.1, 0.0]]), torch.tensor([[0.5]]))
    expected = math.exp(-(5.0 * 0.04 + 0.01 + 0.01 * 25.0))
    torch.testing.assert_close(outcome.reward, torch.tensor([expected]), **CLOSE)


@pytest.mark.parametrize(
    ("state", "cost", "ended"),
    [
        ((0.0, 0.0, 0.0, 0.0), 0.0, False),
        ((0.0, 0.0, 0.21, 0.0), 1.0, False),
        ((0.0, 0.0, 0.0, -0.21), 1.0, False),
        ((2.41, 0.0, 0.0, 0.0), 0.0, True),
        ((0.0, 0.0, 1.6, 0.0), 1.0, True),
    ],
)
def test_the_cart_pole_costs_by_angle_and_rate_and_ends_off_the_track(state, cost, ended):
    outcome = CartPoleStab().step(torch.tensor([state]), torch.zeros(1, 1))
    assert (float(outcome.cost), bool(outcome.terminated)) == (cost, ended)


def arm(angles=(0.0, 0.0, 0.0), x=-0.4, direction=1.0, target=(0.0, 0.5)):
    """The last seven targets lie at (0.5, 0.5)."""
    return torch.tensor([[*angles, x, direction, 0.0, *target, *([0.5, 0.5] * 7)]])


def test_the_arm_is_rewarded_for_progress_and_arrival():
    world, still, turn = PlanarReach(), torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]])
    assert float(world.step(arm(), still).reward) == 0.0
    # The stretched arm of 1 m turns by 0.05 rad.
    outcome = world.step(arm(), turn)
    moved = math.hypot(1.0, 0.5) - math.hypot(math.cos(0.05), math.sin(0.05) - 0.5)
    torch.testing.assert_close(outcome.reward, torch.tensor([moved]), **CLOSE)
    arrived = world.step(arm(target=(1.0, 0.04)), still)
    torch.testing.assert_close(arrived.reward, torch.tensor([1.0]), **CLOSE)
    offset = world.observe(arrived.state)[0, 6:8]
    torch.testing.assert_close(offset, torch.tensor([-0.5, 0.5]), **CLOSE)


@pytest.mark.parametrize(
    ("x", "direction", "after", "turned"),
    [(0.0, 1.0, 0.015, 1.0), (0.49, 1.0, 0.495, -1.0), (-0.49, -1.0, -0.495, 1.0)],
)
def test_the_disc_slides_and_turns_round(x, direction, after, turned):
    state = PlanarReach().step(arm(x=x, direction=direction), torch.zeros(1, 3)).state
    torch.testing.assert_close(state[0, 3:5], torch.tensor([after, turned]), **CLOSE)
    observed = PlanarReach().observe(state)[0]
    torch.testing.assert_close(observed[-1], torch.tensor(0.3 * turned), **CLOSE)
    torch.testing.assert_close(observed[8:10], torch.tensor([1.0 - after, -0.55]), **CLOSE)


@pytest.mark.parametrize(("x", "cost"), [(0.1599 - 0.015, 1.0), (0.1601 - 0.015, 0.0)])
def test_the_arm_costs_within_two_centimetres_of_the_disc(x, cost):
    # The arm stands upright on x = 0; radii 0.04 m and 0.1 m and the gap of 0.02 m make 0.16 m.
    outcome = PlanarReach().step(arm(angles=(math.pi / 2, 0.0, 0.0), x=x), torch.zeros(1, 3))
    assert float(outcome.cost) == cost


@pytest.mark.parametrize(
    "make",
    [
        lambda: DoubleIntegrator(limit=0.0),
        lambda: SpeedLimit(drag=0.0),
        lambda: CartPoleStab(limit=2.0),
        lambda: PointHazard(hazards=0),
        lambda: CartPoleStab(force=-1.0),
        lambda: PlanarReach(rate=0.0),
        lambda: PlanarReach(height=0.1),
    ],
)
def test_parameters_out_of_range_are_refused(make):
    with pytest.raises(RangeError):
        make()
