"""A trained diffusion model in a folder, small to ship: averaged weights in half precision."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from safectl.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from safectl.config import overlay, to_mapping
from safectl.errors import FileFormatError
from safectl.planners import Normaliser, PlanModel, cosine_schedule
from safectl.spec import Spec
from safectl_agents.diffusion.settings import DiffuserConfig
from safectl_agents.diffusion.train import make_network


def save_model(
    folder: Path,
    network: nn.Module,
    config: DiffuserConfig,
    normaliser: Normaliser,
    spec: Spec,
    metrics: dict[str, object],
) -> None:
    """Write the averaged network with what is needed to plan.

    Args:
        folder: New or replaced.
        network: Averaged weights.
        config: Settings it was trained with.
        normaliser: Of a transition.
        spec: Signals of the world.
        metrics: How it was trained, JSON values only.

    Raises:
        NonFiniteError: If a weight is not finite in half precision.
        StorageError: If it cannot be written.
    """
    stored = {"diffuser": to_mapping(config), "normaliser": write_normaliser(normaliser)}
    weights = {name: tensor.half() for name, tensor in network.state_dict().items()}
    save_checkpoint(Checkpoint(spec, stored, weights, metrics), folder, replace=True)


def load_model(
    folder: Path, *, device: str = "cpu", captures: bool = True
) -> tuple[PlanModel, DiffuserConfig, Spec]:
    """Read a model.

    Args:
        folder: What `save_model` wrote.
        device: Where it plans: cpu or cuda.
        captures: On a GPU, compile the network and capture it as a CUDA graph.

    Raises:
        FileFormatError: If a file is missing, damaged or holds another kind of model.
    """
    checkpoint = load_checkpoint(folder)
    if "diffuser" not in checkpoint.config:
        raise FileFormatError(
            folder, "holds no diffusion model", "safectl train diffuser makes one"
        )
    config = overlay(DiffuserConfig(), checkpoint.config["diffuser"], source=str(folder))
    normaliser = read_normaliser(checkpoint, folder, device)
    network: nn.Module = make_network(config, len(normaliser.centre))
    try:
        network.load_state_dict({k: v.float() for k, v in checkpoint.weights.items()})
    except RuntimeError as error:
        advice = "name the folder of another model"
        raise FileFormatError(folder, f"has other weights ({error})", advice) from error
    network = network.to(device).eval().requires_grad_(False)
    model = PlanModel(
        _captured(network) if captures and device.startswith("cuda") else network,
        normaliser,
        checkpoint.spec.nu,
        config.horizon,
        cosine_schedule(config.diffusion_steps),
        config.clips,
        checkpoint.spec.period,
    )
    return model, config, checkpoint.spec


def write_normaliser(normaliser: Normaliser) -> dict[str, object]:
    """Return a normaliser as JSON values."""
    return {
        "centre": normaliser.centre.tolist(),
        "scale": normaliser.scale.tolist(),
        "is_bounded": normaliser.is_bounded,
    }


def read_normaliser(checkpoint: Checkpoint, folder: Path, device: str) -> Normaliser:
    """Return the normaliser of a checkpoint.

    Raises:
        FileFormatError: If it has none for its signals.
    """
    width = checkpoint.spec.nu + checkpoint.spec.nx
    try:
        scaling = checkpoint.config["normaliser"]
        centre, scale = (
            torch.tensor(scaling[name], dtype=torch.float32, device=device).reshape(width)
            for name in ("centre", "scale")
        )
        return Normaliser(centre, scale, bool(scaling["is_bounded"]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        problem = f"holds no normaliser of {width} entries ({type(error).__name__}: {error})"
        advice = "train it again, or name the folder of another model"
        raise FileFormatError(folder, problem, advice) from error


def _captured(network: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """Capture the network as a CUDA graph; at batch one a step is launches, not arithmetic."""
    graph = torch.compile(network, mode="reduce-overhead")

    def run(plan: Tensor, step: Tensor) -> Tensor:
        found: Tensor = graph(plan, step).clone()  # the graph writes its next answer over this one
        return found

    return run
