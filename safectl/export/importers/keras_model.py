"""Sequential and functional Keras models, also nested ones, as graphs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safectl.errors import UnsupportedLayer
from safectl.export.importers.graph import Draft, Graph
from safectl.export.importers.keras_files import KerasFile, Place
from safectl.export.importers.keras_layer import KerasLayer
from safectl.export.importers.keras_layers import LAYERS

SUPPORTED = ("Sequential", "Functional", "InputLayer", *sorted(LAYERS))
_MODELS = ("Sequential", "Functional", "Model")
_Call = tuple[str, int]


def keras_graph(file: KerasFile) -> Graph:
    """Turn a Keras model into a graph.

    Raises:
        UnsupportedLayer: Naming the layer that cannot be imported.
        FileFormatError: If weights and architecture do not belong together.
    """
    draft = Draft()
    outputs = _Model(file, draft, file.config, Place((), ())).append(None)
    file.require_all_taken()
    return draft.finish(outputs)


@dataclass(frozen=True, slots=True)
class _Model:
    """A model in its place: the whole file, or a layer of another model."""

    file: KerasFile
    draft: Draft
    config: Mapping[str, Any]
    place: Place

    def append(self, inputs: Sequence[str] | None) -> list[str]:
        """Append all layers; without inputs the model's own doors are entered."""
        kind, options = self.config["class_name"], self.config["config"]
        if kind not in _MODELS:
            raise UnsupportedLayer(
                f"model {'/'.join(self.place.names) or kind} ({kind})",
                supported=SUPPORTED,
                advice="Build it as a Sequential or functional model of these layers.",
            )
        if kind == "Sequential":
            return self._sequential(options, inputs)
        return self._functional(options, inputs)

    def _sequential(self, options: Mapping[str, Any], inputs: Sequence[str] | None) -> list[str]:
        values = list(inputs or ())
        for layer, place in self._places(options["layers"]):
            if layer["class_name"] == "InputLayer":
                values = values or [self._enter(layer["config"])]
                continue
            if not values:
                values = [self._enter(layer["config"] if _has_shape(layer["config"]) else options)]
            values = self._layer(layer, place, values)
        return values

    def _functional(self, options: Mapping[str, Any], inputs: Sequence[str] | None) -> list[str]:
        doors = [name for name, _ in _references(options["input_layers"])]
        given = dict(zip(doors, inputs, strict=True)) if inputs is not None else {}
        values: dict[_Call, list[str]] = {}
        for name in doors:
            config = next(x for x in options["layers"] if _name(x) == name)["config"]
            values[name, 0] = [given[name] if name in given else self._enter(config)]
        places = {_name(layer): (layer, place) for layer, place in self._places(options["layers"])}
        waiting = [
            (name, call, _call_inputs(node))
            for name, (layer, _) in places.items()
            for call, node in enumerate(layer["inbound_nodes"])
            if layer["class_name"] != "InputLayer"
        ]
        while waiting:
            ready = [job for job in waiting if all(self._find(values, r) for r in job[2])]
            if not ready:
                raise ValueError(f"layers {[name for name, *_ in waiting][:4]} wait for each other")
            for name, call, references in ready:
                arguments = [value for r in references for value in self._find(values, r)]
                values[name, call] = self._layer(*places[name], arguments)
            waiting = [job for job in waiting if job[:2] not in values]
        outputs = _references(options["output_layers"])
        return [value for reference in outputs for value in self._find(values, reference)]

    def _find(self, values: Mapping[_Call, list[str]], reference: _Call) -> list[str]:
        """Return what a call returned; Keras 2 counts the making of an inner model as call 0."""
        name, call = reference
        found = values.get((name, call), [])
        if not found and self.file.version < 3 and call > 0:
            calls = [other for other in values if other[0] == name]
            found = values[name, call - 1] if (name, call - 1) in calls else []
        return found

    def _places(self, layers: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], Place]]:
        """Name every layer and count it among those of its class, as the archive does."""
        counts: dict[str, int] = {}
        result = []
        for layer in layers:
            slot = _snake_case(str(layer["class_name"]))
            number = counts.get(slot, 0)
            counts[slot] = number + 1
            slots = (*self.place.slots, "layers", f"{slot}_{number}" if number else slot)
            result.append((layer, Place((*self.place.names, _name(layer)), slots)))
        return result

    def _enter(self, config: Mapping[str, Any]) -> str:
        for key in ("batch_shape", "batch_input_shape", "build_input_shape"):
            if config.get(key):
                shape = config[key][1:]
                break
        else:
            raise UnsupportedLayer(
                "a model without the shape of its input",
                supported=("an InputLayer first",),
                advice="Add keras.Input(shape) and save the model again.",
            )
        if None in shape:
            raise UnsupportedLayer(
                f"an input of shape {shape}",
                supported=("fixed sizes",),
                advice="Give every axis but the batch a size, as keras.Input((10, 3)).",
            )
        return self.draft.enter(str(config.get("name", "input")), [int(size) for size in shape])

    def _layer(self, layer: Mapping[str, Any], place: Place, inputs: list[str]) -> list[str]:
        kind = str(layer["class_name"])
        if kind in _MODELS:
            return _Model(self.file, self.draft, layer, place).append(inputs)
        found = KerasLayer(kind, layer["config"], place, self.file, self.draft, SUPPORTED)
        registered = layer.get("registered_name") or kind
        is_foreign = ">" in registered and not registered.startswith("keras")
        if kind not in LAYERS or is_foreign:
            advice = "Build the network from these, or keep the layer outside the exported model."
            raise found.refuse("", advice)
        return [LAYERS[kind](found, inputs)]


def _name(layer: Mapping[str, Any]) -> str:
    return str(layer.get("name") or layer["config"]["name"])


def _has_shape(config: Mapping[str, Any]) -> bool:
    return "batch_input_shape" in config or "batch_shape" in config


def _snake_case(kind: str) -> str:
    """Name a class as the archive does: `Conv2D` is `conv2d`, `PReLU` is `p_re_lu`."""
    kind = re.sub(r"\W+", "", kind)
    kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)
    return re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()


def _references(value: Sequence[Any] | Mapping[str, Any]) -> list[_Call]:
    """Read ["name", 0, 0], a list of such, or a dictionary of such."""
    entries = list(value.values()) if isinstance(value, Mapping) else list(value)
    if entries and isinstance(entries[0], str):
        entries = [entries]
    return [_reference(entry) for entry in entries]


def _reference(entry: Sequence[Any]) -> _Call:
    name, call, tensor = entry[:3]
    if tensor != 0:
        raise UnsupportedLayer(
            f"output {tensor} of layer {name}",
            supported=("layers with one output",),
            advice="Build the layer without return_state.",
        )
    return str(name), int(call)


def _call_inputs(node: Sequence[Any] | Mapping[str, Any]) -> list[_Call]:
    """Return what one call of a layer reads: lists in Keras 2, tensors in arguments in Keras 3."""
    if not isinstance(node, Mapping):
        for entry in node:
            _require_plain(entry[3] if len(entry) > 3 else {})
        return [_reference(entry) for entry in node]
    _require_plain(node["kwargs"])
    found: list[_Call] = []
    pending = list(node["args"])
    while pending:
        value = pending.pop(0)
        if isinstance(value, list):
            pending = [*value, *pending]
        elif isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            found.append(_reference(value["config"]["keras_history"]))
        else:
            raise ValueError(f"a layer is called with {value!r}, which is no value of the network")
    return found


def _require_plain(options: Mapping[str, Any]) -> None:
    """Refuse a call with more than values: masks and initial states are not carried over."""
    for name, value in options.items():
        if value is not None and name != "training":
            raise UnsupportedLayer(
                f"a layer that is called with {name}={value!r}",
                supported=("calls with values alone",),
                advice="Call the layer with its inputs only.",
            )
