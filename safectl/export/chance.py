"""A policy behind an adaptive chance constraint: correction along the gradient of a critic.

Source: Chen et al., "Safe Reinforcement Learning via Hierarchical Adaptive Chance-Constraint
Safeguards", IROS 2024 (arXiv 2310.03379). There an action is admissible if its safety advantage
A(s, a) reaches h(s) = -alpha (Psi(s) - (1 - eps)); with a cost critic the advantage is -Q(s, a) and
h is -((1 - alpha) V(s) + alpha eps).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from safectl.errors import ShapeError, UnsupportedLayer
from safectl.export.assemble import Network, append_network, limit_constants, start_program
from safectl.export.critic import SMOOTH
from safectl.export.normaliser import Normaliser
from safectl.export.ops import Loop, Op
from safectl.export.program import ACTION, MARGIN, OBSERVATION, STATUS, Program
from safectl.export.trace import Tracer
from safectl.spec import Spec

_ACTIVATIONS = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}


@dataclass(frozen=True, slots=True, eq=False)
class ChanceConstraint:
    """critic(o, u) >= bound(o), met by moving u along the critic's gradient.

    Attributes:
        critic: `Linear` layers with one activation between them, from observation and action, in
            this order, to m numbers that grow with safety.
        bound: Network with m outputs, what those of the critic must reach.
        normaliser: Applied to the critic's observation first, if any.
        newton: Steps of step (bound - g) grad / |grad|^2, which solve a linear critic at once; else
            of step grad / max |grad_i|.
        step: Damping or length of a step, above zero.
        iterations: At most so many steps.
        aim: How far beyond the bound a Newton step leads, so that rounding does not leave it short.
    """

    critic: nn.Sequential
    bound: Network
    normaliser: Normaliser | None = None
    newton: bool = True
    step: float = 1.0
    iterations: int = 5
    aim: float = 0.0


def chance_constrained_program(
    name: str,
    spec: Spec,
    policy: Network,
    constraint: ChanceConstraint,
    *,
    fail_safe: Sequence[float] | None = None,
) -> Program:
    """Export a policy whose actions are corrected until a critic reaches its bound.

    The proposal is first limited to the action box. The margin is the least critic minus bound at
    the action that leaves. Where it stays below zero the best action found leaves with `FALLBACK`,
    where it is not finite the fail-safe action.

    Args:
        name: Lower-case C identifier.
        spec: Signals, with the action limits.
        policy: Network with nu outputs.
        constraint: The critic and what it must reach.
        fail_safe: As in `policy_program`.

    Raises:
        UnsupportedLayer: If a network holds a layer that has no operation or derivative.
        ShapeError: If sizes do not fit.
    """
    tracer = start_program(name, spec, fail_safe)
    proposal = append_network(tracer, policy, name="policy", outputs=spec.nu)
    limits = limit_constants(tracer)
    limited = tracer.limited(proposal, limits)
    layers, activation = _layers(constraint.critic)
    costs = layers[-1].out_features
    bound = append_network(tracer, constraint.bound, name="bound", outputs=costs)
    base, constants = _critic(tracer, layers, constraint)
    step = tracer.constant("step", [constraint.step])
    outputs = ("corrected", "rooms")
    tracer.op(
        Op(
            "correct",
            (limited, base, bound),
            outputs,
            (*limits, step, *constants),
            activation,
            detail=Loop(constraint.iterations, newton=constraint.newton, aim=constraint.aim),
        )
    )
    after = tracer.slice("rooms", 0, 1, name="room_after")
    before = tracer.slice("rooms", 1, 2, name="room_before")
    pairs = (limited, before, outputs[0], after, outputs[0], after)
    tracer.op(Op("first_admissible", pairs, (ACTION, MARGIN, STATUS), limits))
    return tracer.finish()


def _critic(
    tracer: Tracer, layers: list[nn.Linear], constraint: ChanceConstraint
) -> tuple[str, list[str]]:
    """Append what the observation adds to the first layer; store all that the action meets."""
    spec, value = tracer.spec, OBSERVATION
    if constraint.normaliser is not None:
        value = tracer.normalise(OBSERVATION, constraint.normaliser, name="critic_input")
    arrays = [_arrays(layer) for layer in layers]
    expected = spec.nx + spec.nu
    if arrays[0][0].shape[1] != expected:
        raise ShapeError("critic", expected=(expected,), got=(arrays[0][0].shape[1],))
    weight, bias = arrays[0]
    base = tracer.dense(value, weight[:, : spec.nx], bias, name="critic_base")
    names = [tracer.constant("critic_action_weight", weight[:, spec.nx :])]
    for index, (weight, bias) in enumerate(arrays[1:], start=1):
        names.append(tracer.constant(f"critic_{index}_weight", weight))
        names.append(tracer.constant(f"critic_{index}_bias", bias))
    return base, names


def _arrays(layer: nn.Linear) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    weight = layer.weight.detach().double().cpu().numpy()
    bias = dict(layer.named_parameters()).get("bias")
    return weight, np.zeros(len(weight)) if bias is None else bias.detach().double().cpu().numpy()


def _layers(critic: nn.Sequential) -> tuple[list[nn.Linear], str]:
    """Return the linear layers of a critic and the activation between them."""
    layers = [layer for layer in critic if not isinstance(layer, nn.Identity)]
    linear = [layer for layer in layers[::2] if isinstance(layer, nn.Linear)]
    between = [_ACTIVATIONS.get(type(layer), type(layer).__name__) for layer in layers[1::2]]
    activation = between[0] if between else "none"
    alternates = len(layers) % 2 == 1 and len(linear) == len(layers[::2])
    if not alternates or activation not in SMOOTH or set(between) - {activation}:
        raise UnsupportedLayer(
            f"the critic {critic}",
            supported=("Linear layers with one of ReLU, Tanh, Sigmoid between them",),
            advice="Rebuild it as such a Sequential; fold an output layer's sign into its weights.",
        )
    return linear, activation
