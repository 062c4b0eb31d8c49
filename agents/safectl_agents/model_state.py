"""The state of a stable-baselines3 model as named tensors and arrays, both ways, without pickle.

Loading fills a model that was newly built from the same settings; whatever does not fit raises
`KeyError`, `ValueError` or `RuntimeError`, which `training_state` turns into a message.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import VecNormalize, unwrap_vec_wrapper
from torch import Tensor, nn

from safectl.errors import NonFiniteError
from safectl_agents.guarded import GuardedVecEnv, Learner
from safectl_agents.sb3 import observation_statistics

_REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def weights(model: BaseAlgorithm) -> dict[str, Tensor]:
    """Return weights by the names stable-baselines3 saves them under, and single variables.

    Raises:
        NonFiniteError: If a weight is NaN or infinite.
    """
    modules, variables = model._get_torch_save_params()
    tensors: dict[str, Tensor] = {}
    for name in modules:
        part = recursive_getattr(model, name)
        if isinstance(part, nn.Module):
            entries = part.state_dict().items()
            tensors.update({f"{name}.{key}": _saved(value) for key, value in entries})
    for name in variables:
        tensors[f"variable.{name}"] = _saved(recursive_getattr(model, name))
    for name, tensor in tensors.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            advice = "training diverged: lower the learning rate or normalise the rewards"
            raise NonFiniteError(f"weight {name}", count=bad, size=tensor.numel(), advice=advice)
    return tensors


def load_weights(model: BaseAlgorithm, tensors: Mapping[str, Tensor]) -> None:
    """Set what `weights` returned."""
    modules, variables = model._get_torch_save_params()
    for name in modules:
        part = recursive_getattr(model, name)
        if isinstance(part, nn.Module):
            part.load_state_dict(with_prefix(tensors, f"{name}."))
    for name in variables:
        with torch.no_grad():
            recursive_getattr(model, name).copy_(tensors[f"variable.{name}"])


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    chosen = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors[name] for name in chosen}


def optimizer_state(model: BaseAlgorithm) -> dict[str, Tensor]:
    """Return moments and step counts; the settings of the optimisers are in the configuration."""
    return {
        f"{name}/{index}/{key}": _saved(value)
        for name, optimizer in _optimizers(model).items()
        for index, entries in optimizer.state_dict()["state"].items()
        for key, value in entries.items()
    }


def load_optimizers(model: BaseAlgorithm, tensors: Mapping[str, Tensor]) -> None:
    """Set what `optimizer_state` returned."""
    for name, optimizer in _optimizers(model).items():
        state: dict[int, dict[str, Tensor]] = {}
        for path, tensor in tensors.items():
            owner, index, key = path.split("/")
            if owner == name:
                state.setdefault(int(index), {})[key] = tensor
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def normaliser_state(model: BaseAlgorithm) -> dict[str, Tensor]:
    """Return the running statistics of a model's environment in float64; empty without any."""
    env = model.get_vec_normalize_env()
    if env is None:
        return {}
    tensors = {"epsilon": _float64(env.epsilon), "clip": _float64(env.clip_obs)}
    for name, statistics in _statistics(env).items():
        tensors[f"{name}.mean"] = _float64(statistics.mean)
        tensors[f"{name}.var"] = _float64(statistics.var)
        tensors[f"{name}.count"] = _float64(statistics.count)
    return tensors


def load_normaliser(model: BaseAlgorithm, tensors: Mapping[str, Tensor]) -> None:
    """Set what `normaliser_state` returned."""
    env = model.get_vec_normalize_env()
    if env is None:
        return
    for name, statistics in _statistics(env).items():
        statistics.mean = tensors[f"{name}.mean"].numpy().copy()
        statistics.var = tensors[f"{name}.var"].numpy().copy()
        statistics.count = float(tensors[f"{name}.count"])


def learner_of(model: BaseAlgorithm) -> Learner | None:
    """Return the safeguard around a model's environments, if it learns."""
    env = model.get_env()
    guarded = None if env is None else unwrap_vec_wrapper(env, GuardedVecEnv)
    return None if guarded is None else guarded.learner


def replay_state(model: OffPolicyAlgorithm) -> dict[str, NDArray[Any]]:
    """Return the filled rows of the replay buffer and its position, without copying them."""
    buffer = model.replay_buffer
    assert buffer is not None, "every off-policy model has one"
    names = (*_REPLAY, *getattr(buffer, "saved_rows", ()))
    rows = {name: getattr(buffer, name)[: buffer.size()] for name in names}
    return {**rows, "position": np.array([buffer.pos, int(buffer.full)])}


def load_replay(model: OffPolicyAlgorithm, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Set what `replay_state` returned."""
    buffer = model.replay_buffer
    assert buffer is not None, "every off-policy model has one"
    for name in (*_REPLAY, *getattr(buffer, "saved_rows", ())):
        rows = arrays[name]
        getattr(buffer, name)[: len(rows)] = rows
    position, full = arrays["position"].tolist()
    buffer.pos, buffer.full = position, bool(full)


def _optimizers(model: BaseAlgorithm) -> dict[str, torch.optim.Optimizer]:
    parts = {name: recursive_getattr(model, name) for name in model._get_torch_save_params()[0]}
    return {name: part for name, part in parts.items() if isinstance(part, torch.optim.Optimizer)}


def _statistics(env: VecNormalize) -> dict[str, RunningMeanStd]:
    found = {"return": env.ret_rms}
    if env.norm_obs:
        found["observation"] = observation_statistics(env)
    return found


def _saved(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


def _float64(value: float | NDArray[Any]) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
