"""Parameters of a node: described, ranged, checked; an unknown one is an error at start."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from safectl.errors import ConfigError
from safectl_ros.process import Message

Value = bool | int | float | str | Sequence[float] | Sequence[str]
"""What a parameter may hold; its type is that of the default."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter.

    Attributes:
        name: As in a parameter file.
        default: Value where none is given; fixes the type.
        text: What it means, with its unit.
        low: Smallest number allowed, with `high`.
        high: Largest number allowed.
        choices: The only texts allowed, if any.
        read_only: Whether it is fixed once the node runs.
        is_required: Whether a text must be given.
    """

    name: str
    default: Value
    text: str
    low: int | float | None = None
    high: int | float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False
    is_required: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """Return the parameter's description for `ros2 param describe`."""
        constraint = f"one of {', '.join(self.choices)}" if self.choices else ""
        descriptor = ParameterDescriptor(
            description=self.text, read_only=self.read_only, additional_constraints=constraint
        )
        if self.low is None or self.high is None:
            return descriptor
        if isinstance(self.default, int):
            bounds = IntegerRange(from_value=int(self.low), to_value=int(self.high), step=0)
            descriptor.integer_range = [bounds]
        else:
            limits = FloatingPointRange(from_value=float(self.low), to_value=float(self.high))
            descriptor.floating_point_range = [limits]
        return descriptor

    def problem(self, value: object) -> str:
        """Return what is wrong with a value beyond type and range, or nothing."""
        if self.choices and value not in self.choices:
            near = get_close_matches(str(value), self.choices, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            return f"{self.name} is {value!r}, expected one of {', '.join(self.choices)}{hint}"
        entries = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if any(isinstance(entry, float) and not math.isfinite(entry) for entry in entries):
            return f"{self.name} is {value!r}, expected a finite number"
        return ""


ROBOT = Parameter(
    "robot",
    "",
    "TOML file of the robot, or name of its environment",
    read_only=True,
    is_required=True,
)
SEES_STATE = Parameter(
    "sees_state",
    False,
    "whether the robot is one of our environments and the topic model_state is observed",
    read_only=True,
)


def declare(node: Node, parameters: Iterable[Parameter]) -> dict[str, Any]:
    """Declare the parameters of a node and return their values.

    A whole number is accepted for a parameter with a fraction. Later changes are checked too.

    Args:
        node: The node; its overrides come from the command line and from parameter files.
        parameters: All its parameters.

    Returns:
        Value by name.

    Raises:
        ConfigError: If a value is of the wrong type or range, an override has an unknown name, or
            a required one is missing.
    """
    known = {parameter.name: parameter for parameter in parameters}
    source = f"parameters of {node.get_name()}"
    overrides: dict[str, RosParameter] = node._parameter_overrides
    _refuse_unknown(overrides, known, source)
    node.add_on_set_parameters_callback(lambda changes: _check(changes, known))
    for service in node.services:
        if service.srv_type in (SetParameters, SetParametersAtomically):
            service.callback = partial(_answer, service.callback)
    for name, parameter in known.items():
        if isinstance(parameter.default, float) and name in overrides:
            given = overrides[name].value
            if isinstance(given, int) and not isinstance(given, bool):
                overrides[name] = RosParameter(name, RosParameter.Type.DOUBLE, float(given))
        try:
            node.declare_parameter(name, parameter.default, parameter.descriptor())
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ConfigError(source, f"{_reason(error)} ({parameter.text})") from error
    values = {name: node.get_parameter(name).value for name in known}
    for name, parameter in known.items():
        if parameter.is_required and not values[name]:
            raise ConfigError(source, f"{name} is not set ({parameter.text})")
    return values


def _answer(change: Callable[..., Message], request: Message, response: Message) -> Message:
    """Refuse a value of no known type; rclpy raises, which would end the process."""
    types = {entry.value for entry in RosParameter.Type}
    strange = [entry.name for entry in request.parameters if entry.value.type not in types]
    if not strange:
        return change(request, response)
    refused = SetParametersResult(successful=False, reason=f"{strange[0]!r} has no known type")
    if isinstance(response, SetParameters.Response):
        response.results = [refused] * len(request.parameters)
    else:
        response.result = refused
    return response


def _refuse_unknown(
    overrides: Mapping[str, RosParameter], known: Mapping[str, Parameter], source: str
) -> None:
    for name in overrides:
        if name in known or name == "use_sim_time" or name.startswith("qos_overrides."):
            continue
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(source, f"unknown parameter {name!r}{hint} Known: {sorted(known)}")


def _check(changes: list[RosParameter], known: Mapping[str, Parameter]) -> SetParametersResult:
    for change in changes:
        problem = known[change.name].problem(change.value) if change.name in known else ""
        if problem:
            return SetParametersResult(successful=False, reason=problem)
    return SetParametersResult(successful=True)


def _reason(error: Exception) -> str:
    return str(error).replace("\n", " ")
