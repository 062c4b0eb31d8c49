"""maze2d: the update of MuJoCo, bands between walls, shortest paths, braking room, the score."""

import math

import mujoco
import numpy as np
import pytest
import torch

from safectl.barriers import Superellipse
from safectl.errors import RangeError, UnknownNameError
from safectl_envs import MazeLayout, ObstacleRoom, PointMass, WallRoom, maze2d
from safectl_envs.maze_controller import Pursued, nothing_pursued, pursue
from safectl_envs.maze_layout import LAYOUTS, MOVES
from safectl_envs.point_mass import DECAY, PERIOD, PUSH, braking, stopping_distance

MASS = """
<mujoco><option timestep="0.01" gravity="0 0 0"/><worldbody><body>
<joint name="x" type="slide" axis="1 0 0" damping="1"/>
<joint name="y" type="slide" axis="0 1 0" damping="1"/>
<geom type="sphere" size="0.1" density="1000"/></body></worldbody>
<actuator><motor joint="x" gear="100"/><motor joint="y" gear="100"/></actuator></mujoco>
"""
DIGITS = 1e-6  # the constants have eight digits, and 200 steps add up
REFERENCE = {"umaze": (161.86, 13.0), "medium": (277.39, 26.0), "large": (273.99, 34.0)}
"""ref_max of D4RL and the standard error of a mean of 100 episodes."""
EPISODES = 200


def random_states(world, count, *, seed=0, steps=60):
    """States along held random actions, with all speeds, some at walls."""
    generator = torch.Generator().manual_seed(seed)
    state = world.initial(count, generator).double()
    action = (2.0 * torch.rand(count, 2, generator=generator) - 1.0).sign().double()
    rows = []
    for _ in range(steps):
        state = world.step(state, action).state
        rows.append(state)
    return torch.cat(rows)


def test_the_free_update_is_the_formula_to_1e_9():
    generator = torch.Generator().manual_seed(0)
    state = 14.0 * torch.rand(1000, 4, generator=generator, dtype=torch.float64) - 7.0
    action = 2.0 * torch.rand(1000, 2, generator=generator, dtype=torch.float64) - 1.0
    mean = PointMass().predict(state, action).mean
    velocity = 0.99761836 * state[:, 2:].clamp(-5.0, 5.0) + 0.23816384 * action
    expected = torch.cat([state[:, :2] + 0.01 * velocity, velocity], 1)
    torch.testing.assert_close(mean, expected, rtol=0.0, atol=1e-9)


def test_the_free_update_is_that_of_mujoco():
    model = mujoco.MjModel.from_xml_string(MASS)
    data = mujoco.MjData(model)
    state = torch.zeros(1, 4, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    for _ in range(200):
        action = 2.0 * torch.rand(1, 2, generator=generator, dtype=torch.float64) - 1.0
        data.qvel[:] = np.clip(data.qvel, -5.0, 5.0)
        data.ctrl[:] = action[0].numpy()
        mujoco.mj_step(model, data)
        state = PointMass().predict(state, action).mean
        np.testing.assert_allclose(state[0, :2], data.qpos, rtol=0.0, atol=DIGITS)
        np.testing.assert_allclose(state[0, 2:], data.qvel, rtol=0.0, atol=DIGITS)


def test_the_largest_velocity_is_that_of_the_public_data():
    state, push = torch.zeros(1, 4, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    for _ in range(100):
        state = PointMass().predict(state, push).mean
    assert float(state[0, 2]) == pytest.approx(5.2262554, abs=5e-7)  # the digits of float32


@pytest.mark.parametrize(
    ("start", "axis", "low", "high"),
    [((1.0, 4.0), 1, 0.4, 4.2), ((2.0, 4.0), 0, 0.4, 3.2), ((3.0, 1.0), 1, 0.4, 6.2)],
)
def test_a_pushed_mass_stops_at_the_bands_between_walls(start, axis, low, high):
    world = maze2d("large")
    for sign, edge in ((-1.0, low), (1.0, high)):
        state = torch.tensor([[*start, 0.0, 0.0]], dtype=torch.float64)
        action = torch.zeros(1, 2, dtype=torch.float64)
        action[0, axis] = sign
        for _ in range(400):
            outcome = world.step(state, action)
            state = outcome.state
        assert float(state[0, axis]) == pytest.approx(edge, abs=1e-9)
        assert float(state[0, 2 + axis]) == 0.0
        assert float(outcome.cost) == 1.0


@pytest.mark.parametrize("maze", tuple(LAYOUTS))
def test_no_way_leads_into_a_wall(maze):
    world = maze2d(maze)
    position = random_states(world, 400)[:, :2]
    centres = world.layout.walls.nonzero().double() - 0.2
    depth = 0.6 - (position.unsqueeze(1) - centres).abs().amax(-1)
    assert float(depth.max()) < 2e-5


@pytest.mark.parametrize("maze", tuple(LAYOUTS))
def test_paths_are_those_of_q_iteration(maze):
    layout = LAYOUTS[maze]
    rows, columns = layout.shape
    goal = layout.goal[0] * columns + layout.goal[1]
    value = np.zeros(rows * columns)
    for _ in range(50):
        q = np.zeros((rows * columns, len(MOVES)))
        following = np.zeros_like(q, dtype=np.int64)
        for cell in range(rows * columns):
            for index, (down, right) in enumerate(MOVES):
                row, column = cell // columns + down, cell % columns + right
                inside = 0 <= row < rows and 0 <= column < columns
                blocked = not inside or layout.rows[row][column] == "#"
                following[cell, index] = cell if blocked else row * columns + column
                new = following[cell, index]
                q[cell, index] = float(new == goal) + 0.99 * value[new]
        value = q.max(1)
    greedy = following[np.arange(rows * columns), q.argmax(1)]
    free = ~layout.walls.flatten().numpy()
    np.testing.assert_array_equal(layout.next_cell[goal].numpy()[free], greedy[free])


@pytest.mark.parametrize("maze", ["umaze", "medium", "large"])
def test_the_controller_scores_what_d4rl_reports(maze):
    """D4RL asked one controller in 100 episodes; the goal stays, so it planned in the first only.

    In the others it goes straight to the last waypoint, and walls hold it where they are between.
    """
    world = maze2d(maze)
    target = torch.tensor(world.goal).double().expand(EPISODES, 2)
    cell = torch.full((EPISODES,), world.goal[0] * world.layout.shape[1] + world.goal[1])
    total, _ = run_controller(world, Pursued(cell, cell, target, target))
    reference, error = REFERENCE[maze]
    own = float(total.std()) / math.sqrt(EPISODES)
    assert abs(float(total.mean()) - reference) < 3.0 * math.hypot(error, own)


@pytest.mark.parametrize("maze", ["umaze", "medium", "large"])
def test_a_controller_that_plans_in_every_episode_touches_no_wall_and_scores_more(maze):
    world = maze2d(maze)
    total, touched = run_controller(world, nothing_pursued(EPISODES))
    assert touched == 0.0
    assert float(total.mean()) > REFERENCE[maze][0]


def run_controller(world, pursued):
    """Return the reward of every episode, and all costs."""
    generator = torch.Generator().manual_seed(0)
    state = world.initial(EPISODES, generator).double()
    target = torch.tensor(world.goal).double().expand(EPISODES, 2)
    total, touched = torch.zeros(EPISODES, dtype=torch.float64), 0.0
    for _ in range(world.horizon):
        command = pursue(world.layout, pursued, state, target, generator)
        pursued, outcome = command.pursued, world.step(state, command.action)
        state, total = outcome.state, total + outcome.reward
        touched += float(outcome.cost.sum())
    return total, touched


def test_braking_never_passes_the_point_at_which_it_was_to_stop():
    speed = torch.linspace(0.0, 5.3, 2000, dtype=torch.float64)
    state = torch.stack([0.0 * speed, 0.0 * speed, speed, -0.3 * speed], 1)
    stop = stopping_distance(DECAY * speed.clamp(max=5.0))
    for _ in range(40):
        state = PointMass().predict(state, braking(state)).mean
        assert float((state[:, 0] - stop).max()) <= 1e-12
    assert float(state[:, 2:].abs().max()) < 1e-12
    assert float((stop - state[:, 0]).max()) < 0.03  # and stops close to it
    assert float(stop.max()) < 0.5 * 5.3**2 / (PUSH / PERIOD)


@pytest.mark.parametrize("maze", ["umaze", "large"])
def test_walls_are_as_far_along_a_braking_way_as_the_barrier_said(maze):
    world = maze2d(maze)
    barrier = WallRoom(world.layout, clearance=0.0)
    state = random_states(world, 200)
    state = state[barrier.value(state).amin(1) > 0.0]
    centres = world.layout.walls.nonzero().double() - 0.2
    value = barrier.value(state).amin(1)
    for _ in range(30):
        state = PointMass().predict(state, braking(state)).mean
        gap = (state[:, None, :2] - centres).abs().amax(-1).amin(1) - 0.6
        assert float((gap - value).min()) > -1e-9
        assert float((barrier.value(state).amin(1) - value).min()) > -1e-9


def test_an_obstacle_is_as_far_along_a_braking_way_as_the_barrier_said():
    obstacle = Superellipse((2.0, 1.5), (0.6, 1.2), exponent=4.0)
    room = ObstacleRoom(obstacle, clearance=0.01)
    state = random_states(maze2d("open"), 200)
    state = state[room.value(state).amin(1) > 0.0]
    assert len(state) > 100
    for _ in range(30):
        state = PointMass().predict(state, braking(state)).mean
        assert float(obstacle.value(state).min()) > 0.0


@pytest.mark.parametrize(
    "rows", [("###", "#O"), ("###", "#X#", "###"), ("###", "OO#", "###"), ("##", "##")]
)
def test_a_broken_maze_is_refused(rows):
    with pytest.raises(RangeError, match="maze"):
        MazeLayout(rows)


def test_an_unknown_maze_is_named_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="did you mean 'umaze'"):
        maze2d("umase")


@pytest.mark.parametrize(("samples", "clearance"), [(1, 0.0), (3, -0.1), (3, math.nan)])
def test_an_obstacle_room_out_of_range_is_refused(samples, clearance):
    with pytest.raises(RangeError):
        ObstacleRoom(Superellipse((0.0, 0.0), (1.0, 1.0)), clearance=clearance, samples=samples)
