"""The control loop: the only place in the core that waits for a clock.

bridge.read -> policy.act -> safeguard.filter -> bridge.write -> record, once per period.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from safectl.errors import LoopStopped, RangeError, ShapeError
from safectl.interruption import Interruption, interruptible
from safectl.record import Recorder
from safectl.spec import Spec, require_same
from safectl.types import Bridge, Decision, Policy, Reading, Safeguard, Status

_STALE_PERIODS = 2.0
_EARLY_PERIODS = 1.0  # a stamp may be this far ahead: the clocks of robot and loop tick apart


@runtime_checkable
class Clock(Protocol):
    """Monotonic time, real or simulated."""

    def now(self) -> float:
        """Return the time [s]."""
        ...

    def wait_until(self, instant: float) -> None:
        """Return at `instant` [s], at once if it has passed."""
        ...


@runtime_checkable
class HasSpec(Protocol):
    """A safeguard or anything else that was made for certain signals."""

    @property
    def spec(self) -> Spec:
        """The signals."""
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
    """Run a guarded policy on a robot, without gradients.

    The robot is stopped on entry, on exit and on any exception; then the record is closed and the
    exception goes on. In the main thread SIGTERM and SIGINT end the run in the same way, as
    `SystemExit` and `KeyboardInterrupt`; further ones are ignored until the record is closed.
    A late step delays the following ones; none is made up for in a burst. Nothing is promised about
    the time a policy or safeguard takes, but a decision on a stale reading is not sent.

    Args:
        bridge: The robot.
        policy: Proposes actions.
        safeguard: Decides. If it has a `spec`, that must be the bridge's.
        steps: Number of periods.
        patience: Consecutive fallbacks after which the loop stops.
        recorder: Where every step is written; closed at the end, whatever happens.
        clock: Real time by default; its time base is that of the stamps of the readings.

    Raises:
        SpecMismatch: If recorder or safeguard were made for other signals than the bridge's.
        ShapeError: If a reading, proposal or decision has another size than the specification.
        LoopStopped: After `patience` consecutive fallbacks, on a reading that is older than two
            periods when read or when its decision is to be sent, or stamped over one period ahead,
            and on a decision that is not finite or beyond the limits of the robot.
        RangeError: If `steps` or `patience` is below one.
    """
    with interruptible() as interruption, ExitStack() as stack:
        if recorder is not None:
            stack.callback(_close, recorder, interruption)
        for name, value in (("steps", steps), ("patience", patience)):
            if value < 1:
                raise RangeError(name, value=value, expected="at least 1")
        _require_same_spec(bridge, safeguard, recorder)
        stack.enter_context(torch.no_grad())
        stack.enter_context(_connected(bridge, interruption))
        run = _Run(bridge, policy, safeguard, recorder, clock or MonotonicClock(), interruption)
        return run.steps(steps, patience)


@contextmanager
def _connected(bridge: Bridge, interruption: Interruption) -> Iterator[None]:
    """Enter and leave the bridge, and stop it on any exception, also on one while entering."""

    def leave(*exception: object) -> None:
        with interruption.hold():
            bridge.__exit__(*exception)

    with ExitStack() as stack:
        try:
            bridge.__enter__()
            stack.push(leave)
            yield
        except BaseException:
            with interruption.hold():
                bridge.stop()
            raise


def _close(recorder: Recorder, interruption: Interruption) -> None:
    with interruption.hold():
        recorder.close()


@dataclass(frozen=True, slots=True)
class _Run:
    bridge: Bridge
    policy: Policy
    safeguard: Safeguard
    recorder: Recorder | None
    clock: Clock
    interruption: Interruption

    def steps(self, steps: int, patience: int) -> LoopResult:
        period = self.bridge.spec.period
        corrected = fallbacks = consecutive = 0
        due = self.clock.now()
        for step in range(steps):
            self.clock.wait_until(due)
            status = self._step(step)
            corrected += status == Status.CORRECTED
            fallbacks += status == Status.FALLBACK
            consecutive = consecutive + 1 if status == Status.FALLBACK else 0
            if consecutive >= patience:
                reason = f"{patience} fallbacks in a row; {self.safeguard.claim}"
                raise LoopStopped(reason, step=step)
            due = max(due + period, self.clock.now())
        return LoopResult(steps, corrected, fallbacks)

    def _step(self, step: int) -> int:
        spec = self.bridge.spec
        reading = self.bridge.read()
        started = self.clock.now()
        _require_shape("observation", reading.observation, (spec.nx,))
        _require_fresh(reading, started, spec.period, step)
        observation = reading.observation.unsqueeze(0)
        proposal = self.policy.act(observation)
        _require_shape("proposal", proposal, (1, spec.nu))
        decision = self.safeguard.filter(observation, proposal)
        _require_within_limits(decision, spec, step)
        _require_fresh(reading, self.clock.now(), spec.period, step)
        sent = self.bridge.write(decision)
        if self.recorder is not None:
            with self.interruption.hold():
                elapsed = self.clock.now() - started
                self.recorder.append(reading, proposal, decision, sent, elapsed)
        return int(decision.certificate.status[0])


def _require_same_spec(bridge: Bridge, safeguard: Safeguard, recorder: Recorder | None) -> None:
    others = {"the recorder": recorder, "the safeguard": safeguard}
    for name, other in others.items():
        if isinstance(other, HasSpec):
            require_same(bridge.spec, other.spec, left_name="the bridge", right_name=name)


def _require_shape(name: str, values: torch.Tensor, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ShapeError(name, expected=shape, got=values.shape)


def _require_within_limits(decision: Decision, spec: Spec, step: int) -> None:
    """Refuse what a correct safeguard never returns; limits are compared in the action's dtype."""
    action = decision.action
    _require_shape("decided action", action, (1, spec.nu))
    limits = torch.tensor([spec.action_low, spec.action_high], dtype=action.dtype).tolist()
    for entry, value, low, high in zip(spec.action, action[0].tolist(), *limits, strict=True):
        if not low <= value <= high:  # NaN too
            raise LoopStopped(
                f"the safeguard decided {entry.name} = {value:g} {entry.unit}, the robot allows "
                f"{low:g} to {high:g}; repair the safeguard",
                step=step,
            )


def _require_fresh(reading: Reading, now: float, period: float, step: int) -> None:
    age = now - reading.stamp
    if age < -_EARLY_PERIODS * period:
        raise LoopStopped(
            f"the newest observation is stamped {-age:.3f} s in the future, at most "
            f"{_EARLY_PERIODS * period:.3f} s is allowed; stamp it with the clock of the loop",
            step=step,
        )
    if not age <= _STALE_PERIODS * period:  # a NaN stamp is stale too
        raise LoopStopped(
            f"the newest observation is {age:.3f} s old, at most "
            f"{_STALE_PERIODS * period:.3f} s is allowed; check the sensor, its cable and the time "
            "that the policy takes",
            step=step,
        )
