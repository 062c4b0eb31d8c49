"""Safeguards as programs: equal to torch in every status, and to C in every bit."""

import numpy as np
import pytest
import torch
from torch import nn

from safectl.barriers import (
    Discs,
    HalfSpaces,
    Minimum,
    RelativeDegreeTwo,
    SoftMinimum,
    Stack,
    StoppingDistance,
    Superellipse,
    box,
    linearise,
)
from safectl.dynamics import Unicycle, double_integrator
from safectl.errors import RangeError, UnsupportedLayer
from safectl.export import (
    Network,
    Tracer,
    emit_c,
    guarded_program,
    interpret,
    load_program,
    network_spec,
    replay,
    save_program,
    verify,
)
from safectl.export.barrier_values import append_barrier, moved_entries
from safectl.export.models import motion_of
from safectl.safeguards import (
    AffineSignalModel,
    BarrierQP,
    Brake,
    Calibration,
    Chain,
    Clip,
    Hold,
    RateLimit,
    Remembering,
    SafetyLayer,
)
from safectl.spec import Signal, Spec
from safectl.types import Status
from safectl_envs.catalogue import find_world
from safectl_envs.normalised import Normalised

ACTION_TOLERANCE = 1e-2
"""The barrier bounds a position that one step moves by 1.25e-3 of the action: float32 rounding and
the wider back-off of the program, 4e-6 m at most, become 4e-3 m/s^2."""


def make_policy(spec, seed, *, gain=0.5):
    layer = nn.Linear(spec.nx, spec.nu)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(gain * torch.randn(spec.nu, spec.nx, generator=generator))
        layer.bias.copy_(0.5 * torch.randn(spec.nu, generator=generator))
    return layer


def visited(world, count, *, noise, steps=12):
    """Observations after random steps, disturbed so that every status occurs."""
    generator = torch.Generator().manual_seed(0)
    state = world.initial(count, generator)
    for _ in range(steps):
        draw = torch.rand(count, world.spec.nu, generator=generator)
        state = world.step(state, 2.0 * draw - 1.0).state
    seen = world.observe(state)
    return seen + noise * torch.randn(seen.shape, generator=generator)


@pytest.mark.parametrize("rate", [1.0, 0.3])
@pytest.mark.parametrize("name", ["DoubleIntegrator", "SpeedLimit", "CartPoleStab"])
def test_a_barrier_over_an_observed_state_decides_as_in_torch(name, rate):
    world = find_world(name)
    nx = world.dynamics.nx
    guard = BarrierQP(world.barrier, world.dynamics, fallback=world.fallback, rate=rate)
    policy = make_policy(world.spec, 1)
    rows = visited(world, 3000, noise=0.1 if name == "CartPoleStab" else 0.5)
    program = guarded_program(
        "g", world.spec, Network(nn.Sequential(policy)), guard, state=range(nx)
    )
    with torch.no_grad():
        decision = guard.filter(rows[:, :nx].clone(), policy(rows).clamp(-1.0, 1.0))
    steps = interpret(program, rows.numpy())
    assert {*steps.status} == {0, 1, 2}
    assert np.array_equal(steps.status, decision.certificate.status.numpy())
    assert np.abs(steps.action - decision.action.numpy()).max() < ACTION_TOLERANCE
    assert steps.margin[steps.status != Status.FALLBACK].min() >= 0.0
    verify(program, observations=rows[:1000].numpy())


@pytest.mark.parametrize("name", ["DoubleIntegrator", "CartPoleStab"])
def test_what_does_not_violate_more_is_admissible_where_the_guard_says_so(name):
    world = find_world(name)
    nx = world.dynamics.nx
    guard = BarrierQP(world.barrier, world.dynamics, fallback=world.fallback, rate=0.3, escape=True)
    policy = make_policy(world.spec, 1)
    rows = visited(world, 3000, noise=0.1 if name == "CartPoleStab" else 0.5)
    network = Network(nn.Sequential(policy))
    program = guarded_program("g", world.spec, network, guard, state=range(nx))
    with torch.no_grad():
        decision = guard.filter(rows[:, :nx].clone(), policy(rows).clamp(-1.0, 1.0))
    steps = interpret(program, rows.numpy())
    outside = (world.barrier.value(rows[:, :nx]) < 0.0).any(1).numpy()
    assert (outside & (steps.status == Status.KEPT)).sum() > 10
    # Full braking keeps a violated h exactly as it is, so there rounding decides.
    differ = steps.status != decision.certificate.status.numpy()
    assert np.abs(steps.margin[differ]).max(initial=0.0) < 1e-6
    verify(program, observations=rows[:500].numpy())


def test_a_unicycle_among_observed_discs_decides_as_in_torch():
    world = find_world("PointHazard")
    nx = world.dynamics.nx
    signals = tuple(Signal(f"x{i}", "m", -9.0, 9.0) for i in range(nx))
    spec = Spec(signals, world.spec.action, world.spec.period)
    guard = BarrierQP(world.barrier, world.dynamics, fallback=Brake(spec), rate=0.3)
    generator = torch.Generator().manual_seed(0)
    states = world.initial(3000, generator)[:, :nx].clone()
    # Next to a disc, so that it binds.
    angle = 6.3 * torch.rand(3000, generator=generator)
    distance = 0.2 + 0.1 * torch.rand(3000, generator=generator)
    states[:, 0] = states[:, 3] + distance * angle.cos()
    states[:, 1] = states[:, 4] + distance * angle.sin()
    policy = make_policy(spec, 3)
    program = guarded_program("g", spec, Network(nn.Sequential(policy)), guard)
    with torch.no_grad():
        decision = guard.filter(states, policy(states).clamp(-1.0, 1.0))
    steps = interpret(program, states.numpy())
    assert {*steps.status} == {0, 1, 2}
    differ = steps.status != decision.certificate.status.numpy()
    assert differ.mean() < 2e-3, "where a disc is touched, rounding decides"
    same = np.abs(steps.action - decision.action.numpy()).max(1)[~differ]
    assert np.quantile(same, 0.99) < ACTION_TOLERANCE
    assert steps.margin[steps.status != Status.FALLBACK].min() >= 0.0
    verify(program, observations=states[:1000].numpy())


def test_fixed_discs_and_half_spaces_stack_and_a_disc_to_stay_in_is_the_other_sign():
    model = Unicycle(0.1)
    barrier = Stack(
        Discs(torch.zeros(1, 2), 2.0, inside=True),
        Discs(torch.tensor([[0.5, 0.0]]), 0.3),
        HalfSpaces(torch.tensor([[1.0, 1.0]]), torch.tensor([-1.0])),
    )
    spec = Spec(
        tuple(Signal(name, "m", -2.0, 2.0) for name in ("x", "y", "heading")),
        tuple(Signal(name, "1", -1.0, 1.0) for name in ("v", "w")),
        0.1,
    )
    guard = BarrierQP(barrier, model, fallback=Brake(spec), rate=0.5)
    policy = make_policy(spec, 5, gain=2.0)
    program = guarded_program("g", spec, Network(nn.Sequential(policy)), guard)
    rows = 4.0 * torch.rand(2000, 3, generator=torch.Generator().manual_seed(1)) - 2.0
    with torch.no_grad():
        decision = guard.filter(rows, policy(rows).clamp(-1.0, 1.0))
    steps = interpret(program, rows.numpy())
    assert (steps.status != decision.certificate.status.numpy()).mean() < 2e-3
    assert {*steps.status} == {0, 1, 2}
    verify(program, observations=rows[:500].numpy())


def two_signals(spec):
    generator = torch.Generator().manual_seed(0)
    model = AffineSignalModel(spec.nx, spec.nu, 2, hidden=(8,), generator=generator)
    calibration = Calibration(torch.tensor([0.1, 0.05]), 0.05, 100, torch.tensor([0.1, 0.05]))
    return SafetyLayer(model, calibration, spec=spec, limit=[-0.55, -0.4])


def test_a_safety_layer_with_two_signals_decides_as_in_torch():
    world = find_world("DoubleIntegrator")
    layer, policy = two_signals(world.spec), make_policy(world.spec, 1)
    rows = visited(world, 1000, noise=0.5)
    program = guarded_program("g", world.spec, Network(nn.Sequential(policy)), layer)
    with torch.no_grad():
        decision = layer.filter(rows, policy(rows).clamp(-1.0, 1.0))
    steps = interpret(program, rows.numpy())
    assert {*steps.status} == {0, 1, 2}
    assert np.array_equal(steps.status, decision.certificate.status.numpy())
    certified = steps.status != Status.FALLBACK
    assert np.abs(steps.action - decision.action.numpy())[certified].max() < 1e-4
    verify(program, observations=rows[:500].numpy())


def test_a_rate_limit_remembers_and_holds_in_every_step():
    world = find_world("DoubleIntegrator")
    limit = RateLimit(world.spec, [4.0, 2.0], rows=1)
    policy = make_policy(world.spec, 1)
    program = guarded_program("g", world.spec, Network(nn.Sequential(policy)), limit)
    rows = visited(world, 400, noise=0.5).numpy()
    steps = replay(program, rows)
    change = np.abs(np.diff(steps.action, axis=0, prepend=np.zeros((1, 2), np.float32)))
    allowed = np.array([0.2, 0.1])
    assert (change <= allowed * (1.0 + 1e-6)).all()
    assert (change >= allowed * (1.0 - 1e-6)).any(axis=0).all()
    assert {*steps.status} == {0, 1}
    verify(program, observations=rows)


@pytest.mark.parametrize("patience", [None, 2])
def test_the_last_certified_action_is_repeated_as_in_torch(patience):
    hold = Hold(Brake(SPEC, fixed=[0.5, -0.25]), rows=1, patience=patience)
    guard = Remembering(BarrierQP(DISCS, MODEL, fallback=hold), [hold])
    policy = make_policy(SPEC, 7)
    program = guarded_program("g", SPEC, Network(nn.Sequential(policy)), guard)
    rows = 1.6 * torch.rand(300, 4, generator=torch.Generator().manual_seed(4)) - 0.8
    with torch.no_grad():
        made = [guard.filter(row[None], policy(row[None]).clamp(-1.0, 1.0)) for row in rows]
    steps = replay(program, rows.numpy())
    status = np.array([decision.certificate.status.item() for decision in made])
    assert np.array_equal(steps.status, status)
    runs = "".join(map(str, status)).replace("1", "0").split("0")
    assert max(map(len, runs)) > 2, "patience ends"
    action = torch.cat([decision.action for decision in made]).numpy()
    assert np.abs(steps.action - action).max() < ACTION_TOLERANCE
    verify(program, observations=rows.numpy())


def test_barrier_signals_and_rate_limit_are_met_together():
    world = find_world("DoubleIntegrator")
    guard = Chain(
        RateLimit(world.spec, [8.0, 8.0], rows=1),
        BarrierQP(world.barrier, world.dynamics, fallback=world.fallback),
        two_signals(world.spec),
        Clip(world.spec),
        fallback=world.fallback,
    )
    policy = make_policy(world.spec, 1)
    program = guarded_program(
        "g", world.spec, Network(nn.Sequential(policy)), guard, state=range(4)
    )
    rows = visited(world, 600, noise=0.3).numpy()
    report = verify(program, observations=rows)
    assert report.corrected > 10
    steps = replay(program, rows)
    assert steps.margin[steps.status != Status.FALLBACK].min() >= 0.0


def barrier_qp(barrier, model, seen):
    return BarrierQP(barrier, model, fallback=Brake(SPEC), observe=lambda rows: rows[:, seen])


def test_two_barriers_over_equal_models_are_met_together():
    walls = HalfSpaces(torch.tensor([[0.0, 1.0]]), torch.tensor([-0.8]))
    guards = [
        barrier_qp(barrier, Normalised(Unicycle(0.1), [1.0, 2.0]), [0, 1, 2])
        for barrier in (DISCS, walls)
    ]
    policy = Network(nn.Sequential(make_policy(SPEC, 7)))
    program = guarded_program("g", SPEC, policy, Chain(*guards, fallback=Brake(SPEC)))
    rows = 2.0 * torch.rand(400, 4, generator=torch.Generator().manual_seed(2)) - 1.0
    assert verify(program, observations=rows.numpy()).corrected > 10
    steps = interpret(program, rows.numpy())
    action = torch.from_numpy(steps.action)
    margins = torch.stack([guard.filter(rows, action).certificate.margin for guard in guards])
    assert margins[:, torch.from_numpy(steps.status != Status.FALLBACK)].min() >= -1e-5


@pytest.mark.parametrize(
    ("period", "seen", "error", "problem"),
    [
        (0.2, [0, 1, 2, 3], RangeError, "model_"),
        (0.1, [1, 0, 3, 2], UnsupportedLayer, "different entries"),
    ],
)
def test_barriers_over_different_models_or_states_are_refused(period, seen, error, problem):
    policy = Network(nn.Sequential(make_policy(SPEC, 7)))
    first = barrier_qp(DISCS, MODEL, [0, 1, 2, 3])
    second = barrier_qp(BOX, double_integrator(period, axes=2), seen)
    with pytest.raises(error, match=problem):
        guarded_program("g", SPEC, policy, Chain(first, second, fallback=Brake(SPEC)))


def test_a_guarded_program_survives_its_file(tmp_path):
    world = find_world("CartPoleStab")
    guard = BarrierQP(world.barrier, world.dynamics, fallback=world.fallback)
    policy = Network(nn.Sequential(make_policy(world.spec, 1)))
    program = guarded_program("g", world.spec, policy, guard)
    save_program(program, tmp_path / "program")
    assert load_program(tmp_path / "program").digest() == program.digest()
    emit_c(program, tmp_path / "c")
    names = {path.name for path in (tmp_path / "c").iterdir()}
    assert {"sf_polytope.c", "sf_geometry.c", "sf_select.c", "sf_watchdog.c"} <= names


SPEC = Spec(
    tuple(Signal(name, "m", -9.0, 9.0) for name in ("x", "y", "vx", "vy")),
    tuple(Signal(name, "m/s^2", -1.0, 1.0) for name in ("ax", "ay")),
    0.1,
)
MODEL = double_integrator(0.1, axes=2)
DISCS = Discs(torch.tensor([[0.4, 0.0], [-0.5, 0.6]]), 0.3)
BOX = box([-1.0, -1.0], [1.0, 1.0], positions=(0, 1))
STOPPING = StoppingDistance(
    [-1.0, -1.0], [1.0, 1.0], braking=1.0, period=0.1, positions=(0, 1), velocities=(2, 3)
)
OVAL = (0.1, -0.2), (0.5, 0.8)
COMPOSED = {
    "ellipse": Superellipse(*OVAL),
    "rounded rectangle": Superellipse(*OVAL, exponent=4.0),
    "inside of the eighth power": Superellipse(*OVAL, exponent=8.0, inside=True),
    "second order box": RelativeDegreeTwo(BOX, MODEL, rate=2.0),
    "second order discs": RelativeDegreeTwo(DISCS, MODEL, rate=2.0),
    "stay in a disc": RelativeDegreeTwo(
        Discs(torch.zeros(1, 2), 1.0, inside=True), MODEL, rate=2.0
    ),
    "minimum": Minimum(STOPPING),
    "minimum of a stack": Minimum(Stack(STOPPING, RelativeDegreeTwo(DISCS, MODEL, rate=2.0))),
    "soft minimum": SoftMinimum(Stack(DISCS, BOX, STOPPING), sharpness=20.0),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_a_composed_barrier_decides_as_in_torch(name):
    guard = BarrierQP(COMPOSED[name], MODEL, fallback=Brake(SPEC, velocities=(2, 3)), rate=0.3)
    policy = make_policy(SPEC, 7, gain=1.5)
    program = guarded_program("g", SPEC, Network(nn.Sequential(policy)), guard)
    rows = 2.0 * torch.rand(2000, 4, generator=torch.Generator().manual_seed(2)) - 1.0
    with torch.no_grad():
        decision = guard.filter(rows, policy(rows).clamp(-1.0, 1.0))
    steps = interpret(program, rows.numpy())
    assert {*steps.status} >= {0, 2}
    differ = steps.status != decision.certificate.status.numpy()
    assert differ.mean() < 5e-3, "where a constraint is touched, rounding decides"
    assert steps.margin[steps.status != Status.FALLBACK].min() >= 0.0
    if name == "minimum of a stack":  # the C of every barrier is compared below
        verify(program, observations=rows[:300].numpy())


@pytest.mark.parametrize("name", COMPOSED)
def test_values_and_gradients_of_a_composed_barrier_are_those_of_torch(name):
    barrier = COMPOSED[name]
    tracer = Tracer("net", network_spec(4, 1))
    motion = motion_of(tracer, MODEL, "observation")
    outputs = append_barrier(tracer, barrier, motion, "observation", name="h0_now")
    nu = sum(tracer.size(value) for value in outputs)
    tracer = Tracer("net", network_spec(4, nu))
    motion = motion_of(tracer, MODEL, "observation")
    outputs = append_barrier(tracer, barrier, motion, "observation", name="h0_now")
    program = tracer.finish_network(tracer.concat(outputs, name="both"))
    rows = 4.0 * torch.rand(500, 4, generator=torch.Generator().manual_seed(3)) - 2.0
    exact = linearise(barrier, rows.double())
    moved = exact.gradient[:, :, list(moved_entries(barrier))]
    expected = torch.cat([exact.value, moved.flatten(1)], dim=1).numpy()
    found = interpret(program, rows.numpy()).action
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    verify(program, observations=rows.numpy())


WORLD = find_world("DoubleIntegrator")
UNSUPPORTED = {
    "Superellipse with exponent 3": {"barrier": Superellipse(*OVAL, exponent=3.0)},
    "RelativeDegreeTwo of Superellipse under LinearDynamics": {
        "barrier": Minimum(RelativeDegreeTwo(Superellipse(*OVAL), MODEL, rate=1.0))
    },
    "the fallback Hold": {"fallback": Hold(Hold(WORLD.fallback, rows=1), rows=1)},
    "not affine": {"fallback": Brake(WORLD.spec, law=lambda state: state[:, :2].square())},
    "function from observations": {"observe": lambda rows: 2.0 * rows},
}


@pytest.mark.parametrize("reason", UNSUPPORTED)
def test_what_has_no_operations_is_refused_by_name(reason):
    parts = {"barrier": WORLD.barrier, "dynamics": WORLD.dynamics, "fallback": WORLD.fallback}
    guard = BarrierQP(**{**parts, **UNSUPPORTED[reason]})
    policy = Network(nn.Sequential(make_policy(WORLD.spec, 1)))
    with pytest.raises(UnsupportedLayer, match=reason):
        guarded_program("g", WORLD.spec, policy, guard, state=range(4))


class Foreign:
    """A safeguard that the export does not know."""

    claim = "none"

    def filter(self, observation, action):
        raise NotImplementedError


def test_unknown_safeguards_and_states_of_another_size_are_refused():
    policy = Network(nn.Sequential(make_policy(WORLD.spec, 1)))
    guard = BarrierQP(WORLD.barrier, WORLD.dynamics, fallback=WORLD.fallback)
    with pytest.raises(UnsupportedLayer, match="the safeguard Foreign"):
        guarded_program("g", WORLD.spec, policy, Foreign(), state=range(4))
    with pytest.raises(RangeError, match="state is"):
        guarded_program("g", WORLD.spec, policy, guard, state=range(3))
