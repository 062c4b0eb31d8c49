"""Reading an MCAP file that may be damaged anywhere."""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from mcap.exceptions import McapError
from mcap.records import Channel, DataEnd, McapRecord, Message, Metadata
from mcap.stream_reader import StreamReader
from zstandard import ZstdError

from safectl.errors import FileFormatError

Row = tuple[float, dict[str, float | str]]
READ_ADVICE = "record again, or name a file that the control loop wrote"
_DAMAGE = (
    *(McapError, ZstdError, struct.error, EOFError, RuntimeError, MemoryError),
    *(ValueError, TypeError, KeyError, IndexError, OverflowError),
)
"""What the MCAP reader and its decompressors raise on bytes that they did not write."""


@dataclass(slots=True)
class Content:
    """Rows by topic, the metadata, and whether the checksums up to the end were right."""

    rows: dict[str, list[Row]]
    metadata: dict[str, str] = field(default_factory=dict)
    is_intact: bool = False


def scan(path: Path, topics: Sequence[str]) -> Content:
    """Collect the messages of some topics that come before the first damage.

    Chunks are checked before their messages are taken. `is_intact` needs the checksum of the whole
    data section and the end of the file.

    Raises:
        FileFormatError: If the file cannot be read at all.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileFormatError(path, f"cannot be read ({error.strerror})", READ_ADVICE) from error
    content, names, has_checksum = Content({topic: [] for topic in topics}), dict[int, str](), False
    try:
        for item in StreamReader(BytesIO(data), validate_crcs=True).records:
            _collect(item, content, names)
            has_checksum = has_checksum or (
                isinstance(item, DataEnd) and bool(item.data_section_crc)
            )
        content.is_intact = has_checksum
    except _DAMAGE:
        pass  # `is_intact` says so
    return content


def _collect(item: McapRecord, content: Content, names: dict[int, str]) -> None:
    """Take one record of the file.

    Raises:
        ValueError: If a step is missing before this one.
    """
    if isinstance(item, Metadata):
        content.metadata.update(item.metadata)
    elif isinstance(item, Channel):
        names[item.id] = item.topic
    elif isinstance(item, Message) and names[item.channel_id] in content.rows:
        rows = content.rows[names[item.channel_id]]
        if item.sequence != len(rows):
            raise ValueError(f"step {item.sequence} follows {len(rows)} steps")
        rows.append((item.log_time * 1e-9, json.loads(item.data)))
