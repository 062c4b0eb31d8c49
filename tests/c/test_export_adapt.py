import numpy as np
import pytest
import torch
from torch import nn

from safectl.errors import RangeError, UnsupportedLayer
from safectl.export import interpret, load_program, save_program, verify
from safectl.export.adapt import (
    InputAdaptation,
    adapting_forward_program,
    adapting_inputs_program,
    adapting_output_program,
)
from safectl.export.interpret import replay
from safectl.export.ops import ForwardGradient
from safectl.planners import ForwardModel, Layer, forward_model
from safectl.seed import numpy_generator, torch_generator

N, HIDDEN, P = 7, 5, 2
ROWS = 400


def make_model(activation: str = "tanh", *, output: str = "tanh") -> ForwardModel:
    generator = torch_generator(0, "adaptation")

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    first = Layer(draw(HIDDEN, N) / N**0.5, 0.1 * draw(HIDDEN), activation)
    return ForwardModel((first, Layer(0.5 * draw(P, HIDDEN), 0.1 * draw(P), output)))


def drifted(model: ForwardModel, rows: int = ROWS, *, drift: float = 1.0) -> np.ndarray:
    """Observations of a network whose sensors drifted: seen inputs, true outputs."""
    rng = numpy_generator(0, "adaptation drift")
    x = rng.uniform(-0.8, 0.8, (rows, N))
    gain, offset = 1.0 + 0.3 * drift * rng.standard_normal(N), 0.2 * drift * rng.standard_normal(N)
    target = model.value(torch.as_tensor(x)).numpy()
    return np.concatenate([x * gain + offset, target], axis=1).astype(np.float32)


def error(observations: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.sqrt(np.mean((observations[:, N:] - predictions) ** 2)))


PROGRAMS = {
    "inputs": lambda model: adapting_inputs_program("model", model),
    "output": lambda model: adapting_output_program("model", model),
    "forward": lambda model: adapting_forward_program("model", model),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_c_learns_bit_for_bit_what_the_interpreter_learns(name):
    model = make_model()
    observations = drifted(model, 60)
    observations[30] = np.nan
    observations[31, N:] = 100.0
    program = PROGRAMS[name](model)
    finite = np.isfinite(observations).all(axis=1)
    assert verify(program, observations=observations[finite]).rows == 59


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_prediction_before_the_first_sample_is_that_of_the_network(name):
    model = make_model()
    observations = drifted(model, 20)
    expected = model.value(torch.as_tensor(observations[:, :N], dtype=torch.float64))
    found = interpret(PROGRAMS[name](model), observations).action
    np.testing.assert_allclose(found, expected, atol=4e-3 if name == "forward" else 1e-6)


@pytest.mark.parametrize(("name", "share"), [("inputs", 0.2), ("output", 0.6), ("forward", 0.6)])
def test_the_error_of_drifted_sensors_shrinks(name, share):
    model = make_model()
    program, observations = PROGRAMS[name](model), drifted(model)
    steps = replay(program, observations)
    before = error(observations, interpret(program, observations).action)
    assert error(observations[-100:], steps.action[-100:]) < share * before


def test_the_kalman_filter_is_the_float_twin_of_a_linearised_least_squares():
    """With a covariance block per channel one scalar update equals that of dense algebra."""
    model, options = make_model(), InputAdaptation(noise=0.01)
    program, observation = adapting_inputs_program("model", model, options), drifted(model, 1)
    memory = interpret(program, observation).states["memory"][0]
    x, target = (
        torch.as_tensor(part, dtype=torch.float64) for part in np.split(observation, [N], 1)
    )
    parameters = torch.cat([torch.ones(N), torch.zeros(N)]).double()
    start = parameters.clone()
    covariance = 0.1 * torch.eye(2 * N, dtype=torch.float64)
    blocks = torch.eye(N).repeat(2, 2).double()

    def predict(p: torch.Tensor) -> torch.Tensor:
        return model.value(x * p[:N] + p[N:])[0]

    jacobian, predicted = torch.autograd.functional.jacobian(predict, start), predict(start)
    for o in range(P):
        row = jacobian[o]
        innovation = target[0, o] - predicted[o] - row @ (parameters - start)
        share = covariance @ row / (options.noise + row @ covariance @ row)
        parameters = parameters + share * innovation
        covariance = (covariance - torch.outer(share, covariance @ row)) * blocks
    np.testing.assert_allclose(memory[: 2 * N], parameters, atol=1e-5)


def test_an_adaptation_that_predicts_worse_is_undone():
    model = make_model()
    program = adapting_inputs_program("model", model, InputAdaptation(window=50, clip=10.0))
    rng = numpy_generator(0, "adaptation noise")
    observations = drifted(model, 49, drift=0.0)
    observations[:, N:] = np.sign(rng.standard_normal((49, P)))  # targets that are no function of x
    noisy = replay(program, observations).states["memory"][-1:]
    factory = program.constants["memory_start"]
    assert np.abs(noisy[0, :N] - 1.0).max() > 0.05
    worse = np.array(noisy)
    worse[0, 5 * N] = -1.0
    following = interpret(program, drifted(model, 1, drift=0.0), {"memory": worse})
    np.testing.assert_array_equal(following.states["memory"][0], factory)


def test_nothing_is_learned_within_the_band_or_beyond_the_clip():
    model, observations = make_model(), drifted(make_model(), 1)
    for options in (InputAdaptation(band=10.0, clip=20.0), InputAdaptation(clip=1e-9)):
        program = adapting_inputs_program("model", model, options)
        memory = interpret(program, observations).states["memory"][0]
        np.testing.assert_array_equal(memory[: 5 * N], program.constants["memory_start"][: 5 * N])
    frozen = adapting_forward_program("model", model, ForwardGradient(band=1 << 29))
    memory = interpret(frozen, observations).states["memory"][0]
    np.testing.assert_array_equal(memory[: 2 * N], frozen.constants["memory_start"][: 2 * N])


def test_the_forward_gradient_moves_every_parameter_by_one_step_along_its_direction():
    model, observations = make_model(), drifted(make_model(), 1)
    program = adapting_forward_program("model", model)
    memory = interpret(program, observations).states["memory"][0]
    moved = memory[: 2 * N] - program.constants["memory_start"][: 2 * N]
    assert len(set(np.abs(moved))) == 1
    assert 0 < np.abs(moved[0]) < 64
    assert set(np.sign(moved)) == {-1.0, 1.0}


def test_a_saved_adapting_network_is_the_same_network(tmp_path):
    program = adapting_forward_program("model", make_model())
    save_program(program, tmp_path / "program")
    assert load_program(tmp_path / "program").digest() == program.digest()


def test_models_that_cannot_adapt_are_refused():
    with pytest.raises(RangeError, match="activations"):
        adapting_inputs_program("model", make_model("relu"))
    with pytest.raises(UnsupportedLayer, match="relu"):
        adapting_forward_program("model", make_model("relu"))
    single = ForwardModel(make_model().layers[:1])
    with pytest.raises(RangeError, match="layers"):
        adapting_output_program("model", single)
    large = nn.Sequential(nn.Linear(2, 1), nn.Tanh())
    nn.init.constant_(large[0].weight, 9.0)
    with pytest.raises(RangeError, match="layer_0_weight"):
        adapting_forward_program("model", forward_model(large))
    wide = nn.Sequential(nn.Linear(64, 1), nn.Tanh())
    nn.init.constant_(wide[0].weight, 7.0)
    with pytest.raises(RangeError, match="largest sum"):
        adapting_forward_program("model", forward_model(wide))
