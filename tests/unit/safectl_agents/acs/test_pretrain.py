"""A lower layer of a finished seed in a new model, and what is refused."""

import copy

import pytest
from stable_baselines3.common.save_util import recursive_getattr
from wall import SMALL, Wall, constraint, quick

from safectl.errors import ConfigError
from safectl.files import write_json
from safectl_agents.acs.critic import CriticSettings
from safectl_agents.acs.pretrain import adopt_lower, save_lower
from safectl_agents.acs.projection import ProjectionSettings
from safectl_agents.acs.td3 import ACSTD3
from safectl_agents.acs.unguarded import UnguardedSettings


def _model(layer=None, seed=1):
    return ACSTD3("MlpPolicy", Wall(), constraint=constraint(layer), seed=seed, **quick())


def _finish(model, folder, method="acs"):
    folder.mkdir()
    save_lower(model, folder)
    write_json(folder / "result.json", {"settings": {"method": method, "task": "wall"}})
    return folder


def test_networks_slow_copies_and_optimisers_are_adopted(tmp_path):
    trained = _model(seed=0).learn(60)
    new = _model()
    adopt_lower(new, "wall", "acs", _finish(trained, tmp_path / "seed"))
    for part in ("learner.critic", "learner.critic_target"):
        ours, theirs = (recursive_getattr(m.lower, part).state_dict() for m in (new, trained))
        assert all(theirs[name].equal(weight) for name, weight in ours.items())
    ours, theirs = (m.lower.learner.optimizer.state_dict()["state"][0] for m in (new, trained))
    assert all(theirs[name].equal(tensor) for name, tensor in ours.items())
    new.learn(30)


def test_an_adopted_layer_may_stay_what_it_was(tmp_path):
    finished = _finish(_model(seed=0).learn(60), tmp_path / "seed")
    new = ACSTD3("MlpPolicy", Wall(), constraint=constraint(learns=False), seed=1, **quick())
    adopt_lower(new, "wall", "acs", finished)
    parts = ("learner.critic", "learner.critic_target")
    before = copy.deepcopy([recursive_getattr(new.lower, part).state_dict() for part in parts])
    new.learn(60)
    for part, weights in zip(parts, before, strict=True):
        after = recursive_getattr(new.lower, part).state_dict()
        assert all(after[name].equal(weight) for name, weight in weights.items())


def test_what_does_not_fit_is_refused_with_one_message(tmp_path):
    finished = _finish(_model(), tmp_path / "seed")
    bare = _finish(_model(UnguardedSettings()), tmp_path / "bare", method="td3")
    wide = _model(ProjectionSettings(critic=CriticSettings(hidden=(4,))))
    sums = _model(ProjectionSettings(critic=SMALL))
    for model, task, method, folder, problem in (
        (_model(), "wall", "acs", tmp_path / "nowhere", "holds no finished seed"),
        (sums, "wall", "usl", finished, "is of method 'acs', not 'usl'"),
        (sums, "fence", "acs", finished, "is of task 'wall', not 'fence'"),
        (_model(UnguardedSettings()), "wall", "td3", bare, "holds no learned layer"),
        (wide, "wall", "acs", finished, "other sizes"),
    ):
        with pytest.raises(ConfigError, match=problem):
            adopt_lower(model, task, method, folder)
