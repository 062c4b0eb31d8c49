"""A robot behind a serial line: a board that takes safe commands and reports its state."""

import logging
import struct
import time
from collections.abc import Callable

import numpy as np
import torch

from safectl.errors import BridgeError, ShapeError
from safectl.spec import Spec
from safectl.types import Decision, Reading, Sent
from safectl_hardware.frames import Frame, Kind, is_newer
from safectl_hardware.line import Identity, Role, SerialLine, fault_of
from safectl_hardware.port import Port

FIRST_STATE_S = 1.0
"""How long the first state may take after the handshake."""

_LOG = logging.getLogger(__name__)
_STOP_FRAMES = 3  # one may be lost; the board stops by itself before two periods anyway
_DRIFT = 2e-4  # by so much two crystals may differ, with temperature


class SerialBridge:
    """A `Bridge` to a board of role "robot".

    Every command feeds the board's watchdog; without one the board stops by itself before two
    periods have passed. After `stop` or a fault the bridge must be entered again: only a handshake
    lets the board run. Observations carry the board's time of measurement, mapped to our clock by
    the quickest frame so far, so that a frame that waited in a buffer is as old as it is.

    Args:
        open_port: Opens the serial port, again after every close.
        spec: Signals that the board must have.

    Raises:
        BridgeError: On entry, in `read` and in `write`, if the port is gone, the board does not
            answer or says that it stopped.
        SpecMismatch: On entry, if protocol, specification or limits of the board are others.
    """

    def __init__(self, open_port: Callable[[], Port], spec: Spec) -> None:
        self._spec = spec
        self._line = SerialLine(open_port, spec, role=Role.ROBOT)
        self._low = np.asarray(spec.action_low, np.float32)
        self._high = np.asarray(spec.action_high, np.float32)
        self._clock = _BoardClock()
        self._newest: tuple[int, Reading] | None = None
        self.identity: Identity | None = None
        self.applied: np.ndarray | None = None
        """Action that the board says it applied last, shape (nu,)."""

    @property
    def spec(self) -> Spec:
        """Signals of the robot."""
        return self._spec

    @property
    def refused(self) -> int:
        """Damaged frames since the last entry."""
        return self._line.refused

    def read(self) -> Reading:
        """Return the newest state with the time of its measurement; waits only for the first.

        Raises:
            BridgeError: If the port is gone, no state came, or the board says that it stopped.
        """
        deadline = time.monotonic() + (FIRST_STATE_S if self._newest is None else 0.0)
        while (frame := self._line.receive(deadline)) is not None:
            self._take(frame)
            deadline = 0.0 if self._newest is not None else deadline
        if self._newest is None:
            raise BridgeError(
                f"the board sent no state within {FIRST_STATE_S:g} s; check its firmware"
            )
        return self._newest[1]

    def write(self, decision: Decision, /) -> Sent:
        """Send the decided action, clipped to the limits of the robot.

        Raises:
            ShapeError: If the decision is not for one row.
            BridgeError: If the action is not finite or the port is gone.
        """
        if decision.action.shape != (1, self._spec.nu):
            raise ShapeError("action", expected=(1, self._spec.nu), got=decision.action.shape)
        action = decision.action[0].detach().cpu().numpy().astype(np.float32)
        if not np.isfinite(action).all():
            raise BridgeError(
                "the decided action is not finite; the safeguard is broken, stop here"
            )
        sent = np.clip(action, self._low, self._high)
        self._line.send(Kind.COMMAND, sent.astype("<f4").tobytes())
        return Sent(torch.from_numpy(sent), time.monotonic())

    def stop(self) -> None:
        """Tell the board to stop, more than once in case a frame is lost."""
        try:
            for _ in range(_STOP_FRAMES):
                self._line.send(Kind.STOP)
        except BridgeError as error:
            _LOG.warning("the board could not be told to stop and stops by itself: %s", error)

    def __enter__(self) -> "SerialBridge":
        """Connect; the handshake leaves the board stopped until the first command."""
        self._newest = None
        self.identity = self._line.connect()
        self._clock = _BoardClock()
        self._clock.stamp(*self._line.answered)  # states that then wait in a buffer are old
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.stop()
        finally:
            self._line.close()

    def _take(self, frame: Frame) -> None:
        """Keep a state that is newer; raise what a fault says; ignore the rest."""
        if frame.kind == Kind.FAULT:
            raise fault_of(frame)
        nx, nu = self._spec.nx, self._spec.nu
        if frame.kind != Kind.STATE or len(frame.payload) != 4 * (nx + nu) + 1:
            return
        if self._newest is not None and not is_newer(frame.sequence, self._newest[0]):
            return
        values = np.frombuffer(frame.payload, "<f4", count=nx + nu).astype(np.float32)
        stamp = self._clock.stamp(frame.time_us, time.monotonic())
        self._newest = frame.sequence, Reading(torch.from_numpy(values[:nx].copy()), stamp)
        self.applied = values[nx:]


class _BoardClock:
    """Maps the board's wrapping clock to ours by the smallest delay seen, which may grow slowly."""

    def __init__(self) -> None:
        self._last: tuple[int, float, float] | None = None  # raw, unwrapped [s], offset [s]

    def stamp(self, time_us: int, arrival: float) -> float:
        """Return the time of measurement on our clock [s], never after the arrival."""
        if self._last is None:
            self._last = time_us, 0.0, arrival
            return arrival
        raw, board, offset = self._last
        elapsed = (time_us - raw) % 2**32 / 1e6
        board += elapsed
        offset = min(offset + _DRIFT * elapsed, arrival - board)
        self._last = time_us, board, offset
        return board + offset


def pack_state(observation: np.ndarray, applied: np.ndarray, *, mode: int) -> bytes:
    """Return the payload of a state frame: observation (nx,), applied action (nu,) and mode."""
    values: bytes = np.concatenate([observation, applied]).astype("<f4").tobytes()
    return values + struct.pack("<B", mode)
