"""What a loader gets and returns."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from safectl.safeguards import Brake
from safectl.spec import Spec
from safectl.types import Decision, Safeguard
from safectl_ros.robot_file import Robot


@dataclass(frozen=True, slots=True)
class Loaded:
    """A safeguard and what can be said about its constraints.

    Attributes:
        safeguard: For a batch of one.
        labels: Names of the margins.
        margins: The margins at an observation, shape (1, nx), and what was decided there.
        discs: Keep-out discs, x, y and radius [m], in the frame of the odometry.
        is_bounded: Whether `filter` takes a bounded number of operations, so that it may run where
            the command arrives; anything else runs in a thread of its own.
    """

    safeguard: Safeguard
    labels: tuple[str, ...] = ("margin",)
    margins: Callable[[Tensor, Decision], Tensor] = lambda _, decision: decision.certificate.margin
    discs: tuple[tuple[float, float, float], ...] = ()
    is_bounded: bool = True


class Source(NamedTuple):
    """What a builder gets: the robot, its specification with the limits in force, the file, and the
    files that have led to it."""

    robot: Robot
    spec: Spec
    path: Path
    within: tuple[Path, ...] = ()

    @property
    def rest(self) -> Brake:
        """What a filter of this robot falls back to."""
        return self.robot.rest_within(self.spec)
