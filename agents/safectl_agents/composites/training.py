"""Training of forward kinematics from logs: Adam, Huber loss, folds in time, resumable."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from safectl.errors import ConfigError, RangeError
from safectl.export import Program, torch_network
from safectl.files import new_folder, read_json, write_json
from safectl.seed import torch_generator
from safectl_agents.composites.log import Windows

_ADVICE = "delete the folder and train again"


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How a forward model is trained.

    Raises:
        RangeError: If a number is out of range.
    """

    hidden: tuple[int, ...] = (10, 5)
    """Width of each hidden layer."""
    gated: int = 0
    """Units of a gated first layer; 0 for none."""
    activation: str = "relu"
    """Of the hidden layers: "relu" or "tanh"."""
    output_activation: str = "tanh"
    """Of the last layer: "tanh" or "none"."""
    epochs: int = 60
    """Passes over the data."""
    batch: int = 250
    """Rows per step of Adam."""
    learning_rate: float = 5e-3
    """First step size; it falls to a hundredth along a cosine."""
    huber: float = 0.1
    """Error [unit of y] from which the loss is linear."""
    seed: int = 0
    """Of the first weights and of the order of rows."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "learning_rate", "huber"):
            if not getattr(self, name) > 0:
                raise RangeError(name, value=getattr(self, name), expected="a positive number")
        if self.activation not in _ACTIVATIONS or self.output_activation not in ("tanh", "none"):
            chosen = (self.activation, self.output_activation)
            raise RangeError("activations", value=chosen, expected="relu or tanh, tanh or none")


class Trained(NamedTuple):
    """A network with its root mean square error on rows later than those it was trained on."""

    network: nn.Sequential
    error: float


_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


def make_network(inputs: int, outputs: int, options: TrainingOptions) -> nn.Sequential:
    """Return a network with first weights drawn from the seed."""
    layers: list[nn.Module] = []
    if options.gated:
        layers.append(nn.GRUCell(inputs, options.gated))
        inputs = options.gated
    for width in options.hidden:
        layers += [nn.Linear(inputs, width), _ACTIVATIONS[options.activation]()]
        inputs = width
    layers.append(nn.Linear(inputs, outputs))
    if options.output_activation == "tanh":
        layers.append(nn.Tanh())
    network = nn.Sequential(*layers)
    generator = torch_generator(options.seed, "forward model")
    for parameter in network.parameters():
        scale = 1.0 / max(parameter.shape[-1], 1) ** 0.5 if parameter.ndim == 2 else 0.1
        drawn = torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(scale * drawn)
    return network


class _OneStep(nn.Module):
    """A network that begins with a gated cell without memory, as a sequence of one step."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        cell, *rest = network.children()
        assert isinstance(cell, nn.GRUCell), "make_network puts it first"
        self.gates = nn.GRU(cell.input_size, cell.hidden_size, batch_first=True)
        self.gates.load_state_dict({f"{k}_l0": value for k, value in cell.state_dict().items()})
        self.rest = nn.Sequential(*rest)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of rows (batch, 1, n)."""
        return self.rest(self.gates(x)[0][:, -1])  # type: ignore[no-any-return]  # untyped call


def network_program(network: nn.Sequential) -> Program:
    """Return a network of `make_network` as a program, from which `forward_model_of` reads it."""
    first = next(network.children())
    if isinstance(first, nn.GRUCell):
        return torch_network("kinematics", _OneStep(network), (1, first.input_size))
    assert isinstance(first, nn.Linear), "make_network begins with one of both"
    return torch_network("kinematics", network, (first.in_features,))


def time_folds(rows: int, folds: int) -> list[tuple[range, range]]:
    """Return (training, validation) rows: validation follows training, which grows.

    Raises:
        RangeError: If there are fewer rows than folds and one.
    """
    if not 1 <= folds < rows:
        raise RangeError("folds", value=folds, expected=f"1 to {rows - 1}")
    size = rows // (folds + 1)
    return [
        (range(size * fold), range(size * fold, rows if fold == folds else size * (fold + 1)))
        for fold in range(1, folds + 1)
    ]


def train_forward_model(
    windows: Sequence[Windows],
    options: TrainingOptions,
    *,
    held_out: float = 0.2,
    folder: Path | None = None,
    shows_progress: bool = False,
    after_epoch: Callable[[int, float], None] | None = None,
) -> Trained:
    """Fit y(n) on the first part of each run and measure the error on its end.

    Args:
        windows: One per run.
        options: Network and training.
        held_out: Share at the end of each run that only measures, in (0, 1).
        folder: Where an epoch is saved; a folder of the same options and data is taken up.
        shows_progress: Whether a progress bar is drawn.
        after_epoch: Called with the number of epochs done and the error on the held-out rows, once
            the epoch is saved.

    Raises:
        RangeError: If `held_out` is out of range.
        ConfigError: If the folder belongs to another training.
        StorageError: If it cannot be written.
    """
    if not 0.0 < held_out < 1.0:
        raise RangeError("held_out", value=held_out, expected="a number in (0, 1)")
    early, late = _split(windows, held_out)
    network = make_network(early.inputs.shape[1], early.outputs.shape[1], options)
    optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
    start = 0 if folder is None else _resume(folder, options, early, network, optimizer)
    loss = nn.HuberLoss(delta=options.huber)
    epochs = range(start, options.epochs)
    bar = Console(stderr=True)
    for epoch in track(epochs, "forward model", console=bar, disable=not shows_progress):
        fraction = torch.tensor(torch.pi * epoch / options.epochs)
        rate = options.learning_rate * (0.505 + 0.495 * float(torch.cos(fraction)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        generator = torch_generator(options.seed, f"epoch {epoch}")
        order = torch.randperm(len(early.inputs), generator=generator)
        for first in range(0, len(order), options.batch):
            rows = order[first : first + options.batch]
            optimizer.zero_grad()
            loss(network(early.inputs[rows]), early.outputs[rows]).backward()
            optimizer.step()
        if folder is not None:
            _save(folder, options, early, network, optimizer, epoch + 1)
        if after_epoch is not None:
            after_epoch(epoch + 1, _error(network, late))
    return Trained(network, _error(network, late))


def _split(windows: Sequence[Windows], held_out: float) -> tuple[Windows, Windows]:
    early, late = [], []
    for run in windows:
        kept = round((1.0 - held_out) * len(run.inputs))
        early.append(Windows(*(part[:kept].float() for part in run)))
        late.append(Windows(*(part[kept:].float() for part in run)))
    return _join(early), _join(late)


def _join(windows: Sequence[Windows]) -> Windows:
    return Windows(*(torch.cat(parts) for parts in zip(*windows, strict=True)))


def _error(network: nn.Module, windows: Windows) -> float:
    with torch.no_grad():
        difference: Float[Tensor, "rows p"] = network(windows.inputs) - windows.outputs
    return float(difference.square().mean().sqrt())


def _identity(options: TrainingOptions, windows: Windows) -> dict[str, object]:
    """What a saved epoch must agree on; JSON values only."""
    sums = [float(part.double().sum()) for part in windows]
    return {"options": {key: str(value) for key, value in asdict(options).items()}, "data": sums}


def _save(
    folder: Path,
    options: TrainingOptions,
    windows: Windows,
    network: nn.Module,
    optimizer: torch.optim.Adam,
    epoch: int,
) -> None:
    tensors = dict(network.state_dict())
    for index, state in optimizer.state_dict()["state"].items():
        tensors.update({f"adam.{index}.{key}": value for key, value in state.items()})
    with new_folder(folder, replace=True) as draft:
        save_file(tensors, draft / "epoch.safetensors")
        write_json(draft / "epoch.json", {"epoch": epoch, **_identity(options, windows)})


def _resume(
    folder: Path,
    options: TrainingOptions,
    windows: Windows,
    network: nn.Module,
    optimizer: torch.optim.Adam,
) -> int:
    """Take up a saved epoch; return how many are done."""
    if not folder.exists():
        return 0
    content = read_json(folder / "epoch.json", advice=_ADVICE)
    epoch = int(content.pop("epoch"))
    if content != _identity(options, windows):
        raise ConfigError(str(folder), f"holds a training of other options or data; {_ADVICE}")
    tensors = load_file(folder / "epoch.safetensors")
    names = network.state_dict()
    network.load_state_dict({name: tensors[name] for name in names})
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("adam."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return epoch
