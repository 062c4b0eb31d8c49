"""Whole controllers as programs: a policy, alone or behind a learned constraint."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from safectl.errors import RangeError, ShapeError
from safectl.export.normaliser import Normaliser
from safectl.export.ops import Op
from safectl.export.program import (
    ACTION,
    FAIL_SAFE,
    LIMITED,
    MARGIN,
    OBSERVATION,
    STATUS,
    Program,
    action_limits,
)
from safectl.export.torch_import import append_module
from safectl.export.trace import Tracer
from safectl.spec import Spec


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A perceptron with what belongs before and after it.

    Attributes:
        layers: `Sequential` of supported layers.
        normaliser: Applied to the observation first, if any.
        gain: Per output, applied last together with `shift`: y = gain * x + shift. A policy that
            ends in tanh has gain (high - low) / 2 and shift (high + low) / 2.
        shift: Per output.
    """

    layers: nn.Module
    normaliser: Normaliser | None = None
    gain: Sequence[float] | None = None
    shift: Sequence[float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AffineSignal:
    """A learned signal y = c(o) + g(o) . u that is kept at or below `limit - margin`.

    Attributes:
        network: Maps the observation to 1 + nu numbers: c, then g.
        limit: Largest allowed y, in its unit.
        margin: Distance kept from the limit, same unit.
        rate: Share of the distance to the limit that one step may use, in (0, 1]: the bound is
            now + rate (limit - now) - margin, or limit - margin from above the limit.
        now: Index of the entry of the observation that is the present y; needed below rate 1.
        backoff: Corrections aim this much below the bound, relative to the size of the terms
            |c| + |bound| + sum |g| max(|low|, |high|).
    """

    network: Network
    limit: float
    margin: float = 0.0
    rate: float = 1.0
    now: int | None = None
    backoff: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.rate <= 1.0 or (self.rate < 1.0) != (self.now is not None):
            raise RangeError(
                "rate, now",
                value=(self.rate, self.now),
                expected="a rate in (0, 1], and below 1 the index of the signal",
            )
        if not self.backoff >= 0.0:
            raise RangeError("backoff", value=self.backoff, expected="zero or more")


def policy_program(
    name: str, spec: Spec, policy: Network, *, fail_safe: Sequence[float] | None = None
) -> Program:
    """Export a policy, limited to the action box; it certifies nothing.

    The margin is `MARGIN_NONE`; the status is `CORRECTED` where the limits changed the action.

    Args:
        name: Lower-case C identifier.
        spec: Signals, with the action limits.
        policy: Network with nu outputs.
        fail_safe: Action for a non-finite observation, shape (nu,); zero, moved into the limits,
            when absent.

    Raises:
        UnsupportedLayer: If the network holds a layer that has no operation.
        ShapeError: If sizes do not fit.
        NonFiniteError: If a weight is not finite.
    """
    tracer = start_program(name, spec, fail_safe)
    proposal = append_network(tracer, policy, name="policy", outputs=spec.nu)
    _limit(tracer, proposal, ACTION)
    return tracer.finish()


def guarded_policy_program(
    name: str,
    spec: Spec,
    policy: Network,
    signal: AffineSignal,
    *,
    fail_safe: Sequence[float] | None = None,
) -> Program:
    """Export a policy followed by the projection on c(o) + g(o) . u + margin <= limit and the box.

    The proposal is first limited to the box, as in training, so `KEPT` means that the limited
    proposal is returned bit for bit. Where no action satisfies the constraint, the vertex of the
    box that violates it least is returned with `FALLBACK`.

    Args:
        name: Lower-case C identifier.
        spec: Signals, with the action limits.
        policy: Network with nu outputs.
        signal: The constraint. If its normaliser is the policy's (the same object), it is computed
            once.
        fail_safe: As in `policy_program`.

    Raises:
        UnsupportedLayer: If a network holds a layer that has no operation.
        ShapeError: If sizes do not fit.
        NonFiniteError: If a weight is not finite.
    """
    tracer = start_program(name, spec, fail_safe)
    proposal = append_network(tracer, policy, name="policy", outputs=spec.nu)
    limited = _limit(tracer, proposal, LIMITED)
    model = append_network(tracer, signal.network, name="signal", outputs=1 + spec.nu, like=policy)
    normal, offset, backoff = _half_space(tracer, model, signal)
    limits = limit_constants(tracer)
    outputs = (ACTION, MARGIN, STATUS)
    tracer.op(Op("project_halfspace_box", (limited, normal, offset, backoff), outputs, limits))
    return tracer.finish()


def _half_space(tracer: Tracer, model: str, signal: AffineSignal) -> tuple[str, str, str]:
    """Append c + g.u + margin <= bound as (-g).u >= c + margin - bound: normal, offset, backoff."""
    nu, limit = tracer.spec.nu, signal.limit if signal.now is None else 0.0
    rows = tracer.affine(
        model, [1.0] + [-1.0] * nu, [signal.margin - limit] + [0.0] * nu, name="rows"
    )
    offset = tracer.slice(rows, 0, 1, name="offset")
    terms, weights = model, [1.0, *np.maximum(*np.abs(action_limits(tracer.spec)))]
    if signal.now is not None:
        now = tracer.slice(OBSERVATION, signal.now, signal.now + 1, name="measured")
        below = tracer.constant("now_low", [np.finfo(np.float32).min])
        above = tracer.constant("now_high", [signal.limit])
        now = tracer.op(Op("clip", (now,), ("now",), (below, above)))
        bound = tracer.affine(
            now, [signal.rate - 1.0], [-signal.rate * signal.limit], name="minus_bound"
        )
        offset = tracer.op(Op("add", (offset, bound), ("offset_now",)))
        terms = tracer.op(Op("concat", (model, bound), ("terms",)))
        weights.append(1.0)
    sizes = tracer.op(Op("abs", (terms,), ("term_sizes",)))
    constants = (
        tracer.constant("backoff_weight", signal.backoff * np.array([weights])),
        tracer.constant("backoff_bias", [signal.backoff * abs(limit)]),
    )
    backoff = tracer.op(Op("dense", (sizes,), ("backoff",), constants))
    return tracer.slice(rows, 1, 1 + nu, name="normal"), offset, backoff


def start_program(name: str, spec: Spec, fail_safe: Sequence[float] | None) -> Tracer:
    """Begin a program with its fail-safe action, as in `policy_program`.

    Raises:
        ShapeError: If there is not one entry per action.
    """
    tracer = Tracer(name, spec)
    low, high = action_limits(spec)
    chosen = np.zeros(spec.nu) if fail_safe is None else np.array(fail_safe, np.float64)
    if chosen.shape != (spec.nu,):
        raise ShapeError(FAIL_SAFE, expected=(spec.nu,), got=chosen.shape)
    tracer.constant(FAIL_SAFE, np.clip(chosen, low, high))
    return tracer


def append_network(
    tracer: Tracer, network: Network, *, name: str, outputs: int, like: Network | None = None
) -> str:
    """Append a network to the observation, sharing the normaliser of `like` if it is the same."""
    value = OBSERVATION
    if network.normaliser is not None:
        is_shared = like is not None and like.normaliser is network.normaliser
        value = "policy_input" if is_shared else f"{name}_input"
        if not is_shared:
            tracer.normalise(OBSERVATION, network.normaliser, name=value)
    value = append_module(tracer, value, network.layers, name=name)
    if tracer.size(value) != outputs:
        raise ShapeError(f"output of {name}", expected=(outputs,), got=(tracer.size(value),))
    if network.gain is not None or network.shift is not None:
        gain = [1.0] * outputs if network.gain is None else network.gain
        shift = [0.0] * outputs if network.shift is None else network.shift
        value = tracer.affine(value, gain, shift, name=f"{name}_scaled")
    return value


def limit_constants(tracer: Tracer) -> tuple[str, str]:
    """Store the action limits and return the names of their constants, low and high."""
    low, high = action_limits(tracer.spec)
    return tracer.constant("action_low", low), tracer.constant("action_high", high)


def _limit(tracer: Tracer, value: str, name: str) -> str:
    return tracer.op(Op("clip", (value,), (name,), limit_constants(tracer)))
