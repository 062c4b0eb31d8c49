"""Random networks over all layers, each as a torch module and as programs in three formats."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from safectl.export import (
    Program,
    interpret,
    quantise_with_bound,
    torch_network,
)
from safectl.export.ops import Array

_ROWS = 48  # observations per network: calibration and comparison
_FLOAT_BOUND = 1e-5  # of the largest output above one
_ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, lambda: nn.LeakyReLU(0.1), nn.ELU, nn.SELU, nn.Softplus, nn.Softsign),
    *(nn.Tanh, nn.Sigmoid, nn.Hardsigmoid, nn.SiLU, nn.GELU, lambda: nn.GELU("tanh")),
    *(nn.Hardswish, nn.Identity, lambda: nn.Hardtanh(-0.7, 0.9)),
)


@dataclass(frozen=True, slots=True, eq=False)
class RandomNetwork:
    """One network and how far its formats are from torch.

    Attributes:
        programs: Float, 8-bit and 16-bit.
        float_difference: Largest |interpreter - torch|, over the largest output above one.
        bound_shares: Largest difference of each quantised program from the float one over its
            bound, at most one; zero where there is no bound.
    """

    programs: tuple[Program, Program, Program]
    float_difference: float
    bound_shares: tuple[float, float]


def random_network(seed: int) -> RandomNetwork:
    """Draw a network and compare its programs on observations of its own."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    build = _FAMILIES[seed % len(_FAMILIES)]
    module, shape = build(rng)
    _draw(module)
    program = torch_network(f"net_{seed}", module, shape)
    rows = rng.standard_normal((_ROWS, program.spec.nx)).astype(np.float32)
    found = interpret(program, rows).action
    with torch.no_grad():
        batch = torch.from_numpy(rows).reshape(-1, *shape)
        expected = torch.cat([module(row[None]).reshape(1, -1) for row in batch]).numpy()
    scale = max(1.0, float(np.abs(expected).max()))
    eight, sixteen = (_quantised(program, rows, found, bits) for bits in (8, 16))
    return RandomNetwork(
        (program, eight[0], sixteen[0]),
        float(np.abs(found - expected).max()) / scale,
        (eight[1], sixteen[1]),
    )


def _quantised(program: Program, rows: Array, found: Array, bits: int) -> tuple[Program, float]:
    quantised = quantise_with_bound(program, rows, bits=bits)
    difference = np.abs(interpret(quantised.program, rows).action - found)
    share = float((difference / quantised.bound).max())
    return replace(quantised.program, name=f"{program.name}_{bits}"), share


def float_bound() -> float:
    """Return the largest float difference that is allowed."""
    return _FLOAT_BOUND


class _Residual(nn.Module):
    """x + f(x), joined with g(x) and gated."""

    def __init__(self, inner: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.inner, self.other = inner, other

    def forward(self, x: Tensor) -> Tensor:
        """Return the joined branches."""
        return torch.cat([x + self.inner(x), torch.sigmoid(x) * x, self.other(x)], dim=1)


class _Recurrent(nn.Module):
    """A recurrent layer over a sequence, and a head on its last state."""

    def __init__(self, memory: nn.RNNBase, head: nn.Module) -> None:
        super().__init__()
        self.memory, self.head = memory, head

    def forward(self, x: Tensor) -> Tensor:
        """Return the head of the last step."""
        return self.head(self.memory(x)[0][:, -1])  # type: ignore[no-any-return]  # untyped call


_Built = tuple[nn.Module, tuple[int, ...]]


def _pick(rng: np.random.Generator, options: Sequence[Callable[[], nn.Module]]) -> nn.Module:
    return options[int(rng.integers(len(options)))]()


def _size(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def _perceptron(rng: np.random.Generator) -> _Built:
    sizes = [_size(rng, 1, 18) for _ in range(_size(rng, 2, 5))]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers.append(nn.Linear(inputs, outputs, bias=bool(rng.integers(2))))
        if rng.random() < 0.3:
            layers.append(nn.BatchNorm1d(outputs))
        if rng.random() < 0.2 and outputs > 1:
            layers.append(nn.LayerNorm(outputs))
        layers += [_pick(rng, _ACTIVATIONS), nn.Dropout(0.2)]
    if rng.random() < 0.3:
        layers.append(nn.Softmax(-1))
    return nn.Sequential(*layers), (sizes[0],)


def _image(rng: np.random.Generator) -> _Built:
    channels, size = _size(rng, 1, 4), _size(rng, 9, 10)
    layers: list[nn.Module] = []
    inputs = channels
    for number in range(_size(rng, 1, 2)):
        groups = inputs if rng.random() < 0.3 else 1
        outputs = inputs * 2 if groups > 1 else _size(rng, 1, 9)
        layers.append(
            nn.Conv2d(
                inputs,
                outputs,
                (_size(rng, 1, 3), _size(rng, 1, 3)),
                stride=1 if number else _size(rng, 1, 2),
                padding=_size(rng, 0, 1),
                groups=groups,
            )
        )
        if rng.random() < 0.4:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(_pick(rng, _ACTIVATIONS))
        inputs = outputs
    layers.append(_pick(rng, (lambda: nn.MaxPool2d(2, padding=1), lambda: nn.AvgPool2d(2, 1))))
    body = nn.Sequential(*layers, nn.Flatten())
    flat = body.eval()(torch.zeros(1, channels, size, size)).shape[1]
    return nn.Sequential(body, nn.Linear(flat, _size(rng, 1, 6))), (channels, size, size)


def _signals(rng: np.random.Generator) -> _Built:
    channels, steps, width = _size(rng, 1, 5), _size(rng, 8, 14), _size(rng, 1, 8)
    kernel, spread = _size(rng, 1, 3), _size(rng, 1, 2)
    body = nn.Sequential(
        nn.Conv1d(channels, width, kernel, dilation=spread, padding=_size(rng, 0, 2)),
        _pick(rng, _ACTIVATIONS),
        nn.MaxPool1d(2),
        nn.Conv1d(width, width, 2),
        _pick(rng, _ACTIVATIONS),
        nn.Flatten(),
    )
    flat = body(torch.zeros(1, channels, steps)).shape[1]
    return nn.Sequential(body, nn.Linear(flat, _size(rng, 1, 5))), (channels, steps)


def _memory(rng: np.random.Generator) -> _Built:
    features, units, steps = _size(rng, 1, 6), _size(rng, 1, 9), _size(rng, 1, 6)
    kinds = (nn.RNN, nn.GRU, nn.LSTM)
    both = bool(rng.integers(2))
    layers = _size(rng, 1, 2)
    memory = kinds[int(rng.integers(3))](
        features, units, layers, batch_first=True, bidirectional=both
    )
    head = nn.Sequential(nn.Linear(units * (1 + both), _size(rng, 1, 8)), _pick(rng, _ACTIVATIONS))
    return _Recurrent(memory, head), (steps, features)


def _branches(rng: np.random.Generator) -> _Built:
    size, hidden = _size(rng, 2, 10), _size(rng, 1, 8)
    inner = nn.Sequential(
        nn.Linear(size, hidden), _pick(rng, _ACTIVATIONS), nn.Linear(hidden, size)
    )
    other = nn.Sequential(nn.Linear(size, hidden), _pick(rng, _ACTIVATIONS))
    first = nn.Linear(size, size)
    joined = _Residual(inner, other)
    return nn.Sequential(
        first, nn.ReLU(), joined, nn.Linear(2 * size + hidden, _size(rng, 1, 5))
    ), (size,)


_FAMILIES = (_perceptron, _image, _signals, _memory, _branches)


def _draw(module: nn.Module) -> None:
    """Draw weights that keep the size of what passes, and statistics of the normalisations."""
    for parameter in module.parameters():
        inputs = parameter[0].numel() if parameter.ndim > 1 else 4
        nn.init.normal_(parameter, std=1.0 / math.sqrt(inputs))
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean = 0.3 * torch.randn(layer.num_features)
            layer.running_var = 0.5 + 1.5 * torch.rand(layer.num_features)
    module.eval()
