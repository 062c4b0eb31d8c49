"""Every layer and activation: C on the host equals the interpreter bit for bit."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from safectl.export import (
    Native,
    Tracer,
    interpret,
    load_program,
    network_spec,
    replay,
    save_program,
    verify,
)
from safectl.export.kinds import ACTIVATIONS

ACTIVATION_ERROR = 6e-7  # absolute below one, relative above: the polynomials and their rounding
RNG = np.random.default_rng(0)


def trace(nx, append, *, nu=None):
    """A bare network of what `append` adds to the observation."""
    probe = Tracer("net", network_spec(nx, 1))
    size = probe.size(append(probe, "observation"))
    tracer = Tracer("net", network_spec(nx, nu or size))
    return tracer.finish_network(append(tracer, "observation"))


def draw(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape) / np.sqrt(shape[-1])


def recurrent(kind, units, features, steps, **options):
    gates = {"simple_rnn": 1, "gru": 3, "lstm": 4}[kind]
    both = kind == "gru" and options.get("reset_after", True)
    bias = draw(2, gates * units) if both else draw(gates * units)

    def append(tracer, value):
        layer = getattr(tracer, kind)
        kernel, matrix = draw(gates * units, features), draw(gates * units, units)
        return layer(value, kernel, matrix, bias, steps=steps, name="memory", **options)

    return trace(features * steps, append)


LAYERS = {
    "dense over rows": lambda t, v: t.dense(v, draw(5, 4), draw(5), rows=15, name="d"),
    "conv": lambda t, v: t.conv2d(v, draw(7, 3, 2, 3), draw(7), shape=(5, 4, 3), name="c"),
    "strided, padded, dilated conv": lambda t, v: t.conv2d(
        v,
        draw(6, 2, 2, 3),
        draw(6),
        shape=(5, 4, 3),
        stride=(2, 1),
        padding=((1, 0), (2, 1)),
        dilation=(2, 3),
        activation="relu",
        name="c",
    ),
    "grouped conv": lambda t, v: t.conv2d(
        v, draw(6, 2, 2, 5), draw(6), shape=(3, 2, 10), groups=2, name="c"
    ),
    "conv of a sequence": lambda t, v: t.conv1d(
        v, draw(4, 3, 6), draw(4), shape=(10, 6), padding=(2, 0), name="c"
    ),
    "depthwise conv": lambda t, v: t.depthwise_conv2d(
        v,
        draw(6, 3, 3, 1),
        draw(6),
        shape=(5, 4, 3),
        padding=((1, 1), (1, 1)),
        stride=(2, 2),
        activation="tanh",
        name="c",
    ),
    "max pool": lambda t, v: t.max_pool2d(
        v, shape=(5, 4, 3), pool=(3, 2), stride=(1, 2), padding=((1, 1), (0, 1)), name="p"
    ),
    "average pool": lambda t, v: t.average_pool2d(
        v, shape=(5, 4, 3), pool=(3, 3), stride=(2, 2), padding=((1, 1), (1, 1)), name="p"
    ),
    "average pool that counts the padding": lambda t, v: t.average_pool2d(
        v, shape=(5, 4, 3), pool=(2, 2), padding=((1, 1), (0, 0)), count_padding=True, name="p"
    ),
    "layer norm": lambda t, v: t.layer_norm(v, draw(12), draw(12), 1e-5, name="n"),
    "scale and shift per channel": lambda t, v: t.scale_shift(v, draw(3), draw(3), name="s"),
    "permute": lambda t, v: t.permute(v, (3, 5, 4), (1, 2, 0), name="p"),
    "permute of four axes": lambda t, v: t.permute(v, (3, 5, 2, 2), (3, 1, 0, 2), name="p"),
    "concat of channels": lambda t, v: t.concat(
        [v, t.slice(v, 10, 30, name="part")], rows=10, name="c"
    ),
    "multiply": lambda t, v: t.multiply(v, v, name="m"),
    "softmax of rows": lambda t, v: t.activation(v, "softmax", rows=6, name="a"),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_equals_the_interpreter(layer):
    verify(trace(60, LAYERS[layer]), rows=100)


@pytest.mark.parametrize("kind", ACTIVATIONS[1:])
def test_an_activation_equals_the_interpreter_over_the_whole_range(kind):
    alpha = 0.25 if kind == "leaky_relu" else None
    program = trace(4, lambda t, v: t.activation(v, kind, alpha=alpha, name="a"))
    rows = np.concatenate([np.linspace(-s, s, 101) for s in (1e-4, 9.0, 100.0, 1e22)])
    columns = np.stack([rows, -rows, rows / 7, rows * 3], axis=1)
    verify(program, observations=columns.astype(np.float32))


TORCH = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.25),
    "elu": functional.elu,
    "selu": functional.selu,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": lambda x: torch.clamp(0.2 * x + 0.5, 0.0, 1.0),
    "hard_sigmoid_v3": functional.hardsigmoid,
    "exponential": torch.exp,
    "swish": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "softmax": lambda x: torch.softmax(x, 1),
}


@pytest.mark.parametrize("kind", TORCH)
def test_an_activation_is_within_its_error_of_float64(kind):
    alpha = 0.25 if kind == "leaky_relu" else None
    program = trace(
        1 + (kind == "softmax"), lambda t, v: t.activation(v, kind, alpha=alpha, name="a")
    )
    x = np.linspace(-80.0, 80.0, 200_001, dtype=np.float32)
    rows = np.stack([x, 0.3 * x[::-1]], axis=1)[:, : program.spec.nx]
    expected = TORCH[kind](torch.from_numpy(rows.astype(np.float64))).numpy()
    error = np.abs(interpret(program, rows).action - expected) / np.maximum(np.abs(expected), 1.0)
    assert error.max() < ACTIVATION_ERROR


@pytest.mark.parametrize("kind", ["simple_rnn", "gru", "lstm"])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_a_recurrent_layer_equals_the_interpreter(kind, steps, stateful, return_sequences):
    program = recurrent(kind, 6, 4, steps, stateful=stateful, return_sequences=return_sequences)
    verify(program, rows=30)


def test_a_gru_that_resets_before_equals_the_interpreter():
    verify(
        recurrent("gru", 5, 3, 4, reset_after=False, recurrent_activation="hard_sigmoid"), rows=30
    )


def test_the_cell_of_an_lstm_stays_within_its_limit():
    torch.manual_seed(0)
    kernel, matrix, limit = 3.0 * torch.randn(24, 4), torch.randn(24, 6), 0.75
    program = trace(
        4 * 5,
        lambda t, v: t.lstm(
            v, kernel, matrix, np.zeros(24), steps=5, name="memory", cell_limit=limit
        ),
    )
    rows = torch.randn(30, 5, 4)
    h = c = torch.zeros(30, 6)
    for x in rows.unbind(1):
        i, f, g, o = (x @ kernel.T + h @ matrix.T).chunk(4, dim=1)
        c = (f.sigmoid() * c + i.sigmoid() * g.tanh()).clamp(-limit, limit)
        h = o.sigmoid() * c.tanh()
    observations = rows.flatten(1).numpy()
    assert np.abs(interpret(program, observations).action - h.numpy()).max() < 1e-5
    assert (c.abs() == limit).any()
    verify(program, observations=observations)


def test_a_state_survives_a_step_and_not_a_reset(tmp_path):
    program = recurrent("gru", 5, 3, 1, stateful=True)
    save_program(program, tmp_path / "p")
    loaded = load_program(tmp_path / "p")
    assert loaded.digest() == program.digest()
    rows = RNG.standard_normal((20, 3)).astype(np.float32)
    rows[7, 1] = np.nan
    expected = replay(loaded, rows)
    alone = interpret(loaded, rows)
    assert not np.array_equal(alone.action[5], expected.action[5])
    assert np.array_equal(expected.states["memory_state"][7], expected.states["memory_state"][6])
    native = Native(program)
    for _ in range(2):
        for row, action in zip(rows, expected.action, strict=True):
            assert np.array_equal(native.step(row).action, action)
        native.reset()
