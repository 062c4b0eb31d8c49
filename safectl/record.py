"""The step record: an MCAP file that opens in Foxglove and PlotJuggler.

One JSON channel each for what was observed, proposed, sent and certified, with the fields named by
the `Spec`. Chunks are small and flushed, so a kill loses at most the last one; a file without its
end is still read up to the last whole chunk.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float, Int
from mcap.exceptions import McapError
from mcap.reader import NonSeekingReader
from mcap.writer import Writer
from torch import Tensor

from safectl.errors import FileFormatError, StorageError
from safectl.spec import Signal, Spec, spec_from_json
from safectl.types import Decision, Reading, Sent

RECORD_VERSION = 1
_CHUNK_BYTES = 16 * 1024
_CERTIFICATE = ("status", "margin", "risk", "residual", "elapsed_s")
_ADVICE = "record again, or name a file that the control loop wrote"


class Recorder:
    """Writes one record; a context manager that always closes the file properly.

    Args:
        path: File to make; an existing one is refused.
        spec: Names the fields.

    Raises:
        StorageError: If the file exists or the disk refuses, now or in `append`.
    """

    def __init__(self, path: Path, spec: Spec) -> None:
        self._path, self._spec = path, spec
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream: IO[bytes] = path.open("xb")
        except OSError as error:
            raise StorageError(path, error.strerror or str(error)) from error
        self._writer = Writer(self._stream, chunk_size=_CHUNK_BYTES)
        self._writer.start(profile="", library="safectl")
        self._writer.add_metadata(
            "safectl", {"version": str(RECORD_VERSION), "spec": spec.to_json()}
        )
        self._channels = {
            "/observation": self._channel("/observation", spec.observation),
            "/proposal": self._channel("/proposal", spec.action),
            "/sent": self._channel("/sent", spec.action),
            "/certificate": self._channel("/certificate", [_plain(n) for n in _CERTIFICATE]),
        }
        self._sequence = 0
        self._since_flush = 0

    def append(
        self,
        reading: Reading,
        proposal: Float[Tensor, "one nu"],
        decision: Decision,
        sent: Sent,
        elapsed: float,
    ) -> None:
        """Add one control step; `elapsed` is the time from reading to sending [s]."""
        certificate = decision.certificate
        row = [certificate.status, certificate.margin, certificate.risk, certificate.residual]
        evidence = [float(value[0]) for value in row] + [elapsed]
        observed, spec = reading.observation.tolist(), self._spec
        self._add("/observation", reading.stamp, _named(spec.observation, observed))
        self._add("/proposal", reading.stamp, _named(spec.action, proposal[0].tolist()))
        self._add("/sent", sent.stamp, _named(spec.action, sent.action.tolist()))
        self._add("/certificate", sent.stamp, dict(zip(_CERTIFICATE, evidence, strict=True)))
        self._sequence += 1

    def close(self) -> None:
        """Write the index and close the file; idempotent."""
        if self._stream.closed:
            return
        try:
            self._writer.finish()  # type: ignore[no-untyped-call]  # mcap types all but this
            self._stream.close()
        except OSError as error:
            raise StorageError(self._path, error.strerror or str(error)) from error

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _channel(self, topic: str, signals: Sequence[Signal]) -> int:
        schema = self._writer.register_schema(
            f"safectl{topic.replace('/', '.')}", "jsonschema", _schema(signals)
        )
        return self._writer.register_channel(topic, "json", schema)

    def _add(self, topic: str, stamp: float, fields: Mapping[str, float]) -> None:
        data = json.dumps({name: _json_number(value) for name, value in fields.items()}).encode()
        nanoseconds = round(stamp * 1e9)
        try:
            self._writer.add_message(
                self._channels[topic], nanoseconds, data, nanoseconds, self._sequence
            )
            self._since_flush += len(data)
            if self._since_flush >= _CHUNK_BYTES:
                self._stream.flush()
                self._since_flush = 0
        except OSError as error:
            raise StorageError(self._path, error.strerror or str(error)) from error


@dataclass(frozen=True, slots=True)
class Record:
    """A record as arrays of T steps.

    Attributes:
        spec: Signals of the robot.
        stamp: Monotonic stamps of the observations, shape (T,), [s].
        observation: Shape (T, nx).
        proposal: Shape (T, nu).
        sent: Shape (T, nu).
        status: `Status` per step, shape (T,).
        margin: Shape (T,).
        elapsed: Time from reading to sending, shape (T,), [s].
        complete: Whether the file was closed properly.
    """

    spec: Spec
    stamp: Float[np.ndarray, " T"]
    observation: Float[np.ndarray, "T nx"]
    proposal: Float[np.ndarray, "T nu"]
    sent: Float[np.ndarray, "T nu"]
    status: Int[np.ndarray, " T"]
    margin: Float[np.ndarray, " T"]
    elapsed: Float[np.ndarray, " T"]
    complete: bool


def read_record(path: Path) -> Record:
    """Read a record, also one whose writer was killed.

    Raises:
        FileFormatError: If the file is missing, is no record of ours, or holds no step.
    """
    rows, metadata, complete = _messages(path)
    if metadata.get("version") != str(RECORD_VERSION):
        raise FileFormatError(path, f"is no record of version {RECORD_VERSION}", _ADVICE)
    spec = spec_from_json(metadata["spec"], str(path))
    steps = min(len(rows.get(topic, ())) for topic in ("/observation", "/sent", "/certificate"))
    if steps == 0:
        raise FileFormatError(path, "holds no whole step", _ADVICE)
    certificates = [fields for _, fields in rows["/certificate"][:steps]]
    return Record(
        spec,
        np.array([stamp for stamp, _ in rows["/observation"][:steps]]),
        _matrix(rows["/observation"], spec.observation, steps),
        _matrix(rows["/proposal"], spec.action, steps),
        _matrix(rows["/sent"], spec.action, steps),
        np.array([int(_number(fields["status"])) for fields in certificates]),
        np.array([_number(fields["margin"]) for fields in certificates]),
        np.array([_number(fields["elapsed_s"]) for fields in certificates]),
        complete,
    )


_Rows = dict[str, list[tuple[float, dict[str, float | str | None]]]]


def _messages(path: Path) -> tuple[_Rows, dict[str, str], bool]:
    """Read messages by topic, the metadata, and whether the end was reached."""
    rows: _Rows = {}
    metadata: dict[str, str] = {}
    complete = True
    try:
        with path.open("rb") as stream:
            for item in NonSeekingReader(stream).iter_metadata():
                metadata.update(item.metadata)
    except OSError as error:
        raise FileFormatError(path, f"cannot be read ({error.strerror})", _ADVICE) from error
    except (McapError, ValueError, EOFError):
        complete = False
    try:
        with path.open("rb") as stream:
            for _, channel, message in NonSeekingReader(stream).iter_messages(log_time_order=False):
                fields = json.loads(message.data)
                rows.setdefault(channel.topic, []).append((message.log_time * 1e-9, fields))
    except (McapError, ValueError, EOFError):
        complete = False
    return rows, metadata, complete


def _plain(name: str) -> Signal:
    return Signal(name, "s" if name.endswith("_s") else "1", -np.inf, np.inf)


def _schema(signals: Sequence[Signal]) -> bytes:
    properties = {
        signal.name: {"type": "number", "description": f"[{signal.unit}]"} for signal in signals
    }
    return json.dumps({"type": "object", "properties": properties}).encode()


def _named(signals: Sequence[Signal], values: Sequence[float]) -> dict[str, float]:
    return {signal.name: value for signal, value in zip(signals, values, strict=True)}


def _json_number(value: float) -> float | str:
    """JSON has no NaN or infinity: they are recorded as text, never dropped."""
    return value if np.isfinite(value) else str(value)


def _number(value: float | str | None) -> float:
    return float("nan") if value is None else float(value)


def _matrix(
    rows: Sequence[tuple[float, dict[str, float | str | None]]],
    signals: Sequence[Signal],
    steps: int,
) -> np.ndarray:
    return np.array([[_number(row[s.name]) for s in signals] for _, row in rows[:steps]])
