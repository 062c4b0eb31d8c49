"""The NumPy meaning of programs against torch and against float64 oracles."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from safectl.errors import RangeError, UnsupportedLayer
from safectl.export import (
    Network,
    Normaliser,
    example_observations,
    guarded_policy_program,
    interpret,
    policy_program,
    signal_of,
)
from safectl.export.arithmetic import tanh
from safectl.export.literals import float_literal
from safectl.export.program import MARGIN_NONE, MARGIN_UNKNOWN
from safectl.export.project import HalfSpace, project_halfspace_box
from safectl.export.verify import TORCH_TOLERANCE
from safectl.safeguards.affine_signal import AffineSignalModel
from safectl.safeguards.fit_signal import Calibration
from safectl.safeguards.safety_layer import SafetyLayer
from safectl.solve import project
from safectl.types import Status

TANH_ERROR = 5e-7  # of the fit and its rounding, as documented
ORACLE_TOLERANCE = 1e-5  # float32 interpolation against float64 bisection, box width about two
BISECTIONS = 200  # halvings of the multiplier's bracket: past float64 resolution


def problem(seed, rows=400, nu=4):
    rng = np.random.default_rng(seed)
    proposal = (rng.standard_normal((rows, nu)) * 1.5).astype(np.float32)
    normal = rng.standard_normal((rows, nu)).astype(np.float32)
    normal[: rows // 8, 0] = 0.0
    offset = rng.standard_normal(rows).astype(np.float32)
    low = -np.ones(nu, np.float32)
    high = np.linspace(0.5, 1.5, nu).astype(np.float32)
    return proposal, HalfSpace(normal, offset, np.zeros(rows, np.float32)), low, high


def oracle(proposal, half_space, low, high):
    """Project by bisection of the multiplier in float64."""
    normal, offset = half_space.normal.astype(float), half_space.offset.astype(float)
    left, right = np.zeros(len(offset)), np.full(len(offset), 1e6)
    for _ in range(BISECTIONS):
        middle = (left + right) / 2
        point = np.clip(proposal + middle[:, None] * normal, low, high)
        reached = (normal * point).sum(1) >= offset
        left, right = np.where(reached, left, middle), np.where(reached, middle, right)
    return np.clip(proposal + right[:, None] * normal, low, high)


def test_tanh_is_within_its_documented_error_and_never_exceeds_one():
    x = np.linspace(-12, 12, 1_000_001, dtype=np.float32)
    y = tanh(x)
    assert np.abs(y - np.tanh(x.astype(float))).max() < TANH_ERROR
    assert np.abs(y).max() <= 1.0
    assert np.array_equal(tanh(-x), -y)


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
    st.sampled_from([nn.Tanh, nn.ReLU]),
    st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_interpreter_agrees_with_torch_on_random_networks(policy_factory, sizes, activation, seed):
    example = policy_factory(sizes, activation, seed=seed)
    observations = example_observations(example.program, 50, seed=seed)
    with torch.no_grad():
        expected = example.reference(torch.from_numpy(observations)).numpy()
    steps = interpret(example.program, observations)
    assert np.abs(steps.action - expected).max() < TORCH_TOLERANCE
    assert set(steps.status) <= {Status.KEPT, Status.CORRECTED}
    within = (steps.action > -1.0).all(1) & (steps.action < np.arange(sizes[-1]) + 0.5).all(1)
    assert (steps.status[within] == Status.KEPT).all()
    assert (steps.margin == np.float32(MARGIN_NONE)).all()


def test_a_row_does_not_depend_on_the_other_rows(guarded):
    observations = example_observations(guarded, 20)
    together = interpret(guarded, observations)
    for i in range(20):
        alone = interpret(guarded, observations[i : i + 1])
        assert np.array_equal(alone.action[0], together.action[i])
        assert alone.margin[0] == together.margin[i]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_observation_gives_the_fail_safe_action(guarded, bad):
    observations = example_observations(guarded, 2)
    observations[1, 3] = bad
    steps = interpret(guarded, observations)
    assert steps.status[1] == Status.FALLBACK
    assert np.array_equal(steps.action[1], guarded.constants["fail_safe"])
    assert steps.margin[1] == np.float32(MARGIN_UNKNOWN)
    assert steps.status[0] == interpret(guarded, observations[:1]).status[0]


def test_an_overflow_inside_the_network_gives_the_fail_safe_action(policy_factory):
    program = policy_factory([2, 3, 3, 2], nn.ReLU, seed=1).program
    huge = np.full((1, 2), 3e38, np.float32) * np.array([1, -1], np.float32)
    steps = interpret(program, huge)
    assert np.isfinite(steps.action).all()


def test_normaliser_keeps_its_digits_when_the_mean_is_large(policy_factory):
    mean, variance = np.array([1000.123456789]), np.array([1e-4])
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight[:], layer.bias[:] = 0.1, 0.0
    spec = policy_factory([1, 1], nn.ReLU, seed=0).program.spec
    program = policy_program("p", spec, Network(layer, Normaliser(mean, variance)))
    x = (mean + np.linspace(-0.02, 0.02, 41)[:, None]).astype(np.float32)
    normalised = np.clip((x.astype(float) - mean) / np.sqrt(variance + 1e-8), -10, 10)
    expected = np.clip(np.float32(0.1) * normalised, -1.0, 0.5)
    assert np.abs(interpret(program, x).action - expected).max() < TORCH_TOLERANCE


@pytest.mark.parametrize("seed", range(3))
def test_projection_is_the_nearest_action_of_the_set(seed):
    proposal, half_space, low, high = problem(seed)
    action, margin, status = project_halfspace_box(proposal, half_space, low, high)
    reached = (half_space.normal * action).sum(1)
    best = np.where(half_space.normal > 0, high, low) * half_space.normal
    feasible = best.sum(1) > half_space.offset + 1e-6  # clear of rounding
    impossible = best.sum(1) < half_space.offset - 1e-6
    expected = oracle(proposal, half_space, low, high)
    assert np.abs(action - expected)[feasible].max() < ORACLE_TOLERANCE
    assert (status[feasible] != Status.FALLBACK).all()
    assert (margin[feasible] >= 0).all()
    assert (status[impossible] == Status.FALLBACK).all()
    assert np.abs(reached - best.sum(1))[impossible].max() < 1e-5  # rounding of a sum of 4 terms
    assert ((low <= action) & (action <= high)).all()
    assert {*status} == {0, 1, 2}


def test_projection_keeps_bits_exactly_when_the_proposal_is_admissible():
    proposal, half_space, low, high = problem(4)
    action, _, status = project_halfspace_box(proposal, half_space, low, high)
    same = (action.view(np.uint32) == proposal.view(np.uint32)).all(axis=1)
    assert np.array_equal(same & (status != Status.FALLBACK), status == Status.KEPT)
    again = project_halfspace_box(action, half_space, low, high)
    ok = status != Status.FALLBACK
    assert (again[2][ok] == Status.KEPT).all()
    assert np.array_equal(again[0][ok], action[ok])


def test_projection_agrees_with_the_torch_version():
    proposal, half_space, low, high = problem(5)
    action, _, status = project_halfspace_box(proposal, half_space, low, high)
    point, normal, offset = (torch.from_numpy(a) for a in (proposal, *half_space[:2]))
    limits = torch.from_numpy(low), torch.from_numpy(high)
    theirs = project(point, normal.unsqueeze(1), offset.unsqueeze(1), *limits).point.numpy()
    ok = status != Status.FALLBACK
    assert np.abs(action - theirs)[ok].max() < ORACLE_TOLERANCE


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e10, 1e30])
def test_projection_survives_badly_scaled_constraints(scale):
    proposal, half_space, low, high = problem(6)
    scaled = HalfSpace(
        half_space.normal * np.float32(scale),
        half_space.offset * np.float32(scale),
        half_space.backoff,
    )
    action, margin, status = project_halfspace_box(proposal, scaled, low, high)
    assert np.isfinite(action).all()
    assert (margin[status != Status.FALLBACK] >= 0).all()
    assert ((low <= action) & (action <= high)).all()


def test_projection_without_any_influence_of_the_action():
    half_space = HalfSpace(
        np.zeros((2, 2), np.float32), np.array([-1, 1], np.float32), np.zeros(2, np.float32)
    )
    box = np.ones(2, np.float32)
    proposal = np.full((2, 2), 0.25, np.float32)
    action, margin, status = project_halfspace_box(proposal, half_space, -box, box)
    assert status.tolist() == [Status.KEPT, Status.FALLBACK]
    assert np.array_equal(action, proposal)
    assert margin.tolist() == [1.0, -1.0]


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_a_program_decides_as_the_safety_layer_it_was_made_from(policy_factory, rate):
    example = policy_factory([4, 16, 3], nn.Tanh, seed=2)
    spec = example.program.spec
    generator = torch.Generator().manual_seed(0)
    model = AffineSignalModel(4, 3, 1, hidden=(16,), generator=generator)
    observations = torch.randn(1000, 4, generator=generator) * 2.0 + 1.0
    model.set_statistics(observations, torch.randn(1000, 1, generator=generator) * 3.0)
    calibration = Calibration(
        margin=torch.tensor([0.1]), delta=0.05, samples=100, error=torch.tensor([0.1])
    )
    layer = SafetyLayer(
        model,
        calibration,
        spec=spec,
        limit=[-3.5],
        rate=rate,
        signal=None if rate == 1.0 else lambda rows: rows[:, :1],
    )
    network = Network(nn.Sequential(*_network_of(example)))
    signal = signal_of(layer, now=None if rate == 1.0 else 0)
    program = guarded_policy_program("p", spec, network, signal)
    with torch.no_grad():
        decision = layer.filter(observations, example.reference(observations))
    steps = interpret(program, observations.numpy())
    assert {*steps.status} == {0, 1, 2}
    assert np.array_equal(steps.status, decision.certificate.status.numpy())
    # A correction divides the rounding of the signal by the gradient of the actions left free, so
    # the two meanings are compared by what they are asked to agree on: the signal they lead to.
    with torch.no_grad():
        offset, gain = model(observations)
    change = torch.as_tensor(steps.action) - decision.action
    led_to = (gain[:, 0] * change).sum(-1).abs()
    size = offset[:, 0].abs() + gain[:, 0].abs().sum(-1) + 3.5
    assert (led_to <= 32.0 * torch.finfo(torch.float32).eps * size).all()
    assert np.quantile(change.abs().amax(-1).numpy(), 0.95) < TORCH_TOLERANCE
    margins = decision.certificate.margin.numpy()
    assert np.abs(steps.margin - margins).max() < 1e-4  # signals of size ten in float32


def test_signal_of_refuses_several_signals(policy_factory):
    spec = policy_factory([4, 3], nn.Tanh, seed=2).program.spec
    model = AffineSignalModel(4, 3, 2, hidden=(4,), generator=torch.Generator())
    two = torch.zeros(2)
    layer = SafetyLayer(model, Calibration(two, 0.05, 9, two), spec=spec, limit=[0.0, 0.0])
    with pytest.raises(UnsupportedLayer, match="2 signals"):
        signal_of(layer)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_literals_read_back_as_the_same_bits(value):
    text = float_literal(np.float32(value))
    assert text.endswith("f")
    assert np.float32(text[:-1]).tobytes() == np.float32(value).tobytes()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.LogSoftmax(-1)), r"layer 1 \(LogSoftmax\)"),
        (nn.Sequential(nn.Linear(2, 4), nn.Sequential(nn.GLU())), r"layer 1.0 \(GLU\)"),
        (nn.GRU(2, 2), "2 outputs"),
    ],
)
def test_an_unsupported_layer_is_named_with_advice(policy_factory, module, words):
    spec = policy_factory([2, 2], nn.Tanh, seed=0).program.spec
    with pytest.raises(UnsupportedLayer, match=words):
        policy_program("p", spec, Network(module))


def test_a_hook_is_part_of_the_program(policy_factory):
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(lambda module, inputs, output: 0.01 * output)
    spec = policy_factory([2, 2], nn.Tanh, seed=0).program.spec
    rows = torch.rand(5, 2)
    found = interpret(policy_program("p", spec, Network(layer)), rows.numpy()).action
    assert np.abs(found - layer(rows).detach().numpy()).max() < TORCH_TOLERANCE


def test_a_normaliser_that_divides_by_zero_is_refused():
    with pytest.raises(RangeError, match="above zero"):
        Normaliser(np.zeros(2), np.zeros(2), epsilon=0.0)
    with pytest.raises(RangeError, match="clip"):
        Normaliser(np.zeros(2), np.ones(2), clip=-math.inf)


def _network_of(example):
    """The layers of an example, rebuilt from the constants of its program."""
    layers: list[nn.Module] = []
    for op in example.program.ops:
        if op.kind == "dense":
            weight, bias = (example.program.constants[name].copy() for name in op.constants)
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict(
                {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}
            )
            layers.append(layer)
            if op.activation == "tanh":
                layers.append(nn.Tanh())
    return layers
