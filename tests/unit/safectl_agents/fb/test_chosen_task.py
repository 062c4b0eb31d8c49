"""A task vector chosen by rollouts."""

import math

import pytest
import torch

from safectl.barriers import Discs
from safectl.errors import RangeError
from safectl.models import ForwardBackward, Sizes
from safectl.types import Task
from safectl_agents.fb import chosen_task
from safectl_agents.fb.chosen_task import choose_task

FAR = Discs(torch.tensor([[0.2, -0.2]]), 0.02)
AROUND_THE_GOAL = Discs(torch.tensor([[-0.15, 0.15]]), 0.04)


class Towards(ForwardBackward):
    """The policy of a vector v pushes towards the point 0.15 v."""

    def __init__(self):
        super().__init__(Sizes(4, 2, 2, hidden=1, embedding=1, backward_hidden=1))
        self.tried = []

    def act(self, observation, task, /):
        if not any(torch.equal(task.vector, vector) for vector in self.tried):
            self.tried.append(task.vector)
        away = 0.15 * task.vector - observation[:, :2]
        return (20.0 * away - 5.0 * observation[:, 2:]).clamp(-1.0, 1.0)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(chosen_task, "STARTS", 6)
    monkeypatch.setattr(chosen_task, "STEPS", 200)


def test_a_set_that_covers_every_start_is_refused():
    everywhere = Discs(torch.tensor([[-0.2, 0.2]]), 0.4)
    with pytest.raises(RangeError, match="unsafe set"):
        choose_task(
            Towards(), Task(torch.ones(2)), everywhere, goal="reach_top_left", candidates=1, seed=0
        )


def asked(angle):
    return Task(math.sqrt(2.0) * torch.tensor([math.cos(angle), math.sin(angle)]))


def test_a_vector_that_arrives_is_found_near_one_that_does_not():
    told = list[int]()
    wrong, options = asked(0.6 * math.pi), {"goal": "reach_top_left", "seed": 0}
    found = choose_task(Towards(), wrong, FAR, candidates=12, progress=told.append, **options)
    assert found.asked_safe_success < 0.5, "one start lies on the way"
    assert found.safe_success == 1.0
    assert (0.15 * found.task.vector - torch.tensor([-0.15, 0.15])).norm() < 0.03
    assert told == list(range(1, 14))
    assert found.tried == 13


def test_each_step_is_taken_from_the_best_so_far():
    climbing, still = Towards(), Towards()
    wrong, options = asked(0.6 * math.pi), {"goal": "reach_top_left", "candidates": 12, "seed": 0}
    choose_task(climbing, wrong, FAR, **options)
    choose_task(still, wrong, AROUND_THE_GOAL, **options)
    assert len(climbing.tried) == len(still.tried) == 13
    same = [torch.equal(*pair) for pair in zip(climbing.tried, still.tried, strict=True)]
    assert same[:2] == [True, True]
    assert not same[-1], "the same draws, from another vector"


def test_the_asked_vector_stays_where_none_is_better():
    right, options = asked(0.75 * math.pi), {"goal": "reach_top_left", "candidates": 3, "seed": 0}
    assert choose_task(Towards(), right, FAR, **options).task is right
    visiting = choose_task(Towards(), right, AROUND_THE_GOAL, **options)
    assert visiting.task is right
    assert visiting.safe_success == visiting.asked_safe_success == 0.0
