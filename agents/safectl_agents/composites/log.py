"""Logged motion as windows from which a forward model learns."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import FileFormatError, NonFiniteError, RangeError, ShapeError
from safectl.record import read_record

_ADVICE = "write it with numpy.savez(path, inputs=..., outputs=..., sensors=...)"


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """One run at a fixed period. Row n holds u(n), applied up to the moment when y(n) was measured.

    Attributes:
        inputs: u, shape (samples, m).
        outputs: y, shape (samples, p).
        sensors: Signals measured with y, shape (samples, s); s may be 0.

    Raises:
        ShapeError: If the parts have different numbers of samples.
        NonFiniteError: If a value is not finite.
    """

    inputs: Float[Tensor, "samples m"]
    outputs: Float[Tensor, "_ p"]
    sensors: Float[Tensor, "_ s"]

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs", "sensors"):
            part = getattr(self, name)
            if part.ndim != 2 or len(part) != len(self.inputs):
                expected = (len(self.inputs), "n")
                raise ShapeError(name, expected=expected, got=tuple(part.shape))
            bad = int((~torch.isfinite(part)).sum())
            if bad:
                advice = "cut the run there; gaps in time teach wrong dynamics"
                raise NonFiniteError(name, count=bad, size=part.numel(), advice=advice)


class Windows(NamedTuple):
    """Inputs of a forward model, (rows, n), and the outputs it should predict, (rows, p)."""

    inputs: Float[Tensor, "rows n"]
    outputs: Float[Tensor, "rows p"]


def make_windows(log: Log, *, input_lags: int, output_lags: int) -> Windows:
    """Return [u(n) ... u(n-nd+1), y(n-1) ... y(n-dd), sensors(n-1)] and y(n) for every n.

    Raises:
        RangeError: If the log is shorter than the lags.
    """
    start, samples = max(input_lags - 1, output_lags), len(log.inputs)
    if samples <= start:
        raise RangeError("samples of the log", value=samples, expected=f"more than {start}")
    parts = [log.inputs[start - lag : samples - lag] for lag in range(input_lags)]
    parts += [log.outputs[start - lag : samples - lag] for lag in range(1, output_lags + 1)]
    parts.append(log.sensors[start - 1 : samples - 1])
    return Windows(torch.cat(parts, 1), log.outputs[start:])


def load_log(path: Path) -> Log:
    """Read a log from an npz file with the arrays `inputs`, `outputs` and, if any, `sensors`.

    Raises:
        FileFormatError: If it is no such file.
        ShapeError: If the arrays do not fit.
        NonFiniteError: If a value is not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            parts = {name: np.asarray(arrays[name], np.float64) for name in arrays.files}
        inputs, outputs = parts["inputs"], parts["outputs"]
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise FileFormatError(path, f"is no log ({error})", _ADVICE) from error
    sensors = parts.get("sensors", np.zeros((len(inputs), 0)))
    return Log(*(torch.from_numpy(part) for part in (inputs, outputs, sensors)))


def log_of_record(path: Path, *, outputs: Sequence[str], sensors: Sequence[str] = ()) -> Log:
    """Read a log from a step record (MCAP): what was sent, and named observations.

    A record holds observation n before action n, so the input of row n is the action of row n - 1.

    Raises:
        FileFormatError: If the file cannot be read.
        RangeError: If a name is not among the observations.
    """
    record = read_record(path)
    names = [signal.name for signal in record.spec.observation]
    missing = sorted({*outputs, *sensors} - set(names))
    if missing:
        raise RangeError("signals", value=missing, expected=f"some of {names}")
    columns = [[names.index(name) for name in chosen] for chosen in (outputs, sensors)]
    observed = torch.as_tensor(record.observation, dtype=torch.float64)
    sent = torch.as_tensor(record.sent, dtype=torch.float64)
    return Log(sent[:-1], observed[1:, columns[0]], observed[1:, columns[1]])
