"""The thread that computes: budgets, failures and slots of length one."""

import threading
import time

import pytest
import torch

from safectl.safeguards import Clip
from safectl.spec import Signal, Spec
from safectl_ros.budget import BudgetedFilter
from safectl_ros.worker import Worker

LONG_S = 10.0
SPEC = Spec((Signal("x", "m", -1.0, 1.0),), (Signal("u", "m/s", -1.0, 1.0),), 0.1)
ROW = torch.zeros(1, 1)


class Gate:
    """A safeguard that waits until it is let through."""

    claim = "none; for tests"

    def __init__(self):
        self.open, self.entered = threading.Event(), threading.Event()

    def filter(self, observation, action):
        self.entered.set()
        assert self.open.wait(LONG_S)
        return Clip(SPEC).filter(observation, action)


@pytest.fixture
def worker():
    worker = Worker(lambda job: job(), name="test")
    yield worker
    worker.close()


def test_a_result_comes_with_the_number_of_its_job(worker):
    number = worker.submit(lambda: "done")
    finished = worker.wait(number, LONG_S)
    assert (finished.number, finished.result, finished.failure) == (number, "done", "")
    assert worker.newest is finished
    assert not worker.is_busy


def test_a_failure_is_reported_and_the_next_job_runs(worker):
    finished = worker.wait(worker.submit(lambda: 1 // 0), LONG_S)
    assert finished.result is None
    assert finished.failure.startswith("ZeroDivisionError")
    assert worker.wait(worker.submit(lambda: 1), LONG_S).result == 1


def test_a_new_job_replaces_the_one_that_waits(worker):
    gate, entered, ran = threading.Event(), threading.Event(), []
    worker.submit(lambda: (entered.set(), gate.wait(LONG_S)))
    assert entered.wait(LONG_S)
    worker.submit(lambda: ran.append("old"))
    newest = worker.submit(lambda: ran.append("new"))
    gate.set()
    assert worker.wait(newest, LONG_S) is not None
    assert ran == ["new"]


@pytest.mark.parametrize("is_bounded", [True, False])
def test_a_filter_in_time_decides(is_bounded):
    budgeted = BudgetedFilter(Clip(SPEC), LONG_S, is_bounded=is_bounded)
    decision = budgeted(ROW, ROW + 3.0)
    assert decision.action.tolist() == [[1.0]]
    median, p99 = budgeted.times.median_and_p99()
    assert 0.0 < median <= p99 < LONG_S
    budgeted.close()


def test_a_filter_over_its_budget_decides_nothing_until_it_is_back():
    gate = Gate()
    budgeted = BudgetedFilter(gate, 0.01, is_bounded=False)
    assert budgeted(ROW, ROW) is None
    assert budgeted.failure == "over its budget of 0.01 s"
    assert gate.entered.wait(LONG_S)
    assert budgeted(ROW, ROW) is None
    assert budgeted.failure == "still busy after its budget of 0.01 s"
    assert budgeted.failures == 2
    gate.open.set()
    budgeted.budget_s = LONG_S
    budgeted._worker.wait(1, LONG_S)
    assert budgeted(ROW, ROW) is not None
    assert budgeted.failure == ""
    budgeted.close()


def test_a_bounded_filter_that_was_too_slow_is_not_believed():
    class Slow:
        claim = "none; for tests"

        def filter(self, observation, action):
            limit = time.monotonic() + 0.02
            while time.monotonic() < limit:
                pass
            return Clip(SPEC).filter(observation, action)

    budgeted = BudgetedFilter(Slow(), 0.01, is_bounded=True)
    assert budgeted(ROW, ROW) is None
    assert budgeted.failure == "over its budget of 0.01 s"


@pytest.mark.parametrize("is_bounded", [True, False])
def test_a_filter_that_raises_decides_nothing(is_bounded):
    class Broken:
        claim = "none; for tests"

        def filter(self, observation, action):
            raise ZeroDivisionError("no")

    budgeted = BudgetedFilter(Broken(), LONG_S, is_bounded=is_bounded)
    assert budgeted(ROW, ROW) is None
    assert budgeted.failure == "ZeroDivisionError: no"
    budgeted.close()
