"""What a bag says about one robot: states, proposals, safe commands and outcomes as arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader, ReaderError
from std_msgs.msg import Float64MultiArray

from safectl.errors import AdapterError, FileFormatError
from safectl_ros.adapters import Array, Interface
from safectl_ros.adapters.vector import label_stamp
from safectl_ros.bag_writer import METADATA, is_closed
from safectl_ros.process import Message

NO_STAMP = -1
"""Stands for a message without a stamp."""

_OUTCOME = 4  # reward, cost, terminated, truncated


@dataclass(frozen=True, slots=True)
class Stream:
    """The messages of one topic in the order of their arrival.

    Attributes:
        stamp: What each message carries [ns], shape (T,); `NO_STAMP` where it carries none.
        arrival: When each arrived [ns since 1970], shape (T,).
        values: Its numbers, shape (T, n).
        refused: Number of messages that this robot cannot have sent.
    """

    stamp: Int64[np.ndarray, " T"]
    arrival: Int64[np.ndarray, " T"]
    values: Float64[np.ndarray, "T n"]
    refused: int = 0

    def __len__(self) -> int:
        return len(self.stamp)

    def before(self, arrival: int) -> int:
        """Return the index of the newest message at an instant [ns], -1 where there is none."""
        return int(np.searchsorted(self.arrival, arrival, side="right")) - 1

    def answer(self, stamp: int, arrival: int) -> int:
        """Return the index of the first message with a stamp from an instant on, -1 for none."""
        found = np.flatnonzero((self.stamp == stamp) & (self.arrival >= arrival))
        return int(found[0]) if stamp != NO_STAMP and len(found) else -1


@dataclass(frozen=True, slots=True)
class Recording:
    """One robot in a bag.

    Attributes:
        states: Its state, or that of its model.
        proposals: Commands before the guard.
        safe: Commands after the guard.
        outcomes: Reward, cost, terminated and truncated of each step of a simulator; may be empty.
    """

    states: Stream
    proposals: Stream
    safe: Stream
    outcomes: Stream


def read_recording(
    folder: Path, interface: Interface, *, state_topic: str = "", simulator: str = "sim"
) -> Recording:
    """Read a closed bag.

    Args:
        folder: The bag.
        interface: Messages of the robot.
        state_topic: In place of the interface's, such as `model_state`.
        simulator: Name of the simulator node.

    Raises:
        FileFormatError: If it is no bag, was not closed, or has no state or no safe command.
    """
    if not is_closed(folder):
        advice = f"repair it: safectl bag {folder} --recover NEW-FOLDER"
        if not any(folder.glob("*.mcap")):
            raise FileFormatError(folder, "is no bag", "name the folder that a recorder made")
        raise FileFormatError(folder, f"was not closed, {METADATA} is missing", advice)
    spec, command = interface.spec, (interface.command_type, interface.command_to_array)
    state = (interface.state_type, interface.state_to_array)
    stamp_of = interface.stamp_of
    states = _read(folder, state_topic or interface.state_topic, *state, stamp_of, spec.nx)
    proposals = _read(folder, interface.command_topic, *command, stamp_of, spec.nu)
    safe = _read(folder, interface.safe_topic, *command, stamp_of, spec.nu)
    outcome = f"{simulator}/outcome"
    outcomes = _read(folder, outcome, Float64MultiArray, _numbers, label_stamp, _OUTCOME)
    for name, stream in (("state", states), ("command", proposals if len(proposals) else safe)):
        if len(stream) == 0:
            problem = f"holds no {name} of this robot ({stream.refused} refused)"
            raise FileFormatError(folder, problem, "name the robot that was recorded")
    return Recording(states, proposals, safe, outcomes)


def _read(
    folder: Path,
    topic: str,
    kind: type,
    to_array: Callable[[Message], Array],
    stamp_of: Callable[[Message], int | None],
    size: int,
) -> Stream:
    """Read every message of a topic, in whatever namespace it was recorded."""
    stamps, arrivals, rows, refused = [], [], [], 0
    try:
        with Reader(folder) as reader:
            wanted = [c for c in reader.connections if c.topic.endswith(f"/{topic}")]
            robots = sorted({c.topic for c in wanted})
            if len(robots) > 1:
                problem = f"holds several robots: {', '.join(robots)}"
                raise FileFormatError(folder, problem, "record one namespace per bag")
            for _, arrival, raw in reader.messages(wanted) if wanted else ():
                try:
                    message = deserialize_message(bytes(raw), kind)
                    row = to_array(message)
                except AdapterError:
                    refused += 1
                    continue
                stamp = stamp_of(message)
                stamps.append(NO_STAMP if stamp is None else stamp)
                arrivals.append(arrival)
                rows.append(row)
    except (ReaderError, OSError) as error:
        raise FileFormatError(folder, f"cannot be read ({error})", "record again") from error
    return Stream(
        np.array(stamps, dtype=np.int64),
        np.array(arrivals, dtype=np.int64),
        np.array(rows, dtype=np.float64).reshape(-1, size),
        refused,
    )


def _numbers(message: Message) -> Array:
    return np.array(message.data, dtype=np.float64)
