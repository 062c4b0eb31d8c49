"""Figures of recorded seeds: what counts as a baseline, and as the best of them."""

import json

import pytest

from safectl.errors import FileFormatError
from safectl_agents.bench import acs_training
from safectl_agents.bench.catalogue import BENCHMARKS

COST, SHARE = (
    BENCHMARKS[f"acs.speed_limit_{name}"] for name in ("cost_vs_baselines", "return_share")
)


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Return what writes seeds: pairs of return and cost."""
    monkeypatch.setattr(acs_training, "results_folder", lambda: tmp_path)

    def write(method, *scores):
        for seed, (reward, cost) in enumerate(scores):
            folder = tmp_path / "acs" / "speed-limit" / method / f"seed-{seed}"
            folder.mkdir(parents=True)
            final = {"return_mean": reward, "cost_mean": cost}
            text = json.dumps({"settings": {"seed": seed}, "final": final})
            (folder / "result.json").write_text(text)

    return write


def test_costs_and_returns_are_compared_with_the_best_baseline(record):
    record("acs", (80.0, 1.0), (100.0, 3.0))
    record("usl", (110.0, 20.0), (90.0, 28.0))  # 24 on average: within the limit of 25
    record("safety-layer", (250.0, 26.0))  # beyond it
    record("td3-lag", (-70.0, 4.0))
    share, cost = SHARE.measure(), COST.measure()
    assert share.value == pytest.approx(90.0 / 100.0)
    assert share.details["seeds"] == {
        "acs": [0, 1],
        "safety-layer": [0],
        "td3-lag": [0],
        "usl": [0, 1],
    }
    assert cost.value == pytest.approx(4.0 / 2.0)


def test_a_method_on_another_trainer_has_figures_of_its_own(record):
    record("acs-sac", (80.0, 0.0))
    record("sac-lag", (100.0, 0.0))
    with pytest.raises(FileFormatError, match="holds no seed of acs;"):
        SHARE.measure()
    assert BENCHMARKS["acs.speed_limit_sac_return_share"].measure().value == pytest.approx(0.8)
    cost = BENCHMARKS["acs.speed_limit_sac_cost_vs_baselines"].measure()
    assert (cost.ours, cost.theirs, cost.value) == (0.0, 0.0, 1.0)  # a tie


def test_without_a_constrained_baseline_there_is_no_share(record):
    record("acs", (80.0, 1.0))
    with pytest.raises(FileFormatError, match="run: safectl bench acs --task speed-limit"):
        SHARE.measure()
    record("td3", (500.0, 160.0))
    with pytest.raises(FileFormatError, match="a cost of at most 25"):
        SHARE.measure()
