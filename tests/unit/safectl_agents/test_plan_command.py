"""`safectl train diffuser` and `safectl plan`, from data to pictures, on a model of two updates."""

import json

import pytest
import torch
from PIL import Image

from safectl.barriers import Superellipse
from safectl.errors import RangeError
from safectl.planners import Specification
from safectl_agents.cli import main
from safectl_agents.diffusion.compare import SHIPPED, compare, draw_starts, set_up
from safectl_agents.diffusion.reachable import require_way
from safectl_envs.maze_layout import LAYOUTS


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    words = ["train", "diffuser", "--updates", "2", "--data-steps", "20000", "--threads", "1"]
    threads = torch.get_num_threads()
    assert main([*words, "--folder", str(folder), "--json"]) == 0
    torch.set_num_threads(threads)
    return folder / "model"


@pytest.mark.slow
def test_the_model_says_how_it_was_trained(model):
    metrics = json.loads((model / "metrics.json").read_text())
    assert metrics["updates"] == 2
    assert metrics["command"] == (
        "safectl train diffuser --preset umaze-small --seed 0 --updates 2 --data-steps 20000"
    )
    size = sum(path.stat().st_size for path in model.iterdir())
    assert size < 10e6


@pytest.mark.slow
def test_plans_are_compared_and_drawn(model, tmp_path, capsys):
    words = ["plan", str(model), "--plans", "2", "--steps", "4", "--out", str(tmp_path)]
    status = main([*words, "--methods", "diffuser", "tvs", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert status == (0 if rows["tvs"]["plans_safe"] == 1.0 else 3)
    assert rows["tvs"]["waypoints_safe"] == 1.0
    assert rows["tvs"]["s_spec"] > 0.009
    with Image.open(tmp_path / "denoising.gif") as film:
        assert film.n_frames == 5
    assert (tmp_path / "plans.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "rss"], "did you mean 'ros'"),
        (["--steps", "65"], "expected 1 to 64"),
        (["--start", "0.0", "0.0"], "free space of the maze umaze"),
        (["--start", "2.0", "3.05"], "so no plan from or to it can be safe"),
        (["--specification", "umase"], "did you mean 'umaze'"),
    ],
)
def test_what_cannot_be_planned_gives_one_clear_error(model, tmp_path, capsys, words, message):
    assert main(["plan", str(model), "--out", str(tmp_path), *words]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("captures", [False, True])
def test_plans_on_a_gpu_are_as_safe_as_on_the_processor(captures):
    setup = set_up(SHIPPED, device="cuda", captures=captures)
    found = compare(setup, draw_starts(setup, 4), ["ros", "tvs"], steps=8)
    for compared in found.values():
        assert float(compared.proposal.evidence.margins.min()) > 0.009


def test_a_specification_that_closes_the_maze_is_refused():
    setup = set_up(SHIPPED)
    starts = draw_starts(setup, 2)
    require_way(setup.specification, LAYOUTS["umaze"], starts, setup.goal)
    # The right corridor reaches from column 2.4 to 3.2.
    shut = {"gate": Superellipse((2.0, 2.8), (0.1, 0.45), exponent=8.0)}
    closed = setup._replace(specification=Specification(shut, setup.specification.normaliser))
    with pytest.raises(RangeError, match=r"gate.*a way from the start \[[23]\."):
        compare(closed, starts, ["ros"], steps=1)
    ajar = {"gate": Superellipse((2.0, 2.8), (0.1, 0.35), exponent=8.0)}
    require_way(
        Specification(ajar, setup.specification.normaliser), LAYOUTS["umaze"], starts, setup.goal
    )


def test_a_model_has_to_be_named(capsys):
    assert main(["plan"]) == 1
    assert "or --demo" in capsys.readouterr().err


@pytest.mark.slow
def test_starts_are_drawn_about_the_cell_and_obey_the_specification(model):
    setup = set_up(model)
    starts = draw_starts(setup, 200)
    assert float((starts[:, :2] - torch.tensor([3.0, 3.0])).abs().max()) <= 0.1
    time = torch.zeros(200, 1)
    assert not bool(setup.specification.violated(torch.cat([starts, time], 1)).any())


def test_the_shipped_model_is_small_and_names_its_training():
    metrics = json.loads((SHIPPED / "metrics.json").read_text())
    assert metrics["command"].startswith("safectl train diffuser --preset umaze-small")
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 10e6


@pytest.mark.slow
def test_the_demo_is_safe_where_the_plain_model_is_not(tmp_path, capsys):
    words = ["plan", "--demo", "--plans", "4", "--methods", "diffuser", "res"]
    main([*words, "--out", str(tmp_path), "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert max(rows["diffuser"]["s_spec"], rows["diffuser"]["c_spec"]) < -0.3
    assert rows["res"]["waypoints_safe"] == 1.0


@pytest.mark.slow
def test_the_comparison_has_a_table_beside_published_figures_pictures_and_a_film(tmp_path, capsys):
    words = ["bench", "safediffuser", "--plans", "3", "--drawn", "2", "--steps", "3"]
    methods = ["--methods", "res-released", "tvs"]
    assert main([*words, *methods, "--out", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "plans.json").read_text()) == rows
    assert [row["plans"] for row in rows.values()] == [3.0, 3.0]
    table = (tmp_path / "plans.md").read_text()
    assert f"| tvs | {rows['tvs']['s_spec']:.3f} |" in table
    assert "| SafeDiffuser ReS | 0.010 | 0.010 | 1.442 |" in table
    with Image.open(tmp_path / "denoising.gif") as film:
        assert film.n_frames == 4
    assert (tmp_path / "plans.png").stat().st_size > 10_000
