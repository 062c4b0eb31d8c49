"""Sets stated in CVXPY as programs: as `ConvexGuard` decides, C equal to the interpreter."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from cvxpy.atoms.norm1 import norm1
from torch import nn

from safectl.errors import UnsupportedLayer
from safectl.export import Network, guarded_program, interpret, verify
from safectl.safeguards import Brake, Chain, RateLimit, StopProfile
from safectl.safeguards.convex import ConvexGuard
from safectl.solve.convex import ConvexSet
from safectl.spec import Signal, Spec
from safectl.types import Status

SPEC = Spec(
    (Signal("load", "1", 0.0, 9.0), Signal("lean", "1", -9.0, 9.0)),
    (Signal("left", "N", -1.0, 1.0), Signal("right", "N", -1.0, 1.0)),
    0.1,
)
TOLERANCE = 3e-4  # N: both stay 256 roundings of terms that add up to five inside


def guard(*, bound=1.0, features=None):
    action, load, gain = cp.Variable(2), cp.Parameter(), cp.Parameter()
    constraints = [norm1(action) <= 2.0 - load, action[0] + gain * action[1] >= -0.5]
    stated = ConvexSet(
        action, {"load": load, "gain": gain}, constraints, low=[-bound] * 2, high=[bound] * 2
    )
    return ConvexGuard(
        stated,
        features or (lambda seen: {"load": seen[:, 0], "gain": 0.5 + 0.1 * seen[:, 1]}),
        fallback=Brake(SPEC),
        claim="the total force is at most 2 N less the load",
    )


def program_of(safeguard):
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.4], [-0.5, 0.8]]))
        layer.bias.copy_(torch.tensor([-0.2, 0.3]))
    return guarded_program("g", SPEC, Network(nn.Sequential(layer)), safeguard), layer


def observations():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2000, 2, generator=generator)
    rows[:, 0] = 2.4 * rows[:, 0].abs()
    return rows


@pytest.mark.parametrize("bound", [1.0, 0.4])
def test_a_stated_set_decides_as_in_torch(bound):
    safeguard, rows = guard(bound=bound), observations()
    program, policy = program_of(safeguard)
    with torch.no_grad():
        decision = safeguard.filter(rows, policy(rows).clamp(-1.0, 1.0))
    steps = interpret(program, rows.numpy())
    assert {*steps.status} == {0, 1, 2}
    assert np.array_equal(steps.status, decision.certificate.status.numpy())
    assert np.abs(steps.action - decision.action.numpy()).max() < TOLERANCE
    kept = steps.status != Status.FALLBACK
    assert np.abs(steps.action[kept]).max() <= bound
    assert steps.margin[kept].min() >= 0.0
    verify(program, observations=rows[:500].numpy())


def test_a_stated_set_and_a_rate_limit_hold_together():
    limit = RateLimit(SPEC, [2.0, 2.0], rows=1)
    program, _ = program_of(Chain(guard(), limit, fallback=Brake(SPEC)))
    rows = observations()[:200].numpy()
    rows[:, 0] = np.minimum(rows[:, 0], 1.0)
    assert verify(program, observations=rows).corrected > 10


def test_terms_that_bend_with_the_observation_are_refused():
    bent = guard(features=lambda seen: {"load": seen[:, 0] ** 2, "gain": seen[:, 1]})
    with pytest.raises(UnsupportedLayer, match="not affine in the observation"):
        program_of(bent)


def test_a_stop_that_follows_time_is_refused_as_a_fallback_by_name():
    action = cp.Variable(2)
    fixed = ConvexSet(action, {}, [norm1(action) <= 1.0], low=[-1.0] * 2, high=[1.0] * 2)
    stop = StopProfile(SPEC, velocities=[0, 1], deceleration=[1.0, 1.0])
    safeguard = ConvexGuard(fixed, lambda _: {}, fallback=stop, claim="at most 1 N")
    with pytest.raises(UnsupportedLayer, match="the fallback StopProfile"):
        program_of(safeguard)
