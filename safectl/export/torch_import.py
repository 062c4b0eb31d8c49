"""Any `torch.nn.Module` as a program: torch.export writes its graph, each node becomes operations.

Weights turn from channel-first to channel-last here. Batch normalisation and plain activations fold
into the layer before them; dropout disappears; what depends on constants only is computed now.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export.graph_signature import InputKind
from torch.fx import Node

from safectl.errors import ShapeError, UnsupportedLayer
from safectl.export.program import OBSERVATION, Program, network_spec
from safectl.export.torch_graph import SUPPORTED, Importer
from safectl.export.torch_ops import apply
from safectl.export.torch_value import Traced, traced
from safectl.export.trace import Tracer


def torch_network(
    name: str,
    module: nn.Module,
    shape: tuple[int, ...],
    *,
    channels_last: bool = False,
    stateful: bool = False,
) -> Program:
    """Turn a module into a bare network: its output, flattened, is what leaves.

    Args:
        name: Lower-case C identifier.
        module: Used as in `eval()`, with one input and one output.
        shape: Shape of the input without the batch: (features,), (steps, features),
            (channels, height, width).
        channels_last: Whether the observation holds an image as (height, width, channels) instead
            of flattening what torch sees, which costs a copy.
        stateful: Whether recurrent layers continue where the last step of the program ended,
            instead of starting from zero.

    Raises:
        UnsupportedLayer: If a layer has no meaning as a program; names it and says what to do.
        ShapeError: If sizes do not fit.
    """
    probe = Tracer(name, network_spec(int(np.prod(shape)), 1))
    options = {"channels_last": channels_last, "stateful": stateful}
    size = probe.size(append_module(probe, OBSERVATION, module, name=name, shape=shape, **options))
    tracer = Tracer(name, network_spec(int(np.prod(shape)), size))
    value = append_module(tracer, OBSERVATION, module, name=name, shape=shape, **options)
    return tracer.finish_network(value)


def append_module(
    tracer: Tracer,
    value: str,
    module: nn.Module,
    *,
    name: str,
    shape: tuple[int, ...] | None = None,
    channels_last: bool = False,
    stateful: bool = False,
) -> str:
    """Append a module to a value and return its output, flattened as torch flattens it.

    Args:
        tracer: The program so far.
        value: The input.
        module: As in `torch_network`.
        name: Begins the names of all values.
        shape: Shape of the input without the batch; flat when absent.
        channels_last: As in `torch_network`.
        stateful: As in `torch_network`.

    Raises:
        UnsupportedLayer: If a layer has no meaning as a program; names it and says what to do.
        ShapeError: If the shape does not fit the value.
    """
    size = tracer.size(value)
    sizes = (size,) if shape is None else shape
    if int(np.prod(sizes)) != size:
        raise ShapeError(f"input of {name}", expected=(size,), got=sizes)
    exported = _export(module, sizes, name)
    importer = Importer(tracer, name, stateful)
    constants = {**exported.state_dict, **exported.constants}
    start = traced(value, (1, *sizes))
    if channels_last:
        start = traced(value, (1, *sizes[1:], sizes[0])).moved(lambda x: np.moveaxis(x, -1, 1))
    inputs = iter(exported.graph_signature.input_specs)
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            spec = next(inputs)
            is_input = spec.kind == InputKind.USER_INPUT
            importer.results[node] = start if is_input else constants[spec.target]
        elif node.op == "output":
            return importer.arranged(_only(importer, node, name))
        else:
            importer.results[node] = _result(importer, node)
    raise AssertionError("a graph ends in its output")


def _result(importer: Importer, node: Node) -> Any:  # noqa: ANN401 - tensors, tuples, constants
    if node in importer.done:
        (source, *_) = node.args
        assert isinstance(source, Node)
        return importer.results[source]
    arguments = [_resolve(importer, argument) for argument in node.args]
    options = {key: _resolve(importer, argument) for key, argument in node.kwargs.items()}
    if any(_is_traced(argument) for argument in (*arguments, *options.values())):
        return apply(importer, node, arguments, options)
    assert callable(node.target)
    return node.target(*arguments, **options)


def _resolve(importer: Importer, argument: Any) -> Any:  # noqa: ANN401
    if isinstance(argument, Node):
        return importer.results[argument]
    if isinstance(argument, list | tuple):
        return [_resolve(importer, entry) for entry in argument]
    return argument


def _is_traced(argument: Any) -> bool:  # noqa: ANN401
    if isinstance(argument, list | tuple):
        return any(_is_traced(entry) for entry in argument)
    return isinstance(argument, Traced)


def _only(importer: Importer, node: Node, name: str) -> Traced:
    outputs = _resolve(importer, node.args[0])
    if len(outputs) != 1 or not isinstance(outputs[0], Traced):
        raise UnsupportedLayer(
            f"{name}: {len(outputs)} outputs",
            supported=("one output that depends on the input",),
            advice="Wrap the module in one that returns the output you need.",
        )
    return outputs[0]


def _export(module: nn.Module, shape: tuple[int, ...], name: str) -> torch.export.ExportedProgram:
    parameter = next(module.parameters(), torch.zeros(()))
    example = torch.zeros((1, *shape), dtype=parameter.dtype, device=parameter.device)
    with _evaluating(module), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export warns about how recurrent layers are stored
        try:
            return torch.export.export(module, (example,))
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            raise UnsupportedLayer(
                f"{name} ({type(module).__name__}): torch.export says: {first}",
                supported=SUPPORTED,
                advice=f"It must run on one input of shape {(1, *shape)} without branching on it.",
            ) from error


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Switch a module to evaluation and back."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
