"""Settings: frozen dataclasses, TOML files that hold only differences, one command-line reader.

A dataclass beside its component is the only place where a default lives. Pydantic refuses values of
the wrong type; tyro makes the options, whose help is the field's docstring.
"""

import json
import math
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import tyro
from pydantic import TypeAdapter, ValidationError

from safectl.errors import ConfigError, SafectlError

Settings = TypeVar("Settings")


def load_toml(defaults: Settings, path: Path) -> Settings:
    """Overlay a TOML file of differences on default settings.

    Args:
        defaults: Frozen dataclass instance; nested dataclasses are tables of the file.
        path: The file.

    Returns:
        New settings of the same type, validated.

    Raises:
        ConfigError: If the file is missing, is not TOML, holds an unknown key or a wrong value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read ({error})") from error
    try:
        differences = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), f"is not TOML: {error}") from error
    return overlay(defaults, differences, source=str(path))


def overlay(defaults: Settings, differences: Mapping[str, object], *, source: str) -> Settings:
    """Replace single fields of settings and validate the whole.

    Raises:
        ConfigError: On an unknown key or a value of the wrong type or range.
    """
    kind = type(defaults)
    merged = _merge(defaults, differences, source, prefix="")
    try:
        # As JSON a dataclass may be a table and a tuple a list, while "3" still is no number.
        return TypeAdapter(kind).validate_json(json.dumps(merged, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or kind.__name__
        got = f", got {first['input']!r}" if not isinstance(first["input"], dict) else ""
        raise ConfigError(source, f"{where}: {first['msg']}{got}") from error
    except SafectlError as error:
        raise ConfigError(source, str(error)) from error


def from_command_line(
    defaults: Settings, arguments: Sequence[str] | None = None, *, program: str, description: str
) -> Settings:
    """Read options that override settings; `--config FILE` or `--config=FILE` is applied first.

    Raises:
        ConfigError: If the file of `--config` cannot be used.
        SystemExit: With status 2 on an unknown option, with 0 after `--help`.
    """
    path, rest = _take_config(list(sys.argv[1:] if arguments is None else arguments))
    if path is not None:
        defaults = load_toml(defaults, path)
    return tyro.cli(
        type(defaults), default=defaults, args=rest, prog=program, description=description
    )


def to_mapping(settings: object) -> dict[str, Any]:
    """Return settings as plain nested dictionaries, for JSON."""
    if not is_dataclass(settings) or isinstance(settings, type):
        raise ConfigError(type(settings).__name__, "is not a dataclass instance")
    return asdict(settings)


def _take_config(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """Return the file of `--config` and the other arguments."""
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name != "--config":
            continue
        end = position + (1 if equals else 2)
        value = value if equals else "".join(arguments[position + 1 : end])
        if not value:
            raise ConfigError("--config", "needs the path of a TOML file")
        return Path(value), arguments[:position] + arguments[end:]
    return None, arguments


def _merge(
    defaults: object, differences: Mapping[str, object], source: str, prefix: str
) -> dict[str, Any]:
    if not is_dataclass(defaults) or isinstance(defaults, type):
        raise ConfigError(source, f"{prefix.rstrip('.')} is a value, not a table")
    known = [field.name for field in fields(defaults) if field.init]
    merged = {name: _as_json(getattr(defaults, name)) for name in known}
    for key, value in differences.items():
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(source, f"unknown key {prefix + key!r}{hint} Known: {known}")
        if isinstance(value, Mapping):
            merged[key] = _merge(getattr(defaults, key), value, source, prefix=f"{prefix}{key}.")
        elif _holds_nan(value):
            raise ConfigError(source, f"{prefix + key}: NaN is not a setting; write a number")
        else:
            merged[key] = value
    return merged


def _holds_nan(value: object) -> bool:
    """Tell whether a TOML value is NaN or holds one, however deep."""
    if isinstance(value, Mapping):
        return any(_holds_nan(entry) for entry in value.values())
    if isinstance(value, list):
        return any(_holds_nan(entry) for entry in value)
    return isinstance(value, float) and math.isnan(value)


def _as_json(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
