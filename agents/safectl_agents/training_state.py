"""Everything a training run needs to go on, as a folder without pickle.

`state.json` holds counters, spaces and a SHA-256 of every other file; weights and optimisers are
safetensors, the replay buffer is an npz read with `allow_pickle=False`. There is no random state:
every segment between two checkpoints starts from a seed derived from the run's seed and the number
of the segment, and from newly built environments.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from safetensors import SafetensorError
from safetensors.torch import load, save
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import Tensor

from safectl.errors import FileFormatError
from safectl.files import new_folder, read_json
from safectl_agents import model_state
from safectl_agents.guarded import Learner
from safectl_agents.models import make_policy
from safectl_agents.sb3 import Normaliser, SB3Policy, extract
from safectl_agents.settings import TrainConfig

STATE_VERSION = 1
_ADVICE = "delete this folder to go on from the checkpoint before it, or start the run again"


@dataclass(frozen=True, slots=True)
class Counters:
    """Where a run stands.

    Attributes:
        step: Environment steps done.
        segment: Segments between checkpoints done.
        updates: Gradient steps or epochs done, as the model counts them.
        episodes: Episodes done, as the model counts them.
        violations: Steps with a positive cost since step zero.
        episodes_bytes: Size of the episode file.
        interruptions: Steps at which the run was stopped outside its schedule of checkpoints.
    """

    step: int = 0
    segment: int = 0
    updates: int = 0
    episodes: int = 0
    violations: int = 0
    episodes_bytes: int = 0
    interruptions: tuple[int, ...] = ()


def save_state(parent: Path, model: BaseAlgorithm, counters: Counters, *, keep: int) -> Path:
    """Write one checkpoint and delete the oldest beyond `keep`.

    Returns:
        The folder `step-<steps>` inside `parent`.

    Raises:
        NonFiniteError: If a weight is NaN or infinite; nothing is written.
        StorageError: If it cannot be written; the checkpoints before it are untouched.
    """
    weights = model_state.weights(model)
    target = parent / f"step-{counters.step:010d}"
    with new_folder(target, replace=True) as draft:
        (draft / "policy.safetensors").write_bytes(save(weights))
        optimizers = save(model_state.optimizer_state(model))
        (draft / "optimizers.safetensors").write_bytes(optimizers)
        normaliser = save(model_state.normaliser_state(model))
        (draft / "normaliser.safetensors").write_bytes(normaliser)
        learner = model_state.learner_of(model)
        if learner is not None:
            (draft / "safeguard.safetensors").write_bytes(save(learner.state()))
        if isinstance(model, OffPolicyAlgorithm):
            with (draft / "replay.npz").open("wb") as file:
                np.savez(file, allow_pickle=False, **model_state.replay_state(model))
        state = {
            "version": STATE_VERSION,
            "counters": asdict(counters),
            "spaces": {
                "observation": _space_to_json(model.observation_space),
                "action": _space_to_json(model.action_space),
            },
            "sha256": digests_of(draft),
        }
        (draft / "state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    for old in checkpoints(parent)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints(parent: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    return sorted(parent.glob("step-*"))


def discard_drafts(parent: Path) -> None:
    """Delete what saves left behind that were killed."""
    for draft in parent.glob(".step-*"):
        shutil.rmtree(draft, ignore_errors=True)


def load_counters(folder: Path) -> Counters:
    """Read where a run stood at a checkpoint, and check every file of it.

    Raises:
        FileFormatError: If a file is missing, truncated or altered.
    """
    state = verified(folder)
    try:
        row = state["counters"]
        return Counters(**{**row, "interruptions": tuple(row["interruptions"])})
    except (KeyError, TypeError) as error:
        raise FileFormatError(folder, f"holds no counters ({error})", _ADVICE) from error


def load_model(folder: Path, model: BaseAlgorithm, counters: Counters) -> None:
    """Fill a model, its normaliser and its replay buffer, newly built from the same settings.

    Raises:
        FileFormatError: If the checkpoint is of another model.
    """
    try:
        model_state.load_weights(model, _part(folder, "policy"))
        model_state.load_optimizers(model, _part(folder, "optimizers"))
        model_state.load_normaliser(model, _part(folder, "normaliser"))
        learner = model_state.learner_of(model)
        if learner is not None:
            learner.load_state(_part(folder, "safeguard"))
        if isinstance(model, OffPolicyAlgorithm):
            with np.load(folder / "replay.npz", allow_pickle=False) as arrays:
                model_state.load_replay(model, arrays)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise FileFormatError(folder, f"does not fit the settings ({error})", _ADVICE) from error
    model.num_timesteps = counters.step
    model._n_updates = counters.updates
    model._episode_num = counters.episodes


def load_policy(folder: Path, config: TrainConfig) -> SB3Policy:
    """Read the deterministic actor of a checkpoint, without environments.

    Args:
        folder: One checkpoint.
        config: Settings of its run.

    Raises:
        FileFormatError: If a file is missing, truncated, altered or of another model.
    """
    state = verified(folder)
    try:
        spaces = {name: _space_from_json(row) for name, row in state["spaces"].items()}
        with torch.random.fork_rng(devices=[]):
            policy = make_policy(config, spaces["observation"], spaces["action"])
        tensors = _part(folder, "policy")
        policy.load_state_dict(model_state.with_prefix(tensors, "policy."))
        return extract(policy, _normaliser(_part(folder, "normaliser")))
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise FileFormatError(folder, f"does not fit the settings ({error})", _ADVICE) from error


def load_learner(folder: Path, learner: Learner) -> None:
    """Give a newly made safeguard what it had learned at a checkpoint.

    Raises:
        FileFormatError: If the checkpoint holds nothing learned, or that of another safeguard.
    """
    verified(folder)
    learner.load_state(_part(folder, "safeguard"))


def _normaliser(tensors: Mapping[str, Tensor]) -> Normaliser | None:
    if "observation.mean" not in tensors:
        return None
    return Normaliser(
        tensors["observation.mean"].float(),
        tensors["observation.var"].float(),
        float(tensors["epsilon"]),
        float(tensors["clip"]),
    )


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a checkpoint, checked.

    Raises:
        FileFormatError: If a file is missing, truncated or altered.
    """
    return dict(verified(folder)["sha256"])


def digests_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a checkpoint that is being written."""
    return {path.name: digest(path) for path in sorted(folder.iterdir())}


def verified(folder: Path) -> dict[str, Any]:
    """Read `state.json` and compare the digest of every file it names.

    Raises:
        FileFormatError: If a file is missing, truncated or altered.
    """
    state = read_json(folder / "state.json", advice=_ADVICE)
    if state.get("version") != STATE_VERSION:
        problem = f"has version {state.get('version')}, this program reads {STATE_VERSION}"
        raise FileFormatError(folder, problem, _ADVICE)
    digests = state.get("sha256")
    if not isinstance(digests, dict):
        raise FileFormatError(folder / "state.json", "names no files", _ADVICE)
    for name, expected in digests.items():
        path = folder / name
        if not path.is_file():
            raise FileFormatError(path, "does not exist", _ADVICE)
        if digest(path) != expected:
            raise FileFormatError(path, "is truncated or altered", _ADVICE)
    return state


def _part(folder: Path, name: str) -> dict[str, Tensor]:
    return read_tensors(folder / f"{name}.safetensors")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        FileFormatError: If it is missing, truncated or something else.
    """
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise FileFormatError(path, f"cannot be read ({error})", _ADVICE) from error


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _space_to_json(space: object) -> dict[str, Any]:
    assert isinstance(space, Box), "spaces are boxes, checked when the environments were made"
    return {"low": space.low.tolist(), "high": space.high.tolist(), "dtype": str(space.dtype)}


def _space_from_json(row: Mapping[str, Any]) -> Box:
    dtype = np.dtype(row["dtype"]).type
    return Box(np.array(row["low"], dtype=dtype), np.array(row["high"], dtype=dtype), dtype=dtype)
