"""Launch files in XML: the subset that both `ros2 launch` and this project's runner understand.

Tags, attributes and substitutions outside the subset are errors that name the file and the tag.
"""

import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

import yaml

from safectl.errors import ConfigError
from safectl_ros.launch_text import Names, expand, is_true, nearest, package_executable

CONDITIONS = ("if", "unless")
_PROCESS = ("name", "args", "output", "respawn", "respawn_delay", "on_exit")
ATTRIBUTES = {
    "arg": ("name", "default", "description"),
    "let": ("name", "value"),
    "group": (),
    "include": ("file",),
    "node": ("pkg", "exec", "namespace", *_PROCESS),
    "executable": ("cmd", *_PROCESS),
    "push_ros_namespace": ("namespace",),
    "set_env": ("name", "value"),
    "set_parameter": ("name", "value"),
    "set_remap": ("from", "to"),
    "log": ("message",),
}
"""Tags of a file and their attributes; each may also carry `if` or `unless`."""

_CHILDREN: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "node": {"param": ("name", "value", "from"), "remap": ("from", "to"), "env": ("name", "value")},
    "executable": {"env": ("name", "value")},
    "include": {"arg": ("name", "value")},
    "param": {"param": ("name", "value")},
}
_OPTIONAL = {
    "arg": ("default", "description"),
    "node": ("namespace", *_PROCESS),
    "executable": _PROCESS,
    "param": ("name", "value", "from"),
}
_OUTPUTS = ("screen", "log", "both")


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a launch file.

    Attributes:
        name: Prefix of its output.
        command: Words of the command line; the first is the program.
        environment: Variables that are added to ours.
        respawn_delay_s: Pause before it is started again after an exit; None for never.
        ends_all: Whether its exit ends all others.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    respawn_delay_s: float | None = None
    ends_all: bool = False


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a launch file; `default` is None where it must be given."""

    name: str
    default: str | None
    description: str


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What a launch file says to do: processes in order, messages to print, its arguments."""

    processes: tuple[Process, ...]
    messages: tuple[str, ...]
    arguments: tuple[Argument, ...]


def read_launch_file(
    path: Path,
    arguments: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> LaunchPlan:
    """Read a launch file with its includes and return what it starts.

    Args:
        path: The file.
        arguments: Values for its arguments.
        environment: Where variables and installed packages are looked up; ours by default.

    Raises:
        ConfigError: Naming file and tag, on anything outside the subset, an unknown or missing
            argument, an unknown package or executable, or a parameter file that does not exist.
    """
    reader = _Reader(dict(os.environ if environment is None else environment))
    given = dict(arguments or {})
    reader.read(path, _Scope(variables=dict(given)))
    known = [argument.name for argument in reader.arguments]
    for name in given:
        if name not in known:
            listed = ", ".join(known) or "none"
            hint = nearest(name, known)
            raise ConfigError(str(path), f"has no argument {name!r}{hint} Arguments: {listed}")
    return LaunchPlan(tuple(reader.processes), tuple(reader.messages), tuple(reader.arguments))


@dataclass(slots=True)
class _Scope:
    """What the tags of a group have set so far; an included file shares its includer's."""

    variables: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    parameters: list[str] = field(default_factory=list)
    remaps: list[str] = field(default_factory=list)
    namespace: str = ""

    def copy(self) -> "_Scope":
        return replace(
            self,
            variables=dict(self.variables),
            environment=dict(self.environment),
            parameters=list(self.parameters),
            remaps=list(self.remaps),
        )


class _Tag:
    """A tag with its attributes checked and expanded."""

    def __init__(self, element: Element, path: Path, names: Names, allowed: Sequence[str]) -> None:
        self.element, self.path = element, path
        self.names = replace(names, source=f"{path.name} <{element.tag}>")
        for name in element.attrib:
            if name not in allowed:
                hint = nearest(name, allowed)
                raise self.error(f"unsupported attribute {name!r}{hint} Known: {list(allowed)}")
        optional = (*_OPTIONAL.get(element.tag, ()), *CONDITIONS)
        for name in allowed:
            if name not in element.attrib and name not in optional:
                raise self.error(f"needs the attribute {name!r}")

    def get(self, name: str, default: str = "") -> str:
        return expand(self.element.attrib.get(name, default), self.names)

    def words(self, name: str) -> list[str]:
        try:
            return shlex.split(self.get(name))
        except ValueError as error:
            problem = f"{name} is {self.get(name)!r}: {str(error).lower()}; close the quotation"
            raise self.error(problem) from error

    def holds(self) -> bool:
        wanted, unwanted = self.get("if", "true"), self.get("unless", "false")
        return is_true(wanted, self.names.source) and not is_true(unwanted, self.names.source)

    def children(self, tag: str | None = None) -> list["_Tag"]:
        known = _CHILDREN.get(self.element.tag, {})
        for child in self.element:
            if child.tag not in known:
                hint = nearest(child.tag, list(known))
                raise self.error(f"unsupported tag <{child.tag}> inside{hint}")
        chosen = [child for child in self.element if tag in (None, child.tag)]
        return [_Tag(child, self.path, self.names, known[child.tag]) for child in chosen]

    def error(self, problem: str) -> ConfigError:
        return ConfigError(self.names.source, problem)


class _Reader:
    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.processes: list[Process] = []
        self.messages: list[str] = []
        self.arguments: list[Argument] = []
        self.open: list[Path] = []

    def read(self, path: Path, scope: _Scope) -> None:
        if path.resolve() in self.open:
            raise ConfigError(str(path), "includes itself; end the circle of includes")
        self.open.append(path.resolve())
        try:
            root = ET.parse(path).getroot()
        except (OSError, ET.ParseError) as error:
            raise ConfigError(str(path), f"cannot be read as XML ({error})") from error
        if root.tag != "launch" or root.attrib:
            raise ConfigError(str(path), f"starts with <{root.tag}>, expected a plain <launch>")
        self._all(root, path, scope)
        self.open.pop()

    def _all(self, parent: Element, path: Path, scope: _Scope) -> None:
        for element in parent:
            # Jazzy accepts both spellings of the tag.
            element.tag = element.tag.replace("-", "_")
            if element.tag not in ATTRIBUTES:
                hint = nearest(element.tag, list(ATTRIBUTES))
                known = ", ".join(ATTRIBUTES)
                problem = f"unsupported tag <{element.tag}>{hint} Supported: {known}"
                raise ConfigError(path.name, problem)
            names = Names(
                path.name, path.parent, scope.variables, self.environment | scope.environment
            )
            tag = _Tag(element, path, names, (*ATTRIBUTES[element.tag], *CONDITIONS))
            if tag.holds():
                self._one(tag, scope)

    def _one(self, tag: _Tag, scope: _Scope) -> None:
        match tag.element.tag:
            case "arg":
                self._argument(tag, scope)
            case "let":
                scope.variables[tag.get("name")] = tag.get("value")
            case "group":
                self._all(tag.element, tag.path, scope.copy())
            case "include":
                for argument in tag.children("arg"):
                    scope.variables[argument.get("name")] = argument.get("value")
                self.read(Path(tag.get("file")), scope)
            case "push_ros_namespace":
                scope.namespace = _join(scope.namespace, tag.get("namespace"))
            case "set_env":
                scope.environment[tag.get("name")] = tag.get("value")
            case "set_parameter":
                scope.parameters += ["-p", f"{tag.get('name')}:={_typed(tag.get('value'), tag)}"]
            case "set_remap":
                scope.remaps += ["-r", f"{tag.get('from')}:={tag.get('to')}"]
            case "log":
                self.messages.append(tag.get("message"))
            case "node":
                self.processes.append(_node(tag, scope))
            case "executable":
                self.processes.append(_process(tag, scope, tag.words("cmd")))

    def _argument(self, tag: _Tag, scope: _Scope) -> None:
        name = tag.get("name")
        default = tag.get("default") if "default" in tag.element.attrib else None
        self.arguments.append(Argument(name, default, tag.get("description")))
        if name not in scope.variables:
            if default is None:
                raise tag.error(f"the argument {name!r} has no default; give it as {name}:=VALUE")
            scope.variables[name] = default


def _node(tag: _Tag, scope: _Scope) -> Process:
    """Build a node's command line with the words and the order of `ros2 launch`."""
    package, executable = tag.get("pkg"), tag.get("exec")
    program = package_executable(package, executable, tag.names.environment, tag.names.source)
    words = [str(program), *tag.words("args"), "--ros-args"]
    if tag.get("name"):
        words += ["-r", f"__node:={tag.get('name')}"]
    namespace = _join(scope.namespace, tag.get("namespace"))
    if namespace:
        words += ["-r", f"__ns:={namespace}"]
    words += scope.parameters
    for parameter in tag.children("param"):
        words += _parameter(parameter)
    words += scope.remaps
    for remap in tag.children("remap"):
        words += ["-r", f"{remap.get('from')}:={remap.get('to')}"]
    return _process(tag, scope, words, name=tag.get("name") or executable)


def _process(tag: _Tag, scope: _Scope, words: Sequence[str], name: str = "") -> Process:
    if not words:
        raise tag.error("names no program")
    added = {variable.get("name"): variable.get("value") for variable in tag.children("env")}
    respawns = is_true(tag.get("respawn", "false"), tag.names.source)
    on_exit, output = tag.get("on_exit"), tag.get("output", "log")
    if on_exit not in ("", "shutdown"):
        raise tag.error(f"on_exit is {on_exit!r}; the only value is 'shutdown'")
    if respawns and on_exit:
        raise tag.error("respawn and on_exit contradict each other; keep one")
    if output not in _OUTPUTS:
        raise tag.error(f"output is {output!r}, expected one of {list(_OUTPUTS)}")
    try:
        delay = float(tag.get("respawn_delay", "0.0"))
    except ValueError:
        delay = -1.0
    if not 0.0 <= delay < math.inf:
        raise tag.error("respawn_delay is no number of seconds from zero on")
    return Process(
        name=name or tag.get("name") or Path(words[0]).name,
        command=tuple(words),
        environment=scope.environment | added,
        respawn_delay_s=delay if respawns else None,
        ends_all=on_exit == "shutdown",
    )


def _parameter(tag: _Tag, prefix: str = "") -> list[str]:
    """Return the words for one parameter, a parameter file or nested parameters."""
    nested = tag.children("param")
    given = [name for name in ("value", "from") if name in tag.element.attrib]
    if len(given) + bool(nested) != 1:
        raise tag.error("needs one of: a value, a file in 'from', nested parameters")
    if "from" in given:
        path = Path(tag.get("from"))
        if not path.is_file():
            raise tag.error(f"the parameter file {path} does not exist")
        return ["--params-file", str(path)]
    if not tag.get("name"):
        raise tag.error("needs the attribute 'name'")
    name = f"{prefix}{tag.get('name')}"
    if nested:
        return [word for child in nested for word in _parameter(child, f"{name}.")]
    return ["-p", f"{name}:={_typed(tag.get('value'), tag)}"]


def _typed(text: str, tag: _Tag) -> str:
    """Return a value with its type kept: what YAML reads it as, written as JSON."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise tag.error(f"the value {text!r} is not YAML ({error})") from error
    if isinstance(value, Mapping):
        raise tag.error(f"the value {text!r} is a mapping; quote it or nest parameters")
    try:
        return json.dumps("" if value is None else value, ensure_ascii=False)
    except TypeError as error:  # a date
        raise tag.error(f"the value {text!r} is a date to YAML; quote it") from error


def _join(namespace: str, name: str) -> str:
    """Append a namespace; one that starts with a slash is absolute."""
    if not name:
        return namespace
    joined = name if name.startswith("/") else f"{namespace.rstrip('/')}/{name}"
    return joined.rstrip("/") or "/"
