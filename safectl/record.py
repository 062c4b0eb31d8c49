"""The step record: an MCAP file that opens in Foxglove and PlotJuggler.

One JSON channel each for what was observed, proposed, decided, sent and certified, with the fields
named by the `Spec`. Chunks are small and flushed, so a kill loses at most the last one. Every byte
of the data is under a checksum, and steps are numbered: a damaged file is read up to the last whole
chunk before the damage and is marked as incomplete.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float, Int
from mcap.writer import Writer
from torch import Tensor

from safectl.errors import FileFormatError, RangeError, StorageError
from safectl.record_scan import READ_ADVICE, Row, scan
from safectl.spec import Signal, Spec, spec_from_json
from safectl.types import Decision, Reading, Sent, Status

RECORD_VERSION = 2
_CHUNK_BYTES = 16 * 1024
_CERTIFICATE = ("status", "margin", "risk", "residual", "elapsed_s")
_TOPICS = ("/observation", "/proposal", "/decision", "/sent", "/certificate")
_LATEST = 2.0**64 * 1e-9  # the format stores unsigned 64-bit nanoseconds [s]


class Recorder:
    """Writes one record; a context manager that always closes the file properly.

    Args:
        path: File to make; an existing one is refused.
        spec: Names the fields.

    Raises:
        StorageError: If the file exists or the disk refuses, now or in `append`.
    """

    def __init__(self, path: Path, spec: Spec) -> None:
        self._path, self._spec, self._sequence = path, spec, 0
        metadata = {"version": str(RECORD_VERSION), "spec": spec.to_json()}
        metadata["spec_digest"] = f"{spec.digest():08x}"
        action = spec.action
        evidence = [_plain(name) for name in _CERTIFICATE]
        fields = (spec.observation, action, action, action, evidence)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream: IO[bytes] = path.open("xb")
            self._writer = Writer(self._stream, chunk_size=_CHUNK_BYTES, enable_data_crcs=True)
            self._writer.start(profile="", library="safectl")
            self._writer.add_metadata("safectl", metadata)
            self._stream.flush()
        except OSError as error:
            raise StorageError(path, error.strerror or str(error)) from error
        self._channels = {
            topic: self._channel(topic, signals)
            for topic, signals in zip(_TOPICS, fields, strict=True)
        }

    @property
    def spec(self) -> Spec:
        """Signals that are recorded."""
        return self._spec

    def append(
        self,
        reading: Reading,
        proposal: Float[Tensor, "one nu"],
        decision: Decision,
        sent: Sent,
        elapsed: float,
    ) -> None:
        """Add one control step; `elapsed` is the time from reading to sending [s].

        Raises:
            RangeError: If a stamp is negative or not finite.
            StorageError: If the disk refuses.
        """
        certificate, action = decision.certificate, self._spec.action
        row = [certificate.status, certificate.margin, certificate.risk, certificate.residual]
        evidence = [float(value[0]) for value in row] + [elapsed]
        read, written = _nanoseconds(reading.stamp), _nanoseconds(sent.stamp)
        step = (
            (read, _json(self._spec.observation, reading.observation.tolist())),
            (read, _json(action, proposal[0].tolist())),
            (read, _json(action, decision.action[0].tolist())),
            (written, _json(action, sent.action.tolist())),
            (written, _json([_plain(name) for name in _CERTIFICATE], evidence)),
        )
        try:
            for topic, (stamp, data) in zip(_TOPICS, step, strict=True):
                self._writer.add_message(self._channels[topic], stamp, data, stamp, self._sequence)
            self._stream.flush()  # hands over a chunk that has become full
        except OSError as error:
            raise StorageError(self._path, error.strerror or str(error)) from error
        self._sequence += 1

    def close(self) -> None:
        """Write the index and close the file; idempotent."""
        if self._stream.closed:
            return
        try:
            with self._stream:
                self._writer.finish()  # type: ignore[no-untyped-call]  # mcap types all but this
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


@dataclass(frozen=True, slots=True)
class Record:
    """A record as arrays of T steps.

    Attributes:
        spec: Signals of the robot.
        stamp: Monotonic stamps of the observations, shape (T,), [s].
        observation: Shape (T, nx).
        proposal: Shape (T, nu).
        decision: Action that the safeguard decided, shape (T, nu).
        sent: Action after the last limit of the robot, shape (T, nu).
        status: `Status` per step, shape (T,).
        margin: Shape (T,).
        risk: Shape (T,).
        residual: Shape (T,).
        elapsed: Time from reading to sending, shape (T,), [s].
        complete: Whether the file was closed properly and all of it is intact.
    """

    spec: Spec
    stamp: Float[np.ndarray, " T"]
    observation: Float[np.ndarray, "T nx"]
    proposal: Float[np.ndarray, "T nu"]
    decision: Float[np.ndarray, "T nu"]
    sent: Float[np.ndarray, "T nu"]
    status: Int[np.ndarray, " T"]
    margin: Float[np.ndarray, " T"]
    risk: Float[np.ndarray, " T"]
    residual: Float[np.ndarray, " T"]
    elapsed: Float[np.ndarray, " T"]
    complete: bool


def read_record(path: Path) -> Record:
    """Read a record, also one whose writer was killed or whose end is damaged.

    Raises:
        FileFormatError: If the file is missing, is no record of ours, or holds no whole step.
    """
    content = scan(path, _TOPICS)
    if content.metadata.get("version") != str(RECORD_VERSION):
        raise FileFormatError(path, f"is no record of version {RECORD_VERSION}", READ_ADVICE)
    spec = spec_from_json(content.metadata.get("spec", ""), str(path))
    if content.metadata.get("spec_digest") != f"{spec.digest():08x}":
        raise FileFormatError(path, "holds a damaged specification", READ_ADVICE)
    steps = min(len(content.rows[topic]) for topic in _TOPICS)
    if steps == 0:
        raise FileFormatError(path, "holds no whole step", READ_ADVICE)
    whole = all(len(content.rows[topic]) == steps for topic in _TOPICS)
    try:
        observation, proposal, decision, sent = (
            _matrix(content.rows[topic], [signal.name for signal in signals], steps)
            for topic, signals in zip(_TOPICS, (spec.observation, *[spec.action] * 3), strict=False)
        )
        evidence = _matrix(content.rows["/certificate"], _CERTIFICATE, steps)
        margin, risk, residual, elapsed = evidence[:, 1:].T
        stamp = np.array([stamp for stamp, _ in content.rows["/observation"][:steps]])
        status = np.array([Status(int(value)) for value in evidence[:, 0]])
    except (KeyError, ValueError, TypeError) as error:
        raise FileFormatError(
            path, f"holds a step that is not ours ({error})", READ_ADVICE
        ) from error
    return Record(
        spec=spec,
        stamp=stamp,
        observation=observation,
        proposal=proposal,
        decision=decision,
        sent=sent,
        status=status,
        margin=margin,
        risk=risk,
        residual=residual,
        elapsed=elapsed,
        complete=content.is_intact and whole,
    )


def _plain(name: str) -> Signal:
    return Signal(name, "s" if name.endswith("_s") else "1", -np.inf, np.inf)


def _schema(signals: Sequence[Signal]) -> bytes:
    properties = {
        signal.name: {"type": "number", "description": f"[{signal.unit}]"} for signal in signals
    }
    return json.dumps({"type": "object", "properties": properties}).encode()


def _json(signals: Sequence[Signal], values: Sequence[float]) -> bytes:
    """Write one message. JSON has no NaN or infinity: they become text, they are never dropped."""
    pairs = zip(signals, values, strict=True)
    return json.dumps({s.name: v if np.isfinite(v) else str(v) for s, v in pairs}).encode()


def _nanoseconds(stamp: float) -> int:
    if not 0.0 <= stamp < _LATEST:
        raise RangeError("stamp", value=stamp, expected="a number of seconds from zero on")
    return round(stamp * 1e9)


def _matrix(rows: Sequence[Row], names: Sequence[str], steps: int) -> np.ndarray:
    return np.array([[float(row[name]) for name in names] for _, row in rows[:steps]])
