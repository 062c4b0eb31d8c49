"""Following a plan on a board: the next waypoint comes in with the observation.

Planning stays on the host, which sends one waypoint per period; feedback and safeguard run where
the motors are.
"""

import torch
from torch import nn

from safectl.export.assemble import Network
from safectl.planners import PlanFollower
from safectl.spec import Signal, Spec


def waypoint_spec(follower: PlanFollower) -> Spec:
    """Append the waypoint to the observation: positions, then velocities, with their bounds."""
    spec = follower.spec
    entries = [spec.observation[index] for index in (*follower.positions, *follower.velocities)]
    waypoint = (Signal(f"waypoint_{s.name}", s.unit, s.low, s.high) for s in entries)
    return Spec((*spec.observation, *waypoint), spec.action, spec.period)


def follower_network(follower: PlanFollower) -> Network:
    """Return a = p (w_position - position) + v (w_velocity - velocity) of `waypoint_spec`.

    Before the limits, which every program applies. Export it with `guarded_program`, whose `state`
    names the entries before the waypoint.
    """
    nx, nu = follower.spec.nx, follower.spec.nu
    law = nn.Linear(nx + 2 * nu, nu, bias=False)
    weight = torch.zeros(nu, nx + 2 * nu)
    gains = zip(follower.gains, (follower.positions, follower.velocities), strict=True)
    for place, (gain, entries) in enumerate(gains):
        for row, entry in enumerate(entries):
            weight[row, entry] = -gain
            weight[row, nx + place * nu + row] = gain
    law.weight = nn.Parameter(weight, requires_grad=False)
    return Network(nn.Sequential(law))
