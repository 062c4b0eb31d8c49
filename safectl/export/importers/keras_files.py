"""The containers of Keras: `.h5` of Keras 2 and 3, and the `.keras` archive.

Paths inside differ between versions, so none is built: all arrays are collected and a layer asks
for those whose path names it. An array that no layer asked for is an error at the end.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safectl.errors import FileFormatError
from safectl.export.importers.hdf5 import read_hdf5
from safectl.export.importers.layers import Array, Shape

LARGEST_BYTES = 1 << 26
"""Of one unpacked member: 64 MiB, far above the flash of every board."""
_ADVICE = "save the whole model again, with model.save"
_WEIGHTS, _CONFIG, _METADATA = "model.weights.h5", "config.json", "metadata.json"
_GROUP = "model_weights"
_ROOTS_OF_LAYERS = ("layers", "_layer_checkpoint_dependencies")
_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layer stands in its model.

    Attributes:
        names: Names of the enclosing models and of the layer, as the `.h5` writes them.
        slots: The same as the `.keras` archive counts them: class and number.
    """

    names: _Path
    slots: _Path


@dataclass(slots=True)
class KerasFile:
    """An architecture with its arrays.

    Attributes:
        path: The file, for messages.
        config: `class_name` and `config` of the model.
        version: Major version of the Keras that wrote it.
        arrays: Every weight by its path in the file.
        by_slot: Whether paths count classes (`.keras`) instead of naming layers (`.h5`).
    """

    path: Path
    config: Mapping[str, Any]
    version: int
    arrays: Mapping[_Path, Array]
    by_slot: bool
    _taken: set[_Path] = field(default_factory=set)

    def take(self, place: Place, weights: Mapping[str, Shape]) -> list[Array]:
        """Return the weights of a layer, in the order of the request.

        Args:
            place: The layer.
            weights: Shape by name, in the order in which the layer creates them.

        Raises:
            FileFormatError: If one is missing, there twice, or of another shape.
        """
        found = self._in_slot(place) if self.by_slot else self._named(place)
        layer = "/".join(place.names)
        result = []
        for number, (name, shape) in enumerate(weights.items()):
            paths = found.get(str(number) if self.by_slot else name, [])
            if len(paths) != 1:
                problem = f"holds {len(paths)} arrays for the {name} of layer {layer}, not one"
                raise FileFormatError(self.path, problem, _ADVICE)
            array = self.arrays[paths[0]]
            if array.shape != shape:
                problem = f"holds the {name} of layer {layer} as {array.shape}, not as {shape}"
                raise FileFormatError(self.path, problem, _ADVICE)
            self._taken.add(paths[0])
            result.append(array)
        return result

    def require_all_taken(self) -> None:
        """Refuse a file with a weight that no layer asked for.

        Raises:
            FileFormatError: Naming the weights.
        """
        left = sorted("/".join(path) for path in self.arrays if path not in self._taken)
        if left:
            problem = f"holds weights that belong to no known layer: {', '.join(left[:4])}"
            raise FileFormatError(self.path, problem, _ADVICE)

    def _in_slot(self, place: Place) -> dict[str, list[_Path]]:
        folder = (*place.slots, "vars")
        return {path[-1]: [path] for path in self.arrays if path[:-1] == folder}

    def _named(self, place: Place) -> dict[str, list[_Path]]:
        """Find by the last component what lies below the layer's name, in the groups in between."""
        found: dict[str, list[_Path]] = {}
        for path in self.arrays:
            if path[0] == place.names[0] and _holds_in_order(path[:-1], place.names):
                found.setdefault(path[-1].removesuffix(":0"), []).append(path)
        return found


def read_h5(path: Path, content: bytes) -> KerasFile:
    """Read a whole model from an HDF5 file.

    Raises:
        FileFormatError: If it holds no architecture or is damaged.
        MissingExtra: If h5py is not installed.
    """
    found = read_hdf5(path, content)
    if "model_config" not in found.attributes:
        problem = "holds no model_config: it is no Keras model, or only its weights"
        raise FileFormatError(path, problem, _ADVICE)
    arrays = {where[1:]: array for where, array in found.arrays.items() if where[0] == _GROUP}
    version = _major(found.attributes.get("keras_version", ""))
    return KerasFile(
        path, json.loads(found.attributes["model_config"]), version, _weights(arrays), by_slot=False
    )


def read_keras(path: Path, content: bytes) -> KerasFile:
    """Read a whole model from a `.keras` archive.

    Raises:
        FileFormatError: If a member is missing, damaged, or unpacks to more than `LARGEST_BYTES`.
        MissingExtra: If h5py is not installed.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: _member(path, archive, name) for name in (_METADATA, _CONFIG, _WEIGHTS)}
    version = _major(str(json.loads(members[_METADATA])["keras_version"]))
    found = read_hdf5(path, members[_WEIGHTS])
    arrays = {
        ("layers", *where[1:]): array
        for where, array in found.arrays.items()
        if where[0] in _ROOTS_OF_LAYERS
    }
    return KerasFile(path, json.loads(members[_CONFIG]), version, _weights(arrays), by_slot=True)


def _weights(arrays: Mapping[_Path, Array]) -> Mapping[_Path, Array]:
    """Leave out the states of random generators."""
    return {
        path: array
        for path, array in arrays.items()
        if not any(name.startswith("seed_generator") for name in path)
    }


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    if name not in archive.namelist():
        raise FileFormatError(path, f"is a ZIP archive without {name}", _ADVICE)
    with archive.open(name) as file:
        content = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise FileFormatError(path, f"unpacks {name} to over {LARGEST_BYTES} bytes", _ADVICE)
    return content


def _major(version: str) -> int:
    return int(version.split(".")[0])


def _holds_in_order(path: Sequence[str], names: Sequence[str]) -> bool:
    rest = iter(path)
    return all(name in rest for name in names)
