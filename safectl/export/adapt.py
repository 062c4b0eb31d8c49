"""Networks that adapt to sensor drift on the device, as programs.

The observation is the network's input followed by the measured target; the action is the prediction
before the sample is learned. Nothing limits the action: these are models, not controllers.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from safectl.errors import RangeError, UnsupportedLayer
from safectl.export.kinds.adapt import ACTIVATIONS
from safectl.export.kinds.forward_gradient import require_no_overflow
from safectl.export.ops import AnyArray, ForwardGradient, Op
from safectl.export.program import (
    ACTION,
    FAIL_SAFE,
    OBSERVATION,
    Program,
    State,
    network_spec,
)
from safectl.planners import ForwardModel

_MEMORY, _FOLLOWING, _START = "memory", "memory_next", "memory_start"
_ONE = 4096.0  # of Q4.12


@dataclass(frozen=True, slots=True)
class InputAdaptation:
    """How gains and offsets of the inputs follow a Kalman filter."""

    noise: float = 1e-3
    """Variance of a measured target, units of the target squared."""
    spread: float = 0.1
    """Variance of gains and offsets before the first sample."""
    band: float = 0.0
    """Innovation up to which nothing is learned."""
    clip: float = 2.0
    """Innovation from which a sample is rejected."""
    window: int = 200
    """Samples after which an adaptation that predicts worse than the factory values is undone."""


def adapting_inputs_program(
    name: str, model: ForwardModel, options: InputAdaptation | None = None
) -> Program:
    """Export a network whose input gains and offsets adapt; memory 5 n + 2 floats.

    Raises:
        RangeError: If the layers are not dense with one activation of `ACTIVATIONS`.
    """
    options = options or InputAdaptation()
    activation, n = _activation(model), model.inputs
    start = np.zeros(5 * n + 2)
    start[:n], start[2 * n : 4 * n] = 1.0, options.spread
    settings = [options.noise, options.band, options.clip, float(options.window)]
    constants = {"settings": np.array(settings), _START: start, **_layers(model, len(model.layers))}
    return _program(name, model, "adapt_inputs", constants, activation)


def adapting_output_program(
    name: str, model: ForwardModel, *, forgetting: float = 0.999, spread: float = 10.0
) -> Program:
    """Export a network whose last layer adapts by recursive least squares.

    Args:
        name: Lower-case C identifier.
        model: At least two dense layers with one activation.
        forgetting: Weight of a sample relative to the next one, in (0, 1].
        spread: Variance of the weights before the first sample.

    Raises:
        RangeError: If the layers are not so, or forgetting is out of range.
    """
    if not 0.0 < forgetting <= 1.0:
        raise RangeError("forgetting", value=forgetting, expected="a number in (0, 1]")
    if len(model.layers) < 2:
        raise RangeError("layers", value=1, expected="a hidden layer before the one that adapts")
    last = model.layers[-1]
    covariance = spread * np.eye(last.inputs + 1)
    parts = [last.weight.numpy(), last.bias.numpy(), covariance]
    start = np.concatenate([part.ravel() for part in parts])
    constants = {"settings": np.array([forgetting]), **_layers(model, len(model.layers) - 1)}
    return _program(name, model, "adapt_output", constants, _activation(model), start=start)


def adapting_forward_program(
    name: str, model: ForwardModel, options: ForwardGradient | None = None, *, seed: int = 1
) -> Program:
    """Export a network in Q4.12 whose input gains and offsets adapt by two-point gradients.

    Args:
        name: Lower-case C identifier.
        model: Dense layers with tanh or no activation.
        options: Perturbation, shift and limits; their `is_tanh` is taken from the model.
        seed: Of the directions, 1 to 2^32 - 1.

    Raises:
        RangeError: If a weight does not fit, a sum could overflow or the seed is out of range.
        UnsupportedLayer: If a layer is not dense with tanh or no activation.
    """
    if not 1 <= seed < 2**32:
        raise RangeError("seed", value=seed, expected="1 to 2^32 - 1")
    kinds = [layer.activation for layer in model.layers]
    if any(layer.reset_bias is not None for layer in model.layers) or not set(kinds) <= {
        "tanh",
        "none",
    }:
        advice = "Train the model with tanh."
        raise UnsupportedLayer(str(kinds), supported=("tanh", "none"), advice=advice)
    constants: dict[str, AnyArray] = {}
    for key, array in _layers(model, len(model.layers)).items():
        scaled = np.rint(_ONE * array)
        if np.abs(scaled).max() > np.iinfo(np.int16).max:
            raise RangeError(key, value=float(np.abs(array).max()), expected="magnitudes below 8")
        constants[key] = scaled.astype(np.int16)
    arrays = list(constants.values())
    require_no_overflow(list(zip(arrays[::2], arrays[1::2], strict=True)))
    given = options or ForwardGradient()
    detail = ForwardGradient(
        tuple(kind == "tanh" for kind in kinds), given.exponent, given.shift, given.band, given.clip
    )
    n = model.inputs
    start = np.zeros(2 * n + 3)
    start[:n], start[2 * n], start[2 * n + 1] = _ONE, seed >> 16, seed & 0xFFFF
    return _program(name, model, "adapt_forward", constants, "none", start=start, detail=detail)


def _activation(model: ForwardModel) -> str:
    kinds = {layer.activation for layer in model.layers}
    is_dense = all(layer.reset_bias is None for layer in model.layers)
    if len(kinds) != 1 or not is_dense or not kinds <= set(ACTIVATIONS):
        expected = f"dense layers with one of {ACTIVATIONS}"
        raise RangeError("activations", value=sorted(kinds), expected=expected)
    return kinds.pop()


def _layers(model: ForwardModel, count: int) -> dict[str, npt.NDArray[np.float64]]:
    constants = {}
    for index, layer in enumerate(model.layers[:count]):
        constants[f"layer_{index}_weight"] = layer.weight.to(torch.float64).numpy()
        constants[f"layer_{index}_bias"] = layer.bias.to(torch.float64).numpy()
    return constants


def _program(
    name: str,
    model: ForwardModel,
    kind: str,
    constants: dict[str, AnyArray],
    activation: str,
    *,
    start: npt.NDArray[np.float64] | None = None,
    detail: ForwardGradient | None = None,
) -> Program:
    op = Op(
        kind,
        (OBSERVATION, _MEMORY),
        (ACTION, _FOLLOWING),
        tuple(constants),
        activation=activation,
        detail=detail,
    )
    stored = {**constants, FAIL_SAFE: np.zeros(model.outputs)}
    if start is not None:
        stored[_START] = start
    spec = network_spec(model.inputs + model.outputs, model.outputs)
    return Program(name, spec, (op,), stored, {_MEMORY: State(_START, _FOLLOWING)})
