"""Any safeguard of this project around a policy, as one program.

All constraints are met together: the proposal is projected on their linearisations within the
limits, again where they bend, and pulled towards the fallback where that does not suffice. What
leaves is the first of proposal, correction and fallback whose constraint values, recomputed from
that very action, are zero or more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from safectl.errors import RangeError, UnsupportedLayer
from safectl.export.acs import chance_constraint_of
from safectl.export.assemble import Network, append_network, limit_constants, start_program
from safectl.export.barrier_values import append_barrier, parts_of, pick
from safectl.export.chance import chance_constrained_program
from safectl.export.constraints import (
    BarrierConstraint,
    Constraint,
    StatedRows,
    append_backoff,
    append_rows,
    stated_law,
)
from safectl.export.models import Motion, constant, motion_of
from safectl.export.ops import Loop, Op
from safectl.export.probe import affine_law, chosen_entries
from safectl.export.program import ACTION, MARGIN, OBSERVATION, STATUS, Program, action_limits
from safectl.export.safety_layer import signal_network
from safectl.export.trace import Tracer
from safectl.safeguards import (
    ACS,
    BarrierQP,
    Brake,
    Chain,
    Clip,
    Fallback,
    Hold,
    Least,
    RateLimit,
    Remembering,
    SafetyLayer,
)
from safectl.safeguards.cbf import BACKOFF_ULPS as BARRIER_ULPS
from safectl.safeguards.cbf import PULLS
from safectl.solve.active_set import step_bound
from safectl.spec import Signal, Spec
from safectl.types import Barrier, Safeguard

SUPPORTED = (
    *("ACS", "Clip", "RateLimit", "BarrierQP", "SafetyLayer", "ConvexGuard"),
    "Chain or Remembering of all but ACS",
)


def guarded_program(
    name: str,
    spec: Spec,
    policy: Network,
    safeguard: Safeguard,
    *,
    state: Sequence[int] | None = None,
    fail_safe: Sequence[float] | None = None,
) -> Program:
    """Export a policy behind a safeguard.

    The proposal is first limited to the action box, so `KEPT` means that the limited proposal is
    returned bit for bit. Several constraints are met at once, where `Chain` alternates between its
    members; a program therefore finds an action wherever the chain does, and a nearer one. A rate
    limit counts from the action before. `Hold` repeats the last certified action as the fallback.
    The fail-safe action, for a step that is not finite, is exempt from both and is not remembered.

    Args:
        name: Lower-case C identifier.
        spec: Signals, with the action limits.
        policy: Network with nu outputs.
        safeguard: One of `SUPPORTED`.
        state: Entries of the observation that are the state of a barrier's model, in its order; the
            whole observation when absent.
        fail_safe: As in `policy_program`.

    Raises:
        UnsupportedLayer: If the safeguard, its barrier, model or fallback has no operations.
        ShapeError: If sizes do not fit.
    """
    if isinstance(safeguard, ACS):
        constraint = chance_constraint_of(safeguard)
        return chance_constrained_program(name, spec, policy, constraint, fail_safe=fail_safe)
    tracer = start_program(name, spec, fail_safe)
    proposal = append_network(tracer, policy, name="policy", outputs=spec.nu)
    return _behind(tracer, proposal, safeguard, range(spec.nx) if state is None else state)


def filter_program(name: str, spec: Spec, safeguard: Safeguard) -> Program:
    """Export a safeguard alone: its observation is that of the robot, then the proposal.

    Args:
        name: Lower-case C identifier.
        spec: Signals of the robot, with the action limits.
        safeguard: One of `SUPPORTED`.

    Raises:
        UnsupportedLayer, ShapeError: As `guarded_program`.
    """
    proposal = tuple(
        Signal(f"proposed_{signal.name}", signal.unit, signal.low, signal.high)
        for signal in spec.action
    )
    tracer = start_program(
        name, Spec((*spec.observation, *proposal), spec.action, spec.period), None
    )
    entries = range(spec.nx, spec.nx + spec.nu)
    proposed = pick(tracer, OBSERVATION, entries, name="proposal")
    return _behind(tracer, proposed, safeguard, range(spec.nx))


def _behind(tracer: Tracer, proposal: str, safeguard: Safeguard, entries: Sequence[int]) -> Program:
    limits = limit_constants(tracer)
    limited = tracer.limited(proposal, limits)
    guard = _Guard(tracer, limited, tuple(entries))
    guard.collect(safeguard)
    guard.finish(limits)
    return tracer.finish()


@dataclass(slots=True)
class _Guard:
    """A program under construction: what a safeguard adds to the limited proposal."""

    tracer: Tracer
    limited: str
    entries: tuple[int, ...]
    constraints: list[Constraint] = field(default_factory=list)
    fallback: Brake | Least | None = None
    hold: Hold | None = None
    window: tuple[str, str] | None = None
    remembers: bool = False
    iterations: int = 1
    seen: tuple[int, ...] | None = None

    def collect(self, safeguard: Safeguard) -> None:
        """Add the constraints of a safeguard; the outermost one names the fallback."""
        match safeguard:
            case Chain():
                self._fall_back_to(safeguard.fallback)
                for member in safeguard.safeguards:
                    self.collect(member)
            case Remembering():
                self.collect(safeguard.safeguard)
            case Clip():
                self._fall_back_to(safeguard.fallback)
            case RateLimit():
                self._fall_back_to(safeguard.fallback)
                self._add_window(safeguard)
            case BarrierQP() if safeguard.tolerance is None:
                self._fall_back_to(safeguard.fallback)
                self._add_barrier(safeguard)
            case SafetyLayer():
                self._fall_back_to(safeguard.fallback)
                self._add_signals(safeguard)
            case StatedRows():
                self._fall_back_to(safeguard.fallback)
                self._add_stated(safeguard)
            case _:
                what = " with a tolerance" if isinstance(safeguard, BarrierQP) else ""
                raise UnsupportedLayer(
                    f"the safeguard {type(safeguard).__name__}{what}",
                    supported=SUPPORTED,
                    advice="Keep it on the host.",
                )

    def finish(self, limits: tuple[str, str]) -> None:
        """Append corrections, fallback and the choice among them."""
        box = self.window or self._box()
        if not self.constraints:  # then the margin is the distance to the nearest limit
            self.window = box
        start = self._room(self.limited, "proposal")
        first, corner = self._first(box)
        reserve = self._reserve(corner, box)
        reserve_room = self._room(reserve, "reserve")
        point = self._improve(first, (reserve, reserve_room), box)
        room = self._room(point, "candidate")
        pairs = (self.limited, start, point, room, reserve, reserve_room)
        self.tracer.op(Op("first_admissible", pairs, (ACTION, MARGIN, STATUS), limits))
        if self.remembers:
            self.tracer.keep("previous", ACTION)
        if self.hold is not None:
            self._remember(self.hold)

    def _remember(self, hold: Hold) -> None:
        """Append what the next step may repeat."""
        terms = [1.0, 0.0] if hold.patience is None else [hold.patience, 1.0]
        states, after = ("held", "held_left"), ("held_next", "held_left_next")
        constants = (self.tracer.constant("held_terms", terms),)
        self.tracer.op(Op("remember", (ACTION, STATUS, *states), after, constants))
        for state, following in zip(states, after, strict=True):
            self.tracer.keep(state, following)

    def _first(self, box: tuple[str, str]) -> tuple[str, str]:
        """Append the projection on the constraints linearised at the proposal, and the corner."""
        if self.constraints:
            return self._project(self.limited, self._planes(self.limited, "proposal"), box, "first")
        inside = self.tracer.op(Op("clamp", (self.limited, *box), ("first",)))
        return inside, inside

    def _improve(self, first: str, reserve: tuple[str, str], box: tuple[str, str]) -> str:
        """Append further linearisations and secant steps towards the fallback; name the result."""
        tracer, point = self.tracer, first
        if all(constraint.is_linear for constraint in self.constraints):
            return point
        for index in range(1, self.iterations):
            planes = self._planes(point, f"turn{index}")
            target, _ = self._project(point, planes, box, f"turn{index}")
            kept = (point, planes[0], target)
            point = tracer.op(Op("keep_admissible", kept, (f"point{index}",)))
        backoff = self._joined([c.backoff for c in self.constraints], "backoff_all")
        for index in range(PULLS):
            room = self._constraint_room(point, f"pull{index}")
            inputs = (point, room, reserve[0], self._barriers_of(reserve[1]), backoff)
            pulled = tracer.op(Op("retreat", inputs, (f"pulled{index}",)))
            point = tracer.op(Op("clamp", (pulled, *box), (f"clamped{index}",)))
        return point

    def _project(
        self, point: str, planes: tuple[str, str], box: tuple[str, str], tag: str
    ) -> tuple[str, str]:
        rows = self.tracer.size(planes[0])
        backoff = self._joined([c.backoff for c in self.constraints], "backoff_all")
        outputs = (f"nearest_{tag}", f"corner_{tag}")
        loop = Loop(step_bound(rows + 2 * self.tracer.spec.nu))
        inputs = (self.limited, point, *planes, backoff, *box)
        self.tracer.op(Op("project_polytope_box", inputs, outputs, detail=loop))
        return outputs

    def _planes(self, action: str, tag: str) -> tuple[str, str]:
        pairs = [c.planes(self.tracer, action, tag=tag) for c in self.constraints]
        rooms, normals = zip(*pairs, strict=True)
        return self._joined(rooms, f"room_{tag}"), self._joined(normals, f"normals_{tag}")

    def _constraint_room(self, action: str, tag: str) -> str:
        rooms = [c.room(self.tracer, action, tag=tag) for c in self.constraints]
        return self._joined(rooms, f"room_{tag}")

    def _room(self, action: str, tag: str) -> str:
        """Append all that must be zero or more at an action: constraints, then the window."""
        parts = [self._constraint_room(action, tag)] if self.constraints else []
        if self.window is not None:
            parts += [
                _difference(self.tracer, action, self.window[0], name=f"above_{tag}"),
                _difference(self.tracer, self.window[1], action, name=f"below_{tag}"),
            ]
        return self._joined(parts, f"all_room_{tag}")

    def _barriers_of(self, room: str) -> str:
        """Return the part of `_room` that the constraints make up."""
        if self.window is None:
            return room
        rows = self.tracer.size(room) - 2 * self.tracer.spec.nu
        return pick(self.tracer, room, range(rows), name="reserve_constraints")

    def _joined(self, parts: Sequence[str], name: str) -> str:
        if len(parts) == 1 or self.tracer.has(name):
            return parts[0] if len(parts) == 1 else name
        return self.tracer.concat(parts, name=name)

    def _box(self) -> tuple[str, str]:
        low, high = action_limits(self.tracer.spec)
        return (
            constant(self.tracer, self.limited, low, name="box_low"),
            constant(self.tracer, self.limited, high, name="box_high"),
        )

    def _add_window(self, safeguard: RateLimit) -> None:
        if self.window is not None:
            raise RangeError("rate limits", value=2, expected="at most one")
        tracer = self.tracer
        previous = tracer.state("previous", safeguard.start.numpy())
        step = tracer.constant("rate_step", safeguard.step.numpy())
        self.window, self.remembers = ("window_low", "window_high"), True
        constants = (step, *limit_constants(tracer))
        tracer.op(Op("rate_window", (previous,), self.window, constants))

    def _add_barrier(self, safeguard: BarrierQP) -> None:
        tracer = self.tracer
        entries, state = self.entries, "state"
        if safeguard.observe is not None:
            chosen = chosen_entries(safeguard.observe, nx=len(entries))
            entries, state = tuple(entries[index] for index in chosen), "model_state"
        if len(entries) != safeguard.dynamics.nx:
            raise RangeError(
                "state",
                value=entries,
                expected=f"the {safeguard.dynamics.nx} entries of the observation that the model "
                "needs",
            )
        if self.seen not in (None, entries):
            raise UnsupportedLayer(
                "barriers over different entries of the observation",
                supported=("one state for all barriers",),
                advice="Observe the same entries with all of them, or keep the chain on the host.",
            )
        self.seen = entries
        motion = motion_of(
            tracer, safeguard.dynamics, pick(tracer, OBSERVATION, entries, name=state)
        )
        self.iterations = max(self.iterations, safeguard.iterations)
        for barrier in parts_of(safeguard.barrier):
            self.constraints.append(self._barrier(barrier, motion, safeguard))

    def _barrier(self, barrier: Barrier, motion: Motion, safeguard: BarrierQP) -> BarrierConstraint:
        tracer, index = self.tracer, len(self.constraints)
        entries = pick(tracer, motion.state, motion.moving, name="state_moving")
        now, _ = append_barrier(tracer, barrier, motion, entries, name=f"h{index}_now")
        rows, slack, rate = tracer.size(now), None, safeguard.rate
        none = np.zeros(rows)
        if rate < 1.0:
            slack = tracer.affine(now, np.full(rows, rate - 1.0), none, name=f"slack{index}")
        if safeguard.escape:  # h is required where h < 0: rate * max(-h, 0) more
            lost = tracer.affine(now, np.full(rows, -rate), none, name=f"lost{index}")
            more = tracer.activation(lost, "relu", name=f"escape{index}")
            slack = more if slack is None else tracer.add(slack, more, name=f"required{index}")
        backoff = append_backoff(
            tracer, motion.state, rows, ulps=BARRIER_ULPS, name=f"backoff{index}"
        )
        return BarrierConstraint(barrier, motion, index, slack, backoff)

    def _add_signals(self, safeguard: SafetyLayer) -> None:
        """Append bound - c - g . u >= 0 for each signal of a layer."""
        model = safeguard.model
        if safeguard.rate < 1.0:
            raise UnsupportedLayer(
                "a SafetyLayer with a rate below one beside other constraints",
                supported=("a rate of one",),
                advice="Export it alone, with guarded_policy_program.",
            )
        index, network = len(self.constraints), signal_network(safeguard)
        width = model.m * (1 + model.nu)
        value = append_network(self.tracer, network, name=f"signal{index}", outputs=width)
        margins = safeguard.calibration.margin.double().numpy()
        terms = np.array(safeguard.limit), -margins
        self.constraints.append(append_rows(self.tracer, value, terms, sign=-1.0, index=index))

    def _add_stated(self, safeguard: StatedRows) -> None:
        """Append A u - b >= 0, where the entries of A and b are affine in the observation."""
        tracer, index, nx = self.tracer, len(self.constraints), len(self.entries)
        what = "constraints whose terms are not affine in the observation"
        weight, bias = affine_law(stated_law(safeguard, tracer.spec), nx=nx, what=what)
        value = tracer.dense(self._state(), weight, bias, name=f"stated{index}")
        zero = np.zeros(len(bias) // (1 + tracer.spec.nu))
        self.constraints.append(append_rows(tracer, value, (zero,), sign=1.0, index=index))

    def _state(self) -> str:
        return pick(self.tracer, OBSERVATION, self.entries, name="state")

    def _fall_back_to(self, fallback: Fallback) -> None:
        if self.fallback is not None:
            return
        if isinstance(fallback, Hold):
            self.hold, fallback = fallback, fallback.otherwise
        if not isinstance(fallback, Brake | Least):
            raise UnsupportedLayer(
                f"the fallback {type(fallback).__name__}",
                supported=("Brake", "Least", "Hold before one of these"),
                advice="Use a braking law that is affine in the state.",
            )
        self.fallback = fallback

    def _reserve(self, corner: str, box: tuple[str, str]) -> str:
        """Append the fallback within the limits."""
        tracer, value = self.tracer, self._otherwise(corner, box)
        if self.hold is None:
            return value
        zero = np.zeros(tracer.spec.nu)
        states = (tracer.state("held", zero), tracer.state("held_left", [0.0]))
        recalled = tracer.op(Op("recall", (*states, value), ("recalled",)))
        return tracer.op(Op("clamp", (recalled, *box), ("repeated",)))

    def _otherwise(self, corner: str, box: tuple[str, str]) -> str:
        """Append what the fallback is where nothing is held."""
        assert self.fallback is not None, "collect comes first"
        if isinstance(self.fallback, Least):
            return corner
        tracer, law = self.tracer, self.fallback.law
        if law is None:
            value = constant(tracer, self.limited, self.fallback.fixed.numpy(), name="brake")
        else:
            weight, bias = affine_law(law, nx=len(self.entries))
            value = tracer.dense(self._state(), weight, bias, name="brake")
        return tracer.op(Op("clamp", (value, *box), ("reserve",)))


def _difference(tracer: Tracer, left: str, right: str, *, name: str) -> str:
    size = tracer.size(right)
    minus = tracer.affine(right, -np.ones(size), np.zeros(size), name=f"{name}_minus")
    return tracer.add(left, minus, name=name)
