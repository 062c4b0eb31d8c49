"""The host's end of a serial line to a board: numbered frames, and a handshake that can refuse."""

import os
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from safectl.errors import BridgeError, SpecMismatch
from safectl.spec import Spec
from safectl_hardware.firmware import limits_crc32
from safectl_hardware.frames import PROTOCOL_VERSION, Decoder, Frame, Kind
from safectl_hardware.port import Port, now_us

HANDSHAKE_S = 5.0
"""How long a board may take to boot, test itself and answer."""

OFFER = struct.Struct("<HIII")
"""The host's part of the handshake: version, specification digest, CRC of limits, session."""
IDENTITY = struct.Struct("<HBBIIIIHHHH")
"""The board's part: version, role, whether it accepts, digests of specification and program, CRC of
limits, period [microseconds], observations, actions, failures of the self-test, zero."""
FAULT = struct.Struct("<BI")
"""Start of a fault: its code and the silence that the board counted [microseconds]."""

_ASK_AGAIN_S = 0.2


class Role(IntEnum):
    """What a board does on its line."""

    CONTROLLER = 1
    ROBOT = 2


class FaultCode(IntEnum):
    """Why a board stopped or refuses; the numbers of `ports/firmware/line.h`."""

    NOT_CONNECTED = 1
    SILENCE = 2
    MISMATCH = 3
    SELFTEST = 4
    MALFORMED = 5
    STOPPED = 6


class BoardFault(BridgeError):
    """A board says that it stopped, or why it refuses.

    Attributes:
        code: The reason.
        age_us: Silence that it counted, on its own clock [microseconds].
    """

    def __init__(self, code: FaultCode, age_us: int) -> None:
        self.code, self.age_us = code, age_us
        words = code.name.lower().replace("_", " ")
        super().__init__(
            f"the board stopped: {words} ({age_us / 1e6:.3f} s); connect again to start it"
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """What a board said in the handshake.

    Attributes:
        role: What it does.
        spec_digest: Of its specification.
        program_digest: Of its controller.
        limits_crc: Of its action limits.
        period_s: Its period [s].
        nx: Number of observations.
        nu: Number of actions.
    """

    role: Role
    spec_digest: int
    program_digest: int
    limits_crc: int
    period_s: float
    nx: int
    nu: int


class SerialLine:
    """Frames to and from a board.

    Args:
        open_port: Opens the port, again after every `close`.
        spec: The specification that the board must have.
        role: The role that it must have.
        program_digest: The controller that it must have; None where any will do.

    Attributes:
        answered: The board's clock [us] in its answer to the handshake, and ours when it came [s].
    """

    def __init__(
        self,
        open_port: Callable[[], Port],
        spec: Spec,
        *,
        role: Role,
        program_digest: int | None = None,
    ) -> None:
        self._open_port, self._spec, self._role = open_port, spec, role
        self._program_digest = program_digest
        self._port: Port | None = None
        self._decoder = Decoder()
        self._waiting: deque[Frame] = deque()
        self._sequence = 0
        self.answered = (0, 0.0)

    @property
    def refused(self) -> int:
        """Damaged frames since the last connection."""
        return self._decoder.refused

    def connect(self, *, timeout_s: float = HANDSHAKE_S) -> Identity:
        """Open the port and shake hands.

        Raises:
            BridgeError: If the port does not open, or the board does not answer, plays another
                role, failed its self-test, or was built for another program.
            SpecMismatch: If its protocol, specification or limits are others.
        """
        self.close()
        self._port = self._open_port()
        self._decoder = Decoder()
        self._waiting.clear()
        try:
            return self._shake_hands(time.monotonic() + timeout_s)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the port; never raises."""
        port, self._port = self._port, None
        if port is not None:
            port.close()

    def next_sequence(self) -> int:
        """Return the number for a new message."""
        self._sequence = (self._sequence + 1) % 2**16
        return self._sequence

    def send(self, kind: Kind, payload: bytes = b"", *, sequence: int | None = None) -> int:
        """Send a message and return its number.

        Raises:
            BridgeError: If the port is closed or gone.
        """
        number = self.next_sequence() if sequence is None else sequence
        frame = Frame(kind, number, now_us(), payload)
        self._require_port().send(frame.to_bytes())
        return number

    def receive(self, until: float) -> Frame | None:
        """Return the next valid frame, or None at `until` on the monotonic clock [s].

        Raises:
            BridgeError: If the port is closed or gone.
        """
        while not self._waiting:
            left = until - time.monotonic()
            data = self._require_port().receive(left)
            self._waiting.extend(self._decoder.push(data))
            if left <= 0.0:  # whatever arrives: noise may never end
                break
        return self._waiting.popleft() if self._waiting else None

    def _require_port(self) -> Port:
        if self._port is None:
            raise BridgeError("the serial line is not connected; enter the bridge or connect first")
        return self._port

    def _shake_hands(self, deadline: float) -> Identity:
        digest, crc = self._spec.digest(), limits_crc32(self._spec)
        session = int.from_bytes(os.urandom(4))  # tells a repeated handshake from a new one
        ours = OFFER.pack(PROTOCOL_VERSION, digest, crc, session)
        while time.monotonic() < deadline:
            number = self.send(Kind.LIMITS, ours)
            until = min(deadline, time.monotonic() + _ASK_AGAIN_S)
            while (frame := self.receive(until)) is not None:
                if frame.kind == Kind.LIMITS and frame.sequence == number:
                    self.answered = frame.time_us, time.monotonic()
                    return self._accept(frame.payload)
        raise BridgeError(
            "no board answered the handshake; check port, power and that firmware of this project "
            f"runs on it ({self.refused} damaged frames were received)"
        )

    def _accept(self, payload: bytes) -> Identity:
        if len(payload) != IDENTITY.size:
            raise SpecMismatch("host", "board", f"the board sends {len(payload)} B of identity")
        version, role, is_accepted, spec, program, limits, period, nx, nu, failures, _ = (
            IDENTITY.unpack(payload)
        )
        digest, crc = self._spec.digest(), limits_crc32(self._spec)
        if version != PROTOCOL_VERSION:
            raise SpecMismatch("host", "board", f"protocol {PROTOCOL_VERSION} against {version}")
        if spec != digest:
            raise SpecMismatch(
                "host", "board", f"digest {digest:08x} against {spec:08x}; flash again"
            )
        if limits != crc:
            raise SpecMismatch("host", "board", f"action limits {crc:08x} against {limits:08x}")
        if failures:
            raise BridgeError(
                f"the board failed its self-test in {failures} places; its flash does not hold "
                "the program: flash it again"
            )
        if role != self._role:
            raise BridgeError(f"the board has role {role}, expected {self._role.name.lower()}")
        if self._program_digest not in (None, program):
            raise BridgeError(
                f"the board runs program {program:08x}, expected {self._program_digest:08x}; flash "
                "it again"
            )
        if not is_accepted:
            raise BridgeError("the board refused the handshake; flash firmware of this version")
        return Identity(Role(role), spec, program, limits, period / 1e6, nx, nu)


def fault_of(frame: Frame) -> BoardFault:
    """Return what a fault frame says.

    Raises:
        BridgeError: If it has another layout.
    """
    try:
        code, age_us = FAULT.unpack_from(frame.payload)
        return BoardFault(FaultCode(code), age_us)
    except (struct.error, ValueError) as error:
        raise BridgeError(f"the board sent an unknown fault {frame.payload.hex()}") from error
