"""A Keras layer with its configuration and its weights, as the importers of layers see it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from safectl.errors import UnsupportedLayer
from safectl.export.importers.graph import Draft
from safectl.export.importers.keras_files import KerasFile, Place
from safectl.export.importers.layers import Activation, Array, Shape

_ALPHAS = {"leaky_relu": 0.2, "elu": 1.0}
_SAME_NAME = (
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "softplus",
    "softsign",
    "tanh",
    "sigmoid",
    "exponential",
    "softmax",
    "swish",
    "gelu",
)
_OTHER_NAMES = {"silu": "swish", "linear": "none"}
ACTIVATIONS = (*_SAME_NAME, *_OTHER_NAMES, "hard_sigmoid")


@dataclass(frozen=True, slots=True)
class KerasLayer:
    """One layer of a Keras model.

    Attributes:
        kind: Its class, for example `Dense`.
        config: Its options.
        place: Where it stands.
        file: Where its weights are.
        draft: The graph that it becomes a part of.
        supported: Classes that can be imported, for messages.
    """

    kind: str
    config: Mapping[str, Any]
    place: Place
    file: KerasFile
    draft: Draft
    supported: tuple[str, ...]

    @property
    def name(self) -> str:
        """Path of its names."""
        return "/".join(self.place.names)

    def weights(self, **shapes: Shape) -> list[Array]:
        """Return its weights; see `KerasFile.take`."""
        return self.file.take(self.place, shapes)

    def within(
        self, slot: str, *, name: str | None = None, config: Mapping[str, Any] | None = None
    ) -> "KerasLayer":
        """Return the layer that this one holds, at `slot` in an archive."""
        names = self.place.names if name is None else (*self.place.names, name)
        place = Place(names, (*self.place.slots, slot))
        return replace(self, place=place, config=self.config if config is None else config)

    def refuse(self, problem: str, advice: str) -> UnsupportedLayer:
        """Return the error that says why this layer cannot be imported."""
        return UnsupportedLayer(
            f"layer {self.name} ({self.kind}{problem and ': '}{problem})",
            supported=self.supported,
            advice=advice,
        )

    def require(self, *, advice: str, **expected: object) -> None:
        """Refuse options that differ from what can be imported; an absent option is accepted.

        Raises:
            UnsupportedLayer: Naming the option.
        """
        for option, wanted in expected.items():
            value = self.config.get(option, wanted)
            if value != wanted:
                raise self.refuse(f"{option}={value!r}", advice)

    def activation(self, option: str = "activation") -> Activation:
        """Return the function that an option names.

        Raises:
            UnsupportedLayer: If it is not a known one.
        """
        value = self.config.get(option, "linear")
        if isinstance(value, dict) and value.get("class_name") == "function":
            value = value.get("config")
        if value is None:
            value = "linear"
        if value == "hard_sigmoid":  # clip(0.2 x + 0.5, 0, 1) became relu6(x + 3) / 6
            return Activation("hard_sigmoid" if self.file.version < 3 else "hard_sigmoid_v3")
        if not isinstance(value, str) or value not in ACTIVATIONS:
            advice = f"Known activations: {', '.join(ACTIVATIONS)}."
            raise self.refuse(f"{option} {value!r}", advice)
        return Activation(_OTHER_NAMES.get(value, value), _ALPHAS.get(value))

    def activate(self, value: str) -> str:
        """Append the layer's activation to a value."""
        activation = self.activation()
        if activation.kind == "none":
            return value
        return self.draft.add(activation, self.name, value)
