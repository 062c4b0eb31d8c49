"""A rosbag2 recording as MCAP that survives the end of its writer.

The format is that of `ros2 bag` in Jazzy: a folder with `metadata.yaml` (version 9) and one MCAP
file of profile ros2. What `flush` has written can be read again by `recover`, whatever happens to
this process afterwards; a loss of power is another matter.
"""

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from mcap.exceptions import McapError
from mcap.records import Channel, Chunk, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.rosbag2.metadata import parse_qos
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from safectl.errors import FileFormatError, StorageError

METADATA = "metadata.yaml"


class BagWriter:
    """Writes one bag; a context manager that always closes it properly.

    Args:
        folder: Folder to make; an existing one is refused.

    Attributes:
        recorded: Messages that `flush` has handed to the system.

    Raises:
        StorageError: If the folder exists or the disk refuses, now or later.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._types: Typestore = get_typestore(Stores.ROS2_JAZZY)
        self._written = self.recorded = 0
        try:
            self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except (WriterError, OSError) as error:
            raise StorageError(folder, str(error)) from error
        assert isinstance(self._writer.storage, McapWriter), "asked for above"
        self._storage = self._writer.storage

    def knows(self, message_type: str) -> bool:
        """Return whether the definition of a message type is known, as a bag must hold it."""
        return message_type in self._types.fielddefs

    def add_topic(self, topic: str, message_type: str, offered: Sequence[Qos] = ()) -> Connection:
        """Announce a topic and return its handle.

        Args:
            topic: Absolute name.
            message_type: As in `std_msgs/msg/Bool`.
            offered: Quality of service of its publishers.
        """
        return self._writer.add_connection(
            topic, message_type, typestore=self._types, offered_qos_profiles=offered
        )

    def write(self, topic: Connection, stamp_ns: int, data: bytes) -> None:
        """Add a serialized message; `stamp_ns` is when it was received [ns since 1970]."""
        try:
            self._writer.write(topic, stamp_ns, data)
        except OSError as error:
            raise StorageError(self._folder, error.strerror or str(error)) from error
        self._written += 1

    def flush(self) -> None:
        """Hand everything to the system."""
        if self._written == self.recorded:
            return
        try:
            self._storage.close_chunk()
            self._storage.bio.flush()
        except OSError as error:
            raise StorageError(self._folder, error.strerror or str(error)) from error
        self.recorded = self._written

    def close(self) -> None:
        """Write index and metadata; idempotent."""
        if self._writer.storage is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            raise StorageError(self._folder, error.strerror or str(error)) from error
        self.recorded = self._written

    def __enter__(self) -> "BagWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def recover(folder: Path, target: Path) -> int:
    """Copy the whole messages of a bag whose writer was killed into a new bag.

    Args:
        folder: The bag; it is not changed.
        target: Folder of the new one.

    Returns:
        The number of messages.

    Raises:
        FileFormatError: If the folder holds no MCAP file with at least one topic.
        StorageError: If the target cannot be written.
    """
    files = sorted(folder.glob("*.mcap"))
    if not files:
        raise FileFormatError(folder, "holds no MCAP file", "name the folder of a recording")
    with files[0].open("rb") as stream, BagWriter(target) as writer:
        recorded = _copy(stream, writer)
    if recorded is None:
        raise FileFormatError(folder, "holds no topic", "record again")
    return recorded


def _copy(stream: IO[bytes], writer: BagWriter) -> int | None:
    """Copy whole chunks up to the place where the writer was killed; none where there is no topic.

    Outside its chunks, a bag of ours holds nothing that `close` does not write anew.
    """
    schemas: dict[int, Schema] = {}
    topics: dict[int, Connection] = {}
    count = 0
    with suppress(McapError, struct.error):
        for chunk in StreamReader(stream, emit_chunks=True).records:
            if not isinstance(chunk, Chunk):
                continue
            if len(chunk.data) < chunk.uncompressed_size:
                break
            for record in breakup_chunk(chunk):
                if isinstance(record, Schema):
                    schemas[record.id] = record
                elif isinstance(record, Channel):
                    offered = parse_qos(record.metadata.get("offered_qos_profiles", ""))
                    name = schemas[record.schema_id].name
                    topics[record.id] = writer.add_topic(record.topic, name, offered)
                elif isinstance(record, Message):
                    writer.write(topics[record.channel_id], record.log_time, record.data)
                    count += 1
    return count if topics else None


def is_closed(folder: Path) -> bool:
    """Return whether a bag was closed properly."""
    return os.access(folder / METADATA, os.R_OK)
