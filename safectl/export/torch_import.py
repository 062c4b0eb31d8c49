"""From torch modules to the operations of a program, one operation per layer."""

import numpy as np
from torch import nn

from safectl.errors import UnsupportedLayer
from safectl.export.trace import Tracer

SUPPORTED = ("Sequential", "Linear", "ReLU", "Tanh", "Identity", "Flatten")
_ACTIVATIONS = {nn.ReLU: "relu", nn.Tanh: "tanh"}
_FREE = (nn.Identity, nn.Flatten)


def append_module(tracer: Tracer, value: str, module: nn.Module, *, name: str) -> str:
    """Append a perceptron.

    Raises:
        UnsupportedLayer: If the module holds anything but `SUPPORTED`.
        ShapeError: If the first layer does not fit the value.
    """
    layers = [layer for layer in _leaves(module, name) if type(layer[1]) not in _FREE]
    index = 0
    while index < len(layers):
        path, layer = layers[index]
        following = layers[index + 1][1] if index + 1 < len(layers) else None
        if not isinstance(layer, nn.Linear):
            advice = "An activation must follow a Linear layer."
            raise UnsupportedLayer(
                f"{path} ({type(layer).__name__})", supported=SUPPORTED, advice=advice
            )
        activation = _ACTIVATIONS.get(type(following), "none")
        weight = layer.weight.detach().cpu().numpy()
        parameter = dict(layer.named_parameters()).get("bias")
        bias = np.zeros(len(weight)) if parameter is None else parameter.detach().cpu().numpy()
        value = tracer.dense(value, weight, bias, name=f"{name}_{index}", activation=activation)
        index += 1 if activation == "none" else 2
    return value


def _leaves(module: nn.Module, path: str) -> list[tuple[str, nn.Module]]:
    """Return the layers of nested `Sequential`s in order, each with its path.

    Exact types are compared: a subclass may compute something else.
    """
    kind = type(module)
    described = f"{path} ({kind.__name__})"
    if module._forward_hooks or module._forward_pre_hooks:
        advice = "It has forward hooks, which would be lost: remove them, or bake them in."
        raise UnsupportedLayer(described, supported=SUPPORTED, advice=advice)
    if kind is nn.Sequential:
        children = module.named_children()
        return [leaf for name, child in children for leaf in _leaves(child, f"{path}.{name}")]
    if kind is nn.Linear or kind in _ACTIVATIONS or kind in _FREE:
        return [(path, module)]
    advice = "Rebuild the network from these layers, or pass the Sequential inside the module."
    raise UnsupportedLayer(described, supported=SUPPORTED, advice=advice)
