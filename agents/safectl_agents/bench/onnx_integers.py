"""A torch network as an 8-bit ONNX file, as static quantisation writes it (QLinearConv, QGemm)."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from safectl.errors import UnsupportedLayer

_TANH_STEP = 1.0 / 128.0


@dataclass(frozen=True, slots=True)
class _Form:
    """Names of scale and zero point of a value, and the scale."""

    names: tuple[str, str]
    scale: float


@dataclass(slots=True)
class _Graph:
    """A graph under construction: the present value in torch, its name, its integers' form."""

    value: Tensor
    name: str = "x"
    form: _Form | None = None
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    shapes: list[onnx.ValueInfoProto] = field(default_factory=list)

    def constant(self, array: NDArray[np.generic] | np.generic) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(
        self, kind: str, inputs: list[str], *, domain: str = "", **attributes: int | list[int]
    ) -> None:
        name = f"v{len(self.nodes)}"
        node = helper.make_node(kind, inputs, [name], domain=domain)
        node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
        self.nodes.append(node)
        self.name = name

    def form_of(self, low: float, high: float) -> _Form:
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255.0
        zero = np.int8(np.clip(round(-128.0 - low / scale), -128, 127))
        return _Form((self.constant(np.float32(scale)), self.constant(zero)), scale)

    def quantise(self, form: _Form) -> None:
        self.node("QuantizeLinear", [self.name, *form.names])
        self.form = form

    def dequantise(self) -> None:
        if self.form is not None:
            self.node("DequantizeLinear", [self.name, *self.form.names])
            self.form = None

    def weighted(self, layer: nn.Linear | nn.Conv2d, *, is_relu: bool) -> None:
        """Append a layer with weights per channel; relu is the least of the integers."""
        if self.form is None:
            self.quantise(self.form_of(float(self.value.min()), float(self.value.max())))
        before = self.form
        assert before is not None, "just quantised"
        weight = layer.weight.detach().numpy()
        scale = np.abs(weight).reshape(len(weight), -1).max(1) / np.float32(127.0)
        columns = scale.reshape(-1, *([1] * (weight.ndim - 1)))
        whole = np.round(weight / columns).astype(np.int8)
        assert layer.bias is not None, "the networks that are compared have one"
        bias = np.round(layer.bias.detach().numpy() / (before.scale * scale)).astype(np.int32)
        self.value = layer(self.value).relu() if is_relu else layer(self.value)
        after = self.form_of(float(self.value.min()), float(self.value.max()))
        zeros = np.zeros(len(weight), np.int8)
        inputs = [self.name, *before.names, *map(self.constant, (whole, scale, zeros))]
        if isinstance(layer, nn.Conv2d):
            pads = [int(pad) for pad in layer.padding] * 2
            self.node("QLinearConv", [*inputs, *after.names, self.constant(bias)], pads=pads)
        else:
            inputs += [self.constant(bias), *after.names]
            self.node("QGemm", inputs, transB=1, domain="com.microsoft")
            shape = [1, len(weight)]  # no rule of ONNX infers it
            self.shapes.append(helper.make_tensor_value_info(self.name, TensorProto.INT8, shape))
        self.form = after


@torch.no_grad()
def write_integer_onnx(layers: nn.Sequential, inputs: Tensor, path: Path) -> None:
    """Write a network with the ranges that its values reach on some inputs.

    Args:
        layers: Linear, Conv2d, ReLU behind one of these, Tanh, MaxPool2d, Flatten and Identity.
        inputs: Calibration data, shape (rows, *shape of an input).
        path: File to write.

    Raises:
        UnsupportedLayer: If there is another layer.
    """
    graph, parts = _Graph(inputs), [p for p in layers if not isinstance(p, nn.Identity)]
    for part, after in zip(parts, [*parts[1:], None], strict=True):
        match part:
            case nn.Linear() | nn.Conv2d():
                graph.weighted(part, is_relu=isinstance(after, nn.ReLU))
                continue
            case nn.ReLU():
                continue
            case nn.MaxPool2d():
                size = [int(part.kernel_size)] * 2  # type: ignore[arg-type]  # a number here
                graph.node("MaxPool", [graph.name], kernel_shape=size, strides=size)
            case nn.Flatten():
                graph.node("Flatten", [graph.name])
            case nn.Tanh():
                graph.dequantise()
                graph.node("Tanh", [graph.name])
                if after is not None:
                    graph.quantise(graph.form_of(-1.0, 255.0 * _TANH_STEP - 1.0))
            case _:
                supported = ("Linear", "Conv2d", "ReLU", "Tanh", "MaxPool2d", "Flatten")
                raise UnsupportedLayer(str(part), supported=supported, advice="Compare in float.")
        graph.value = part(graph.value)
    graph.dequantise()
    graph.nodes[-1].output[0] = "y"
    sizes = [1, *inputs.shape[1:]], [1, *graph.value.shape[1:]]
    doors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
        for name, size in zip("xy", sizes, strict=True)
    ]
    parts_of_graph = (graph.nodes, "net", doors[:1], doors[1:], graph.constants)
    whole = helper.make_graph(*parts_of_graph, value_info=graph.shapes)
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(whole, opset_imports=imports, ir_version=10), path)
