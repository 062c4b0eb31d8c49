"""What a guard tells people: interventions, margins, markers and diagnostics as messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point, Vector3
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA, Float64MultiArray, MultiArrayDimension, MultiArrayLayout
from visualization_msgs.msg import Marker, MarkerArray

from safectl.types import Status
from safectl_ros.diagnostics import ERROR, OK, WARN, make_status
from safectl_ros.guard_logic import Output, State

LEVELS: Mapping[State, bytes] = {
    State.UNCONFIGURED: WARN,
    State.INACTIVE: WARN,
    State.NOMINAL: OK,
    State.MODIFIED: OK,
    State.BACKUP: WARN,
    State.STOP: ERROR,
    State.ESTOP: ERROR,
}
"""Level of each state."""

_ARROW_S = 0.5  # an arrow shows where the robot would be after this time [s]
_PROPOSED, _APPLIED, _KEEP_OUT = (0.9, 0.6, 0.1), (0.1, 0.6, 0.2), (0.8, 0.1, 0.1)


@dataclass(slots=True)
class Counters:
    """How often what happened since the node was configured."""

    outputs: int = 0
    modified: int = 0
    infeasible: int = 0
    refused_commands: int = 0
    refused_observations: int = 0
    refused_transitions: int = 0
    changes: int = 0
    by_state: dict[str, int] = field(default_factory=dict)

    def count(self, output: Output) -> None:
        """Take note of one output."""
        self.outputs += 1
        self.changes += output.has_changed
        self.by_state[output.state] = self.by_state.get(output.state, 0) + 1
        if output.decision is not None:
            status = int(output.decision.certificate.status[0])
            self.modified += status == Status.CORRECTED
        self.infeasible += output.reason == "filter: no certified action"


def intervention(
    name: str, robot: str, output: Output, values: Mapping[str, object], *, is_stuck: bool
) -> DiagnosticStatus:
    """Describe a state and why the guard is in it.

    Args:
        name: Of the node.
        robot: Of the robot.
        output: What was decided.
        values: Further figures.
        is_stuck: Whether a command to move has been answered by rest for long.
    """
    level = max(LEVELS[output.state], WARN if is_stuck else OK)
    reason = output.reason or "the command decides"
    facts: dict[str, object] = {"state": str(output.state), "reason": reason}
    if output.decision is not None:
        certificate = output.decision.certificate
        facts |= {
            "margin": float(certificate.margin[0]),
            "risk": float(certificate.risk[0]),
            "action": np.array2string(output.decision.action[0].numpy(), precision=4),
        }
    facts["stuck"] = is_stuck
    message = f"{output.state}: {reason}" + ("; stuck" if is_stuck else "")
    return make_status(
        f"{name}: state", level, message, hardware_id=robot, values=facts | dict(values)
    )


def margins(labels: Sequence[str], values: Sequence[float]) -> Float64MultiArray:
    """Write margins, one dimension of the layout per name."""
    dimensions = [MultiArrayDimension(label=label, size=1, stride=1) for label in labels]
    return Float64MultiArray(layout=MultiArrayLayout(dim=dimensions), data=list(values))


def links(
    name: str,
    robot: str,
    *,
    publishers: Sequence[str],
    estops: int,
    incompatible: Mapping[str, str],
) -> DiagnosticStatus:
    """Report who else publishes the safe command or the e-stop, and who does not connect.

    Args:
        name: Of the node.
        robot: Of the robot.
        publishers: Nodes that publish the safe command, this one included.
        estops: Sources of the e-stop: the last one to speak would hide that another is pressed.
        incompatible: Quality of service that does not match, by topic.
    """
    problems = [f"{topic}: {policy}" for topic, policy in incompatible.items()]
    if len(publishers) > 1:
        problems.append(f"the safe command has {len(publishers)} publishers")
    if estops > 1:
        problems.append(f"the e-stop has {estops} publishers, merge them into one")
    values = {"publishers": ", ".join(sorted(publishers)), **incompatible}
    level, message = (ERROR, "; ".join(problems)) if problems else (OK, "as they should be")
    return make_status(f"{name}: links", level, message, hardware_id=robot, values=values)


def markers(
    stamp: Time,
    frame_id: str,
    pose: NDArray[np.float64],
    *,
    proposed: Sequence[float],
    applied: Sequence[float],
    discs: Sequence[tuple[float, float, float]],
) -> MarkerArray:
    """Draw keep-out discs, and where the robot goes by the proposed and by the applied command.

    Args:
        stamp: Of the observation.
        frame_id: Of the odometry.
        pose: x, y [m] and heading [rad].
        proposed: Speed [m/s] and turn rate [rad/s].
        applied: The same, as sent.
        discs: x, y and radius [m].
    """
    drawn = [
        _arrow(0, "proposed", pose, proposed, _PROPOSED),
        _arrow(1, "applied", pose, applied, _APPLIED),
        *[_cylinder(index + 2, disc) for index, disc in enumerate(discs)],
    ]
    for marker in drawn:
        marker.header.frame_id, marker.header.stamp = frame_id, stamp
    return MarkerArray(markers=drawn)


def _arrow(
    number: int,
    namespace: str,
    pose: NDArray[np.float64],
    command: Sequence[float],
    colour: tuple[float, float, float],
) -> Any:  # noqa: ANN401  messages have no types
    x, y, heading = pose.tolist()
    speed, turn_rate = command[0], command[-1]
    way, towards = speed * _ARROW_S, heading + 0.5 * turn_rate * _ARROW_S
    tip = Point(x=x + way * float(np.cos(towards)), y=y + way * float(np.sin(towards)))
    return Marker(
        ns=namespace,
        id=number,
        type=Marker.ARROW,
        points=[Point(x=x, y=y), tip],
        scale=Vector3(x=0.03, y=0.06, z=0.06),
        color=_colour(colour, 1.0),
    )


def _cylinder(number: int, disc: tuple[float, float, float]) -> Any:  # noqa: ANN401  as above
    x, y, radius = disc
    marker = Marker(
        ns="keep_out",
        id=number,
        type=Marker.CYLINDER,
        scale=Vector3(x=2.0 * radius, y=2.0 * radius, z=0.02),
        color=_colour(_KEEP_OUT, 0.4),
    )
    marker.pose.position.x, marker.pose.position.y = x, y
    return marker


def _colour(rgb: tuple[float, float, float], opacity: float) -> ColorRGBA:
    red, green, blue = rgb
    return ColorRGBA(r=red, g=green, b=blue, a=opacity)
