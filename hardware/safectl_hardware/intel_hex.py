"""Intel HEX files: which addresses they write (Intel, "Hexadecimal Object File Format", 1988)."""

from pathlib import Path
from typing import NamedTuple

from safectl.errors import FileFormatError

_DATA, _END, _SEGMENT, _LINEAR = 0, 1, 2, 4  # types of records; 3 and 5 name where to start
_LARGEST_TYPE = 5
_HEAD_BYTES = 5  # length, two of the address, type, checksum
_ADVICE = "build the image again"


class Span(NamedTuple):
    """Addresses from `start` up to, without, `stop`."""

    start: int
    stop: int


def hex_span(path: Path) -> Span:
    """Return the smallest span that holds every byte of a file.

    Raises:
        FileFormatError: If a record is damaged, the end is missing, or there is no data.
    """
    base, is_ended, spans = 0, False, []
    for number, line in enumerate(path.read_bytes().split(), start=1):
        kind, address, data = _record(path, number, line)
        if kind == _DATA and data:
            spans.append(Span(base + address, base + address + len(data)))
        elif kind in (_SEGMENT, _LINEAR):
            base = int.from_bytes(data, "big") << (4 if kind == _SEGMENT else 16)
        elif kind == _END:
            is_ended = True
            break
    if not is_ended:
        raise FileFormatError(path, "has no end record", _ADVICE)
    if not spans:
        raise FileFormatError(path, "holds no data", _ADVICE)
    return Span(min(span.start for span in spans), max(span.stop for span in spans))


def _record(path: Path, number: int, line: bytes) -> tuple[int, int, bytes]:
    """Return type, address and data of a record whose length and sum are right."""
    try:
        record = bytes.fromhex(line[1:].decode("ascii")) if line[:1] == b":" else b""
    except ValueError:
        record = b""
    is_whole = len(record) >= _HEAD_BYTES and len(record) == _HEAD_BYTES + record[0]
    if not is_whole or sum(record) % 256 or record[3] > _LARGEST_TYPE:
        raise FileFormatError(path, f"holds no record of Intel HEX in line {number}", _ADVICE)
    return record[3], int.from_bytes(record[1:3], "big"), record[4:-1]
