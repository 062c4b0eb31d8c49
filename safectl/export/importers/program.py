"""Graphs of layers as programs: one operation per layer, views absorbed where a layer can."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from safectl.errors import ShapeError
from safectl.export.importers.arrange import append_arranged
from safectl.export.importers.fuse import fused
from safectl.export.importers.graph import Graph
from safectl.export.importers.integers import Whole, append_integer
from safectl.export.importers.layers import (
    Activation,
    Affine,
    Clip,
    Combine,
    Convolution,
    Dense,
    Join,
    Layer,
    LayerNorm,
    Pool,
    Recurrent,
    Rounded,
    Shape,
    View,
)
from safectl.export.importers.steps import Plan, Source, Step, without_views
from safectl.export.ops import Op
from safectl.export.program import (
    ACTION,
    FAIL_SAFE,
    FLOAT32_MAX,
    OBSERVATION,
    Program,
    action_limits,
    network_spec,
)
from safectl.export.torch_value import loops
from safectl.export.trace import Tracer
from safectl.spec import Spec

_STEM = 24
"""Characters of a layer's name that enter a name in C."""


def graph_program(graph: Graph, name: str, spec: Spec | None) -> Program:
    """Turn a graph into a program whose observation is the inputs, flattened, in their order.

    Args:
        graph: The network.
        name: Lower-case C identifier.
        spec: Signals; the outputs are limited to those of its action. Without, a bare network.

    Raises:
        ShapeError: If the specification does not fit the network.
        UnsupportedLayer: If entries are rearranged in a way that has no operation.
        NonFiniteError: If a weight is not finite.
    """
    nx = sum(math.prod(graph.shapes[value]) for value in graph.inputs)
    nu = sum(math.prod(graph.shapes[value]) for value in graph.outputs)
    chosen = network_spec(nx, nu) if spec is None else spec
    if (chosen.nx, chosen.nu) != (nx, nu):
        raise ShapeError("specification", expected=(nx, nu), got=(chosen.nx, chosen.nu))
    plan = fused(without_views(graph))
    writer = _Writer(Tracer(name, chosen), _roundings(plan))
    writer.enter(graph)
    for step in plan.steps:
        writer.append(step)
    output = writer.joined(plan.outputs)
    if spec is None:
        return writer.tracer.finish_network(output)
    low, high = action_limits(spec)
    tracer = writer.tracer
    tracer.constant(FAIL_SAFE, np.clip(np.zeros(nu), low, high))
    limits = (tracer.constant("action_low", low), tracer.constant("action_high", high))
    tracer.op(Op("clip", (output,), (ACTION,), limits))
    return tracer.finish()


@dataclass(slots=True)
class _Writer:
    """Appends steps to a tracer.

    Attributes:
        tracer: The program so far.
        roundings: The rounding that alone reads a value, by the value.
    """

    tracer: Tracer
    roundings: Mapping[str, Step]
    _stored: dict[str, str] = field(default_factory=dict)
    _whole: dict[str, Whole] = field(default_factory=dict)
    _arranged: dict[tuple[str, bytes], str] = field(default_factory=dict)
    _count: int = 0

    def enter(self, graph: Graph) -> None:
        """Slice the inputs out of the observation."""
        start = 0
        for number, value in enumerate(graph.inputs):
            stop = start + math.prod(graph.shapes[value])
            is_whole = stop - start == self.tracer.size(OBSERVATION)
            self._stored[value] = (
                OBSERVATION
                if is_whole
                else self.tracer.slice(OBSERVATION, start, stop, name=f"input_{number}")
            )
            start = stop

    def append(self, step: Step) -> None:
        """Append one step."""
        if step.output in self._whole:
            return  # an integer layer has rounded already
        slug = re.sub("[^a-z0-9]+", "_", step.name.lower()).strip("_")[-_STEM:].strip("_")
        name = f"l{self._count}_{slug}" if slug else f"l{self._count}"
        self._count += 1
        layer, sources = step.layer, step.sources
        if isinstance(layer, Rounded):
            value = self._value(sources[0], f"{name}_in")
            op = Op("quantise", (value,), (f"{name}_q",), detail=layer.form)
            self._whole[step.output] = Whole(self.tracer.op(op), layer.form)
            return
        if self._integer(step, name):
            return
        if isinstance(layer, Dense):
            layer, sources = _absorbed(
                layer, step, self.tracer.size(self._stored[sources[0].value])
            )
        values = [self._value(source, f"{name}_in{i}") for i, source in enumerate(sources)]
        self._stored[step.output] = self._layer(layer, values, step.shapes, name)

    def joined(self, outputs: Sequence[Source]) -> str:
        """Return what leaves as one value."""
        values = [self._value(source, f"out{i}") for i, source in enumerate(outputs)]
        return values[0] if len(values) == 1 else self.tracer.concat(values, name="outputs")

    def _integer(self, step: Step, name: str) -> bool:
        """Append the integer twin of a step together with its rounding, if there is one."""
        rounding, source = self.roundings.get(step.output), step.sources[0]
        whole = self._whole.get(source.value)
        if rounding is None or whole is None or not isinstance(rounding.layer, Rounded):
            return False
        if source.index is not None and loops(source.index.reshape(-1)) is None:
            return False
        whole = Whole(self._arrange(whole.value, source, f"{name}_in"), whole.form)
        form, shape = rounding.layer.form, step.shapes[0]
        result = append_integer(self.tracer, step.layer, whole, shape, form, name=name)
        if result is not None:
            self._whole[rounding.output] = result
        return result is not None

    def _float(self, value: str) -> str:
        """Return a value in float32, from its integers if it has only those so far."""
        if value not in self._stored:
            whole = self._whole[value]
            name = f"{whole.value}_real"
            op = Op("dequantise", (whole.value,), (name,), detail=whole.form)
            self._stored[value] = self.tracer.op(op)
        return self._stored[value]

    def _value(self, source: Source, name: str) -> str:
        return self._arrange(self._float(source.value), source, name)

    def _arrange(self, stored: str, source: Source, name: str) -> str:
        if source.index is None:
            return stored
        key = (stored, source.index.tobytes())
        if key not in self._arranged:
            self._arranged[key] = append_arranged(self.tracer, stored, source.index, name=name)
        return self._arranged[key]

    def _layer(self, layer: Layer, values: list[str], shapes: Sequence[Shape], name: str) -> str:
        tracer, (value, *_), shape = self.tracer, values, shapes[0]
        rows = math.prod(shape[:-1])
        match layer:
            case Dense():
                return tracer.dense(
                    value,
                    layer.weight,
                    layer.bias,
                    name=name,
                    activation=layer.activation.kind,
                    alpha=layer.activation.alpha,
                    rows=rows,
                )
            case Convolution():
                return self._convolution(layer, value, shape, name)
            case Pool():
                return self._pool(layer, value, shape, name)
            case Affine():
                return tracer.scale_shift(value, layer.gain, layer.shift, name=name)
            case LayerNorm():
                return tracer.layer_norm(value, layer.gain, layer.shift, layer.epsilon, name=name)
            case Activation():
                return tracer.activation(value, layer.kind, name=name, alpha=layer.alpha, rows=rows)
            case Clip():
                return self._clip(layer, value, name)
            case Recurrent():
                return self._recurrent(layer, value, shape, name)
            case Combine():
                combine = tracer.add if layer.kind == "add" else tracer.multiply
                for number, other in enumerate(values[1:]):
                    last = number == len(values) - 2
                    value = combine(value, other, name=name if last else f"{name}_{number}")
                return value
            case Join():
                return tracer.concat(values, name=name, rows=math.prod(shape[: layer.axis]))
            case View() | Rounded():
                raise AssertionError(f"{name} is resolved before")

    def _convolution(self, layer: Convolution, value: str, shape: Shape, name: str) -> str:
        return self.tracer.conv2d(
            value,
            layer.weight,
            layer.bias,
            shape=_image(shape),
            name=name,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            activation=layer.activation.kind,
            alpha=layer.activation.alpha,
        )

    def _pool(self, layer: Pool, value: str, shape: Shape, name: str) -> str:
        image, window, stride, padding = _image(shape), layer.window, layer.stride, layer.padding
        if layer.kind == "max":
            return self.tracer.max_pool2d(
                value, shape=image, pool=window, name=name, stride=stride, padding=padding
            )
        return self.tracer.average_pool2d(
            value,
            shape=image,
            pool=window,
            name=name,
            stride=stride,
            padding=padding,
            count_padding=layer.count_padding,
        )

    def _clip(self, layer: Clip, value: str, name: str) -> str:
        size = self.tracer.size(value)
        limits = (
            self.tracer.constant(f"{name}_low", np.full(size, max(layer.low, -FLOAT32_MAX))),
            self.tracer.constant(f"{name}_high", np.full(size, min(layer.high, FLOAT32_MAX))),
        )
        return self.tracer.op(Op("clip", (value,), (name,), limits))

    def _recurrent(self, layer: Recurrent, value: str, shape: Shape, name: str) -> str:
        weights = (value, layer.kernel.T, layer.recurrent.T, layer.bias)
        options: dict[str, Any] = {
            "steps": shape[0],
            "name": name,
            "stateful": layer.stateful,
            "return_sequences": layer.return_sequences,
            "activation": layer.activation,
            "alpha": layer.alpha,
        }
        if layer.cell == "simple_rnn":
            return self.tracer.simple_rnn(*weights, **options)
        options["recurrent_activation"] = layer.recurrent_activation
        if layer.cell == "lstm":
            return self.tracer.lstm(*weights, **options, cell_limit=layer.cell_limit)
        return self.tracer.gru(*weights, **options, reset_after=layer.reset_after)


def _roundings(plan: Plan) -> dict[str, Step]:
    """Return, by the value, each rounding that reads a whole value that nothing else reads."""
    reads = Counter(source.value for step in plan.steps for source in step.sources)
    reads.update(source.value for source in plan.outputs)
    return {
        step.sources[0].value: step
        for step in plan.steps
        if isinstance(step.layer, Rounded)
        and step.sources[0].index is None
        and reads[step.sources[0].value] == 1
    }


def _absorbed(layer: Dense, step: Step, stored: int) -> tuple[Dense, tuple[Source, ...]]:
    """Sort the columns of a dense layer instead of its input, where it reads all of a value."""
    (source,), width = step.sources, layer.weight.shape[1]
    index = source.index
    if index is None or not index.size == width == stored or len(set(index.flat)) != width:
        return layer, step.sources
    weight = np.empty_like(layer.weight)
    weight[:, index.reshape(-1)] = layer.weight
    return replace(layer, weight=weight), (Source(source.value),)


def _image(shape: Shape) -> tuple[int, int, int]:
    height, width, channels = shape
    return height, width, channels
