"""TOML files that name a kind: the word `kind`, then the settings of that kind."""

import importlib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safectl.config import overlay
from safectl.errors import ConfigError, SafectlError, UnknownNameError
from safectl.spec import Spec


class Kind(NamedTuple):
    """One kind of thing: its settings with their defaults, and what builds it from settings."""

    defaults: Any
    build: Callable[..., Any]


class Source(NamedTuple):
    """What builds a policy or a planner gets: signals of the robot, and the file."""

    spec: Spec
    path: Path


@contextmanager
def named(what: str, path: Path | str) -> Iterator[None]:
    """Let every error of this project say which file it is about.

    Raises:
        ConfigError: In place of any other error of this project.
    """
    try:
        yield
    except ConfigError:
        raise
    except SafectlError as error:
        raise ConfigError(f"{what} {path}", str(error)) from error


def late(place: str) -> Callable[..., Any]:
    """Return a builder, `module:function`, that is imported when it is called.

    For what needs simulators or trainers: they take seconds to import and memory to hold, and a
    node with something else is spared both.
    """
    module, name = place.split(":")

    def build(*arguments: Any) -> Any:  # noqa: ANN401  as every `Kind.build`
        return getattr(importlib.import_module(module), name)(*arguments)

    return build


def read_kind(path: Path, kinds: Mapping[str, Kind], what: str) -> tuple[Kind, Any]:
    """Read which kind a file names, and its settings.

    Args:
        path: The file.
        kinds: All kinds by name.
        what: What they are kinds of, for messages.

    Raises:
        ConfigError: If the file cannot be read, is not TOML or does not fit the settings.
        UnknownNameError: If it names no kind or an unknown one.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path}", f"cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{what} {path}", f"is not TOML: {error}") from error
    name = content.pop("kind", None)
    if not isinstance(name, str) or name not in kinds:
        raise UnknownNameError(f"kind of {what}", str(name), known=tuple(kinds))
    return kinds[name], overlay(kinds[name].defaults, content, source=str(path))
