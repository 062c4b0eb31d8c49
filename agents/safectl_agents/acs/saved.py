"""Critics from what trainers leave behind, for a safeguard in a process that does not train.

The settings in the archive of `model.save` are pickles and are left alone; its weights are read by
torch's restricted reader, which makes tensors and refuses all else.
"""

import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn

from safectl.config import overlay
from safectl.errors import ConfigError, FileFormatError
from safectl.files import read_json
from safectl.models import LearnedSafety, ScoreNetwork
from safectl.safeguards.acs import ACSOptions
from safectl.safeguards.cost_critic import CostCritic
from safectl.spec import Spec, require_same
from safectl_agents.acs.critic import CostNetwork, PolicyCritic, perceptron
from safectl_agents.acs.pretrain import adopt_lower
from safectl_agents.acs.seed_run import RunSettings, make_model
from safectl_agents.acs.tasks import find_task
from safectl_agents.model_state import with_prefix
from safectl_agents.models import make_env
from safectl_agents.training_state import checkpoints, file_digests, read_tensors
from safectl_envs.signals import spec_of

Tensors = Mapping[str, Tensor]

GUARDED = ("acs", "acs-newton", "acs-sac", "acs-ppo", "usl")
"""Methods that train a safeguard."""

SEED_ADVICE = "name the folder of a finished seed of: safectl bench acs"
_ADVICE = "name the archive of `save` of ACSTD3, ACSSAC or ACSPPO, or the folder of a seed"
_PARTS = ("policy", "lower.learner.critic_target", "learner.safety", "learner.advantage")
_DAMAGED = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile)


def load_critic(path: Path, spec: Spec) -> CostCritic:
    """Build the learned critic of a trainer.

    Args:
        path: Archive of `model.save`, or folder of a seed, finished or not. Its networks have the
            trainers' own activations, and no normaliser is around them.
        spec: Signals that it was trained on, with the limits of the actions.

    Raises:
        FileFormatError: If it holds no such critic for signals of this number.
    """
    tensors = _read_folder(path) if path.is_dir() else read_archive(path)
    try:
        if "learner.safety.mean" in tensors:
            critic: CostCritic = LearnedSafety(
                _score_network(tensors, "learner.safety.", spec.nx, 0),
                _score_network(tensors, "learner.advantage.", spec.nx, spec.nu),
            )
        else:
            critic = _policy_critic(tensors, spec)
        critic.cost(torch.zeros(1, spec.nx), torch.zeros(1, spec.nu))
        critic.value(torch.zeros(1, spec.nx))
    except (KeyError, ValueError, AttributeError, RuntimeError) as error:
        problem = f"holds no critic of {spec.nx} observations and {spec.nu} actions ({error})"
        raise FileFormatError(path, problem, _ADVICE) from error
    return critic


def load_seed(folder: Path, spec: Spec) -> tuple[CostCritic, ACSOptions]:
    """Build the critic of a seed, with the bound and the correction that it was trained for.

    Args:
        folder: Of the seed.
        spec: Signals of the robot that is guarded.

    Raises:
        ConfigError: If its method trains no safeguard, or its settings cannot be read.
        SpecMismatch: If the signals are not those of its task.
        FileFormatError: As `load_critic`.
    """
    path = folder / "settings.json"
    stored = read_json(path, advice=_ADVICE)
    settings = overlay(RunSettings("point-hazard", "acs", 1, 0), stored, source=str(path))
    if settings.method not in GUARDED:
        raise ConfigError(str(path), f"{settings.method} trains no safeguard, but {GUARDED} do")
    env = make_env(find_task(settings.task).env)
    try:
        require_same(spec_of(env), spec, left_name=str(folder), right_name="the robot")
        untrained = make_model(untrained_of(settings), DummyVecEnv([lambda: env]))
    finally:
        env.close()
    options: ACSOptions = untrained.safeguard.options  # type: ignore[attr-defined]  # GUARDED
    bound = replace(options.bound, tolerance=settings.eps)  # ACSPPO's own has a schedule
    return load_critic(folder, spec), replace(options, bound=bound)


def restore(folder: Path) -> tuple[RunSettings, BaseAlgorithm]:
    """Build the model of a finished seed again; nothing is unpickled.

    Raises:
        ConfigError: If the folder holds no finished seed with a lower layer that learned.
        FileFormatError: If a file of it cannot be read, or does not fit its settings.
    """
    stored = read_json(folder / "settings.json", advice=SEED_ADVICE)
    settings = overlay(
        RunSettings("point-hazard", "acs", 1, 0), stored, source=str(folder / "settings.json")
    )
    env = DummyVecEnv([lambda: make_env(find_task(settings.task).env)])
    model = make_model(untrained_of(settings), env)
    adopt_lower(model, settings.task, settings.method, folder)
    weights = with_prefix(read_archive(folder / "model.zip"), "policy.")
    try:
        model.policy.load_state_dict(weights)
    except RuntimeError as error:
        problem = f"does not fit ({error})"
        raise FileFormatError(folder / "model.zip", problem, SEED_ADVICE) from error
    return settings, model


def untrained_of(settings: RunSettings) -> RunSettings:
    """Return settings of the same model with the smallest replay buffer and a layer of its own."""
    return replace(settings, steps=1, critic_from="")


def _read_folder(folder: Path) -> Tensors:
    if (folder / "model.zip").exists():
        return read_archive(folder / "model.zip")
    found = checkpoints(folder / "checkpoints")
    if not found:
        raise FileFormatError(folder, "holds neither a model nor a checkpoint", _ADVICE)
    file_digests(found[-1])
    return read_tensors(found[-1] / "policy.safetensors")


def read_archive(path: Path) -> Tensors:
    """Read policy and critics from an archive of `model.save`, named as in `model_state`.

    Raises:
        FileFormatError: If it cannot be read, or its policy has activations of its own.
    """
    tensors: dict[str, Tensor] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            options = json.loads(archive.read("data"))["policy_kwargs"]
            for part in {f"{part}.pth" for part in _PARTS}.intersection(archive.namelist()):
                with archive.open(part) as file:
                    state = torch.load(file, map_location="cpu", weights_only=True)
                tensors |= {f"{part[:-4]}.{name}": tensor for name, tensor in state.items()}
    except pickle.UnpicklingError as error:  # whose message advises to run what is in there
        raise FileFormatError(path, "holds more than tensors, or is damaged", _ADVICE) from error
    except (*_DAMAGED, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(path, f"cannot be read ({error})", _ADVICE) from error
    if "activation_fn" in options:
        raise FileFormatError(path, "has a policy with activations of its own", _ADVICE)
    return tensors


def _policy_critic(tensors: Tensors, spec: Spec) -> PolicyCritic:
    """Return Q_c of ACSTD3 and ACSSAC, with the policy whose value it is."""
    weights = with_prefix(tensors, "lower.learner.critic_target.")
    hidden = _widths(with_prefix(weights, "heads.0."))[1:-1]
    heads = len({name.split(".")[1] for name in weights})
    network = CostNetwork(spec.nx, spec.nu, hidden, heads).requires_grad_(requires_grad=False)
    network.load_state_dict(weights)
    layers = with_prefix(tensors, "policy.actor.mu.")
    before = with_prefix(tensors, "policy.actor.latent_pi.")
    if before:  # SAC: the mean is a layer after these, two entries and one activation each
        layers = before | {f"{len(before)}.{name}": part for name, part in layers.items()}
    actor = perceptron(_widths(layers)).requires_grad_(requires_grad=False)
    actor.load_state_dict(layers)
    low, high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
    half = 0.5 * (high - low)
    return PolicyCritic(network, nn.Sequential(actor, nn.Tanh()), low + half, half)


def _score_network(tensors: Tensors, prefix: str, nx: int, nu: int) -> ScoreNetwork:
    """Return Psi or A_Psi of ACSPPO."""
    weights = with_prefix(tensors, prefix)
    hidden = _widths(with_prefix(weights, "members.0."))[1:-1]
    network = ScoreNetwork(nx, nu, hidden=hidden, generator=torch.Generator()).float()
    network.load_state_dict(weights)
    return network.requires_grad_(requires_grad=False)


def _widths(layers: Tensors) -> tuple[int, ...]:
    """Return the inputs of the first linear layer and the outputs of all."""
    shapes = {
        int(name.split(".")[0]): tensor.shape for name, tensor in layers.items() if tensor.ndim == 2
    }
    ordered = [shapes[index] for index in sorted(shapes)]
    if not ordered:
        raise KeyError("layers")
    return (ordered[0][1], *(shape[0] for shape in ordered))
