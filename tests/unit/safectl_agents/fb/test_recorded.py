import pytest

from safectl.errors import FileFormatError
from safectl_agents.bench import fb_training
from safectl_agents.bench.catalogue import BENCHMARKS
from safectl_agents.bench.fb_training import ordering, walker
from tests.fb_seeds import write_seed


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(fb_training, "results_folder", lambda: tmp_path)
    return tmp_path / "fb"


@pytest.mark.parametrize(
    "name", ["fb.maze_vc_vs_fb", "fb.maze_mc_vs_fb", "fb.walker_vc_vs_fb", "fb.walker_fb"]
)
def test_without_recorded_seeds_the_command_that_makes_them_is_named(results, name):
    with pytest.raises(FileFormatError, match=r"run: safectl bench fb --domain .* --method"):
        BENCHMARKS[name].measure()


def test_methods_are_compared_at_the_last_step_that_all_seeds_share(results):
    for seed in range(3):
        write_seed(results, "fb", seed, {10: 50.0, 20: 100.0, 30: 7.0})
        write_seed(results, "vc-fb", seed, {10: 9.0, 20: 250.0})
    found = BENCHMARKS["fb.maze_vc_vs_fb"].measure()
    assert found.value == 2.5
    assert (found.ours, found.theirs, found.details["step"]) == (250.0, 100.0, 20)
    assert found.details["ratio_of_iqm"] == [2.5, 2.5, 2.5]
    assert found.details["seeds"] == {"vc-fb": [0, 1, 2], "fb": [0, 1, 2]}
    write_seed(results, "mc-fb", 0, {10: 9.0})
    with pytest.raises(FileFormatError, match="fewer than two seeds of mc-fb"):
        ordering("point_mass_maze", "mc-fb", "fb")


def test_a_ratio_to_no_score_at_all_is_finite_and_steps_must_meet(results):
    for seed in range(2):
        write_seed(results, "fb", seed, {20: 0.0})
        write_seed(results, "vc-fb", seed, {20: 30.0})
        write_seed(results, "mc-fb", seed, {30: 30.0})
    assert ordering("point_mass_maze", "vc-fb", "fb").value == 30.0
    with pytest.raises(FileFormatError, match="no update at which both"):
        ordering("point_mass_maze", "mc-fb", "fb")


def test_the_mean_on_walker_says_whether_it_is_where_it_should_be(results):
    for seed, score in enumerate((300.0, 340.0)):
        write_seed(results, "fb", seed, {10: 900.0, 20: score}, domain="walker")
    found = walker()
    assert found.value == 320.0
    assert found.details["within"]
    assert BENCHMARKS["fb.walker_fb"].met(found.value)
