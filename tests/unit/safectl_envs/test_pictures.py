"""Pictures: size, content, and one row of a batch."""

import gymnasium
import numpy as np
import pytest
import torch

from safectl.errors import RangeError
from safectl_envs import BatchedEnv, SafeVectorEnv
from safectl_envs.canvas import HAZARD, INK, PAPER, Canvas
from safectl_envs.catalogue import WORLDS, find_world


@pytest.mark.parametrize("name", tuple(WORLDS))
def test_a_picture_shows_the_world_and_changes_with_it(name):
    env = gymnasium.make(f"safectl/{name}-v0", render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    assert first.shape[1] == 480
    assert first.shape[0] >= 200
    assert first.shape[2] == 3
    assert first.dtype == np.uint8
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 10
    for _ in range(10):
        env.step(np.ones(env.action_space.shape, dtype=np.float32))
    second = env.render()
    assert second.shape == first.shape
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", tuple(WORLDS))
def test_one_row_of_a_batch_can_be_drawn_far_from_the_start(name):
    world = find_world(name)
    env = BatchedEnv(world, 4, torch.Generator().manual_seed(0))
    for _ in range(30):
        env.step(torch.ones(4, world.spec.nu))
    picture = world.picture(env.state[2], env.state[2:3])
    assert picture.std() > 1.0


def test_without_a_render_mode_there_is_no_picture():
    env = gymnasium.make("safectl/SpeedLimit-v0").unwrapped
    env.reset(seed=0)
    assert env.render() is None
    assert SafeVectorEnv("SpeedLimit", num_envs=2).render() is None


def test_a_vector_environment_draws_every_copy():
    envs = SafeVectorEnv("SpeedLimit", num_envs=2, render_mode="rgb_array")
    envs.reset(seed=0)
    assert len(envs.render()) == 2


def test_the_canvas_has_y_upwards():
    board = Canvas(0.0, 2.0, 0.0, 1.0, width=100)
    board.rectangle(0.0, 1.0, 0.5, 1.0, HAZARD)
    picture = board.picture()
    assert picture.shape == (50, 100, 3)
    assert tuple(picture[10, 20]) == HAZARD
    assert tuple(picture[40, 20]) == tuple(picture[10, 80]) == PAPER


def test_an_arrow_shorter_than_its_head_is_left_out():
    board = Canvas(0.0, 1.0, 0.0, 1.0, width=100)
    board.arrow((0.5, 0.5), (0.5001, 0.5), INK)
    assert (board.picture() == np.array(PAPER)).all()


def test_an_empty_view_is_refused():
    with pytest.raises(RangeError, match="rectangle"):
        Canvas(0.0, 0.0, 0.0, 1.0)
