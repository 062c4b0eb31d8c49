import json

import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from slide import SPEC, Slide

from safectl.errors import NonFiniteError
from safectl.safeguards import Clip
from safectl.types import Status
from safectl_agents.evaluate import Episode, evaluate, run, summarise
from safectl_agents.models import make_env
from safectl_envs import Guard, VectorGuard


class Push:
    """Pushes as hard as it is told."""

    def __init__(self, push):
        self.push = push

    def act(self, observation, /):
        return torch.full((len(observation), 1), self.push)


def guarded():
    return Guard(Slide(), Clip(SPEC))


def copies(count, make=Slide):
    return SyncVectorEnv([make] * count)


def guarded_copies(count):
    return VectorGuard(copies(count), Clip(SPEC))


def test_sums_agree_with_a_hand_made_episode():
    episode = evaluate(Push(2.0), copies, episodes=2, seed=0).episodes[0]
    steps = list(run(Push(2.0), Slide(), episode.seed))
    assert episode.length == len(steps) == 20
    assert episode.reward == pytest.approx(sum(step.reward for step in steps))
    assert episode.cost == sum(step.cost for step in steps) == episode.violations > 10
    assert (episode.corrected, episode.fallback, episode.min_margin) == (0, 0, None)


def test_without_a_guard_there_are_no_interventions_to_count():
    found = evaluate(Push(2.0), copies, episodes=2, seed=0)
    assert found.corrected_rate is found.fallback_rate is found.min_margin is None


def test_the_guards_work_is_counted():
    found = evaluate(Push(2.0), guarded_copies, episodes=3, seed=0)
    assert found.corrected_rate.estimate == 1.0
    assert found.fallback_rate.estimate == 0.0
    assert found.min_margin == pytest.approx(0.0)
    kept = evaluate(Push(0.25), guarded_copies, episodes=3, seed=0)
    assert kept.corrected_rate.estimate == 0.0
    assert kept.min_margin == pytest.approx(0.25)


def test_nan_proposals_are_counted_as_fallback():
    found = evaluate(Push(float("nan")), guarded_copies, episodes=2, seed=0)
    assert found.fallback_rate.estimate == 1.0
    step = next(run(Push(float("nan")), guarded(), 0))
    assert step.status is Status.FALLBACK


def test_the_summary_is_the_ratio_of_sums():
    rows = [
        Episode(seed, 10.0 * seed, 2.0, 10 + 10 * seed, 2 * seed, 1, 0, 0.5 - seed)
        for seed in range(3)
    ]
    found = summarise(rows, seed=0)
    assert found.reward.estimate == 10.0
    assert found.violation_rate.estimate == pytest.approx(6 / 60)
    assert found.violating_episodes.estimate == pytest.approx(2 / 3)
    assert found.corrected_rate.estimate == pytest.approx(3 / 60)
    assert found.min_margin == -1.5


def test_equal_seeds_give_equal_evaluations_and_other_seeds_others():
    one, same, other = (evaluate(Push(0.1), copies, episodes=3, seed=s) for s in (4, 4, 5))
    assert [e.reward for e in one.episodes] != [e.reward for e in other.episodes]
    assert one.seed == same.seed
    assert [e.seed for e in one.episodes] == [e.seed for e in same.episodes]
    assert len({e.seed for e in one.episodes}) == 3


def test_the_result_is_json():
    found = evaluate(Push(2.0), guarded_copies, episodes=2, seed=0)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["episodes"][1]["seed"] == found.episodes[1].seed


def test_nan_from_the_environment_names_the_seed():
    with pytest.raises(NonFiniteError, match="in the episode with seed"):
        evaluate(
            Push(0.0), lambda count: copies(count, lambda: Slide(flaw="reward")), episodes=2, seed=0
        )


def test_more_episodes_than_run_together_are_all_counted():
    found = evaluate(Push(0.1), copies, episodes=40, seed=0)
    assert len({episode.seed for episode in found.episodes}) == 40
    alone = list(run(Push(0.1), Slide(), found.episodes[35].seed))
    assert found.episodes[35].reward == pytest.approx(sum(step.reward for step in alone))


def test_an_episode_that_terminates_is_counted_to_its_end_only():
    def poles(count):
        return SyncVectorEnv([lambda: make_env("safectl/CartPoleStab-v0")] * count)

    for episode in evaluate(Push(1.0), poles, episodes=3, seed=0).episodes:
        alone = list(run(Push(1.0), make_env("safectl/CartPoleStab-v0"), episode.seed))
        assert episode.length == len(alone) < 250
        assert episode.cost == sum(step.cost for step in alone)
