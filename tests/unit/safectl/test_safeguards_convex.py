import cvxpy as cp
import numpy as np
import pytest
import torch
from cvxpy.atoms.norm1 import norm1

from safectl.errors import RangeError, ShapeError
from safectl.safeguards import Brake
from safectl.safeguards.convex import ConvexGuard
from safectl.solve.convex import ConvexSet
from safectl.spec import Signal, Spec
from safectl.types import Status

SPEC = Spec(
    observation=(Signal("load", "1", 0.0, 9.0),),
    action=(Signal("left", "N", -1.0, 1.0), Signal("right", "N", -1.0, 1.0)),
    period=0.1,
)
ORACLE_TOLERANCE = 3e-4
"""Newtons; the guard stays 256 roundings of a float32, of terms that add up to five, inside."""


def stated(bound: float = 1.0) -> ConvexSet:
    action, load = cp.Variable(2), cp.Parameter()
    constraints = [norm1(action) <= 2.0 - load, action[0] + 0.5 * action[1] >= -0.5]
    return ConvexSet(action, {"load": load}, constraints, low=[-bound] * 2, high=[bound] * 2)


def guard(constraints: ConvexSet) -> ConvexGuard:
    return ConvexGuard(
        constraints,
        lambda observation: {"load": observation[:, 0]},
        fallback=Brake(SPEC),
        claim="the total force is at most 2 N less the load",
    )


def test_corrections_are_those_of_the_oracle() -> None:
    generator = torch.Generator().manual_seed(0)
    observation = 2.0 * torch.rand(32, 1, generator=generator)
    action = 2.0 * torch.randn(32, 2, generator=generator)
    decision = guard(stated()).filter(observation, action)
    oracle = stated()
    for row in range(32):
        expected = oracle.oracle({"load": observation[row, 0].numpy()}, action[row].numpy())
        assert expected is not None
        np.testing.assert_allclose(decision.action[row], expected, atol=ORACLE_TOLERANCE)
    assert (decision.certificate.margin >= 0.0).all()


def test_an_empty_set_takes_the_fallback_with_its_margin() -> None:
    decision = guard(stated()).filter(torch.tensor([[2.5]]), torch.zeros(1, 2))
    assert decision.certificate.status.tolist() == [Status.FALLBACK]
    torch.testing.assert_close(decision.certificate.margin, torch.tensor([-0.5]))


def test_the_limits_of_the_set_are_kept_where_they_are_narrower() -> None:
    decision = guard(stated(0.25)).filter(torch.zeros(1, 1), torch.ones(1, 2))
    torch.testing.assert_close(decision.action, torch.full((1, 2), 0.25))


def test_a_set_without_parameters_is_a_safeguard_too() -> None:
    action = cp.Variable(2)
    fixed = ConvexSet(action, {}, [norm1(action) <= 1.0], low=[-1.0] * 2, high=[1.0] * 2)
    safeguard = ConvexGuard(fixed, lambda _: {}, fallback=Brake(SPEC), claim="at most 1 N")
    decision = safeguard.filter(torch.zeros(2, 1), torch.tensor([[1.0, 1.0], [0.2, 0.3]]))
    torch.testing.assert_close(
        decision.action,
        torch.tensor([[0.5, 0.5], [0.2, 0.3]]),
        atol=ORACLE_TOLERANCE,
        rtol=0.0,
    )
    assert decision.certificate.status.tolist() == [Status.CORRECTED, Status.KEPT]


def test_features_for_another_number_of_rows_are_refused() -> None:
    safeguard = ConvexGuard(
        stated(), lambda seen: {"load": seen[:1, 0]}, fallback=Brake(SPEC), claim="none; for tests"
    )
    with pytest.raises(ShapeError, match="load"):
        safeguard.filter(torch.zeros(3, 1), torch.zeros(3, 2))


def test_sets_that_do_not_fit_the_robot_are_refused() -> None:
    with pytest.raises(RangeError, match="left"):
        guard(stated(2.0))
    action, load = cp.Variable(1), cp.Parameter()
    with pytest.raises(ShapeError):
        guard(ConvexSet(action, {"load": load}, [action[0] <= load], low=[-1.0], high=[1.0]))
