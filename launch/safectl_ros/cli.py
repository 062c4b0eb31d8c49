"""What `ros2 topic`, `ros2 param` and `ros2 lifecycle` do, where they are not installed.

`python -m safectl_ros.cli topics | echo TOPIC | hz TOPIC | params NODE | lifecycle NODE [CHANGE]`
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from safectl.errors import ConfigError, MissingExtra, SafectlError, UnknownNameError

try:
    from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState
    from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters
    from rclpy.node import Node
    from rclpy.parameter import parameter_value_to_python
    from rclpy.qos import qos_profile_best_available
except ModuleNotFoundError as error:
    raise SystemExit(f"error: {MissingExtra(error.name or 'rclpy', 'ros')}") from error
from safectl_ros.message_types import message_class
from safectl_ros.process import Message, RosThread

USAGE = "usage: python -m safectl_ros.cli COMMAND [NAME] [CHANGE] [--count N] [--seconds S]\n\n"
_APPEAR_S = 10.0
_SETTLE_S = 2.0  # announcements come within this time
_POLL_S = 0.05


class Rate(NamedTuple):
    """How regularly a topic is published: messages, mean rate [Hz], longest gap [s]."""

    messages: int
    rate_hz: float
    longest_gap_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status, 1 on an error and 2 on a wrong call."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = {name: _take(words, name) for name in ("--count", "--seconds")}
        command, names = words[0], words[1:]
        run = COMMANDS[command]
    except (KeyError, IndexError, ValueError):
        listed = "".join(f"  {name:10s} {_summary(run)}\n" for name, run in COMMANDS.items())
        sys.stderr.write(USAGE + listed)
        return 2
    try:
        with RosThread(lambda context: Node("safectl_cli", context=context)) as ros:
            for line in run(ros, names, options["--count"], options["--seconds"]):
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
    except KeyboardInterrupt:
        return 0
    except SafectlError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def topics(ros: RosThread, names: Sequence[str], count: float, seconds: float) -> Iterator[str]:
    """List topics: name, type, publishers, subscriptions."""
    _pause(seconds if np.isfinite(seconds) else _SETTLE_S)
    for topic, types in sorted(ros.node.get_topic_names_and_types()):
        out, into = ros.node.count_publishers(topic), ros.node.count_subscribers(topic)
        yield f"{topic}  {', '.join(types)}  {out} -> {into}"


def echo(ros: RosThread, names: Sequence[str], count: float, seconds: float) -> Iterator[str]:
    """Print the messages of a topic."""
    arrivals = _listen(ros, _only(names))
    started, printed = time.monotonic(), 0
    while printed < count and time.monotonic() - started < seconds:
        if printed < len(arrivals):
            yield str(arrivals[printed][1])
            printed += 1
        else:
            _pause(_POLL_S)


def hz(ros: RosThread, names: Sequence[str], count: float, seconds: float) -> Iterator[str]:
    """Measure the rate of a topic and its longest gap."""
    arrivals = _listen(ros, _only(names))
    _pause(seconds if np.isfinite(seconds) else 5.0)
    rate = measure_rate([arrival for arrival, _ in arrivals])
    yield f"{rate.messages} messages, {rate.rate_hz:.2f} Hz, longest gap {rate.longest_gap_s:.4f} s"


def params(ros: RosThread, names: Sequence[str], count: float, seconds: float) -> Iterator[str]:
    """List the parameters of a node with values, ranges and descriptions."""
    node = _only(names)
    listed = _call(ros, ListParameters, f"{node}/list_parameters", ListParameters.Request())
    known = sorted(listed.result.names)
    request = GetParameters.Request(names=known)
    values = _call(ros, GetParameters, f"{node}/get_parameters", request).values
    asked = DescribeParameters.Request(names=known)
    answer = _call(ros, DescribeParameters, f"{node}/describe_parameters", asked)
    for value, described in zip(values, answer.descriptors, strict=True):
        ranges = [*described.floating_point_range, *described.integer_range]
        limits = "".join(f" [{r.from_value:g}, {r.to_value:g}]" for r in ranges)
        fixed = " (fixed)" if described.read_only else ""
        text = described.description or described.additional_constraints
        shown = parameter_value_to_python(value)
        yield f"{described.name}: {shown!r}{limits}{fixed}  {text}"


def lifecycle(ros: RosThread, names: Sequence[str], count: float, seconds: float) -> Iterator[str]:
    """Show the lifecycle state of a node, after a change if one is named."""
    node, *changes = names or [""]
    for change in changes:
        _change(ros, node, change)
    yield _call(ros, GetState, f"{node}/get_state", GetState.Request()).current_state.label


def measure_rate(arrivals: Sequence[float]) -> Rate:
    """Return rate and longest gap of some times of arrival [s]; zero where there are too few."""
    if len(arrivals) < 2:
        return Rate(len(arrivals), 0.0, 0.0)
    gaps = np.diff(arrivals)
    return Rate(len(arrivals), float(1.0 / gaps.mean()), float(gaps.max()))


Run = Callable[[RosThread, Sequence[str], float, float], Iterator[str]]

COMMANDS: dict[str, Run] = {
    "topics": topics,
    "echo": echo,
    "hz": hz,
    "params": params,
    "lifecycle": lifecycle,
}
"""Each gives lines for the words after it, a number of messages and a time [s]."""


def _listen(ros: RosThread, topic: str) -> list[tuple[float, Message]]:
    """Subscribe as soon as somebody publishes; the list grows with every message."""
    full, node = ros.node.resolve_topic_name(topic), ros.node
    limit = time.monotonic() + _APPEAR_S
    while not (node.count_publishers(full) and full in dict(node.get_topic_names_and_types())):
        if time.monotonic() > limit:
            raise ConfigError(full, f"has no publisher after {_APPEAR_S:g} s")
        _pause(_POLL_S)
    kind = message_class(dict(node.get_topic_names_and_types())[full][0])
    arrivals: list[tuple[float, Message]] = []
    node.create_subscription(
        kind,
        full,
        lambda message: arrivals.append((time.monotonic(), message)),
        qos_profile_best_available,
    )
    return arrivals


def _call(ros: RosThread, kind: type[Any], name: str, request: Message) -> Message:
    client = ros.node.create_client(kind, name)
    try:
        return ros.call(client, request, timeout_s=_APPEAR_S)
    except TimeoutError as error:
        raise ConfigError(name, f"{error}; is the name of the node right?") from error


def _change(ros: RosThread, node: str, change: str) -> None:
    """Request a change that the node offers now: rclpy's nodes die of any other."""
    name, asked = f"{node}/get_available_transitions", GetAvailableTransitions.Request()
    answer = _call(ros, GetAvailableTransitions, name, asked)
    offered = {item.transition.label: item.transition for item in answer.available_transitions}
    if change not in offered:
        raise UnknownNameError("change", change, known=list(offered))
    request = ChangeState.Request(transition=offered[change])
    if not _call(ros, ChangeState, f"{node}/change_state", request).success:
        raise ConfigError(node, f"did not {change}; its log says why")


def _only(names: Sequence[str]) -> str:
    if len(names) != 1:
        raise ConfigError("command line", f"name one topic or node, got {list(names)}")
    return names[0]


def _take(words: list[str], name: str) -> float:
    """Take an option and its number out of the words; infinity where it is not there."""
    if name not in words:
        return float("inf")
    at = words.index(name)
    value = float(words[at + 1])
    del words[at : at + 2]
    return value


def _summary(run: Run) -> str:
    return (run.__doc__ or "").splitlines()[0]


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


if __name__ == "__main__":
    sys.exit(main())
