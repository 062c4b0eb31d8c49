"""The policy of a task, alone or behind a limit on predicted visits, as a program.

The task and b_U are constants, so both fold into weights: the share of z in a first layer becomes
a bias, and the last layer of a head gives C_U at once. What (s, z) adds to a head is computed once
for all candidate actions.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from safectl.errors import RangeError, ShapeError
from safectl.export.assemble import (
    Network,
    append_network,
    limit_constants,
    policy_program,
    start_program,
)
from safectl.export.models import constant
from safectl.export.ops import Array, Op
from safectl.export.program import ACTION, MARGIN, OBSERVATION, STATUS, Program
from safectl.export.program import action_limits as limits_of
from safectl.export.trace import Tracer
from safectl.export.visit_room import Possible, append_room, tiled
from safectl.models import Actor, ForwardBackward, VisitCritic
from safectl.models.networks import Forward
from safectl.models.occupancy import SLACK
from safectl.models.visit_scope import VisitScope
from safectl.spec import Spec
from safectl.types import Task

_Floats = NDArray[np.float64]


def task_policy_program(name: str, spec: Spec, model: ForwardBackward, task: Task) -> Program:
    """Export the policy of one task, limited to the action box; it certifies nothing.

    Args:
        name: Lower-case C identifier.
        spec: Signals of the robot.
        model: Gives the policy.
        task: Its vector becomes part of the weights.

    Raises:
        ShapeError: If the sizes do not fit.
        NonFiniteError: If a weight is not finite.
    """
    actor = model.unscaled().actor
    return policy_program(name, spec, Network(_TaskActor(actor, task.vector)))


def visit_limit_program(
    name: str,
    spec: Spec,
    critic: VisitCritic,
    threshold: float,
    points: Sequence[Sequence[float]] | Array,
    *,
    scope: VisitScope,
    fail_safe: Sequence[float] | None = None,
) -> Program:
    """Export the policy of a task behind the veto of `VisitLimit`.

    The program decides as `VisitLimit` does with the bound of a `VisitTable`, which is within a
    limit exactly where C_U is at or below `VisitTable.threshold(limit)`; the proposal is limited to
    the action box first. Its margin is the least of threshold - C_U over the heads [steps], less
    1e4 in the unsafe set, and -1e6 or less where a head is impossible or the observation is outside
    the box of the scope. Where either is so at every candidate, the fallback is the first point.

    Args:
        name: Lower-case C identifier.
        spec: Signals of the robot.
        critic: C_U of the policy of a task.
        threshold: Largest admissible C_U.
        points: Candidates in [0, 1] of the action limits, shape (count, nu): `unit_points` of the
            safeguard. Each costs one pass through F.
        scope: Box and unsafe set of the safeguard.
        fail_safe: As in `policy_program`.

    Raises:
        RangeError: If no C_U is admissible.
        ShapeError: If the sizes do not fit.
        NonFiniteError: If a weight is not finite.
    """
    if scope.low.shape != (spec.nx,):
        raise ShapeError("box", expected=(spec.nx,), got=tuple(scope.low.shape))
    if threshold == -math.inf or math.isnan(threshold):
        expected = "a limit at or above the smallest bound of the table"
        raise RangeError("threshold", value=threshold, expected=expected)
    slack = SLACK / (1.0 - critic.discount)
    most = 1.0 / (1.0 - critic.discount) + slack
    tracer = start_program(name, spec, fail_safe)
    model = critic.model.unscaled()
    policy = Network(_TaskActor(model.actor, critic.task.vector))
    proposal = append_network(tracer, policy, name="policy", outputs=spec.nu)
    limits = limit_constants(tracer)
    limited = tracer.limited(proposal, limits)
    low, high = limits_of(spec)
    tried = np.clip(low + np.asarray(points, np.float32) * (high - low), low, high)
    others = constant(tracer, limited, tried, name="points")
    heads = _append_heads(tracer, model.forward, critic, (limited, others), len(tried) + 1)
    room = append_room(tracer, heads, Possible(-slack, most, min(threshold, most)), scope)
    outputs = (ACTION, MARGIN, STATUS)
    op = Op("nearest_admissible", (limited, others, room), outputs, limits, rows=len(tried) + 1)
    tracer.op(op)
    return tracer.finish()


class _TaskActor(nn.Module):
    """The actor of one task, a function of the observation alone."""

    def __init__(self, actor: Actor, task: Tensor) -> None:
        super().__init__()
        self.observation_embedding = actor.observation_embedding
        self.task_embedding = _folded(actor.task_embedding, task)
        self.trunk = actor.trunk

    def forward(self, observation: Tensor) -> Tensor:
        """Return the mean action per row."""
        embedded = [self.observation_embedding(observation), self.task_embedding(observation)]
        action: Tensor = self.trunk(torch.cat(embedded, -1))
        return action


def _folded(embedding: nn.Sequential, task: Tensor) -> nn.Sequential:
    """Return an embedding of (s, z) with z in the bias of its first layer."""
    first, *rest = embedding
    assert isinstance(first, nn.Linear)
    width = first.in_features - len(task)
    weight, bias = first.weight.detach(), first.bias.detach()
    layer = nn.Linear(width, first.out_features)
    with torch.no_grad():
        layer.weight.copy_(weight[:, :width])
        share = weight[:, width:].double() @ task.double().cpu()
        layer.bias.copy_(bias.double() + share)
    return nn.Sequential(layer, *rest)


def _append_heads(
    tracer: Tracer, net: Forward, critic: VisitCritic, actions: tuple[str, str], rows: int
) -> list[str]:
    """Append C_U of every head at every action; each value has one entry per action."""
    nx = tracer.spec.nx
    seen = tiled(tracer, OBSERVATION, rows, "seen")
    choices = tracer.concat(actions, name="choices")
    assert tracer.size(seen) == rows * nx
    pairs = tracer.concat([seen, choices], name="pairs", rows=rows)
    at = _append_layers(tracer, pairs, net.action_embedding, "action_embedding", rows)
    embedding = _folded(net.task_embedding, critic.task.vector)
    here = _append_layers(tracer, OBSERVATION, embedding, "task_embedding", 1)
    heads = []
    for index, (joint, tail) in enumerate(zip(net.joints, net.tails, strict=True)):
        assert isinstance(joint, nn.Linear)
        assert isinstance(tail, nn.Sequential)
        weight, bias = _arrays(joint)
        width = weight.shape[1] - tracer.size(here)
        part = tracer.dense(here, weight[:, width:], bias, name=f"head{index}_task")
        share = tracer.dense(at, weight[:, :width], None, name=f"head{index}_action", rows=rows)
        both = tracer.add(share, tiled(tracer, part, rows, f"head{index}_tasks"), name=f"h{index}")
        hidden = tracer.activation(both, "relu", name=f"head{index}_first")
        _, second, _, last = tail
        name = f"head{index}_second"
        hidden = tracer.dense(hidden, *_arrays(second), name=name, activation="relu", rows=rows)
        weight, bias = _arrays(last)
        unsafe = critic.unsafe.detach().double().numpy()
        folded = (unsafe @ weight)[None], np.array([unsafe @ bias])
        heads.append(tracer.dense(hidden, *folded, name=f"head{index}", rows=rows))
    return heads


def _append_layers(tracer: Tracer, value: str, layers: nn.Sequential, name: str, rows: int) -> str:
    """Append linear layers, each followed by ReLU."""
    for index, layer in enumerate(list(layers)[::2]):
        arrays = _arrays(layer)
        value = tracer.dense(value, *arrays, name=f"{name}{index}", activation="relu", rows=rows)
    return value


def _arrays(layer: nn.Module) -> tuple[_Floats, _Floats]:
    assert isinstance(layer, nn.Linear)
    weight, bias = (part.detach().double().cpu().numpy() for part in (layer.weight, layer.bias))
    return weight, bias
