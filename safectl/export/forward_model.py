"""A bare network, from whichever framework it came, as the model of a predictive controller."""

import torch
from torch import Tensor

from safectl.errors import UnsupportedLayer
from safectl.export.kinds.ngpc import ACTIVATIONS
from safectl.export.ops import AnyArray, Op, Recurrence
from safectl.export.program import ACTION, OBSERVATION, Program
from safectl.planners import ForwardModel, Layer

SUPPORTED = ("dense", "activation", "affine", "gru")
_ADVICE = (
    "A predictive controller differentiates a chain of dense layers, activations and single GRU "
    "steps from a zero state; train such a network, or export this one as a network of its own."
)


def forward_model_of(program: Program) -> ForwardModel:
    """Read a program that is a chain of supported layers.

    Args:
        program: A bare network in float32: dense layers, activations of `ACTIVATIONS`, scalings and
            GRU layers that see one step from a zero state.

    Raises:
        UnsupportedLayer: If it holds anything else, or branches; names the operation.
    """
    layers: list[Layer] = []
    value = OBSERVATION
    for op in program.ops:
        if op.inputs != (value,):
            raise _unsupported(op, "does not continue the chain")
        constants = [program.constants[name] for name in op.constants]
        match op.kind:
            case "concat" | "slice" if ACTION in op.outputs:
                pass
            case "dense" if op.rows == 1:
                layers.append(_dense(op, constants))
            case "affine" if op.rows == 1:
                gain, shift = (_tensor(array) for array in constants)
                layers.append(Layer(torch.diag(gain), shift))
            case "activation" if layers and layers[-1].activation == "none":
                before = layers.pop()
                if before.reset_bias is not None:
                    raise _unsupported(op, "follows a GRU")
                layers.append(Layer(before.weight, before.bias, _activation(op)))
            case "gru":
                layers.append(_gated(op, constants))
            case _:
                raise _unsupported(op, "has no derivative here")
        value = op.outputs[0]
    return ForwardModel(tuple(layers))


def _dense(op: Op, constants: list[AnyArray]) -> Layer:
    weight, bias = (_tensor(array) for array in constants)
    return Layer(weight, bias, _activation(op))


def _gated(op: Op, constants: list[AnyArray]) -> Layer:
    """Drop the recurrent weights: they multiply the zero state."""
    detail = op.detail
    assert isinstance(detail, Recurrence)
    if detail.steps != 1 or (op.activation, detail.recurrent_activation) != ("tanh", "sigmoid"):
        raise _unsupported(op, "has several steps or other activations than tanh and sigmoid")
    kernel, bias = _tensor(constants[0]), _tensor(constants[2])
    units = len(kernel) // 3
    reset_bias = _tensor(constants[4]) if detail.reset_after else kernel.new_zeros(units)
    return Layer(kernel, bias, reset_bias=reset_bias)


def _activation(op: Op) -> str:
    if op.activation not in ACTIVATIONS:
        raise _unsupported(op, f"has the activation {op.activation}, not one of {ACTIVATIONS}")
    return op.activation


def _tensor(array: AnyArray) -> Tensor:
    return torch.from_numpy(array.copy()).double()


def _unsupported(op: Op, reason: str) -> UnsupportedLayer:
    layer = f"{op.kind} {op.outputs[0]}, which {reason}"
    return UnsupportedLayer(layer, supported=SUPPORTED, advice=_ADVICE)
