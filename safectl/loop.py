"""The control loop: the only place in the core that waits for a clock.

bridge.read -> policy.act -> safeguard.filter -> bridge.write -> record, once per period.
"""

import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from safectl.errors import LoopStopped, RangeError, ShapeError
from safectl.record import Recorder
from safectl.types import Bridge, Policy, Reading, Safeguard, Status

_STALE_PERIODS = 2.0


@runtime_checkable
class Clock(Protocol):
    """Monotonic time, real or simulated."""

    def now(self) -> float:
        """Return the time [s]."""
        ...

    def wait_until(self, instant: float) -> None:
        """Return at `instant` [s], at once if it has passed."""
        ...


class MonotonicClock:
    """The clock of this machine."""

    def now(self) -> float:
        """Return the monotonic time [s]."""
        return time.monotonic()

    def wait_until(self, instant: float) -> None:
        """Sleep until `instant` [s]."""
        time.sleep(max(0.0, instant - time.monotonic()))


@dataclass(frozen=True, slots=True)
class LoopResult:
    """How many steps ran, and how many proposals were corrected or replaced."""

    steps: int
    corrected: int
    fallbacks: int


def run_loop(
    bridge: Bridge,
    policy: Policy,
    safeguard: Safeguard,
    *,
    steps: int,
    patience: int = 5,
    recorder: Recorder | None = None,
    clock: Clock | None = None,
) -> LoopResult:
    """Run a guarded policy on a robot.

    The robot is stopped on entry, on exit and on any exception; then the record is closed and the
    exception goes on. Nothing is promised about the time a policy or safeguard takes.

    Args:
        bridge: The robot.
        policy: Proposes actions.
        safeguard: Decides.
        steps: Number of periods.
        patience: Consecutive fallbacks after which the loop stops.
        recorder: Where every step is written; closed at the end.
        clock: Real time by default.

    Raises:
        ShapeError: If the bridge reads another number of signals than its specification names.
        LoopStopped: After `patience` consecutive fallbacks or on a reading older than two periods.
        RangeError: If `steps` or `patience` is below one.
    """
    for name, value in (("steps", steps), ("patience", patience)):
        if value < 1:
            raise RangeError(name, value=value, expected="at least 1")
    clock = clock or MonotonicClock()
    try:
        with bridge:
            try:
                return _steps(bridge, policy, safeguard, steps, patience, recorder, clock)
            except BaseException:
                bridge.stop()
                raise
    finally:
        if recorder is not None:
            recorder.close()


def _steps(
    bridge: Bridge,
    policy: Policy,
    safeguard: Safeguard,
    steps: int,
    patience: int,
    recorder: Recorder | None,
    clock: Clock,
) -> LoopResult:
    period = bridge.spec.period
    corrected = fallbacks = consecutive = 0
    due = clock.now()
    for step in range(steps):
        clock.wait_until(due)
        reading = bridge.read()
        started = clock.now()
        _require_shape(reading, bridge.spec.nx)
        _require_fresh(reading, started, period, step)
        observation = reading.observation.unsqueeze(0)
        proposal = policy.act(observation)
        decision = safeguard.filter(observation, proposal)
        sent = bridge.write(decision)
        if recorder is not None:
            recorder.append(reading, proposal, decision, sent, clock.now() - started)
        status = int(decision.certificate.status[0])
        corrected += status == Status.CORRECTED
        fallbacks += status == Status.FALLBACK
        consecutive = consecutive + 1 if status == Status.FALLBACK else 0
        if consecutive >= patience:
            raise LoopStopped(f"{patience} fallbacks in a row; {safeguard.claim}", step=step)
        due += period
    return LoopResult(steps, corrected, fallbacks)


def _require_shape(reading: Reading, nx: int) -> None:
    if reading.observation.shape != (nx,):
        raise ShapeError("observation", expected=(nx,), got=reading.observation.shape)


def _require_fresh(reading: Reading, now: float, period: float, step: int) -> None:
    age = now - reading.stamp
    if not age <= _STALE_PERIODS * period:  # a NaN stamp is stale too
        raise LoopStopped(
            f"the newest observation is {age:.3f} s old, at most "
            f"{_STALE_PERIODS * period:.3f} s is allowed; check the sensor and its cable",
            step=step,
        )
