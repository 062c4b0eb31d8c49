"""Substitutions of launch files: `$(var NAME)`, `$(env NAME DEFAULT)`, `$(find-pkg-share PACKAGE)`,
`$(dirname)` and `$(not VALUE)`.

These five are the subset that this project's files use; every other one is an error, so that a file
means the same to `ros2 launch`.
"""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from safectl.errors import ConfigError

TRUE, FALSE = ("true", "1"), ("false", "0")


@dataclass(frozen=True, slots=True)
class Names:
    """What a substitution can refer to.

    Attributes:
        source: File and tag, for error messages.
        folder: Folder of the file.
        variables: Arguments and `let` values.
        environment: Environment of the processes that are started.
    """

    source: str
    folder: Path
    variables: Mapping[str, str]
    environment: Mapping[str, str]


def expand(text: str, names: Names) -> str:
    """Replace every substitution in a text, innermost first.

    Raises:
        ConfigError: On an unknown or unclosed substitution and on an unknown name.
    """
    start = text.rfind("$(")
    while start >= 0:
        end = text.find(")", start)
        if end < 0:
            raise ConfigError(names.source, f"{text!r} opens a substitution and does not close it")
        text = text[:start] + _value(text[start + 2 : end], names) + text[end + 1 :]
        start = text.rfind("$(", 0, start)
    return text


def is_true(text: str, source: str) -> bool:
    """Read a truth value as `ros2 launch` does.

    Raises:
        ConfigError: If it is none of true, false, 1 and 0.
    """
    if text.strip().lower() not in (*TRUE, *FALSE):
        raise ConfigError(source, f"{text!r} is no truth value; write true or false")
    return text.strip().lower() in TRUE


def package_share(package: str, environment: Mapping[str, str], source: str) -> Path:
    """Return the share folder of a ROS package.

    Raises:
        ConfigError: If no prefix holds the package.
    """
    for prefix in prefixes(environment):
        if (prefix / "share" / package).is_dir():
            return prefix / "share" / package
    raise ConfigError(source, f"no ROS package {package!r} in {_listed(environment)}")


def package_executable(
    package: str, name: str, environment: Mapping[str, str], source: str
) -> Path:
    """Return an executable of a ROS package: `lib/PACKAGE/NAME` of a prefix, or `bin/NAME`.

    Raises:
        ConfigError: If no prefix holds it.
    """
    for folder in (f"lib/{package}", "bin"):
        for prefix in prefixes(environment):
            if os.access(prefix / folder / name, os.X_OK):
                return prefix / folder / name
    raise ConfigError(
        source,
        f"no executable {name!r} of the package {package!r} in {_listed(environment)}; run "
        "make setup here, or source install/setup.bash of your workspace",
    )


def prefixes(environment: Mapping[str, str]) -> list[Path]:
    """Return where packages are installed: AMENT_PREFIX_PATH, then this Python's environment."""
    listed = environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return [Path(prefix) for prefix in [*listed, sys.prefix] if prefix]


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a hint at the nearest known name, empty where none is near."""
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _value(call: str, names: Names) -> str:
    word, _, rest = call.strip().partition(" ")
    try:
        values = shlex.split(rest)
    except ValueError as error:
        raise ConfigError(names.source, f"$({call}): {error}") from error
    match word, values:
        case "var", [name]:
            return _variable(name, names)
        case "env", [name, *default] if len(default) <= 1:
            return _environment(name, default, names)
        case "find-pkg-share", [package]:
            return str(package_share(package, names.environment, names.source))
        case "dirname", []:
            return str(names.folder)
        case "not", [value]:
            return str(not is_true(value, names.source)).lower()
    known = "var NAME, env NAME [DEFAULT], find-pkg-share PACKAGE, dirname, not VALUE"
    raise ConfigError(names.source, f"unsupported substitution $({call}); supported: {known}")


def _variable(name: str, names: Names) -> str:
    if name not in names.variables:
        hint = nearest(name, list(names.variables))
        raise ConfigError(names.source, f"no argument or let named {name!r}{hint}")
    return names.variables[name]


def _environment(name: str, default: Sequence[str], names: Names) -> str:
    value = names.environment.get(name, *default)
    if value is None:
        raise ConfigError(
            names.source, f"the environment variable {name} is not set and has no default"
        )
    return value


def _listed(environment: Mapping[str, str]) -> str:
    return ", ".join(str(prefix) for prefix in prefixes(environment))
