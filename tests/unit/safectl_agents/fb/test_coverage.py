"""Where maze data have been."""

import json

import numpy as np
import pytest

from safectl.errors import FileFormatError
from safectl_agents.cli import main
from safectl_agents.fb.coverage import CELLS, maze_coverage
from safectl_agents.fb.episodes import Episode, save_episode
from safectl_agents.fb.maze_batch import MazeBatch, scatter


def _save(places, folder, number=0):
    rows = len(places)
    observation = np.concatenate([places, np.zeros_like(places)], 1).astype(np.float32)
    zeros = np.zeros((rows, 2), np.float32)
    episode = Episode(observation, zeros, zeros[:, :1], np.ones(rows, np.float32))
    save_episode(episode, folder, number)


def test_cells_within_the_wall_are_not_free(tmp_path):
    _save(np.zeros((3, 2)), tmp_path)
    found = maze_coverage(tmp_path)
    assert found.free.shape == (CELLS, CELLS)
    assert found.free.sum() == 356
    assert (found.free == found.free.T).all()
    assert not found.free[9:11, 4:16].any(), "the arm along y"
    assert found.free[9:11, :4].all(), "the opening below it"
    assert found.steps.sum() == 3
    assert found.share == 0.0, "they lie in the wall"


def test_places_that_the_point_can_take_cover_all(tmp_path):
    _save(scatter(20_000, np.random.default_rng(0))[:, :2], tmp_path)
    done = []
    assert maze_coverage(tmp_path, progress=done.append).share == 1.0
    assert done == [1]


def test_a_room_is_a_quarter(tmp_path):
    places = scatter(20_000, np.random.default_rng(0))[:, :2]
    _save(places[(places < 0.0).all(1)], tmp_path, 0)
    _save(places[(places < 0.0).all(1)][:5], tmp_path, 1)
    assert maze_coverage(tmp_path).share == pytest.approx(0.25)


def test_a_point_that_pushes_against_the_wall_stays_in_a_free_cell(tmp_path):
    batch = MazeBatch(2)
    batch.reset(options={"start": np.array([[-0.1, 0.1, 0.0, 0.0], [0.1, -0.1, 0.0, 0.0]])})
    states = batch.run(np.tile(np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), (1, 300, 1)))
    _save(states[:, -100:, 1:3].reshape(-1, 2), tmp_path)
    found = maze_coverage(tmp_path)
    assert found.steps[found.free].sum() == 200


def test_the_command_tells_and_draws_it(tmp_path, capsys):
    line = ["collect", "--collector", "wander", "--episodes", "2", "--folder", str(tmp_path)]
    assert main([*line, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0.02 < found["coverage"] < 0.5
    assert (tmp_path / "coverage.png").read_bytes()[:4] == b"\x89PNG"
    assert main(line) == 0
    assert f"{found['coverage']:.1%} of the free cells" in capsys.readouterr().out
    with pytest.raises(FileFormatError, match="holds no episodes"):
        maze_coverage(tmp_path)
