"""A guard's state machine on a bench: no clock, no ROS."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch import Tensor

from safectl.safeguards import Clip, Memory, StopProfile, decide_stop, slowed
from safectl.spec import Signal, Spec
from safectl.types import Decision, Safeguard
from safectl_ros.guard_logic import GuardLogic, Output, Row, Stop, StopProfiles
from safectl_ros.guard_settings import GuardSettings

PERIOD = 0.02
SPEC = Spec(
    (
        Signal("x", "m", -9.0, 9.0),
        Signal("speed", "m/s", -2.0, 2.0),
        Signal("turn_rate", "rad/s", -2.0, 2.0),
    ),
    (Signal("speed", "m/s", -1.0, 1.0), Signal("turn_rate", "rad/s", -2.0, 2.0)),
    PERIOD,
)
SETTINGS = GuardSettings(use_estop=False, recover_s=0.0, min_dwell_s=0.0, reentry_s=1e-3)
"""Nothing but the table: no e-stop, and no waiting or slow approach after a stop."""

MOVING = (0.0, 0.4, 0.2)
COMMAND = (0.5, -0.4)


RAMP = StopProfile(SPEC, velocities=(1, 2), deceleration=[1.0, 1.0])


def stop(deceleration: float) -> Stop:
    limits = [deceleration] * 2
    return partial(decide_stop, StopProfile(SPEC, velocities=(1, 2), deceleration=limits))


@dataclass
class Filter:
    """A filter whose answer a test can replace; it counts its calls."""

    safeguard: Safeguard = field(default_factory=lambda: Clip(SPEC))
    proposals: list[Tensor] = field(default_factory=list)
    answer: Callable[[Decision], Decision | None] = lambda decision: decision

    def __call__(self, observation: Tensor, action: Tensor) -> Decision | None:
        self.proposals.append(action)
        return self.answer(self.safeguard.filter(observation, action))


class Bench:
    """A guard on a bench: messages and time go in, outputs come out."""

    def __init__(
        self,
        settings: GuardSettings = SETTINGS,
        deceleration: float = 1.0,
        *,
        safeguard: Safeguard | None = None,
        memories: Sequence[Memory] = (),
        is_steady: bool = False,
    ) -> None:
        self.filter = Filter(safeguard or Clip(SPEC))
        stops = StopProfiles(stop(deceleration), stop(math.inf), slowed=partial(slowed, RAMP))
        self.logic = GuardLogic(SPEC, settings, stops, self.filter, memories, is_steady=is_steady)
        self.now = 100.0
        self.is_stuck = False
        self.logic.activate(self.now)

    def see(self, *state: float, stamp_age: float | None = None) -> None:
        values = np.array(state or MOVING)
        self.logic.observation.receive(values, self.now, stamp_age=stamp_age)

    def command(self, *action: float, stamp_age: float | None = None) -> None:
        self.logic.command.receive(np.array(action or COMMAND), self.now, stamp_age=stamp_age)

    def tick(self, passed: float = 0.0) -> Output:
        self.now += passed
        output = self.logic.tick(self.now)
        self.is_stuck = self.logic.is_stuck(self.now)
        return output

    def drive(self, seconds: float) -> Output:
        """Tick at full rate with fresh messages."""
        for _ in range(round(seconds / PERIOD)):
            self.now += PERIOD
            self.see()
            self.command()
            output = self.tick()
        return output


def action(output: Output) -> list[float]:
    assert output.decision is not None
    return [round(value, 6) for value in output.decision.action[0].tolist()]


def driving(settings: GuardSettings = SETTINGS) -> Bench:
    bench = Bench(settings)
    assert bench.drive(1.0).row is Row.DRIVE
    return bench
