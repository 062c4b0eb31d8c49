"""Names, units, bounds and period of everything that enters and leaves a controller.

One `Spec` travels with a checkpoint, a record and a firmware image; they compare its digest.
"""

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from safectl.errors import FileFormatError, RangeError, SpecMismatch

SPEC_VERSION = 1


@dataclass(frozen=True, slots=True)
class Signal:
    """One number with its unit and bounds; infinite bounds mean "not bounded".

    Bounds of any number type become Python floats and -0.0 becomes 0.0, so that equal signals give
    equal text.

    Raises:
        RangeError: If the name is empty, a bound is NaN or `low >= high`.
    """

    name: str
    unit: str
    low: float
    high: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", _plain(self.low))
        object.__setattr__(self, "high", _plain(self.high))
        if not self.name:
            raise RangeError("signal name", value=self.name, expected="a non-empty string")
        if not self.low < self.high:
            raise RangeError(
                f"bounds of {self.name!r}", value=(self.low, self.high), expected="low < high"
            )


@dataclass(frozen=True, slots=True)
class Spec:
    """What a controller observes and commands, and how often.

    Attributes:
        observation: One signal per entry of the observation, in order.
        action: One signal per entry of the action, in order; every bound is finite.
        period: Time between two actions [s].
    """

    observation: tuple[Signal, ...]
    action: tuple[Signal, ...]
    period: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "observation", tuple(self.observation))
        object.__setattr__(self, "action", tuple(self.action))
        object.__setattr__(self, "period", _plain(self.period))
        if not (math.isfinite(self.period) and self.period > 0.0):
            raise RangeError("period", value=self.period, expected="a positive number of seconds")
        for kind, signals in (("observation", self.observation), ("action", self.action)):
            if not signals:
                raise RangeError(kind, value=(), expected="at least one signal")
            names = [signal.name for signal in signals]
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise RangeError(f"{kind} names", value=repeated, expected="no name twice")
        for signal in self.action:
            if not (math.isfinite(signal.low) and math.isfinite(signal.high)):
                raise RangeError(
                    f"bounds of action {signal.name!r}",
                    value=(signal.low, signal.high),
                    expected="finite bounds: a command without a limit cannot be safeguarded",
                )

    @property
    def nx(self) -> int:
        """Number of observation signals."""
        return len(self.observation)

    @property
    def nu(self) -> int:
        """Number of action signals."""
        return len(self.action)

    @property
    def action_low(self) -> tuple[float, ...]:
        """Lower limits of the action, in the units of its signals."""
        return tuple(signal.low for signal in self.action)

    @property
    def action_high(self) -> tuple[float, ...]:
        """Upper limits of the action, in the units of its signals."""
        return tuple(signal.high for signal in self.action)

    def to_json(self) -> str:
        """Write the specification as canonical JSON: equal specifications give equal text."""
        return json.dumps({"version": SPEC_VERSION, **asdict(self)}, sort_keys=True)

    def digest(self) -> int:
        """Condense the specification to 32 bits (CRC-32 of the canonical JSON)."""
        return zlib.crc32(self.to_json().encode())


def spec_from_json(text: str, source: str = "specification") -> Spec:
    """Read what `Spec.to_json` wrote.

    Raises:
        FileFormatError: If the text is not such JSON, has an unknown version or breaks a rule of
            `Signal` or `Spec`.
    """
    try:
        fields = json.loads(text)
        version = fields["version"]
        if version != SPEC_VERSION:
            raise FileFormatError(
                source, f"has version {version}", f"this program reads version {SPEC_VERSION}"
            )
        period = _number(fields["period"])
        return Spec(_signals(fields["observation"]), _signals(fields["action"]), period)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, RangeError) as error:
        raise FileFormatError(
            source, f"is not a specification ({error})", "export or save it again"
        ) from error


def require_same(left: Spec, right: Spec, *, left_name: str, right_name: str) -> None:
    """Refuse two specifications that differ, naming the first difference.

    Raises:
        SpecMismatch: With both signals side by side.
    """
    difference = _first_difference(left, right)
    if difference:
        raise SpecMismatch(left_name, right_name, difference)


def _signals(rows: list[Mapping[str, object]]) -> tuple[Signal, ...]:
    return tuple(
        Signal(str(row["name"]), str(row["unit"]), _number(row["low"]), _number(row["high"]))
        for row in rows
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _plain(number: float) -> float:
    """Return a Python float; adding zero turns -0.0 into 0.0, which is equal but prints another."""
    return float(number) + 0.0


def _first_difference(left: Spec, right: Spec) -> str:
    for kind in ("observation", "action"):
        ours: tuple[Signal, ...] = getattr(left, kind)
        theirs: tuple[Signal, ...] = getattr(right, kind)
        if len(ours) != len(theirs):
            return f"{len(ours)} {kind} signals against {len(theirs)}"
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if one != other:
                return f"{kind}[{index}] is {one} against {other}"
    if left.period != right.period:
        return f"period {left.period} s against {right.period} s"
    return ""
