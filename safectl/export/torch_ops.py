"""What each torch operation adds to a program; everything else is an error that names its layer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from safectl.export.ops import Op
from safectl.export.program import FLOAT32_MAX
from safectl.export.torch_graph import Importer, Numbers, numbers, operation, unsupported
from safectl.export.torch_layers import (
    adaptive_pool,
    batch_norm,
    convolution,
    layer_norm,
    linear,
    mean,
    pool,
)
from safectl.export.torch_recurrent import recurrent
from safectl.export.torch_value import Traced, traced

Handler = Callable[[Importer, Node, Sequence[Any]], Any]

VIEWS = frozenset(
    (
        *("view", "reshape", "flatten", "permute", "transpose", "t", "squeeze", "unsqueeze"),
        *("select", "slice", "expand", "repeat", "chunk", "split", "split_with_sizes", "flip"),
        *("narrow", "unbind", "unflatten", "movedim", "roll", "swapaxes", "tile", "_unsafe_view"),
        *("contiguous", "clone", "detach", "alias", "expand_as", "view_as", "numpy_T"),
    )
)
"""Operations that only rearrange; they are applied to the places of the entries."""
_UNCHANGED = ("dropout", "feature_dropout", "alpha_dropout", "_to_copy", "to")
_PLAIN = {
    "relu": "relu",
    "relu6": "relu6",
    "selu": "selu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "hardsigmoid": "hard_sigmoid_v3",
    "exp": "exponential",
    "silu": "swish",
}
_RECURRENT = ("rnn_tanh", "rnn_relu", "gru", "lstm")
_POOLS = ("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d")


def apply(importer: Importer, node: Node, arguments: Sequence[Any], options: dict[str, Any]) -> Any:  # noqa: ANN401
    """Append one node that reads a traced tensor, and return its result.

    Raises:
        UnsupportedLayer: If it has no meaning as a program.
    """
    name = operation(node)
    if name in _UNCHANGED:
        return arguments[0]
    if name in VIEWS:
        return _view(node, arguments, options)
    if name not in _HANDLERS:
        raise unsupported(node, "Replace it by supported layers, or end the module before it.")
    if name == "gelu" or options:
        arguments = _with_options(node, arguments, options)
    return _HANDLERS[name](importer, node, arguments)


def _with_options(node: Node, arguments: Sequence[Any], options: dict[str, Any]) -> list[Any]:
    """Return the arguments in the order of the operation's schema, defaults filled in."""
    assert isinstance(node.target, torch._ops.OpOverload)
    rest = node.target._schema.arguments[len(arguments) :]
    return [*arguments, *(options.get(a.name, a.default_value) for a in rest)]


def _view(node: Node, arguments: Sequence[Any], options: dict[str, Any]) -> Any:  # noqa: ANN401
    x = arguments[0]
    rest = [torch.from_numpy(a.index) if isinstance(a, Traced) else a for a in arguments[1:]]
    assert callable(node.target)
    result = node.target(torch.from_numpy(np.ascontiguousarray(x.index)), *rest, **options)
    if isinstance(result, torch.Tensor):
        return Traced(x.value, result.numpy())
    return tuple(Traced(x.value, part.numpy()) for part in result)


def _activate(importer: Importer, x: Traced, kind: str, alpha: float | None = None) -> Traced:
    x = importer.whole(x)
    value = importer.tracer.activation(x.value, kind, alpha=alpha, name=importer.fresh())
    return Traced(value, x.index)


def _plain(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    return _activate(importer, arguments[0], _PLAIN[operation(node)])


def _gelu(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    del node
    return _activate(importer, arguments[0], "gelu_tanh" if arguments[1] == "tanh" else "gelu")


def _leaky_relu(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    del node
    return _activate(importer, arguments[0], "leaky_relu", ([*arguments, 0.01])[1])


def _elu(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    defaults: list[Any] = [None, 1.0, 1.0, 1.0]
    x, alpha, scale, inner = [*arguments, *defaults[len(arguments) :]]
    if (scale, inner) != (1, 1):
        raise unsupported(node, "Use ELU without scales.")
    return _activate(importer, x, "elu", float(alpha))


def _softplus(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    if len(arguments) > 1 and arguments[1] != 1:
        raise unsupported(node, "Use beta=1.")
    return _activate(importer, arguments[0], "softplus")


def _softmax(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    del node
    x, axis = arguments[0], arguments[1] % len(arguments[0].shape)
    turned = np.moveaxis(x.index, axis, -1)
    value = importer.tracer.activation(
        importer.arranged(x, turned),
        "softmax",
        rows=turned.size // turned.shape[-1],
        name=importer.fresh(),
    )
    return traced(value, turned.shape).moved(lambda index: np.moveaxis(index, -1, axis))


def _prelu(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    slopes = numbers(arguments[1])
    if slopes.size != 1:
        raise unsupported(node, "Use PReLU with one parameter.")
    return _activate(importer, arguments[0], "leaky_relu", float(slopes.ravel()[0]))


def _hardswish(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    del node
    return _product(importer, arguments[0], _activate(importer, arguments[0], "hard_sigmoid_v3"))


def _mish(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    del node
    inner = _activate(importer, arguments[0], "softplus")
    return _product(importer, arguments[0], _activate(importer, inner, "tanh"))


def _abs(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    del node
    x = importer.whole(arguments[0])
    return Traced(importer.tracer.op(Op("abs", (x.value,), (importer.fresh(),))), x.index)


def _clamp(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    is_hardtanh = operation(node) == "hardtanh"
    defaults: list[Any] = [None, -1.0, 1.0] if is_hardtanh else [None, None, None]
    x, low, high = [*arguments, *defaults[len(arguments) :]]
    x, name = importer.whole(x), importer.fresh()
    if (low, high) == (0, 6):
        return _activate(importer, x, "relu6")
    size = x.index.size
    ends = (-FLOAT32_MAX if low is None else low, FLOAT32_MAX if high is None else high)
    constants = tuple(
        importer.tracer.constant(f"{name}_{side}", np.full(size, float(end)))
        for side, end in zip(("low", "high"), ends, strict=True)
    )
    return Traced(importer.tracer.op(Op("clip", (x.value,), (name,), constants)), x.index)


def _affine(importer: Importer, x: Traced, gain: Numbers | float, shift: Numbers | float) -> Traced:
    """Append gain x + shift with one number per repeating part of the value."""
    shape = np.broadcast_shapes(x.shape, np.shape(gain), np.shape(shift))
    x = importer.whole(x.moved(lambda index: np.broadcast_to(index, shape)))
    flat = x.index.ravel()
    arrays = []
    for constant in (gain, shift):
        array = np.empty(flat.size)
        array[flat] = np.broadcast_to(constant, shape).ravel()
        arrays.append(array)
    period = _period(np.stack(arrays))
    parts = (array[:period] for array in arrays)
    value = importer.tracer.scale_shift(x.value, *parts, name=importer.fresh())
    return Traced(value, x.index)


def _period(rows: Numbers) -> int:
    """Return the smallest length of which all rows are repetitions."""
    size = rows.shape[1]
    return next(
        length
        for length in range(1, size + 1)
        if size % length == 0
        and (rows.reshape(len(rows), -1, length) == rows[:, None, :length]).all()
    )


def _batch_norm(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    if arguments[5]:
        raise unsupported(node, "Call eval() on it, so that it uses its stored statistics.")
    x, fold = arguments[0], batch_norm(arguments)
    shape = (1, -1, *[1] * (len(x.shape) - 2))
    return _affine(importer, x, fold.gain.reshape(shape), fold.shift.reshape(shape))


def _sum(importer: Importer, left: Traced, right: Traced) -> Traced:
    return _pairwise(importer, left, right, importer.tracer.add)


def _product(importer: Importer, left: Traced, right: Traced) -> Traced:
    return _pairwise(importer, left, right, importer.tracer.multiply)


def _pairwise(
    importer: Importer, left: Traced, right: Traced, append: Callable[..., str]
) -> Traced:
    """Append an operation on two tensors, the second arranged as the first."""
    shape = np.broadcast_shapes(left.shape, right.shape)
    left, right = (one.moved(lambda index: np.broadcast_to(index, shape)) for one in (left, right))
    left = importer.whole(left)
    order = np.argsort(left.index.ravel())
    other = importer.arranged(right, right.index.ravel()[order])
    return Traced(append(left.value, other, name=importer.fresh()), left.index)


def _add(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    """Left + alpha right, or minus; either may be a constant."""
    left, right, *rest = arguments
    sign = -1.0 if operation(node) in ("sub", "rsub") else 1.0
    factor = sign * float(rest[0] if rest else 1.0)
    if operation(node) == "rsub":
        left, right = right, left
    if not isinstance(right, Traced):
        return _affine(importer, left, 1.0, factor * numbers(right))
    if not isinstance(left, Traced):
        return _affine(importer, right, factor, numbers(left))
    scaled = right if factor == 1.0 else _affine(importer, right, factor, 0.0)
    return _sum(importer, left, scaled)


def _mul(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    del node
    left, right = arguments
    if isinstance(left, Traced) and isinstance(right, Traced):
        return _product(importer, left, right)
    x, constant = (left, right) if isinstance(left, Traced) else (right, left)
    return _affine(importer, x, numbers(constant), 0.0)


def _neg(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    del node
    return _affine(importer, arguments[0], -1.0, 0.0)


def _div(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    left, right = arguments[:2]
    if isinstance(right, Traced):
        if isinstance(left, Traced) and _is_softsign(node):
            return _activate(importer, left, "softsign")
        raise unsupported(node, "Divide by constants only.")
    return _affine(importer, left, 1.0 / numbers(right), 0.0)


def _is_softsign(node: Node) -> bool:
    """Return whether a quotient is x / (1 + |x|), as torch writes softsign."""
    x, below = node.args[:2]
    if not isinstance(below, Node) or operation(below) != "add" or below.args[1] != 1:
        return False
    size = below.args[0]
    return isinstance(size, Node) and operation(size) == "abs" and size.args[0] is x


def _square(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    if operation(node) == "pow" and arguments[1] != 2:
        raise unsupported(node, "Use powers of two only.")
    return _product(importer, arguments[0], arguments[0])


def _cat(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    parts, axis = list(arguments[0]), arguments[1] if len(arguments) > 1 else 0
    if not all(isinstance(part, Traced) for part in parts):
        raise unsupported(node, "Join computed tensors only, no constants.")
    if operation(node) == "stack":
        parts = [part.moved(lambda index: np.expand_dims(index, axis)) for part in parts]
    axis = axis % len(parts[0].shape)
    turned = [np.moveaxis(part.index, axis, -1) for part in parts]
    rows = turned[0].size // turned[0].shape[-1]
    values = [importer.arranged(p, index) for p, index in zip(parts, turned, strict=True)]
    value = importer.tracer.concat(values, rows=rows, name=importer.fresh())
    shape = (*turned[0].shape[:-1], sum(index.shape[-1] for index in turned))
    return traced(value, shape).moved(lambda index: np.moveaxis(index, -1, axis))


def _linear(importer: Importer, node: Node, arguments: Sequence[Any]) -> Traced:
    """X W' + b in its three spellings; the weight must be a constant."""
    name = operation(node)
    if name == "addmm":
        bias, x, weight = arguments[0], arguments[1], arguments[2].T
    else:
        x, weight, bias = [*arguments, None][:3]
        weight = weight.T if name in ("mm", "matmul") and not isinstance(weight, Traced) else weight
    if not isinstance(x, Traced) or isinstance(weight, Traced) or weight.ndim != 2:
        raise unsupported(node, "Multiply by a constant matrix only; attention is not supported.")
    return linear(importer, node, x, weight, bias)


def _getitem(importer: Importer, node: Node, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
    del importer, node
    return arguments[0][arguments[1]]


_HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(_PLAIN, _plain),
    **dict.fromkeys(_RECURRENT, recurrent),
    **dict.fromkeys(_POOLS, pool),
    **dict.fromkeys(("add", "sub", "rsub"), _add),
    **dict.fromkeys(("linear", "addmm", "mm", "matmul"), _linear),
    **dict.fromkeys(("conv1d", "conv2d"), convolution),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d"), adaptive_pool),
    **dict.fromkeys(("clamp", "hardtanh"), _clamp),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack"), _cat),
    **dict.fromkeys(("pow", "square"), _square),
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "softplus": _softplus,
    "softmax": _softmax,
    "prelu": _prelu,
    "hardswish": _hardswish,
    "mish": _mish,
    "abs": _abs,
    "neg": _neg,
    "mul": _mul,
    "div": _div,
    "mean": mean,
    "batch_norm": _batch_norm,
    "layer_norm": layer_norm,
    "getitem": _getitem,
}
