"""Safeguards from what trainers leave behind."""

import io
import pickle
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from gymnasium.spaces import Box
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn
from wall import SMALL, Wall, constraint, quick

from safectl.errors import ConfigError, FileFormatError, SpecMismatch
from safectl.files import write_json
from safectl.safeguards import ACS, Brake
from safectl_agents.acs.critic import CriticSettings
from safectl_agents.acs.methods import MethodContext, find_method
from safectl_agents.acs.ppo import ACSPPO, OnPolicySettings
from safectl_agents.acs.projection import ProjectionSettings
from safectl_agents.acs.sac import ACSSAC
from safectl_agents.acs.safety import SafetySettings
from safectl_agents.acs.saved import GUARDED, load_critic, load_seed
from safectl_agents.acs.seed_run import RunSettings, make_model, run_seed
from safectl_agents.acs.tasks import find_task
from safectl_agents.acs.td3 import ACSTD3
from safectl_agents.models import make_env
from safectl_agents.training_state import Counters, save_state
from safectl_envs.signals import spec_of, spec_of_boxes

SPEC = spec_of_boxes(Wall().observation_space, Wall().action_space)
TWO = ProjectionSettings(critic=CriticSettings(hidden=(16, 8), heads=2))
SEED = RunSettings("point-hazard", "acs", 40, 1, evaluate_every=20, checkpoint_every=20, episodes=1)


def td3(**options):
    return ACSTD3("MlpPolicy", Wall(), constraint=constraint(TWO), seed=0, **quick(), **options)


def sac():
    return ACSSAC("MlpPolicy", Wall(), constraint=constraint(), seed=0, **quick())


def ppo():
    safety = SafetySettings(safety_iterations=2, advantage_iterations=2, hidden=(8,))
    settings = OnPolicySettings(eps_start=0.5, safety=safety)
    sizes = {"n_steps": 50, "batch_size": 50, "device": "cpu", "seed": 0}
    return ACSPPO("MlpPolicy", Wall(), constraint=settings, **sizes)


@pytest.mark.parametrize("make", [td3, sac, ppo])
def test_a_saved_model_guards_as_it_did_in_its_trainer(make, tmp_path):
    model = make().learn(60)
    model.save(tmp_path / "model.zip")
    critic = load_critic(tmp_path / "model.zip", SPEC)
    ours = ACS(critic, fallback=Brake(SPEC), options=model.safeguard.options)
    seen, proposed = 4.0 * torch.rand(50, 1) - 2.0, 2.0 * torch.rand(50, 1) - 1.0
    found, expected = (guard.filter(seen, proposed) for guard in (ours, model.safeguard))
    torch.testing.assert_close(found.action, expected.action)
    torch.testing.assert_close(found.certificate.margin, expected.certificate.margin)


class _Payload:
    """What a stranger's pickle can do: touch a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_what_a_stranger_pickled_is_refused_and_not_run(tmp_path):
    td3().save(tmp_path / "model.zip")
    touched, archive = tmp_path / "touched", tmp_path / "bad.zip"
    torch.save({"heads.0.0.weight": _Payload(touched)}, body := io.BytesIO())
    with zipfile.ZipFile(tmp_path / "model.zip") as good, zipfile.ZipFile(archive, "w") as bad:
        for name in good.namelist():
            replaced = name == "lower.learner.critic_target.pth"
            bad.writestr(name, body.getvalue() if replaced else good.read(name))
    with pytest.raises(FileFormatError, match="holds more than tensors") as refusal:
        load_critic(archive, SPEC)
    assert not touched.exists()
    assert "weights_only" not in str(refusal.value)
    pickle.loads(pickle.dumps(_Payload(touched)))  # noqa: S301  it is ours, and does run
    assert touched.exists()


def test_what_holds_no_fitting_critic_is_refused_with_one_message(tmp_path):
    td3().save(tmp_path / "model.zip")
    wide = spec_of_boxes(Box(-5.0, 5.0, (2,)), Wall().action_space)
    with pytest.raises(FileFormatError, match="no critic of 2 observations and 1 actions"):
        load_critic(tmp_path / "model.zip", wide)
    bent = quick() | {"policy_kwargs": {"net_arch": [16], "activation_fn": nn.Tanh}}
    layer = constraint(ProjectionSettings(critic=SMALL))
    ACSTD3("MlpPolicy", Wall(), constraint=layer, **bent).save(tmp_path / "bent.zip")
    with pytest.raises(FileFormatError, match="activations of its own"):
        load_critic(tmp_path / "bent.zip", SPEC)
    (tmp_path / "text.zip").write_text("no archive")
    (tmp_path / "empty").mkdir()
    for name in ("text.zip", "absent.zip", "empty"):
        with pytest.raises(FileFormatError, match=name):
            load_critic(tmp_path / name, SPEC)


@pytest.mark.parametrize("method", ["acs", "acs-sac", "usl"])
@pytest.mark.parametrize("task", ["speed-limit", "point-hazard", "ant-run"])
def test_a_seed_brings_the_correction_of_its_task(task, method, tmp_path):
    settings = replace(SEED, task=task, method=method, hidden=8, eps=0.2)
    spec = spec_of(env := make_env(find_task(task).env))
    trained = make_model(settings, DummyVecEnv([lambda: env]))
    trained.save(tmp_path / "model.zip")
    write_json(tmp_path / "settings.json", asdict(settings))
    critic, options = load_seed(tmp_path, spec)
    assert options == trained.safeguard.options
    assert [layer.out_features for layer in critic.network.heads[0][::2]] == [8, 8, 1]
    assert (options.correction.mode == "newton") == (task != "point-hazard" and method != "usl")


@pytest.fixture(scope="module")
def seed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seed") / "acs-1"
    run_seed(SEED, folder, command="test")
    return folder


def test_a_seed_brings_the_bound_and_the_correction_of_its_method(seed):
    spec = spec_of(make_env("safectl/PointHazard-v0"))
    critic, options = load_seed(seed, spec)
    assert (options.bound.tolerance, options.correction.mode) == (0.1, "gradient")
    assert critic.cost(torch.zeros(1, spec.nx), torch.zeros(1, 2)).isfinite().all()
    with pytest.raises(SpecMismatch, match="the robot"):
        load_seed(seed, SPEC)


@pytest.mark.parametrize(
    ("method", "mode", "recovery_rate"),
    [
        ("acs", "gradient", 0.8),
        ("acs-newton", "newton", 0.8),
        ("acs-sac", "gradient", 0.8),
        ("acs-ppo", "gradient", 0.8),
        ("usl", "gradient", 1.0),
    ],
)
def test_every_method_that_trains_a_safeguard_leaves_one(tmp_path, method, mode, recovery_rate):
    assert method in GUARDED
    env = make_env("safectl/PointHazard-v0")
    context = MethodContext(0, 0, 0.0, 0.3, hidden=(8,), options={"buffer_size": 10})
    model = find_method(method).make(DummyVecEnv([lambda: env]), context)
    model.save(tmp_path / "model.zip")
    write_json(tmp_path / "settings.json", asdict(replace(SEED, method=method, eps=0.3)))
    spec = spec_of(env)
    critic, options = load_seed(tmp_path, spec)
    assert (options.bound.tolerance, options.bound.recovery_rate) == (0.3, recovery_rate)
    assert options.correction.mode == mode
    rows = torch.rand(3, spec.nx)
    torch.testing.assert_close(critic.value(rows), model.safeguard.critic.value(rows))


def test_a_seed_that_is_not_finished_is_read_from_its_checkpoint(tmp_path):
    model = td3().learn(30)
    save_state(tmp_path / "checkpoints", model, Counters(step=30), keep=1)
    observation, action = torch.rand(5, 1), torch.rand(5, 1)
    found = load_critic(tmp_path, SPEC)
    expected = model.safeguard.critic
    torch.testing.assert_close(found.value(observation), expected.value(observation))
    torch.testing.assert_close(found.cost(observation, action), expected.cost(observation, action))


def test_a_method_that_trains_no_safeguard_is_refused(tmp_path):
    write_json(tmp_path / "settings.json", asdict(replace(SEED, method="td3")))
    with pytest.raises(ConfigError, match="td3 trains no safeguard"):
        load_seed(tmp_path, SPEC)
