from pathlib import Path

import h5py
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from minari.data_collector import EpisodeBuffer

from safectl.errors import FileFormatError, NonFiniteError, RangeError, ShapeError, StorageError
from safectl_agents.fb.episodes import Episode, episode_paths, load_episode
from safectl_agents.fb.minari_files import from_minari, import_minari, to_minari


def make_episode(number: int, *, terminates: bool) -> Episode:
    rows = np.arange(6, dtype=np.float32)[:, None] + 10.0 * number
    action = np.concatenate([0.01 * rows, -0.01 * rows], 1)
    action[0] = 0.0
    reward, discount = 1.0 * rows, np.ones(6, np.float32)
    reward[0] = 0.0
    discount[-1] = 1.0 - terminates
    return Episode(np.repeat(rows, 3, 1), action, reward, discount, rows.astype(np.float64))


def test_episodes_come_back_from_a_dataset(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    episodes = [make_episode(0, terminates=True), make_episode(1, terminates=False)]
    assert to_minari(episodes, "maze/random-v0") == 2
    assert import_minari("maze/random-v0", tmp_path / "buffer") == 2
    for path, expected in zip(episode_paths(tmp_path / "buffer"), episodes, strict=True):
        found = load_episode(path)
        for name in ("observation", "action", "reward", "discount", "physics"):
            assert np.allclose(getattr(found, name), getattr(expected, name))
    with pytest.raises(StorageError, match="maze/random-v0"):
        to_minari(episodes, "maze/random-v0")
    with pytest.raises(FileFormatError, match="minari list"):
        next(from_minari("maze/none-v0"))


def test_a_torn_dataset_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    to_minari([make_episode(0, terminates=True)], "maze/torn-v0")
    (path,) = tmp_path.rglob("main_data.hdf5")
    for part in ("actions", "observations"):
        with h5py.File(path, "a") as file:
            del file["episode_0"][part]
        with pytest.raises(FileFormatError, match="is no dataset"):
            list(from_minari("maze/torn-v0"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FileFormatError, match="is no dataset"):
        list(from_minari("maze/torn-v0"))


FLAT, UNIT = Box(-np.inf, np.inf, (2,), np.float32), Box(-1.0, 1.0, (1,), np.float32)


def record(name: str, *, action_space=UNIT, action=None, observation=None, space=FLAT) -> None:
    """Store two episodes of three steps with Minari itself, the second with what is given."""
    usual = np.stack([action_space.sample() for _ in range(3)])
    buffers = [
        EpisodeBuffer(
            id=number,
            observations=seen,
            actions=done,
            rewards=[0.0] * 3,
            terminations=[False] * 3,
            truncations=[False, False, True],
        )
        for number, (seen, done) in enumerate(
            [
                (np.zeros((4, *space.shape), np.float32), usual),
                (
                    np.zeros((4, *space.shape), np.float32) if observation is None else observation,
                    usual if action is None else action,
                ),
            ]
        )
    ]
    minari.create_dataset_from_buffers(
        name, buffers, observation_space=space, action_space=action_space
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("wrong", "error", "problem"),
    [
        ({"action_space": Discrete(3)}, FileFormatError, r"actions Discrete\(3\).*continuous"),
        (
            {"action_space": Box(-2.0, 2.0, (1,), np.float32)},
            FileFormatError,
            r"instead of \[-1, 1\]; record it with .*RescaleAction",
        ),
        ({"action_space": Box(-0.4, 0.4, (1,), np.float32)}, FileFormatError, "RescaleAction"),
        ({"action_space": Box(-0.4, 1.0, (1,), np.float32)}, FileFormatError, "Rescale"),
        ({"action_space": Box(-1.0, 0.4, (1,), np.float32)}, FileFormatError, "Rescale"),
        ({"action_space": Box(-np.inf, np.inf, (1,), np.float32)}, FileFormatError, "Rescale"),
        ({"space": Box(0.0, 1.0, (2, 2), np.float32)}, FileFormatError, "FlattenObservation"),
        (
            {"action": np.full((3, 1), np.nan, np.float32)},
            NonFiniteError,
            "action of episode 1 of maze/wrong-v0",
        ),
        (
            {"observation": np.full((4, 2), np.inf, np.float32)},
            NonFiniteError,
            "observation of episode 1 of maze/wrong-v0",
        ),
        (
            {"action": np.full((3, 1), 1.5, np.float32)},
            FileFormatError,
            "episode 1 of maze/wrong-v0: holds actions from 1.5 to 1.5",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_refused_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch, wrong, error, problem
):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    record("maze/wrong-v0", **wrong)
    with pytest.raises(error, match=problem):
        import_minari("maze/wrong-v0", tmp_path / "buffer")
    assert [path.name for path in tmp_path.iterdir()] == ["minari"]


def test_an_import_leaves_episodes_that_are_there_alone(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    to_minari([make_episode(0, terminates=True)], "maze/first-v0")
    import_minari("maze/first-v0", tmp_path / "buffer")
    with pytest.raises(StorageError, match="exists already"):
        import_minari("maze/first-v0", tmp_path / "buffer")
    assert len(episode_paths(tmp_path / "buffer")) == 1


def test_no_episodes_and_unlike_ones_are_not_stored(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(RangeError, match="episodes is 0, expected at least one"):
        to_minari([], "maze/none-v0")
    narrow = make_episode(1, terminates=True)
    narrow = Episode(narrow.observation[:, :1], narrow.action, narrow.reward, narrow.discount)
    with pytest.raises(ShapeError, match=r"row of episode 1 has shape \(1, 2\)"):
        to_minari([make_episode(0, terminates=True), narrow], "maze/mixed-v0")
    assert not list(tmp_path.iterdir())
