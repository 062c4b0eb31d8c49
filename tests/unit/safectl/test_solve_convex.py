"""Sets stated in CVXPY: lowered rows against the stated problem, and what is refused."""

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from cvxpy import Parameter, Variable

from safectl.errors import ConvexityError, RangeError, ShapeError, UnknownNameError
from safectl.solve.convex import ConvexSet

cp: Any = importlib.import_module("cvxpy")  # mypy does not see the atoms it exports

AGREE = 1e-5  # the promise in float64; Clarabel's own error is up to 1.4e-6
BOX: Any = {"low": [-1.0] * 3, "high": [1.0, 1.0, 2.0]}


@pytest.fixture
def action() -> Variable:
    return Variable(3, name="u")


@pytest.fixture
def state() -> Parameter:
    return Parameter(4, name="x")


def statements(u: Variable, x: Parameter, M: Parameter, s: Parameter) -> dict[str, list[Any]]:
    return {
        "linear": [M @ u >= x[:2] - 1.0, x[0] * u[0] + x[1] * u[1] <= 0.3],
        "norm1": [cp.norm1(u - x[1:]) <= 3.0 * s + 0.5],
        "norm_inf": [cp.norm_inf(u) <= s, cp.abs(u[2] - x[0]) <= 0.7],
        "max": [cp.max(cp.hstack([u[0] + x[0], 2.0 * u[1], u[2]])) <= 1.1],
        "nested": [cp.maximum(u[0], cp.abs(u[1])) + cp.pos(u[2] - x[3]) <= 0.6 + s],
        "sum_largest": [cp.sum_largest(u, 2) <= s],
        "equality": [cp.sum(u) == 0.2 * x[3], u[0] - u[1] <= s],
        "none": [],
    }


NAMES = (
    "linear",
    "norm1",
    "norm_inf",
    "max",
    "nested",
    "sum_largest",
    "equality",
    "none",
)


@pytest.mark.parametrize("name", NAMES)
def test_projection_equals_the_problem_as_stated(name: str) -> None:
    u, x = Variable(3), Parameter(4)
    M, s = Parameter((2, 3)), Parameter(nonneg=True)
    stated = ConvexSet(u, {"x": x, "M": M, "s": s}, statements(u, x, M, s)[name], **BOX)
    rng = np.random.default_rng(0)
    rows, feasible = 40, 0
    values = {
        "x": rng.normal(size=(rows, 4)),
        "M": rng.normal(size=(rows, 2, 3)),
        "s": rng.uniform(0.0, 1.0, rows),
    }
    proposals = 1.5 * rng.normal(size=(rows, 3))
    tensors = {key: torch.from_numpy(value) for key, value in values.items()}
    found = stated.project(tensors, torch.from_numpy(proposals))
    for index in range(rows):
        one = {key: value[index] for key, value in values.items()}
        expected = stated.oracle(one, proposals[index])
        assert (expected is not None) == bool(found.feasible[index])
        if expected is not None:
            feasible += 1
            assert np.abs(expected - found.point[index].numpy()).max() < AGREE
    assert feasible > rows // 4


def test_single_precision_gives_single_precision(action: Variable, state: Parameter) -> None:
    stated = ConvexSet(action, {"x": state}, [state[:3] @ action <= state[3]], **BOX)
    found = stated.project({"x": torch.ones(2, 4)}, torch.ones(2, 3))
    assert found.point.dtype == torch.float32
    assert torch.allclose(found.point, torch.full((2, 3), 1.0 / 3.0))


def test_rows_are_those_of_the_statement(action: Variable, state: Parameter) -> None:
    stated = ConvexSet(action, {"x": state}, [state[:3] @ action >= state[3]], **BOX)
    normals, offsets = stated.rows({"x": torch.tensor([[1.0, 2.0, 3.0, 4.0]])}, torch.zeros(1, 3))
    assert normals.tolist() == [[[1.0, 2.0, 3.0]]]
    assert offsets.tolist() == [[4.0]]


def test_a_set_without_parameters_works() -> None:
    u = Variable(2)
    stated = ConvexSet(u, {}, [cp.norm1(u) <= 1.0], low=[-1.0, -1.0], high=[1.0, 1.0])
    assert stated.nu == 2
    found = stated.project({}, torch.tensor([[1.0, 1.0]]))
    assert torch.allclose(found.point, torch.tensor([[0.5, 0.5]]))
    nearest = stated.oracle({}, [1.0, 1.0])
    assert nearest is not None
    assert nearest == pytest.approx([0.5, 0.5], abs=AGREE)


def test_a_parameter_that_is_not_finite_spoils_its_row_only(
    action: Variable, state: Parameter
) -> None:
    stated = ConvexSet(action, {"x": state}, [state[:3] @ action <= state[3]], **BOX)
    values = torch.ones(3, 4)
    values[1, 2] = torch.nan
    found = stated.project({"x": values}, torch.ones(3, 3))
    assert found.feasible.tolist() == [True, False, True]


REFUSED: dict[str, tuple[Any, str]] = {
    "norm2": (lambda u, x: [u[0] <= 1.0, cp.norm2(u) <= 1.0], r"constraint 1 .*second-order cone"),
    "squares": (lambda u, x: [cp.sum_squares(u) <= x[0]], "second-order cone"),
    "exponential": (lambda u, x: [cp.exp(u[0]) <= 2.0], "exponential cone"),
    "not DPP": (lambda u, x: [x[0] * x[1] * u[0] <= 1.0], "DPP"),
    "not convex": (lambda u, x: [cp.abs(u[0]) >= 0.5], "not convex"),
    "foreign variable": (lambda u, x: [u[0] + Variable(name="y") <= 1.0], "action: y"),
    "unbound": (lambda u, x: [u[0] <= Parameter(name="p")], "unbound parameters: p"),
    "not a constraint": (lambda u, x: [True], "not a CVXPY constraint"),
    "scaled": (lambda u, x: [Parameter(nonneg=True) * cp.norm1(u) <= 1.0], "unbound"),
    "infinite": (lambda u, x: [u <= np.array([1.0, np.inf, 1.0])], "infinity"),
    "too many": (lambda u, x: [cp.norm1(cp.hstack([u, u + 1, u + 2])) <= 9.0], "rows"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_no_quadratic_program_is_refused_by_name(
    name: str, action: Variable, state: Parameter
) -> None:
    build, message = REFUSED[name]
    with pytest.raises(ConvexityError, match=message):
        ConvexSet(action, {"x": state}, build(action, state), **BOX)


def test_a_parameter_may_not_scale_a_piecewise_function(action: Variable) -> None:
    scale = Parameter(nonneg=True)
    with pytest.raises(ConvexityError, match="parameter multiplies"):
        ConvexSet(action, {"s": scale}, [scale * cp.norm1(action) <= 1.0], **BOX)


@pytest.mark.parametrize("attribute", ["integer", "boolean", "nonneg"])
def test_an_action_with_attributes_is_refused(attribute: str) -> None:
    with pytest.raises(ConvexityError, match=attribute):
        ConvexSet(cp.Variable(3, **{attribute: True}), {}, [], **BOX)


def test_wrong_shapes_limits_and_names_are_refused(action: Variable, state: Parameter) -> None:
    with pytest.raises(ShapeError):
        ConvexSet(Variable((3, 1)), {}, [], **BOX)
    with pytest.raises(ShapeError, match="low"):
        ConvexSet(action, {}, [], low=[0.0], high=[1.0, 1.0, 1.0])
    with pytest.raises(RangeError, match="action 1"):
        ConvexSet(action, {}, [], low=[-1.0, 2.0, -1.0], high=[1.0, 1.0, 1.0])
    with pytest.raises(ConvexityError, match="symmetric"):
        ConvexSet(action, {"P": Parameter((3, 3), symmetric=True)}, [], **BOX)
    stated = ConvexSet(action, {"x": state}, [state[:3] @ action <= 1.0], **BOX)
    with pytest.raises(UnknownNameError, match="y"):
        stated.project({"x": torch.zeros(1, 4), "y": torch.zeros(1)}, torch.zeros(1, 3))
    with pytest.raises(ConvexityError, match="no value"):
        stated.project({}, torch.zeros(1, 3))
    with pytest.raises(ShapeError, match="x"):
        stated.project({"x": torch.zeros(1, 5)}, torch.zeros(1, 3))
