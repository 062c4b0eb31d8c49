import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from slide import HALF, SPEC, Slide, small

from safectl.errors import ConfigError, FileFormatError, RangeError
from safectl.safeguards import Clip
from safectl_agents.animation import record, save_gif
from safectl_agents.callbacks import ProgressBar
from safectl_agents.evaluate import run
from safectl_agents.plots import PlotSettings, plot_runs, smooth
from safectl_agents.train import train
from safectl_envs import Guard


class Away:
    def act(self, observation, /):
        return torch.full((len(observation), 1), 1.0)


def test_curves_of_two_runs_are_drawn_with_the_limit(tmp_path):
    train(small(), folder=tmp_path / "free")
    train(small(), folder=tmp_path / "guarded", guard=HALF)
    runs = {name: tmp_path / name for name in ("free", "guarded")}
    plot_runs(runs, tmp_path / "one.png")
    plot_runs(runs, tmp_path / "two.png", PlotSettings(cost_limit=5.0, window=3))
    one, two = (
        np.asarray(Image.open(tmp_path / f"{n}.png").convert("RGB")) for n in ("one", "two")
    )
    assert one.shape == two.shape == (456, 1440, 3)
    assert len(np.unique(one.reshape(-1, 3), axis=0)) > 100
    assert (one != two).any()
    assert "matplotlib.pyplot" not in sys.modules


def test_a_run_without_whole_episodes_is_drawn_all_the_same(tmp_path):
    train(small(steps=64, checkpoint_every=16), folder=tmp_path)
    plot_runs({"short": tmp_path}, tmp_path / "short.png")
    assert (tmp_path / "short.png").stat().st_size > 5_000


def test_a_folder_without_episodes_is_refused(tmp_path):
    with pytest.raises(FileFormatError, match="name the folder of a training run"):
        plot_runs({"none": tmp_path}, tmp_path / "none.png")
    (tmp_path / "episodes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FileFormatError, match="has the columns"):
        plot_runs({"none": tmp_path}, tmp_path / "none.png")


def test_smoothing_is_the_mean_of_the_last_values():
    values = np.array([1.0, 3.0, 5.0, 7.0])
    np.testing.assert_allclose(smooth(values, 2), [1.0, 2.0, 4.0, 6.0])
    np.testing.assert_allclose(smooth(values, 1), values)
    np.testing.assert_allclose(smooth(values, 99), [1.0, 2.0, 3.0, 4.0])
    assert len(smooth(values[:0], 3)) == 0


def test_a_gif_shows_both_episodes_and_moves(tmp_path):
    free = record(Away(), lambda: Slide(render_mode="rgb_array"), seed=1)
    kept = record(
        Away(), lambda: Guard(Slide(render_mode="rgb_array"), Clip(SPEC)), seed=1, limit=10
    )
    assert len(free) == 20
    assert len(kept) == 10
    assert free[0].status is None
    assert kept[0].status is not None
    assert free[-1].cost == sum(step.cost for step in run(Away(), Slide(), 1))
    save_gif({"without guard": free, "with guard": kept}, tmp_path / "both.gif")
    with Image.open(tmp_path / "both.gif") as image:
        assert image.n_frames == 20
        assert image.size == (320 * 2 + 8, 240 + 44)
        first = np.asarray(image.convert("RGB"))
        image.seek(15)
        assert (first != np.asarray(image.convert("RGB"))).any()


def test_an_environment_that_draws_nothing_is_refused():
    class Blind(Slide):
        def render(self):
            return None

    with pytest.raises(ConfigError, match="rgb_array"):
        record(Away(), Blind, seed=0)


def test_an_empty_gif_is_refused(tmp_path):
    with pytest.raises(RangeError, match="at least one frame"):
        save_gif({"nothing": []}, tmp_path / "none.gif")


def test_the_progress_bar_shows_steps_return_and_cost(tmp_path):
    text = io.StringIO()
    console = Console(file=text, width=120, force_terminal=True)
    with ProgressBar(512, console) as bar:
        train(small(), folder=tmp_path, callbacks=[bar])
    assert "512/512 steps" in text.getvalue()
    assert "return -" in text.getvalue()
    assert "steps/s" in text.getvalue()
