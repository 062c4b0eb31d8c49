"""What the replay keeps of a transition, and which rows it finds again."""

import numpy as np
import pytest
from gymnasium.spaces import Box
from stable_baselines3.common.buffers import ReplayBuffer

from safectl_agents.acs.replay import COST, COST_BEFORE, PROPOSAL, CostReplayBuffer
from safectl_agents.acs.td3 import ACSTD3
from safectl_agents.models import make_env

SPACES = Box(-9.0, 9.0, (1,), np.float32), Box(-1.0, 1.0, (1,), np.float32)


def _fill(buffer, costs, ends):
    for index, (cost, end) in enumerate(zip(costs, ends, strict=True)):
        info = {
            COST: cost,
            COST_BEFORE: 0.0,
            PROPOSAL: np.array([0.5]),
            "TimeLimit.truncated": end == "time",
        }
        row = np.full((1, 1), index, np.float32)
        buffer.add(row, row + 1.0, np.full((1, 1), 0.25), np.ones(1), np.array([bool(end)]), [info])


def test_a_sample_holds_executed_and_proposed_actions_and_only_failures_as_done():
    buffer = CostReplayBuffer(10, *SPACES, device="cpu")
    _fill(buffer, [0.0, 1.0], ["time", "failure"])
    batch = buffer.sample(50)
    assert set(batch.actions.flatten().tolist()) == {0.25}
    assert set(batch.proposals.flatten().tolist()) == {0.5}
    failed = batch.observations == 1.0
    assert batch.dones.flatten().tolist() == failed.float().flatten().tolist()
    assert batch.costs.flatten().tolist() == failed.float().flatten().tolist()


def test_the_rows_drawn_are_those_of_the_library():
    ours, theirs = (
        CostReplayBuffer(8, *SPACES, device="cpu"),
        ReplayBuffer(8, *SPACES, device="cpu"),
    )
    _fill(ours, [0.0] * 11, [""] * 11)
    _fill(theirs, [0.0] * 11, [""] * 11)
    np.random.seed(3)  # noqa: NPY002  the library draws from it
    ours_batch = ours.sample(20)
    np.random.seed(3)  # noqa: NPY002
    theirs_batch = theirs.sample(20)
    assert ours_batch.observations.equal(theirs_batch.observations)


def test_rows_of_violating_episodes_are_drawn_once_the_episode_ended():
    buffer = CostReplayBuffer(20, *SPACES, device="cpu")
    generator = np.random.default_rng(0)
    _fill(buffer, [0.0, 0.0, 1.0], ["", "time", ""])
    assert buffer.sample_violating(5, generator) is None
    _fill(buffer, [0.0], ["time"])
    drawn = buffer.sample_violating(40, generator)
    assert set(drawn.observations.flatten().tolist()) == {0.0, 2.0}  # rows 2 and 3 of the buffer


def test_an_episode_that_was_cut_is_not_joined_to_the_next_one():
    buffer = CostReplayBuffer(20, *SPACES, device="cpu")
    _fill(buffer, [0.0, 1.0, 0.0], ["", "", ""])
    buffer.end_episodes()
    _fill(buffer, [0.0, 0.0], ["", "time"])
    drawn = buffer.sample_violating(60, np.random.default_rng(0))
    assert set(drawn.observations.flatten().tolist()) == {0.0, 1.0, 2.0}
    assert buffer.violating[:5, 0].tolist() == [True, True, True, False, False]


def test_a_second_training_begins_new_episodes():
    env = make_env("safectl/SpeedLimit-v0")
    options = {"learning_starts": 1000, "buffer_size": 50, "device": "cpu", "seed": 0}
    fast = ACSTD3("MlpPolicy", env, cost=lambda info: 1.0, **options).learn(5)
    fast.collector._cost = lambda info: 0.0
    fast.learn(7)
    assert fast.replay_buffer.violating[:12, 0].tolist() == [True] * 5 + [False] * 7
    assert fast.replay_buffer.costs_before[5, 0] == 0.0
    env.close()


def test_overwritten_rows_are_not_drawn_any_more():
    buffer = CostReplayBuffer(4, *SPACES, device="cpu")
    _fill(buffer, [0.0, 1.0], ["", "time"])
    _fill(buffer, [0.0] * 4, ["", "", "", "time"])
    assert buffer.sample_violating(10, np.random.default_rng(0)) is None


def test_marks_are_found_again_in_the_arrays():
    buffer, copy = (CostReplayBuffer(20, *SPACES, device="cpu") for _ in range(2))
    _fill(buffer, [1.0, 0.0, 0.0], ["time", "", "time"])
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        getattr(copy, name)[:] = getattr(buffer, name)
    for name in CostReplayBuffer.saved_rows:
        getattr(copy, name)[:] = getattr(buffer, name)
    copy.restore_marks()
    drawn = copy.sample_violating(10, np.random.default_rng(0))
    assert set(drawn.observations.flatten().tolist()) == {0.0}


def test_a_row_that_is_overwritten_by_another_violating_episode_is_drawn_no_more_often():
    buffer = CostReplayBuffer(4, *SPACES, device="cpu")
    _fill(buffer, [1.0] * 4, ["", "time", "", "time"])
    _fill(buffer, [1.0] * 2, ["", "time"])  # rows 0 and 1 anew
    drawn = buffer.sample_violating(4_000, np.random.default_rng(0))
    fresh = (drawn.observations <= 1.0).float().mean()
    assert abs(float(fresh) - 0.5) < 0.05


@pytest.mark.parametrize("rows", [1, 3])
def test_an_episode_longer_than_the_buffer_marks_every_row_once(rows):
    buffer = CostReplayBuffer(rows, *SPACES, device="cpu")
    _fill(buffer, [1.0] * 7, [""] * 6 + ["time"])
    assert buffer.violating.all()
