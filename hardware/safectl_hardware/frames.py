"""Frames on a serial line: COBS(type | sequence | time_us | payload | crc32) and a zero byte.

The numbers are little-endian: u8, u16, u32, the payload, u32. A byte lost or flipped costs one
frame, never a wrong one: the CRC covers all before it, and the zero byte starts anew.
`runtime/sf_frame.c` writes and accepts the same bytes.
"""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

from cobs import cobs

from safectl.errors import RangeError

PROTOCOL_VERSION = 1
_HEADER = struct.Struct("<BHI")
_CRC = struct.Struct("<I")
_LARGEST_FRAME_BYTES = 65536
"""A line that carries noise or another protocol may never send a zero byte."""


class Kind(IntEnum):
    """What a frame says."""

    COMMAND = 1
    STATE = 2
    HEARTBEAT = 3
    LIMITS = 4
    FAULT = 5
    ACK = 6
    STOP = 7


@dataclass(frozen=True, slots=True)
class Frame:
    """One message.

    Attributes:
        kind: Its type; a number that is no `Kind` is kept for the caller to refuse.
        sequence: Modulo 65,536.
        time_us: Clock of the sender modulo 2^32 [microseconds].
        payload: Bytes whose meaning the kind says.

    Raises:
        RangeError: If a number does not fit its field.
    """

    kind: int
    sequence: int
    time_us: int
    payload: bytes = b""

    def __post_init__(self) -> None:
        for name, value, bits in (
            ("kind", self.kind, 8),
            ("sequence", self.sequence, 16),
            ("time_us", self.time_us, 32),
        ):
            if not 0 <= value < 2**bits:
                raise RangeError(name, value=value, expected=f"0 to {2**bits - 1}")

    def to_bytes(self) -> bytes:
        """Return the bytes for the wire, the zero byte included."""
        body = _HEADER.pack(self.kind, self.sequence, self.time_us) + self.payload
        return bytes(cobs.encode(body + _CRC.pack(zlib.crc32(body)))) + b"\0"


def is_newer(sequence: int, last: int) -> bool:
    """Return whether a sequence number comes after another one, modulo 65,536."""
    return 0 < (sequence - last) % 2**16 < 2**15


class Decoder:
    """Turns received bytes, split anywhere, into valid frames; counts what it refuses."""

    def __init__(self) -> None:
        self._received = bytearray()
        self.refused = 0

    def push(self, data: bytes) -> list[Frame]:
        """Take bytes and return the frames that they complete."""
        *complete, rest = (bytes(self._received) + data).split(b"\0")
        if len(rest) > _LARGEST_FRAME_BYTES:
            self.refused += 1
            rest = rest[-1:]  # damaged: refused again when it ends
        self._received = bytearray(rest)
        frames = [_decode(wire) for wire in complete if wire]
        self.refused += frames.count(None)
        return [frame for frame in frames if frame is not None]


def _decode(wire: bytes) -> Frame | None:
    try:
        body = bytes(cobs.decode(wire))
    except cobs.DecodeError:
        return None
    if len(body) < _HEADER.size + _CRC.size:
        return None
    content, (checksum,) = body[: -_CRC.size], _CRC.unpack(body[-_CRC.size :])
    if zlib.crc32(content) != checksum:
        return None
    kind, sequence, time_us = _HEADER.unpack_from(content)
    return Frame(kind, sequence, time_us, content[_HEADER.size :])
