import numpy as np
import pytest
import torch

from safectl.errors import RangeError, ShapeError
from safectl.export import emit_c, interpret, load_program, ngpc_program, save_program, verify
from safectl.export.emit_c import sources
from safectl.export.interpret import replay
from safectl.export.toolchain import run_tool
from safectl.planners import ForwardModel, Layer, Ngpc, NgpcProblem, NgpcState
from safectl.seed import torch_generator
from safectl.spec import Signal, Spec
from safectl.types import Status
from safectl_hardware.verify import verify_on_board

DOUBLE = torch.float64
TORCH_TOLERANCE = 5e-5
"""Float32 against float64 through a horizon of up to six samples and a Cholesky factorisation."""

HASEL = {
    "m": 6,
    "p": 3,
    "sensors": 18,
    "last": 3,
    "layers": ((10, "relu"), (5, "relu"), (3, "tanh")),
}
CASES = {
    "hasel": HASEL,
    "tendon": {
        "m": 2,
        "p": 3,
        "sensors": 11,
        "input_lags": 3,
        "output_lags": 3,
        "last": 1,
        "layers": ((8, "relu"), (3, "tanh")),
    },
    "newton": {
        "m": 2,
        "p": 3,
        "sensors": 2,
        "input_lags": 3,
        "first": 2,
        "last": 6,
        "control": 3,
        "has_curvature": True,
        "has_preview": True,
        "iterations": 2,
        "layers": ((10, "tanh"), (5, "sigmoid"), (3, "none")),
    },
    "box": {
        "m": 2,
        "p": 3,
        "input_lags": 1,
        "output_lags": 1,
        "last": 5,
        "control": 2,
        "sharpness": 0.0,
        "iterations": 3,
        "layers": ((7, "tanh"), (3, "none")),
    },
    "gated": {
        "m": 1,
        "p": 2,
        "last": 5,
        "control": 2,
        "has_curvature": True,
        "layers": ((20, "gated"), (15, "relu"), (2, "none")),
    },
    "smallest": {
        "m": 1,
        "p": 1,
        "input_lags": 1,
        "output_lags": 1,
        "last": 1,
        "layers": ((1, "none"),),
    },
}


def make_controller(
    m: int, p: int, layers: tuple[tuple[int, str], ...], sensors: int = 0, **options
) -> Ngpc:
    generator = torch_generator(0, "ngpc export")

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=DOUBLE)

    inputs = options.get("input_lags", 2) * m + options.get("output_lags", 2) * p + sensors
    model = []
    for outputs, activation in layers:
        scale = 1.0 / inputs**0.5
        if activation == "gated":
            gate = scale * draw(3 * outputs, inputs)
            model.append(Layer(gate, 0.3 * draw(3 * outputs), reset_bias=draw(outputs)))
        else:
            model.append(Layer(scale * draw(outputs, inputs), 0.1 * draw(outputs), activation))
        inputs = outputs
    problem = NgpcProblem(
        outputs=p,
        sensors=sensors,
        tracking=np.full(p, 10.0),
        effort=np.full(m, 0.5),
        low=np.full(m, -0.5),
        high=np.full(m, 0.75),
        **options,
    )
    return Ngpc(problem, ForwardModel(tuple(model)), torch.zeros(m, dtype=DOUBLE))


def make_spec(controller: Ngpc) -> Spec:
    problem = controller.problem
    observation = tuple(
        Signal(f"signal {i}", "1", -1.0, 1.0) for i in range(problem.observation_size)
    )
    action = tuple(Signal(f"input {i}", "1", -0.5, 0.75) for i in range(problem.inputs))
    return Spec(observation, action, 0.008)


def make_program(controller: Ngpc):
    return ngpc_program("controller", make_spec(controller), controller)


def observations(controller: Ngpc, rows: int) -> np.ndarray:
    size = controller.problem.observation_size
    return np.random.default_rng(1).uniform(-1.0, 1.0, (rows, size)).astype(np.float32)


def torch_state(controller: Ngpc, memory: np.ndarray) -> NgpcState:
    """Read the memory of a program as the state of its torch twin."""
    like = controller.start(1, torch.zeros(1, dtype=DOUBLE))
    parts = torch.as_tensor(memory, dtype=DOUBLE).split([field.numel() for field in like])
    values = [part.view(field.shape) for part, field in zip(parts, like, strict=True)]
    return NgpcState(*values[:-1], is_started=values[-1] > 0)


@pytest.mark.parametrize("name", CASES)
def test_torch_the_interpreter_and_c_agree_over_consecutive_steps(name):
    controller = make_controller(**CASES[name])
    program, rows = make_program(controller), observations(controller, 15)
    ours = replay(program, rows)
    state = controller.start(1, torch.zeros(1, dtype=DOUBLE))
    for index, row in enumerate(rows):
        step = controller.step(state, torch.as_tensor(row, dtype=DOUBLE)[None])
        np.testing.assert_allclose(ours.action[index], step.action[0], atol=TORCH_TOLERANCE)
        np.testing.assert_allclose(ours.margin[index], step.margin[0], atol=TORCH_TOLERANCE)
        assert ours.status[index] == step.status[0]
        state = torch_state(controller, ours.states["memory"][index])
        for found, expected in zip(state, step.state, strict=True):
            torch.testing.assert_close(found, expected, atol=TORCH_TOLERANCE, rtol=0.0)
    assert verify(program, observations=rows).rows == len(rows)  # equal bits, with sanitizers


def test_the_margin_is_the_distance_of_the_action_from_its_limits():
    controller = make_controller(**HASEL)
    steps = replay(make_program(controller), observations(controller, 20))
    expected = np.minimum(steps.action + np.float32(0.5), np.float32(0.75) - steps.action)
    np.testing.assert_array_equal(steps.margin, expected.min(axis=1))
    assert (steps.margin >= 0.0).all()


def test_a_non_finite_observation_gives_the_fail_safe_action_and_keeps_the_memory():
    controller = make_controller(**HASEL)
    program, rows = make_program(controller), observations(controller, 2)
    started = interpret(program, rows[:1])
    rows[1, 0] = np.inf
    step = interpret(program, rows[1:], started.states)
    assert step.status.tolist() == [Status.FALLBACK]
    np.testing.assert_array_equal(step.action, np.zeros((1, 6)))
    np.testing.assert_array_equal(step.states["memory"], started.states["memory"])


def test_a_newton_system_that_is_not_finite_gives_the_fail_safe_action():
    controller = make_controller(**CASES["newton"])
    program, rows = make_program(controller), observations(controller, 3)
    rows[1, -controller.problem.outputs :] = 3e38  # a reference: the curvature overflows
    steps = replay(program, rows)
    assert steps.status.tolist()[1] == Status.FALLBACK
    assert Status.FALLBACK not in steps.status[[0, 2]]
    np.testing.assert_array_equal(steps.action[1], np.zeros(2))
    assert verify(program, observations=rows).rows == len(rows)  # equal bits, with sanitizers


def test_a_saved_controller_is_the_same_controller(tmp_path):
    program = make_program(make_controller(**CASES["newton"]))
    save_program(program, tmp_path / "program")
    assert load_program(tmp_path / "program").digest() == program.digest()


def test_what_the_operation_cannot_hold_is_refused():
    controller = make_controller(**HASEL)
    spec = make_spec(controller)
    with pytest.raises(ShapeError, match="specification"):
        ngpc_program("controller", Spec(spec.observation[1:], spec.action, 0.008), controller)
    narrow = (*spec.action[:5], Signal("input 5", "1", -0.5, 0.5))
    with pytest.raises(RangeError, match="high limits"):
        ngpc_program("controller", Spec(spec.observation, narrow, 0.008), controller)
    soft = make_controller(m=1, p=1, last=1, layers=((3, "softplus"), (1, "none")))
    with pytest.raises(RangeError, match="softplus"):
        make_program(soft)


def test_the_step_needs_nothing_but_copies_from_the_c_library(tmp_path):
    program = make_program(make_controller(**HASEL))
    emit_c(program, tmp_path / "c")
    files = [tmp_path / "c" / name for name in sources(program)]
    merged = tmp_path / "controller.o"
    run_tool(["gcc", "-O2", "-r", "-nostdlib", *files, "-o", merged], purpose="", timeout_s=60.0)
    undefined = run_tool(["nm", "-u", merged], purpose="", timeout_s=10.0).split()
    assert set(undefined) - {"U"} <= {"memcpy", "memset", "memmove"}


def test_the_step_on_the_board_fits_its_budget_and_its_stack_is_bounded():
    controller = make_controller(**HASEL)
    report = verify_on_board(
        make_program(controller), observations=observations(controller, 5), optimisation="-Os"
    )
    assert report.stack_used_bytes <= report.stack_bound_bytes
    assert report.ram_bytes + report.stack_bound_bytes <= 2000
    assert report.flash_bytes <= 6000
