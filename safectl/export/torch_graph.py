"""What the handlers of torch operations share: the graph, its constants and the program so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.fx import Node

from safectl.errors import UnsupportedLayer
from safectl.export.kinds.activation import FUNCTIONS
from safectl.export.torch_value import Index, Traced, arranged, is_whole
from safectl.export.trace import Tracer

Numbers = npt.NDArray[np.float64]
SUPPORTED = (
    *("Linear", "Conv1d", "Conv2d", "MaxPool", "AvgPool", "BatchNorm", "LayerNorm", "RNN", "GRU"),
    *("LSTM", "Dropout", "Flatten", "the activations", "add", "sub", "mul", "cat", "reshape"),
    *("permute", "slice", "mean"),
)


@dataclass(slots=True)
class Importer:
    """Collects what a graph adds to a program.

    Attributes:
        tracer: The program so far.
        name: Begins the name of every value.
        stateful: Whether recurrent layers continue where the last step of the program ended.
        results: What each node of the graph gave: traced tensors, constants, or tuples of them.
        done: Nodes that an earlier layer took in: a folded normalisation, a fused activation.
    """

    tracer: Tracer
    name: str
    stateful: bool
    results: dict[Node, Any] = field(default_factory=dict)
    done: set[Node] = field(default_factory=set)
    _count: int = 0

    def fresh(self) -> str:
        """Return a name not used before."""
        self._count += 1
        return f"{self.name}_{self._count - 1}"

    def arranged(self, tensor: Traced, index: Index | None = None) -> str:
        """Return a value with the entries of a tensor in the order of torch, or in another one."""
        chosen = tensor.index if index is None else index
        return arranged(self.tracer, tensor, chosen, name=self.fresh())

    def whole(self, tensor: Traced) -> Traced:
        """Return a tensor that holds every entry of its value once, in any order."""
        if is_whole(tensor, self.tracer.size(tensor.value)):
            return tensor
        flat = np.arange(tensor.index.size).reshape(tensor.shape)
        return Traced(self.arranged(tensor), flat)


def describe(node: Node) -> str:
    """Name the layer that a node belongs to and what it does there."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    kind = kind if isinstance(kind, str) else kind.__name__
    layer = f"{path or 'the module'} ({kind.rsplit('.', 1)[-1]})" if kind else "the module"
    return f"{operation(node)} in layer {layer}"


def operation(node: Node) -> str:
    """Return the name of an operation without namespace and overload: "relu"."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name).rsplit("::", 1)[-1]
    return getattr(target, "__name__", str(target))


def unsupported(node: Node, advice: str) -> UnsupportedLayer:
    """Return the error that names a layer and says what to do."""
    return UnsupportedLayer(describe(node), supported=SUPPORTED, advice=advice)


def only_user(node: Node) -> Node | None:
    """Return the one node that reads a node, or None."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def numbers(value: object) -> Numbers:
    """Return a constant as float64."""
    if isinstance(value, Tensor):
        return value.detach().cpu().double().numpy()
    return np.asarray(value, np.float64)


def fused_activation(importer: Importer, node: Node) -> str:
    """Return the activation that alone follows a node, and take it in; "none" otherwise."""
    user = only_user(node)
    if user is None or operation(user) not in _FUSED:
        return "none"
    importer.done.add(user)
    return _FUSED[operation(user)]


_FUSED = {name: name for name in ("relu", "tanh", "sigmoid", "selu") if name in FUNCTIONS}


def sizes(given: Sequence[int] | int, count: int) -> tuple[int, ...]:
    """Return one number per axis of what torch gives as one number or several."""
    values = [given] if isinstance(given, int) else list(given)
    return tuple(values * count if len(values) == 1 else values)
