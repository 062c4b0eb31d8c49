"""A board of role "robot" on a pseudo-terminal, which misbehaves on request; for tests."""

import os
import select
import threading
import time
import tty
from dataclasses import dataclass

import numpy as np

from safectl.spec import Spec
from safectl_hardware.firmware import limits_crc32
from safectl_hardware.frames import PROTOCOL_VERSION, Decoder, Frame, Kind, is_newer
from safectl_hardware.line import FAULT, IDENTITY, OFFER, FaultCode, Role
from safectl_hardware.port import now_us
from safectl_hardware.serial import pack_state

_STOPPED, _RUNNING, _TRIPPED = 0, 1, 2
_SILENCE_PERIODS = 1.875


@dataclass(frozen=True, slots=True)
class BoardFaults:
    """What the fake board does wrong.

    Attributes:
        version: Protocol version that it claims.
        limits_crc: CRC of limits that it claims; None for the right one.
        is_mute: It sends no states.
        repeats: It sends every state twice, and an old one in between.
    """

    version: int = PROTOCOL_VERSION
    limits_crc: int | None = None
    is_mute: bool = False
    repeats: bool = False


class FakeBoard:
    """Integrators x_i[k+1] = x_i[k] + T u_j[k] behind a pseudo-terminal; a context manager.

    State i integrates action j = i modulo nu.

    It follows the firmware: starts stopped, runs after a handshake with the first command, stops on
    silence before two periods, and repeats the applied action in every state.

    Args:
        spec: Signals.
        faults: What it does wrong.
    """

    def __init__(self, spec: Spec, faults: BoardFaults | None = None) -> None:
        self._spec = spec
        self.faults = faults or BoardFaults()
        self._decoder = Decoder()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._state = np.zeros(spec.nx, np.float32)
        self._applied = np.zeros(spec.nu, np.float32)
        self._may_arm = False
        self._sequence = 0
        self._last_command: tuple[int, float] | None = None
        self.mode = _STOPPED
        self.commands: list[tuple[float, ...]] = []
        self.stops = 0
        self.port = ""

    @property
    def is_running(self) -> bool:
        """Whether it applies commands."""
        return self.mode == _RUNNING

    def __enter__(self) -> "FakeBoard":
        """Open the terminal and start to serve."""
        self._master, self._slave = os.openpty()
        for end in (self._master, self._slave):
            tty.setraw(end)
        self.port = os.ttyname(self._slave)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Unplug: the port vanishes."""
        self._ends.set()
        self._thread.join()
        for end in (self._master, self._slave):
            os.close(end)

    def _serve(self) -> None:
        due = time.monotonic() + self._spec.period
        while not self._ends.is_set():
            left = max(0.0, due - time.monotonic())
            if select.select([self._master], [], [], min(left, 0.05))[0]:
                for frame in self._decoder.push(os.read(self._master, 4096)):
                    self._answer(frame)
            if time.monotonic() >= due:
                due += self._spec.period
                self._tick()

    def _tick(self) -> None:
        """Move, watch for silence and report: once per period."""
        now = time.monotonic()
        silence_s = now - self._last_command[1] if self._last_command else 0.0
        if self.is_running and silence_s > _SILENCE_PERIODS * self._spec.period:
            self.mode = _TRIPPED
            self._halt()
            self._send_fault(FaultCode.SILENCE, silence_s)
        pushed = np.resize(self._applied, self._spec.nx)
        self._state = self._state + np.float32(self._spec.period) * pushed
        self._sequence = (self._sequence + 1) % 2**16
        if not self.faults.is_mute:
            payload = pack_state(self._state, self._applied, mode=self.mode)
            self._send(Kind.STATE, self._sequence, payload)
            if self.faults.repeats:
                self._send(Kind.STATE, (self._sequence - 1) % 2**16, bytes(len(payload)))
                self._send(Kind.STATE, self._sequence, payload)

    def _answer(self, frame: Frame) -> None:
        if frame.kind == Kind.LIMITS and len(frame.payload) == OFFER.size:
            self._shake_hands(frame)
        elif frame.kind == Kind.STOP:
            self.stops += 1
            self.mode, self._may_arm = _STOPPED, False
            self._halt()
            self._send(Kind.ACK, frame.sequence, b"")
        elif frame.kind == Kind.COMMAND and len(frame.payload) == 4 * self._spec.nu:
            self._command(frame)

    def _shake_hands(self, frame: Frame) -> None:
        version, spec, limits, _ = OFFER.unpack(frame.payload)
        own = (self.faults.version, self._spec.digest(), limits_crc32(self._spec))
        own_limits = own[2] if self.faults.limits_crc is None else self.faults.limits_crc
        self._may_arm = (version, spec, limits) == (*own[:2], own_limits)
        self.mode, self._last_command = _STOPPED, None
        self._halt()
        period_us = round(self._spec.period * 1e6)
        sizes = self._spec.nx, self._spec.nu
        payload = IDENTITY.pack(
            own[0], Role.ROBOT, self._may_arm, own[1], 0, own_limits, period_us, *sizes, 0, 0
        )
        self._send(Kind.LIMITS, frame.sequence, payload)

    def _command(self, frame: Frame) -> None:
        last = self._last_command
        if last is not None and not is_newer(frame.sequence, last[0]):
            return
        if not (self._may_arm or self.is_running):
            code = FaultCode.SILENCE if self.mode == _TRIPPED else FaultCode.STOPPED
            self._send_fault(code, 0.0)
            return
        self._may_arm, self.mode = False, _RUNNING
        self._last_command = frame.sequence, time.monotonic()
        action = np.frombuffer(frame.payload, "<f4")
        low, high = self._spec.action_low, self._spec.action_high
        self._applied = np.clip(action, low, high).astype(np.float32)
        self.commands.append(tuple(self._applied.tolist()))

    def _halt(self) -> None:
        self._applied = np.zeros(self._spec.nu, np.float32)

    def _send_fault(self, code: FaultCode, silence_s: float) -> None:
        payload = FAULT.pack(code, int(1e6 * silence_s)) + self._applied.tobytes()
        self._send(Kind.FAULT, self._sequence, payload)

    def _send(self, kind: Kind, sequence: int, payload: bytes) -> None:
        os.write(self._master, Frame(kind, sequence, now_us(), payload).to_bytes())
