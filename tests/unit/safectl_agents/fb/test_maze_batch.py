"""Many copies of the maze in one call, and data that wander in it."""

from dataclasses import replace

import numpy as np
import pytest

from safectl.errors import ConfigError, RangeError, ShapeError
from safectl_agents.fb.collect import CollectConfig, collect
from safectl_agents.fb.domains import Domain
from safectl_agents.fb.episodes import load_episode, load_transitions
from safectl_agents.fb.maze_batch import MazeBatch, scatter, wander

STEPS = 60


def test_every_copy_moves_as_the_domain_does():
    """Against walls too: pushes to the left from the left room."""
    domain, batch = Domain("point_mass_maze", seed=3), MazeBatch(2)
    pushes = np.random.default_rng(0).uniform(-1.0, 0.2, (STEPS, 2)).astype(np.float32)
    start = domain.reset()
    observation, _ = batch.reset(options={"start": np.stack([start, scatter(1, random())[0]])})
    for push in pushes:
        expected = domain.step(push)
        observation, *_ = batch.step(np.stack([push, -push]))
        np.testing.assert_allclose(observation[0], expected, atol=1e-6)
    assert observation[0, 0] < start[0]
    assert observation[1, 0] != observation[0, 0]


def random():
    return np.random.default_rng(1)


def test_starts_are_those_of_the_domain_and_a_seed_repeats_them():
    batch = MazeBatch(500)
    first, _ = batch.reset(seed=1)
    assert np.array_equal(first, batch.reset(seed=1)[0])
    assert not np.array_equal(first, batch.reset(seed=2)[0])
    assert (first[:, :2] >= [-0.29, 0.15]).all()
    assert (first[:, :2] <= [-0.15, 0.29]).all()
    assert not first[:, 2:].any()
    with pytest.raises(ShapeError, match="start"):
        batch.reset(options={"start": np.zeros((3, 4))})


def test_scattered_places_touch_no_wall_and_lie_in_all_rooms():
    places = scatter(2000, random())[:, :2]
    away = np.abs(places)
    assert away.max() <= 0.29
    assert not ((away[:, 0] < 0.03) & (away[:, 1] < 0.19)).any()
    assert not ((away[:, 1] < 0.03) & (away[:, 0] < 0.19)).any()
    rooms = (places > 0.0) @ [1, 2]
    assert np.bincount(rooms).min() > 300


def test_wandering_episodes_cover_the_maze_and_hold_their_pushes(tmp_path):
    buffer = collect(CollectConfig(collector="wander", episodes=3), tmp_path / "data")
    found = load_transitions(buffer)
    assert len(found.action) == 3000
    domain = Domain("point_mass_maze")
    with domain.physics.reset_context():
        domain.physics.set_state(found.physics[0])
    np.testing.assert_allclose(domain.step(found.action[1]), found.next_observation[1], atol=1e-5)
    changes = (np.diff(found.action[:1000], axis=0) != 0.0).any(1).sum()
    assert 1000 / 60 - 1 <= changes <= 1000 / 5
    again = next(iter(wander([0], seed=0)))
    assert np.array_equal(again.observation[:-1], found.observation[:1000])


def test_wandering_goes_on_with_what_is_missing_and_keeps_the_rest(tmp_path):
    made: list[int] = []
    config = CollectConfig(collector="wander", episodes=3)
    buffer = collect(config, tmp_path, progress=made.append)
    before = {path.name: (path.read_bytes(), path.stat().st_ino) for path in buffer.iterdir()}
    (buffer / "episode_000001_1000.npz").unlink()
    made.clear()
    collect(replace(config, episodes=4), tmp_path, progress=made.append)
    assert made == [2, 4]
    after = {path.name: (path.read_bytes(), path.stat().st_ino) for path in buffer.iterdir()}
    assert len(after) == 4
    for number in (0, 2):
        name = f"episode_{number:06d}_1000.npz"
        assert after[name] == before[name]
    again = load_episode(buffer / "episode_000001_1000.npz")
    assert np.array_equal(again.action, next(iter(wander([1], seed=0))).action)
    with pytest.raises(ConfigError, match="seed was 0, now it is 1"):
        collect(replace(config, seed=1), tmp_path)


def test_only_the_maze_is_wandered_in():
    with pytest.raises(RangeError, match="where the collector is wander"):
        CollectConfig(domain="walker", collector="wander")
