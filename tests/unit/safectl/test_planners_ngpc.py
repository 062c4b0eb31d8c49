import numpy as np
import pytest
import torch
from torch import nn

from safectl.errors import RangeError, ShapeError, UnsupportedLayer
from safectl.planners import ForwardModel, Layer, Ngpc, NgpcProblem, forward_model
from safectl.planners.forward_model import ACTIVATIONS, Jet
from safectl.planners.ngpc_cost import Context, cost, derivatives
from safectl.seed import torch_generator
from safectl.types import Status
from tests.finite_differences import TOLERANCE, jacobian

DOUBLE = torch.float64
RELATIVE = 1e-6
"""Central differences of a sum over the horizon lose digits to its largest term."""


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch_generator(seed, f"ngpc {shape}")
    return torch.randn(*shape, generator=generator, dtype=DOUBLE)


def network(inputs: int, outputs: int, activation: str, *, has_gate: bool = False) -> ForwardModel:
    if has_gate:
        first = Layer(0.4 * draw(18, inputs), 0.3 * draw(18), reset_bias=draw(6))
    else:
        first = Layer(0.4 * draw(6, inputs), 0.3 * draw(6), activation)
    return ForwardModel((first, Layer(0.5 * draw(outputs, 6), 0.1 * draw(outputs))))


def problem(**changes) -> NgpcProblem:
    options = {
        "outputs": 3,
        "sensors": 2,
        "input_lags": 3,
        "output_lags": 2,
        "last": 6,
        "control": 3,
        "tracking": np.array([[2.0, 0.3, 0.0], [0.3, 1.0, 0.1], [0.0, 0.1, 3.0]]),
        "effort": np.array([0.2, 0.1]),
        "low": np.array([-1.0, -0.5]),
        "high": np.array([1.0, 2.0]),
        "sharpness": 1e-2,
        "has_curvature": True,
    }
    return NgpcProblem(**{**options, **changes})


def context(batch: int, stated: NgpcProblem) -> Context:
    rows = stated.last - stated.first + 1
    return Context(
        0.3 * draw(batch, stated.past_inputs, stated.inputs),
        draw(batch, stated.output_lags, stated.outputs),
        draw(batch, stated.sensors),
        0.1 * draw(batch, stated.outputs),
        draw(batch, rows, stated.outputs, seed=1),
    )


SMOOTH = [name for name in ACTIVATIONS if name != "relu"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_tangents_of_a_network_equal_finite_differences(activation):
    model, point = network(4, 3, activation), draw(5, 4)
    jet = model.jet(Jet(point, torch.eye(4, dtype=DOUBLE).expand(5, -1, -1), None))
    expected = jacobian(model.value, point).transpose(1, 2)
    torch.testing.assert_close(jet.first, expected, atol=TOLERANCE, rtol=0.0)


@pytest.mark.parametrize("activation", [*SMOOTH, "gated"])
def test_gradient_and_hessian_of_the_cost_equal_finite_differences(activation):
    stated, batch = problem(), 4
    has_gate = activation == "gated"
    name = "none" if has_gate else activation
    model = network(stated.model_inputs, stated.outputs, name, has_gate=has_gate)
    known, plan = context(batch, stated), 0.3 * draw(batch, stated.decisions)

    def gradient(flat: torch.Tensor) -> torch.Tensor:
        return derivatives(stated, model, known, flat.view(batch, 3, 2)).gradient

    found = derivatives(stated, model, known, plan.view(batch, 3, 2))
    slope = jacobian(lambda z: cost(stated, model, known, z.view(batch, 3, 2))[:, None], plan)
    torch.testing.assert_close(found.gradient, slope[:, 0], atol=TOLERANCE, rtol=RELATIVE)
    curvature = jacobian(gradient, plan)
    torch.testing.assert_close(found.hessian, curvature, atol=TOLERANCE, rtol=RELATIVE)


def test_gauss_newton_leaves_out_nothing_but_the_curvature_of_the_network():
    full, reduced = problem(), problem(has_curvature=False)
    linear = network(full.model_inputs, 3, "none")
    known, plan = context(4, full), 0.3 * draw(4, 3, 2)
    expected = derivatives(full, linear, known, plan).hessian
    torch.testing.assert_close(derivatives(reduced, linear, known, plan).hessian, expected)
    curved = network(full.model_inputs, 3, "tanh")
    difference = derivatives(full, curved, known, plan).hessian
    difference = difference - derivatives(reduced, curved, known, plan).hessian
    assert difference.abs().max() > 1e-3


def test_the_barrier_is_zero_in_the_middle_of_the_limits_for_any_sharpness():
    for sharpness in (1e-2, 1.0, 7.0):
        stated = problem(sharpness=sharpness, effort=np.zeros(2), tracking=np.zeros(3))
        model = network(stated.model_inputs, 3, "tanh")
        middle = torch.as_tensor(stated.barrier_centre).expand(1, 3, 2)
        assert float(cost(stated, model, context(1, stated), middle)) == pytest.approx(0.0)


def test_newton_reduces_the_gradient_quadratically():
    stated = problem(sharpness=10.0)
    model = network(stated.model_inputs, 3, "tanh")
    known, plan, norms = context(1, stated), torch.zeros(1, 3, 2, dtype=DOUBLE), []
    known = known._replace(reference=0.1 * known.reference)
    for _ in range(6):
        found = derivatives(stated, model, known, plan)
        norms.append(float(found.gradient.norm()))
        plan = plan - torch.linalg.solve(found.hessian, found.gradient).view_as(plan)
    assert norms[-1] < 1e-6 * norms[0]


def controller(**changes) -> Ngpc:
    stated = problem(**changes)
    model = network(stated.model_inputs, stated.outputs, "tanh")
    return Ngpc(stated, model, torch.zeros(2, dtype=DOUBLE))


@pytest.mark.parametrize("sharpness", [0.0, 1e-6])
@pytest.mark.parametrize("has_curvature", [False, True])
def test_every_action_is_within_the_limits_and_rows_do_not_depend_on_each_other(
    sharpness, has_curvature
):
    ours = controller(sharpness=sharpness, has_curvature=has_curvature)
    state, single = ours.start(8, draw(1)), ours.start(1, draw(1))
    for seed in range(5):
        observation = 3.0 * draw(8, ours.problem.observation_size, seed=seed)
        step, alone = ours.step(state, observation), ours.step(single, observation[3:4])
        assert (step.margin >= 0.0).all()
        torch.testing.assert_close(alone.action[0], step.action[3])
        state, single = step.state, alone.state


def test_steps_with_the_box_reach_the_minimum_over_the_box():
    stated = problem(sharpness=0.0, iterations=10, disturbance_gain=0.0)
    linear = network(stated.model_inputs, 3, "none")
    ours = Ngpc(stated, linear, torch.zeros(2, dtype=DOUBLE))
    observation = 3.0 * draw(4, ours.problem.observation_size)
    step = ours.step(ours.start(4, observation), observation)
    rows = ours.problem.last
    reference = observation[:, 5:].view(4, 1, 3).expand(-1, rows, -1)
    measured = observation[:, None, :3].expand(-1, 2, -1)
    zero = torch.zeros(4, 3, dtype=DOUBLE)
    known = Context(
        zero[:, None, :2].expand(-1, 2, -1), measured, observation[:, 3:5], zero, reference
    )
    found = derivatives(ours.problem, ours.model, known, step.state.plan)
    low = torch.as_tensor(ours.problem.low).expand(4, 3, 2).flatten(1)
    high = torch.as_tensor(ours.problem.high).expand(4, 3, 2).flatten(1)
    plan = step.state.plan.flatten(1)
    inward = torch.minimum(torch.maximum(plan - found.gradient, low), high)
    assert (inward - plan).abs().max() < TOLERANCE
    assert ((plan == low) | (plan == high)).any()


def test_a_non_finite_observation_gives_the_fail_safe_input_and_leaves_the_state():
    ours = controller()
    observation = draw(2, ours.problem.observation_size)
    started = ours.step(ours.start(2, observation), observation).state
    broken = observation.clone()
    broken[0, 1] = torch.nan
    step = ours.step(started, broken)
    assert step.status.tolist()[0] == Status.FALLBACK
    assert torch.equal(step.action[0], ours.fail_safe)
    for before, after in zip(started, step.state, strict=True):
        assert torch.equal(before[0], after[0])
    assert torch.isfinite(ours.step(step.state, observation).action).all()


def test_a_newton_system_that_is_not_finite_gives_the_fail_safe_input():
    ours = controller()
    observation = draw(2, ours.problem.observation_size)
    observation[0, -1] = 1e307  # a reference: the curvature overflows
    step = ours.step(ours.start(2, observation), observation)
    assert step.status.tolist()[0] == Status.FALLBACK
    assert step.status.tolist()[1] != Status.FALLBACK
    assert torch.equal(step.action[0], ours.fail_safe)


def test_an_indefinite_hessian_still_gives_a_descent_step():
    ours = controller(effort=np.zeros(2), sharpness=0.0)
    for seed in range(20):
        observation = 10.0 * draw(4, ours.problem.observation_size, seed=seed)
        step = ours.step(ours.start(4, observation), observation)
        assert torch.isfinite(step.action).all()
        assert (step.status != Status.FALLBACK).all()


def test_a_torch_module_becomes_the_same_network():
    module = nn.Sequential(
        nn.GRUCell(6, 20), nn.Linear(20, 15), nn.ReLU(), nn.Linear(15, 2)
    ).double()
    model = forward_model(module)
    point = draw(7, 6)
    torch.testing.assert_close(model.value(point), module(point).detach())
    assert model.parameters == 2027 - 3 * 20 * 20 - 2 * 20, "without what a zero state multiplies"


def test_what_does_not_fit_is_refused():
    with pytest.raises(UnsupportedLayer, match="Conv1d"):
        forward_model(nn.Sequential(nn.Conv1d(1, 1, 1)))
    with pytest.raises(RangeError, match="control"):
        problem(control=9)
    with pytest.raises(RangeError, match="least eigenvalue of tracking"):
        problem(tracking=np.array([1.0, -1.0, 1.0]))
    with pytest.raises(ShapeError, match="network"):
        Ngpc(problem(), network(5, 3, "tanh"), torch.zeros(2, dtype=DOUBLE))
    stated = problem()
    model = network(stated.model_inputs, 3, "tanh")
    with pytest.raises(RangeError, match="fail_safe"):
        Ngpc(stated, model, torch.full((2,), 5.0, dtype=DOUBLE))
