"""Programs on disk: a folder with `program.json` and `program.npz`, written whole, no pickle."""

import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from safectl.errors import FileFormatError, SafectlError
from safectl.export.ops import (
    NUMBER_FORMATS,
    AnyArray,
    Detail,
    Horizon,
    Integers,
    Loop,
    Op,
    Polytope,
    Quantisation,
    Recurrence,
    Strides,
    Window,
)
from safectl.export.program import Program, State
from safectl.files import new_folder, read_json, write_json
from safectl.spec import spec_from_json

PROGRAM_FORMAT = "safectl-program"
PROGRAM_VERSION = 2
_READABLE = (1, PROGRAM_VERSION)
_DETAILS: Mapping[str, type[Detail]] = {
    kind.__name__.lower(): kind
    for kind in (Window, Recurrence, Strides, Horizon, Quantisation, Integers, Loop, Polytope)
}
_ADVICE = "export the program again"


def save_program(program: Program, folder: Path, *, replace: bool = False) -> None:
    """Write a program; equal programs give equal bytes.

    Raises:
        StorageError: If the folder exists (without `replace`) or cannot be written.
    """
    content = {
        "format": PROGRAM_FORMAT,
        "version": PROGRAM_VERSION,
        "name": program.name,
        "spec": program.spec.to_json(),
        "ops": [_fields(op) for op in program.ops],
        "states": {name: asdict(state) for name, state in program.states.items()},
        "weights_crc32": program.weights_crc32(),
    }
    arrays: dict[str, Any] = dict(program.constants)
    with new_folder(folder, replace=replace) as draft:
        write_json(draft / "program.json", content)
        np.savez(draft / "program.npz", **arrays)


def load_program(folder: Path) -> Program:
    """Read what `save_program` wrote and check it as a new program is checked.

    Raises:
        FileFormatError: If a part is missing, truncated, foreign, of an unknown version, or if the
            two parts do not belong together.
    """
    path = folder / "program.json"
    content = read_json(path, advice=_ADVICE)
    if content.get("format") != PROGRAM_FORMAT:
        raise FileFormatError(path, f"is no {PROGRAM_FORMAT}", _ADVICE)
    if content.get("version") not in _READABLE:
        raise FileFormatError(
            path,
            f"has version {content.get('version')!r}",
            f"this program reads versions up to {PROGRAM_VERSION}; {_ADVICE}",
        )
    constants = _load_constants(folder / "program.npz")
    try:
        spec = spec_from_json(str(content["spec"]), str(path))
        ops = tuple(_op(fields) for fields in content["ops"])
        states = {name: _state(state) for name, state in content.get("states", {}).items()}
        program = Program(str(content["name"]), spec, ops, constants, states)
        crc = content["weights_crc32"]
    except FileFormatError:
        raise
    except (SafectlError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise FileFormatError(path, f"is not a valid program ({error})", _ADVICE) from error
    if crc != program.weights_crc32():
        raise FileFormatError(path, "does not belong to the program.npz beside it", _ADVICE)
    return program


def _fields(op: Op) -> dict[str, Any]:
    """Return the fields of an operation as JSON values, its detail under the name of its class."""
    fields = {key: value for key, value in asdict(op).items() if key != "detail"}
    if op.detail is not None:
        fields["detail"] = {type(op.detail).__name__.lower(): asdict(op.detail)}
    return fields


def _op(fields: dict[str, Any]) -> Op:
    return Op(
        kind=str(fields["kind"]),
        inputs=_names(fields["inputs"]),
        outputs=_names(fields["outputs"]),
        constants=_names(fields["constants"]),
        activation=str(fields["activation"]),
        start=_integer(fields["start"]),
        stop=_integer(fields["stop"]),
        rows=_integer(fields.get("rows", 1)),
        alpha=float(fields.get("alpha", 0.0)),
        detail=_detail(fields.get("detail")),
    )


def _detail(fields: dict[str, Any] | None) -> Detail | None:
    if fields is None:
        return None
    ((name, attributes),) = fields.items()
    values = {key: _attribute(value) for key, value in attributes.items()}
    return _DETAILS[name](**values)


def _attribute(value: object) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Turn lists into tuples and a nested window into one; refuse what no detail holds."""
    if isinstance(value, list):
        return tuple(_attribute(entry) for entry in value)
    if isinstance(value, dict):
        return Window(**{key: _attribute(entry) for key, entry in value.items()})
    if value is not None and not isinstance(value, bool | int | float | str):
        raise TypeError(f"{value!r} is no attribute of an operation")
    return value


def _state(fields: dict[str, Any]) -> State:
    return State(str(fields["initial"]), str(fields["following"]))


def _names(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(name, str) for name in values):
        raise TypeError(f"{values!r} is not a list of names")
    return tuple(values)


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not an integer")
    return value


def _load_constants(path: Path) -> dict[str, AnyArray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            constants = {name: arrays[name] for name in arrays.files}
    except FileNotFoundError as error:
        raise FileFormatError(path, "does not exist", _ADVICE) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        raise FileFormatError(path, f"cannot be read as arrays ({error})", _ADVICE) from error
    for name, array in constants.items():
        if array.dtype.name not in NUMBER_FORMATS:
            raise FileFormatError(path, f"holds {name} as {array.dtype}, not float32", _ADVICE)
    return constants
