"""A robot that misbehaves on request, for the tests of this project and of its users."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import torch

from safectl.errors import BridgeError, ShapeError
from safectl.spec import Spec
from safectl.types import Decision, Reading, Sent


class Fault(Enum):
    """What can go wrong with one reading or one write."""

    NAN = "the observation holds NaN"
    STALE = "the observation is three periods old"
    REPEATED = "the last observation comes again with its old stamp"
    SHORT = "the observation lacks its last entry"
    READ_LOST = "reading fails"
    WRITE_LOST = "writing fails"


@dataclass(frozen=True, slots=True)
class Sample:
    """One command that reached the fake robot."""

    step: int
    action: tuple[float, ...]


class FakeBridge:
    """An integrator x[k+1] = x[k] + T u[k] with faults at chosen steps; its own simulated clock.

    Args:
        spec: Signals; nx and nu must be equal.
        faults: Fault by step number.
    """

    def __init__(self, spec: Spec, faults: Mapping[int, Fault] | None = None) -> None:
        if spec.nx != spec.nu:
            raise ShapeError("observation of the fake robot", expected=(spec.nu,), got=(spec.nx,))
        self._spec = spec
        self._faults = dict(faults or {})
        self._state = torch.zeros(spec.nx)
        self._time = 0.0
        self._step = 0
        self._last: Reading | None = None
        self.sent: list[Sample] = []
        self.stops = 0
        self.connected = False

    @property
    def spec(self) -> Spec:
        """Signals of the fake robot."""
        return self._spec

    def now(self) -> float:
        """Return the simulated time [s]."""
        return self._time

    def wait_until(self, instant: float) -> None:
        """Let the simulated time pass."""
        self._time = max(self._time, instant)

    def read(self) -> Reading:
        """Return the state, or what the fault of this step makes of it."""
        fault = self._faults.get(self._step)
        if fault is Fault.READ_LOST:
            raise BridgeError("the fake robot does not answer; this fault was asked for")
        if fault is Fault.REPEATED and self._last is not None:
            return self._last
        observation, stamp = self._state.clone(), self._time
        if fault is Fault.NAN:
            observation[0] = torch.nan
        if fault is Fault.SHORT:
            observation = observation[:-1]
        if fault is Fault.STALE:
            stamp -= 3.0 * self._spec.period
        self._last = Reading(observation, stamp)
        return self._last

    def write(self, decision: Decision, /) -> Sent:
        """Move by the decided action."""
        if self._faults.get(self._step) is Fault.WRITE_LOST:
            raise BridgeError("the fake robot is gone; this fault was asked for")
        action = decision.action[0].float()
        self._state = self._state + self._spec.period * action
        self.sent.append(Sample(self._step, tuple(action.tolist())))
        self._step += 1
        return Sent(action, self._time)

    def stop(self) -> None:
        """Count the stop."""
        self.stops += 1

    def __enter__(self) -> "FakeBridge":
        self.connected = True
        self.stop()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self.connected = False
