"""The benchmarks of visits, on a run as small as it can be."""

from dataclasses import replace

import pytest
import torch

from safectl.models import VisitScope
from safectl_agents.bench import fb_visits
from safectl_agents.bench.catalogue import BENCHMARKS
from tests.fb_run import TABLE, keep_visits, write_run

FACTS = {
    "task": "reach_top_right",
    "disc": [0.0, 0.25, 0.1],
    "budget": None,
    "candidates": 0,
    "steps": 4,
    "near": 0.0,
}


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    model = write_run(tmp_path)
    task = model.infer_goal(torch.tensor((0.15, 0.15, 0.0, 0.0)))
    table = replace(TABLE, upper=torch.tensor([0.0, 1.0]), edges=torch.tensor([-1e9]))
    keep_visits(tmp_path, task, torch.zeros(8), table, facts=FACTS)
    monkeypatch.setattr(fb_visits, "SHIPPED", tmp_path)
    monkeypatch.setattr(fb_visits, "EPISODES", 3)
    monkeypatch.setattr(fb_visits, "STEPS", 3)
    monkeypatch.setattr(fb_visits, "WAYS", 2)
    for cached in (fb_visits._scores, fb_visits._compared):
        cached.cache_clear()
    yield
    for cached in (fb_visits._scores, fb_visits._compared):
        cached.cache_clear()


def test_the_scores_are_those_of_the_shipped_table(shipped):
    error = BENCHMARKS["fb.visit_ece"].measure()
    assert error.details["rollouts"] == 1000
    assert error.value == pytest.approx(0.9 - error.details["visits"], abs=1e-6)
    assert error.value > 0.5, "the table says 0.9 of everything, few visit"
    assert BENCHMARKS["fb.visit_coverage"].measure().value == 1.0


def test_the_episodes_are_guarded_with_the_stated_limit(shipped):
    rate = BENCHMARKS["fb.visit_violation_rate"].measure()
    assert rate.value == 0.0
    assert rate.details["limit"] == fb_visits.LIMIT
    assert rate.details["guarded"]["fallbacks"] == 1.0, "no bound is within the limit"
    assert BENCHMARKS["fb.visit_success_share"].measure().value == 0.0


@pytest.mark.slow
def test_a_guard_that_never_vetoes_misses_the_target_of_the_driven_share(monkeypatch):
    """The shipped model; with a bound of zero everywhere nothing is stopped."""
    monkeypatch.setattr(fb_visits, "DRIVEN_EPISODES", 20)
    monkeypatch.setattr(fb_visits, "DRIVEN_STEPS", 150)
    benchmark = BENCHMARKS["fb.visit_driven_share"]
    works = benchmark.measure()
    assert benchmark.met(works.value)
    assert works.details["driven"]["violation_rate"] >= 0.2
    assert works.details["stopped"]["corrected"] > 0.0
    monkeypatch.setattr(VisitScope, "bound", lambda self, observation, bound: 0.0 * bound)
    idle = benchmark.measure()
    assert idle.value == 1.0
    assert idle.details["stopped"]["corrected"] == 0.0
    assert not benchmark.met(idle.value)


def test_where_nobody_visits_there_is_nothing_to_stop(shipped, monkeypatch):
    monkeypatch.setattr(fb_visits, "DRIVEN_STEPS", 1)
    benchmark = BENCHMARKS["fb.visit_driven_share"]
    assert not benchmark.met(benchmark.measure().value)
