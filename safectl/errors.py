"""Every exception of the project, each with its facts as attributes.

A message says what was wrong, what was expected and what to do.
"""

from collections.abc import Sequence
from difflib import get_close_matches


class SafectlError(Exception):
    """Anything that a caller of this project can meet; it survives the way between processes."""

    def __reduce__(self) -> tuple[object, ...]:
        """Restore message and facts; the arguments of `__init__` are others than `args`."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(
    kind: type[SafectlError], arguments: tuple[object, ...], facts: dict[str, object]
) -> SafectlError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(facts)
    return error


class ShapeError(SafectlError):
    """An array has the wrong shape."""

    def __init__(self, name: str, *, expected: Sequence[int | str], got: Sequence[int]) -> None:
        self.name, self.expected, self.got = name, tuple(expected), tuple(got)
        super().__init__(f"{name} has shape {self.got}, expected {_shape(self.expected)}")


class NonFiniteError(SafectlError):
    """An array outside the control loop holds NaN or infinity."""

    def __init__(self, name: str, *, count: int, size: int, advice: str) -> None:
        self.name, self.count, self.size = name, count, size
        super().__init__(f"{name} holds {count} non-finite values out of {size}; {advice}")


class RangeError(SafectlError):
    """A number lies outside its documented range."""

    def __init__(self, name: str, *, value: object, expected: str) -> None:
        self.name, self.value, self.expected = name, value, expected
        super().__init__(f"{name} is {value!r}, expected {expected}")


class UnknownNameError(SafectlError):
    """A name is not one of the known ones."""

    def __init__(self, kind: str, name: str, *, known: Sequence[str], shown: int = 12) -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        near = get_close_matches(name, self.known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        listed = ", ".join(self.known[:shown]) + (", ..." if len(self.known) > shown else "")
        super().__init__(f"unknown {kind} {name!r}{hint} Known: {listed}")


class ConfigError(SafectlError):
    """A configuration file or option cannot be used."""

    def __init__(self, source: str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"{source}: {problem}")


class MissingExtra(SafectlError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(
            f"{package} is not installed; it belongs to the extra {extra!r}. In a checkout of "
            f"this project run: pip install -e '.[{extra}]' -c constraints.txt"
        )


class MissingTool(SafectlError):
    """A program outside Python is not installed."""

    def __init__(self, tool: str, package: str) -> None:
        self.tool, self.package = tool, package
        super().__init__(
            f"the program {tool!r} is not on the path; install it with: apt-get install {package}"
        )


class SpecMismatch(SafectlError):
    """Two parts that must share a specification do not."""

    def __init__(self, left: str, right: str, difference: str) -> None:
        self.left, self.right, self.difference = left, right, difference
        super().__init__(f"the specifications of {left} and {right} differ: {difference}")


class FileFormatError(SafectlError):
    """A file of ours is missing, truncated, foreign or of an unknown version."""

    def __init__(self, path: object, problem: str, advice: str) -> None:
        self.path, self.problem, self.advice = str(path), problem, advice
        super().__init__(f"{path}: {problem}; {advice}")


class StorageError(SafectlError):
    """Something could not be written; whatever was there before is untouched."""

    def __init__(self, path: object, problem: str) -> None:
        self.path, self.problem = str(path), problem
        super().__init__(
            f"{path} could not be written: {problem}; free space or choose another "
            "folder and run the command again"
        )


class TaskNotInferable(SafectlError):
    """The labels of a task say nothing about it."""

    def __init__(self, *, labels: int, nonzero: int) -> None:
        self.labels, self.nonzero = labels, nonzero
        super().__init__(
            f"the task is not inferable from this data: {nonzero} of {labels} labels hold a "
            "reward, and they give no direction; label more data, or name a goal"
        )


class UnsafeSetUnseen(SafectlError):
    """The data hold too little of an unsafe set to say how often it will be visited."""

    def __init__(self, *, count: int, needed: int, effective: float | None = None) -> None:
        self.count, self.needed, self.effective = count, needed, effective
        copies = "" if effective is None else f", that count as {effective:.1f} different ones"
        super().__init__(
            f"only {count} observations of the data are unsafe{copies}, {needed} are needed: a "
            "visit that the data do not show would be predicted as impossible; collect data that "
            "enter the set"
        )


class ConvexityError(SafectlError):
    """A constraint set stated in CVXPY is not a parametrised quadratic program."""


class UnsupportedLayer(SafectlError):
    """A network holds an operation that cannot be exported."""

    def __init__(self, layer: str, *, supported: Sequence[str], advice: str) -> None:
        self.layer, self.supported = layer, tuple(supported)
        super().__init__(f"cannot export {layer}; supported: {', '.join(self.supported)}. {advice}")


class VerificationError(SafectlError):
    """Two meanings of one program disagree, or generated code does not build or run."""


class DoesNotFit(SafectlError):
    """A program is larger than the memory of a board."""

    def __init__(self, what: str, board: str, region: str, *, needed: int, available: int) -> None:
        self.what, self.board, self.region = what, board, region
        self.needed, self.available = needed, available
        super().__init__(
            f"{what} needs {needed:,} B of {region}, {board} has {available:,} B: "
            f"{needed - available:,} B too many; make the network smaller or take another board"
        )


class FlashError(SafectlError):
    """A board could not be flashed, or is not known to hold what was written."""

    def __init__(self, tool: str, status: int | None, cause: str) -> None:
        self.tool, self.status, self.cause = tool, status, cause
        super().__init__(f"{tool}: {cause}")


class BridgeError(SafectlError):
    """A robot could not be read or written."""


class AdapterError(SafectlError):
    """A message cannot be turned into numbers: wrong type, names, size or frame."""

    def __init__(self, message: str, problem: str, advice: str) -> None:
        self.message, self.problem, self.advice = message, problem, advice
        super().__init__(f"{message}: {problem}; {advice}")


class LoopStopped(SafectlError):
    """The control loop stopped the robot; the record up to this point is complete."""

    def __init__(self, reason: str, *, step: int) -> None:
        self.reason, self.step = reason, step
        super().__init__(f"the loop stopped the robot at step {step}: {reason}")


def _shape(sizes: Sequence[int | str]) -> str:
    return "(" + ", ".join(str(size) for size in sizes) + ("," if len(sizes) == 1 else "") + ")"
