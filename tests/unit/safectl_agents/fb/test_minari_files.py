from pathlib import Path

import h5py
import numpy as np
import pytest

from safectl.errors import FileFormatError, StorageError
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
