"""Maze data: moments, resuming, one loader for Minari and D4RL, and where plans begin."""

import h5py
import numpy as np
import pytest
import torch

from safectl.errors import (
    ConfigError,
    FileFormatError,
    NonFiniteError,
    RangeError,
    ShapeError,
    StorageError,
)
from safectl_agents.diffusion.data import (
    OfflineData,
    goal_exits,
    load_dataset,
    returns_to_go,
    windows,
)
from safectl_agents.diffusion.maze_data import MazeDataConfig, collect, write_maze_data
from safectl_agents.diffusion.plan_data import padded, plan_data
from safectl_agents.diffusion.settings import DiffuserConfig

SMALL = MazeDataConfig(steps=400, stream=200, seed=3)
PUBLIC = {
    "umaze": ((0.8997, 0.7093, 2.2129, 2.4682), (0.70435, 0.75062)),
    "medium": ((1.3371, 1.5210, 2.3408, 2.3694), (0.73977, 0.74594)),
    "large": ((1.8070, 2.5688, 2.4368, 2.6494), (0.72493, 0.73946)),
}
"""Standard deviations of the public data sets: observations, actions."""


@pytest.fixture
def stored(tmp_path):
    write_maze_data(SMALL, tmp_path / "maze")
    return tmp_path / "maze"


def write_d4rl(path, *, count=50, maze=False, **changes):
    generator = np.random.default_rng(0)
    arrays = {
        "observations": generator.normal(size=(count, 4)),
        "actions": generator.normal(size=(count, 2)),
        "rewards": np.zeros(count),
        "terminals": np.zeros(count, np.bool_),
        "timeouts": np.arange(count) % 10 == 9,
    } | changes
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            if array is not None:
                file[name] = array
        if maze:
            file["infos/goal"] = np.zeros((count, 2))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("maze", tuple(PUBLIC))
def test_the_spread_is_that_of_the_public_data_within_one_percent(maze):
    steps = {"umaze": 1_000_000, "medium": 2_000_000, "large": 4_000_000}[maze]
    config = MazeDataConfig(maze=maze, steps=steps)  # as many as the public ones have
    data = collect(config, 0, config.streams)
    observations, actions = PUBLIC[maze]
    found = data.observations.reshape(-1, 4).std(0)
    np.testing.assert_allclose(found, observations, rtol=0.01)
    np.testing.assert_allclose(data.actions.reshape(-1, 2).std(0), actions, rtol=0.01)


def test_equal_settings_give_equal_data_and_another_seed_does_not():
    one, other = collect(SMALL, 0, 2), collect(SMALL, 0, 2)
    np.testing.assert_array_equal(one.observations, other.observations)
    third = collect(MazeDataConfig(steps=400, stream=200, seed=4), 0, 2)
    assert not np.array_equal(one.observations, third.observations)


def test_a_stored_data_set_holds_the_streams_cut_at_the_exits_of_the_goal(stored):
    data, streams = load_dataset(stored), collect(SMALL, 0, 2)
    expected = []
    for stream in range(2):
        stops = [*(np.flatnonzero(goal_exits(streams.rewards[stream])) + 1), 200]
        for begin, stop in zip([0, *stops[:-1]], stops, strict=True):
            expected.append(streams.observations[stream, begin : stop - 1])
    np.testing.assert_array_equal(data.observations, np.concatenate(expected))
    assert int(data.ends.sum()) == sum(len(part) > 0 for part in expected)


def test_a_stopped_collection_goes_on_with_the_chunks_it_has(tmp_path, stored, monkeypatch):
    monkeypatch.setattr("safectl_agents.diffusion.maze_data._CHUNK", 1)

    def stop(steps):
        if steps > 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_maze_data(SMALL, tmp_path / "again", progress=stop)
    assert not (tmp_path / "again").exists()
    with pytest.raises(ConfigError, match="other settings"):
        write_maze_data(MazeDataConfig(steps=400, stream=100), tmp_path / "again")
    told = []
    write_maze_data(SMALL, tmp_path / "again", progress=told.append)
    assert told[0] == 200  # the first chunk is there
    assert len(load_dataset(tmp_path / "again").ends) > 380
    with pytest.raises(StorageError, match="exists already"):
        write_maze_data(SMALL, tmp_path / "again")


@pytest.mark.parametrize("left", [0, 1000])
def test_a_truncated_chunk_is_named(tmp_path, monkeypatch, left):
    def stop(steps):
        if steps == 200:
            raise KeyboardInterrupt

    monkeypatch.setattr("safectl_agents.diffusion.maze_data._CHUNK", 1)
    with pytest.raises(KeyboardInterrupt):
        write_maze_data(SMALL, tmp_path / "maze", progress=stop)
    chunk = tmp_path / "maze.parts" / "0000.npz"
    chunk.write_bytes(chunk.read_bytes()[:left])
    with pytest.raises(FileFormatError, match=r"0000.npz: cannot be read .* delete it"):
        write_maze_data(SMALL, tmp_path / "maze")
    assert not (tmp_path / "maze").exists()
    chunk.unlink()
    assert write_maze_data(SMALL, tmp_path / "maze") > 380


def test_the_identifier_of_a_minari_dataset_works_like_its_folder(tmp_path, stored, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    by_name, by_folder = load_dataset("maze"), load_dataset(stored)
    np.testing.assert_array_equal(by_name.observations, by_folder.observations)


def test_a_file_of_d4rl_ends_at_its_timeouts(tmp_path):
    data = load_dataset(write_d4rl(tmp_path / "hopper.hdf5"))
    np.testing.assert_array_equal(np.flatnonzero(data.ends), [9, 19, 29, 39, 49])
    assert data.observations.dtype == np.float32


def test_a_maze_file_of_d4rl_ends_at_the_exits_of_the_goal(tmp_path):
    rewards = np.zeros(50)
    rewards[[0, 10, 11, 20, 22]] = 1.0  # exits at 0, 11, 20 and 22
    data = load_dataset(write_d4rl(tmp_path / "maze.hdf5", maze=True, rewards=rewards))
    stored = np.setdiff1d(np.arange(50), [0, 11, 20, 22, 49])
    np.testing.assert_array_equal(np.flatnonzero(data.rewards), np.searchsorted(stored, [10]))
    ends = np.searchsorted(stored, [10, 19, 21, 48])
    np.testing.assert_array_equal(np.flatnonzero(data.ends), ends)


def test_plans_begin_wherever_a_whole_horizon_fits():
    ends = np.zeros(30, np.bool_)
    ends[[4, 9, 29]] = True
    zeros = np.zeros((30, 1), np.float32)
    data = OfflineData(zeros, zeros, zeros[:, 0], ends, np.zeros_like(ends))
    np.testing.assert_array_equal(windows(data, 4), [0, 5, *range(10, 26)])
    np.testing.assert_array_equal(windows(data, 4, max_path=10), [0, 5, *range(10, 16)])
    np.testing.assert_array_equal(windows(data, 1), [*range(4), *range(5, 9), *range(10, 29)])
    assert len(windows(data, 31)) == 0
    with pytest.raises(RangeError, match="horizon"):
        windows(data, 0)


def test_a_truncated_file_is_refused(tmp_path):
    path = write_d4rl(tmp_path / "half.hdf5")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FileFormatError, match="cannot be read as HDF5"):
        load_dataset(path)


def test_a_truncated_minari_dataset_is_refused(stored):
    path = stored / "data" / "main_data.hdf5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FileFormatError, match="no whole Minari dataset"):
        load_dataset(stored)


@pytest.mark.parametrize("source", ["nothing.hdf5", "no/such-v0"])
def test_what_does_not_exist_is_named(tmp_path, source, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(FileFormatError, match=r"no(thing|/such)"):
        load_dataset(tmp_path / source if source.endswith("hdf5") else source)


def test_a_missing_part_is_named(tmp_path):
    with pytest.raises(FileFormatError, match="has no actions"):
        load_dataset(write_d4rl(tmp_path / "data.hdf5", actions=None))


def test_nan_is_counted(tmp_path):
    observations = np.zeros((50, 4))
    observations[3, 1] = np.nan
    with pytest.raises(NonFiniteError, match="observations holds 1 non-finite"):
        load_dataset(write_d4rl(tmp_path / "data.hdf5", observations=observations))


def test_parts_of_different_lengths_are_refused(tmp_path):
    with pytest.raises(ShapeError, match="rewards"):
        load_dataset(write_d4rl(tmp_path / "data.hdf5", rewards=np.zeros(49)))


@pytest.mark.parametrize("maze", [False, True])
@pytest.mark.parametrize(
    ("name", "count"),
    [("observations", 51), ("rewards", 49), ("terminals", 3), ("timeouts", 0)],
)
def test_every_part_has_as_many_rows_as_the_actions(tmp_path, maze, name, count):
    array = np.zeros((count, 4)) if name == "observations" else np.zeros(count)
    path = write_d4rl(tmp_path / "data.hdf5", maze=maze, **{name: array})
    with pytest.raises(ShapeError, match=rf"data.hdf5: {name} has shape \({count},"):
        load_dataset(path)


@pytest.mark.parametrize("maze", [False, True])
def test_a_file_without_a_step_is_refused(tmp_path, maze):
    empty = {"observations": np.zeros((0, 4)), "actions": np.zeros((0, 2))}
    empty |= {name: np.zeros(0) for name in ("rewards", "terminals", "timeouts")}
    with pytest.raises(FileFormatError, match="holds no step"):
        load_dataset(write_d4rl(tmp_path / "data.hdf5", maze=maze, **empty))


def test_a_group_in_place_of_an_array_is_refused(tmp_path):
    path = write_d4rl(tmp_path / "data.hdf5", observations=None)
    with h5py.File(path, "a") as file:
        file["observations/achieved_goal"] = np.zeros((50, 2))
    with pytest.raises(FileFormatError, match="a group and no array as observations"):
        load_dataset(path)


def test_rows_that_are_no_vectors_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match=r"no rows of numbers \(shape \(50,\)"):
        load_dataset(write_d4rl(tmp_path / "data.hdf5", actions=np.zeros(50)))


@pytest.mark.parametrize("part", ["observations", "actions", "rewards"])
def test_a_missing_group_of_a_minari_dataset_is_refused(stored, part):
    with h5py.File(stored / "data" / "main_data.hdf5", "a") as file:
        del file[f"episode_0/{part}"]
    with pytest.raises(FileFormatError, match="no whole Minari dataset"):
        load_dataset(stored)


def test_an_episode_of_a_minari_dataset_with_a_lost_row_is_refused(stored):
    with h5py.File(stored / "data" / "main_data.hdf5", "a") as file:
        whole = np.asarray(file["episode_0/rewards"])
        del file["episode_0/rewards"]
        file["episode_0/rewards"] = whole[:-1]
    with pytest.raises(ShapeError, match="episode 0: rewards"):
        load_dataset(stored)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_minari_dataset_with_foreign_metadata_is_refused(stored, text):
    (stored / "data" / "metadata.json").write_text(text)
    with pytest.raises(FileFormatError, match="no whole Minari dataset"):
        load_dataset(stored)


@pytest.mark.parametrize("changes", [{"steps": 1}, {"stream": 0}, {"noise": -1.0}])
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(RangeError):
        MazeDataConfig(**changes)


def test_padding_lets_a_plan_begin_at_every_row_and_run_past_the_end():
    rows = torch.arange(1.0, 6.0).unsqueeze(1)
    more, starts = padded(rows, torch.tensor([False, True, False, False, True]), 3)
    expected = [1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 5.0, 0.0, 0.0]
    assert more[:, 0].tolist() == expected
    assert more[starts].equal(rows)


def test_returns_are_discounted_to_the_end_of_the_episode_and_failure_is_charged(tmp_path):
    rewards = np.arange(50.0)
    path = write_d4rl(tmp_path / "hopper.hdf5", rewards=rewards, terminals=np.arange(50) == 29)
    data = load_dataset(path)
    np.testing.assert_array_equal(np.flatnonzero(data.failed), [29])
    found = returns_to_go(data, 0.5, penalty=-8.0)
    assert found[9] == 9.0  # the last row of its episode, by time
    assert found[29] == 29.0 - 8.0
    assert found[27] == 27.0 + 0.5 * 28.0 + 0.25 * 21.0
    expected = [sum(0.5 ** (j - i) * rewards[j] for j in range(i, 50)) for i in range(40, 50)]
    np.testing.assert_allclose(found[40:], expected, rtol=1e-6)
    with pytest.raises(RangeError, match="discount"):
        returns_to_go(data, 1.5)


def test_data_of_a_maze_that_were_made_with_other_settings_are_refused(tmp_path):
    made = MazeDataConfig(steps=400, stream=200)
    write_maze_data(made, tmp_path / "maze2d-umaze")
    config = DiffuserConfig(dataset="umaze", data_steps=800, horizon=8)
    with pytest.raises(ConfigError, match="other settings"):
        plan_data(config, tmp_path)
