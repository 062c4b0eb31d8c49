"""A cost critic that was trained before the first step, so that the guard can start with it.

The violations that taught it were made elsewhere, in an earlier run. They are not training
violations of the new one, and whoever reports those says where the critic comes from.
"""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from safectl.errors import ConfigError
from safectl.files import new_file, read_json
from safectl_agents import model_state

_FILE = "lower.safetensors"
_ADVICE = "name the folder of a finished seed of the same task and method"


def save_lower(model: BaseAlgorithm, folder: Path) -> None:
    """Write networks, slow copies and optimisers of the lower layer, if it has any.

    Raises:
        NonFiniteError: If a weight is NaN or infinite.
        StorageError: If the file cannot be written.
    """
    weights, optimizers = _lower(model)
    if weights:
        with new_file(folder / _FILE) as draft:
            draft.write_bytes(save({**weights, **optimizers}))


def adopt_lower(model: BaseAlgorithm, task: str, method: str, folder: Path) -> None:
    """Fill the lower layer of a new model with that of a finished seed; nothing is unpickled.

    Args:
        model: Its layer corrects from step 0: `ConstraintSettings(guard_from=0)`.
        task: What it is trained on; a critic of another task says nothing of its costs.
        method: Its name; the same method means the same algorithm and target of the critic.
        folder: Of the finished seed.

    Raises:
        ConfigError: If the folder holds no finished seed of this task and method, or layers of
            other sizes.
        FileFormatError: If its result cannot be read.
    """
    source = str(folder)
    if not (folder / "result.json").exists():
        raise ConfigError(source, f"holds no finished seed; {_ADVICE}")
    theirs = read_json(folder / "result.json", advice=_ADVICE).get("settings", {})
    for name, ours in (("method", method), ("task", task)):
        if theirs.get(name) != ours:
            problem = f"is of {name} {theirs.get(name)!r}, not {ours!r}; {_ADVICE}"
            raise ConfigError(source, problem)
    try:
        found = load_file(folder / _FILE)
    except (OSError, SafetensorError) as error:
        raise ConfigError(source, f"holds no learned layer ({error}); {_ADVICE}") from error
    layer, _ = _lower(model)
    weights = {name: tensor for name, tensor in found.items() if "/" not in name}
    if _sizes(layer) != _sizes(weights):
        raise ConfigError(source, "its layer has other sizes; name a seed of the same task")
    optimizers = {name: tensor for name, tensor in found.items() if "/" in name}
    model_state.load_weights(model, {**model_state.weights(model), **weights})
    model_state.load_optimizers(model, {**model_state.optimizer_state(model), **optimizers})


def _lower(model: BaseAlgorithm) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return weights and optimisers; only names of optimisers' entries hold a slash."""
    weights = model_state.with_prefix(model_state.weights(model), "lower.")
    optimizers = model_state.with_prefix(model_state.optimizer_state(model), "lower.")
    return (
        {f"lower.{name}": tensor for name, tensor in weights.items()},
        {f"lower.{name}": tensor for name, tensor in optimizers.items()},
    )


def _sizes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
