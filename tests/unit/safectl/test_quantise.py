"""Integer programs: within their stated bound, with sums that cannot overflow."""

import numpy as np
import pytest
import torch
from torch import nn

from safectl.barriers import StoppingDistance
from safectl.dynamics import double_integrator
from safectl.errors import RangeError, ShapeError
from safectl.export import (
    Network,
    guarded_program,
    interpret,
    load_program,
    quantise,
    quantise_with_bound,
    replay,
    save_program,
    torch_network,
    verify,
)
from safectl.export.guard import filter_program
from safectl.export.integer_layer import integer_weights, quantisation, requantisation
from safectl.export.ops import Quantisation
from safectl.export.program import OBSERVATION
from safectl.export.torch_import import network_spec
from safectl.export.trace import Tracer
from safectl.safeguards import BarrierQP, Brake
from safectl.spec import Signal, Spec
from safectl.types import Status


def rows_of(program, count=200, seed=0):
    return np.random.default_rng(seed).standard_normal((count, program.spec.nx)).astype(np.float32)


def network(*layers, shape):
    torch.manual_seed(0)
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=1.0 / max(parameter[0].numel(), 1) ** 0.5)
    return torch_network("net", nn.Sequential(*layers), shape)


NETWORKS = {
    "relu": network(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3), shape=(12,)),
    "relu6": network(nn.Linear(12, 9), nn.ReLU6(), nn.Linear(9, 7), nn.ReLU(), shape=(12,)),
    "tables": network(
        *(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 10), nn.Sigmoid(), nn.Linear(10, 8)),
        *(nn.SiLU(), nn.Linear(8, 6), nn.ELU(), nn.Linear(6, 2), nn.Tanh()),
        shape=(12,),
    ),
    "conv": network(
        *(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 3, stride=2)),
        *(nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)),
        shape=(2, 10, 10),
    ),
    "depthwise": network(
        *(nn.Conv2d(4, 8, 3, groups=4, padding=1), nn.ReLU6(), nn.Conv2d(8, 6, 1), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 6, 2, groups=2), nn.Flatten(), nn.Linear(54, 5), nn.Softmax(-1)),
        shape=(4, 8, 8),
    ),
    "norm": network(nn.Linear(12, 12), nn.LayerNorm(12), nn.Linear(12, 4), shape=(12,)),
}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_quantised_network_stays_within_its_bound(name, bits):
    program = NETWORKS[name]
    rows = rows_of(program)
    quantised = quantise_with_bound(program, rows, bits=bits)
    difference = np.abs(interpret(quantised.program, rows).action - interpret(program, rows).action)
    assert (difference <= quantised.bound).all()
    assert difference.max() > 0.0
    assert np.isfinite(quantised.bound).all() or name == "norm"


def test_sixteen_bits_are_closer_than_eight():
    program = NETWORKS["relu"]
    rows = rows_of(program)
    bounds = [quantise_with_bound(program, rows, bits=bits).bound.max() for bits in (8, 16)]
    assert bounds[1] < 0.6 * bounds[0]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", ["tables", "conv", "depthwise"])
def test_a_quantised_network_in_c_equals_the_interpreter(name, bits):
    program = NETWORKS[name]
    verify(quantise(program, rows_of(program), bits=bits), observations=10.0 * rows_of(program))


class _Squares(nn.Module):
    def forward(self, x):
        return x[:, :2] * x[:, :2] - x[:, 2:] * x[:, 2:]


@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_not_finite_before_an_integer_layer_falls_back(bits):
    program = network(_Squares(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2), shape=(4,))
    quantised = quantise(program, rows_of(program), bits=bits)
    rows = np.zeros((4, 4), np.float32)
    rows[0, 0], rows[1, 0], rows[2] = 1e19, 1e20, 1e20  # 1e38, infinity, infinity - infinity
    steps = interpret(quantised, rows)
    assert steps.status.tolist() == [0, 2, 2, 0]
    assert np.array_equal(steps.action[1:3], np.zeros((2, 2)))
    verify(quantised, observations=rows)


def test_layers_stay_integer_from_one_to_the_next():
    program = NETWORKS["conv"]
    kinds = [op.kind for op in quantise(program, rows_of(program)).ops]
    assert kinds == [
        *("quantise", "gather", "integer_conv2d", "integer_max_pool2d", "integer_conv2d"),
        *("lookup", "integer_dense", "concat"),
    ]


def test_a_quantised_program_survives_the_disk(tmp_path):
    program = NETWORKS["depthwise"]
    rows = rows_of(program)
    quantised = quantise(program, rows)
    save_program(quantised, tmp_path / "q")
    loaded = load_program(tmp_path / "q")
    assert loaded.digest() == quantised.digest() != program.digest()
    assert loaded.ops == quantised.ops
    assert np.array_equal(interpret(loaded, rows).action, interpret(quantised, rows).action)


@pytest.mark.parametrize(
    "source", [Quantisation("int8", 0.01, 100), Quantisation("int16", 1e-4, 0)]
)
def test_no_sum_leaves_32_bits_for_any_input(source):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((5, 3000)).astype(np.float32)
    weight[1] = 1.0
    weight[2] = 0.0
    bias = np.array([0.0, 0.0, 1.0, 1e4, -1e5], np.float32)
    weights = integer_weights(weight, bias, source)
    low, high = source.range
    worst = np.where(weights.weight > 0, high, low) * weights.weight.astype(np.int64)
    least = np.where(weights.weight > 0, low, high) * weights.weight.astype(np.int64)
    for sums in (worst.sum(1) + weights.bias, least.sum(1) + weights.bias):
        assert np.abs(sums).max() <= weights.bound < 2**31
    rounded = weights.weight * (weights.scale / source.scale)[:, None]
    assert np.abs(rounded - weight)[0].max() <= 0.51 * weights.scale[0] / source.scale


@pytest.mark.parametrize("bits", [8, 16])
def test_multiplier_and_shift_divide_as_real_numbers_do(bits):
    rng = np.random.default_rng(1)
    weights = integer_weights(
        rng.standard_normal((40, 10)).astype(np.float32),
        rng.standard_normal(40).astype(np.float32),
        Quantisation("int8", 0.02, -3),
    )
    result = quantisation(-3.0, 2.0, bits)
    scaling = requantisation(weights, result)
    found = scaling.multiplier * 2.0 ** (scaling.left - 33 - scaling.shift)
    assert np.abs(found * result.scale / weights.scale - 1.0).max() < 1e-6


def test_bad_requests_are_refused():
    program = NETWORKS["relu"]
    rows = rows_of(program)
    with pytest.raises(RangeError, match="8 or 16"):
        quantise(program, rows, bits=4)
    with pytest.raises(ShapeError):
        quantise(program, rows[:, :3])
    with pytest.raises(ShapeError):
        quantise(program, rows[:0])
    rows[3, 3] = np.nan
    with pytest.raises(RangeError, match="finite"):
        quantise(program, rows)


def test_a_state_that_a_table_reads_too_is_not_cut_where_the_table_becomes_flat():
    tracer = Tracer("net", network_spec(1, 1))
    value = tracer.dense(OBSERVATION, [[10.0]], [0.0], name="value")
    state = tracer.state("before", np.zeros(1))
    tracer.keep(state, value)
    flat = tracer.activation(value, "tanh", name="flat")
    result = tracer.dense(flat, [[1.0]], [0.0], name="result")
    program = tracer.finish_network(tracer.add(result, state, name="sum"))
    rows = np.linspace(-1.0, 1.0, 50, dtype=np.float32)[:, None]
    found = replay(quantise(program, rows), rows).action
    assert np.abs(found - replay(program, rows).action).max() < 0.1


SPACE = Spec(
    observation=(Signal("x", "m", -9.0, 9.0), Signal("v", "m/s", -9.0, 9.0)),
    action=(Signal("a", "m/s^2", -2.0, 2.0),),
    period=0.1,
)
BOX = StoppingDistance([-1.0], [1.0], braking=2.0, period=0.1, positions=(0,), velocities=(1,))


def safeguarded(policy):
    """Return a policy behind a barrier for the double integrator on a line."""
    model = double_integrator(0.1, axes=1)
    guard = BarrierQP(BOX, model, fallback=Brake(SPACE, velocities=(1,)), rate=0.5)
    return guarded_program("guarded", SPACE, Network(policy), guard)


@pytest.mark.parametrize("bits", [8, 16])
def test_behind_a_safeguard_only_the_policy_becomes_integer(bits):
    torch.manual_seed(0)
    program = safeguarded(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)))
    quantised = quantise(program, 0.3 * rows_of(program), bits=bits)
    assert any(op.kind == "integer_dense" for op in quantised.ops)
    rows = np.array([[k, k] for k in (0.0, 0.3, 1.0, 2.0, 5.0, 100.0, 1e6)], np.float32)
    far, exact = interpret(quantised, rows), interpret(program, rows)
    assert np.array_equal(far.status[2:], exact.status[2:])
    for row, action, margin, status in zip(rows, far.action, far.margin, far.status, strict=True):
        if status != Status.FALLBACK:
            assert margin >= 0.0
            after = rows.dtype.type([row[0] + 0.1 * row[1], row[1] + 0.1 * action[0]])
            assert float(BOX.value(torch.tensor(after[None])).min()) >= 0.0
    assert Status.FALLBACK in far.status[3:]


def test_a_safeguard_without_a_policy_stays_float():
    model = double_integrator(0.1, axes=1)
    guard = BarrierQP(BOX, model, fallback=Brake(SPACE, velocities=(1,)), rate=0.5)
    program = filter_program("filter", SPACE, guard)
    with pytest.raises(RangeError, match="what certifies stays float"):
        quantise(program, rows_of(program))
