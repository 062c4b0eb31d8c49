"""What a guard sends, and why: the decision table as a state machine without a clock and ROS.

Per tick the first row that matches decides.

| condition                                       | output                            | state      |
|-------------------------------------------------|-----------------------------------|------------|
| not active                                      | emergency stop                    | INACTIVE   |
| e-stop pressed, silent, never heard or latched  | emergency stop                    | ESTOP      |
| observation stale, unusable or just recovering  | stop profile                      | STOP       |
| command stale, unusable or just recovering      | stop profile, filtered            | BACKUP     |
| filter over its budget, or not to be trusted    | stop profile                      | BACKUP     |
| filter certifies nothing                        | fallback of the filter            | BACKUP     |
| else                                            | filter(observation, command)      | NOMINAL or |
|                                                 |                                   | MODIFIED   |

A software stop is in addition to a hardware stop, never instead of it.
"""

import re
from collections.abc import Callable, Sequence
from enum import Enum, StrEnum, auto
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from safectl.safeguards import Memory, RateLimit
from safectl.spec import Spec
from safectl.types import Decision, Status
from safectl_ros.guard_inputs import NEVER, EmergencyStop, Input
from safectl_ros.guard_settings import GuardSettings
from safectl_ros.stop_profiles import Stop, StopProfiles

FRESH_SHARE = 0.5
"""A command that was lost is back when it is younger than this share of its timeout: a source that
is barely too slow does not switch the guard at every message."""

REST_SHARE = 0.01
"""An output within this share of the range of every action about zero is a robot that rests."""


_NUMBERS = re.compile(r"[0-9.]+")
"""What differs between two reports of one cause."""


class State(StrEnum):
    """What the guard is doing."""

    UNCONFIGURED = "UNCONFIGURED"
    INACTIVE = "INACTIVE"
    NOMINAL = "NOMINAL"
    MODIFIED = "MODIFIED"
    BACKUP = "BACKUP"
    STOP = "STOP"
    ESTOP = "ESTOP"


class Row(Enum):
    """Which row of the table matched."""

    INACTIVE = auto()
    ESTOP = auto()
    OBSERVATION = auto()
    COMMAND = auto()
    BUDGET = auto()
    INFEASIBLE = auto()
    DRIVE = auto()


class Output(NamedTuple):
    """What to send, None where nothing may be sent, and why.

    `has_changed` tells that state or cause are others than at the last tick.
    """

    decision: Decision | None
    state: State
    row: Row
    reason: str
    has_changed: bool


class _Verdict(NamedTuple):
    state: State
    row: Row
    reason: str
    decision: Decision | None


Solve = Callable[[Tensor, Tensor], Decision | None]
"""The filter: observation and command, one row each, to a decision; None where it took too long or
failed."""


class GuardLogic:
    """The state machine. Every time is an argument, in [s] of one clock.

    Args:
        spec: Signals of the robot.
        settings: When to stop and when to go on.
        stops: How to stop.
        solve: The filter. It does not remember what it decides, because that may not be sent.
        memories: Those inside the filter; they are told what is sent, by whichever row.
        is_steady: Whether ticks come at a steady rate, so that a gap between two tells that nobody
            listened; in lock-step they come with the commands.
    """

    def __init__(
        self,
        spec: Spec,
        settings: GuardSettings,
        stops: StopProfiles,
        solve: Solve,
        memories: Sequence[Memory] = (),
        *,
        is_steady: bool = False,
    ) -> None:
        self._is_steady, self._ticked = is_steady, -np.inf
        self.spec, self.stops, self.solve = spec, stops, solve
        self._memories = tuple(memories)
        self.command = Input(spec.nu, timeout=1.0, stamp_tolerance=0.0)
        self.observation = Input(
            spec.nx, timeout=1.0, stamp_tolerance=0.0, signals=spec.observation
        )
        self.estop = EmergencyStop(timeout=1.0, is_used=settings.use_estop)
        self.change(settings)
        self._state, self._row, self._entered = State.INACTIVE, Row.INACTIVE, -np.inf
        self._kind: tuple[State, str] | None = None
        self._active = self._latched = self._was_blind = False
        self._reentering = True
        self._disabled = ""
        self._begin: tuple[Tensor | None, float] = (None, -np.inf)
        self._sent: Decision | None = None
        self._applied_at = self._moving_at = self._modified_at = -np.inf
        limits = np.array([spec.action_low, spec.action_high], dtype=np.float32)
        self._limits: list[list[float]] = limits.tolist()
        self._rest = [REST_SHARE * (entry.high - entry.low) for entry in spec.action]

    @property
    def state(self) -> State:
        """What the last tick found."""
        return self._state

    @property
    def applied(self) -> Tensor | None:
        """The last action that was sent, shape (1, nu)."""
        return None if self._sent is None else self._sent.action

    def change(self, settings: GuardSettings) -> None:
        """Use other times from now on; whether there is an e-stop stays as it was."""
        self.settings = settings
        self.command.timeout = settings.cmd_timeout
        self.observation.timeout = settings.state_timeout
        self.command.stamp_tolerance = settings.stamp_tolerance
        self.observation.stamp_tolerance = settings.stamp_tolerance
        self.estop.timeout = settings.estop_timeout

    def adopt(self, memories: Sequence[Memory]) -> None:
        """Use other memories, of a filter that was changed; they are told what was sent last."""
        self._memories = tuple(memories)
        if self._sent is not None:
            self._remember(self._sent)

    def activate(self, now: float) -> None:
        """Begin to listen to commands."""
        self._active, self._moving_at = True, now
        self._begin_here(now)

    @property
    def standing(self) -> str:
        """Why the guard stops until the reset, apart from the e-stop; empty if it does not."""
        return self._disabled or ("latched, waiting for reset" if self._latched else "")

    def deactivate(self) -> None:
        """Stop."""
        self._active = False

    def disable(self, reason: str) -> None:
        """Stop until the reset."""
        self._disabled = reason

    def reset(self, now: float) -> str:
        """Leave a latched stop; return why not, empty on success."""
        if cause := self.estop.cause(now):
            return cause
        fault = self.observation.fault(now)
        if fault and self._state is State.STOP:
            return f"observation: {fault}"
        self.estop.reset()
        self.observation.take_lapse()
        self._latched, self._disabled = False, ""
        self._begin_here(now)
        return ""

    def is_stuck(self, now: float) -> bool:
        """Tell whether a command to move has been answered by rest for too long; ask every tick."""
        wanted, applied = self.command.values, self.applied
        is_asked = self._active and wanted is not None and not self.command.fault(now)
        if not is_asked or self._rests(wanted) or not self._rests(applied):
            self._moving_at = now
        return now - self._moving_at > self.settings.stuck_s

    def tick(self, now: float) -> Output:
        """Decide what to send at this time."""
        for memory in self._memories:
            if isinstance(memory, RateLimit):
                memory.elapse(self._passed(now))
        self._look_back(now)
        state, row, reason, decision = self._judge(now)
        if state is State.MODIFIED:
            self._modified_at = now
        elif state is State.NOMINAL and now - self._modified_at < self.settings.min_dwell_s:
            state = State.MODIFIED
        if row not in (Row.INACTIVE, Row.ESTOP):  # those only interrupt a recovery
            self._was_blind = row is Row.OBSERVATION
        if row is Row.DRIVE:
            self._begin = (None, -np.inf)
        elif row is not Row.INFEASIBLE:
            self._reentering = True
        if state is not self._state:
            self._entered = now
        kind = (state, _NUMBERS.sub("", reason))
        has_changed, self._kind = kind != self._kind, kind
        self._state, self._row = state, row
        if decision is not None:
            self._applied_at = now
            self._remember(decision)
        return Output(decision, state, row, reason, has_changed)

    def _look_back(self, now: float) -> None:
        """Note what happened since the last tick, whatever row decides and however short it was."""
        late, self._ticked = now - self._ticked - self.spec.period, now
        if self._is_steady and np.isfinite(late):
            self.observation.miss(late, now)
            self.command.miss(late, now)
            self.estop.miss(late)
        if self.observation.take_lapse():
            self._was_blind = True
            self._latched = self._latched or (self._active and self.settings.latch_stop)

    def _begin_here(self, now: float) -> None:
        """Forget where a stop began: the robot may have been moved since."""
        self._begin = (None, now)
        if self.stops.needs_observation:
            hold = self._stop(self._state, self._row, "", self.stops.emergency, now).decision
            if hold is not None:
                self._remember(hold)

    def _remember(self, decision: Decision) -> None:
        self._sent = decision
        for memory in self._memories:
            memory.remember(decision)

    def _passed(self, now: float) -> float:
        """Return the time since the last output [s], of which one period counts."""
        return min(max(0.0, now - self._applied_at), self.spec.period)

    def _judge(self, now: float) -> _Verdict:
        emergency, comfort = self.stops.emergency, self.stops.comfort
        if not self._active:
            return self._stop(State.INACTIVE, Row.INACTIVE, "not active", emergency, now)
        if cause := self.estop.check(now):
            return self._stop(State.ESTOP, Row.ESTOP, cause, emergency, now)
        if cause := self._why_blind(now):
            return self._stop(State.STOP, Row.OBSERVATION, cause, comfort, now)
        if cause := self._why_unled(now):
            return self._back_up(cause, now)
        return self._drive(now)

    def _why_blind(self, now: float) -> str:
        """Return why the row of the observation matches."""
        if self._disabled:
            return self._disabled
        if fault := self.observation.fault(now):
            self._latched = self._latched or (self.settings.latch_stop and fault != NEVER)
            return f"observation: {fault}"
        if self._latched:
            return "observation: good again, waiting for reset"
        recovers = self.observation.good_for(now) < self.settings.recover_s or self._dwells(now)
        if self._was_blind and recovers:
            return "observation: good again, recovering"
        return ""

    def _why_unled(self, now: float) -> str:
        """Return why the row of the command matches."""
        was_lost = self._row is Row.COMMAND
        timeout = self.settings.cmd_timeout * (FRESH_SHARE if was_lost else 1.0)
        if fault := self.command.fault(now, timeout=timeout):
            return f"command: {fault}"
        return "command: good again, recovering" if was_lost and self._dwells(now) else ""

    def _drive(self, now: float) -> _Verdict:
        observation, proposal = self.observation.values, self.command.values
        assert observation is not None, "the observation has no fault"
        assert proposal is not None, "the command has no fault"
        decision = self.solve(observation, self._approach(proposal, now))
        if decision is None or (fault := self._mistrust(decision)):
            fault = "over its time budget, or failed" if decision is None else fault
            reason = f"filter: {fault}"
            return self._stop(State.BACKUP, Row.BUDGET, reason, self.stops.comfort, now)
        status = int(decision.certificate.status[0])
        if status == Status.FALLBACK:
            reason = "filter: no certified action"
            return _Verdict(State.BACKUP, Row.INFEASIBLE, reason, decision)
        # While a command is approached, what is filtered is not the command.
        is_kept = status == Status.KEPT and not self._reentering
        return _Verdict(State.NOMINAL if is_kept else State.MODIFIED, Row.DRIVE, "", decision)

    def _approach(self, proposal: Tensor, now: float) -> Tensor:
        """Limit the way from what is applied to the proposal, until it has been reached once."""
        if self._reentering and self.applied is not None:
            step = self._spans(proposal) * (self._passed(now) / self.settings.reentry_s)
            way = proposal - self.applied
            if bool((way.abs() > step).any()):
                return self.applied + way.clamp(-step, step)
        self._reentering = False
        return proposal

    def _back_up(self, cause: str, now: float) -> _Verdict:
        """Propose the stop profile to the filter, so that it is verified where that is possible."""
        stop = self._stop(State.BACKUP, Row.COMMAND, cause, self.stops.comfort, now)
        observation = self.observation.values
        if stop.decision is None or observation is None:
            return stop
        decision = self.solve(observation, stop.decision.action)
        if decision is None or self._mistrust(decision):
            return stop
        return stop._replace(decision=decision)

    def _stop(self, state: State, row: Row, cause: str, profile: Stop, now: float) -> _Verdict:
        seen, good_at, applied = self.observation.values, self.observation.good_at, self.applied
        slowed = self.stops.slowed
        if self._begin[0] is None or now < self._begin[1]:  # a clock may go back
            begin = seen
            if slowed is not None and seen is not None and applied is not None:
                begin = slowed(seen, applied)
            self._begin = (begin, now)
        newest = (seen if good_at <= now else None, good_at)
        observation, since = newest if self.stops.is_closed_loop else self._begin
        if observation is None:
            if self.stops.needs_observation:
                return _Verdict(state, row, cause, None)
            observation, since = torch.full((1, self.spec.nx), torch.nan), now
        decision = profile(observation, max(0.0, now - since))
        if slowed is not None and applied is not None:
            reach = applied.abs()
            decision = decision._replace(action=decision.action.clamp(-reach, reach))
        return _Verdict(state, row, cause, decision)

    def _mistrust(self, decision: Decision) -> str:
        """Return why a decision is not to be sent: what no correct filter gives."""
        action = decision.action
        if action.shape != (1, self.spec.nu):
            return f"decided the shape {tuple(action.shape)}"
        rows = zip(action[0].tolist(), *self._limits, strict=True)
        if not all(low <= value <= high for value, low, high in rows):  # NaN too
            return "decided an action beyond the limits"
        return ""

    def _dwells(self, now: float) -> bool:
        return now - self._entered < self.settings.min_dwell_s

    def _rests(self, action: Tensor | None) -> bool:
        if action is None:
            return True
        pairs = zip(action[0].tolist(), self._rest, strict=True)
        return all(abs(value) <= rest for value, rest in pairs)

    def _spans(self, like: Tensor) -> Tensor:
        return like.new_tensor([entry.high - entry.low for entry in self.spec.action])
