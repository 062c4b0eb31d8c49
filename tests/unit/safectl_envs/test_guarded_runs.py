"""With the true model and state a guard keeps every constraint; without one nothing does."""

import pytest
import torch

from safectl.safeguards import BarrierQP
from safectl_envs import BatchedEnv
from safectl_envs.catalogue import find_world

TOLERANCE = 1e-6  # [unit of the constraint]; float32 rounding of positions of a few metres

pytestmark = [pytest.mark.slow]


@pytest.fixture(autouse=True)
def one_thread():
    """On a busy machine, threads that wait for each other make this ten times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(name, count, steps, *, guarded, held=1):
    """Return the cost of all steps and the smallest barrier value of a state that was kept."""
    world = find_world(name)
    generator = torch.Generator().manual_seed(0)
    env = BatchedEnv(world, count, generator)
    safeguard = BarrierQP(world.barrier, world.dynamics, fallback=world.fallback)
    cost, smallest = 0.0, torch.inf
    action = torch.zeros(count, world.spec.nu)
    for index in range(steps):
        if index % held == 0:
            action = 2.0 * torch.rand(count, world.spec.nu, generator=generator) - 1.0
        executed = safeguard.filter(env.model_state, action).action if guarded else action
        step = env.step(executed)
        cost += float(step.cost.sum())
        smallest = min(smallest, float(world.barrier.value(env.model_state).min()))
    return cost, smallest


@pytest.mark.parametrize("held", [1, 20])
@pytest.mark.parametrize(
    ("name", "count", "steps"),
    [
        ("PointHazard", 250, 400),
        ("DoubleIntegrator", 2500, 400),
        ("SpeedLimit", 250, 400),
        ("CartPoleStab", 250, 400),
        ("PlanarReach", 250, 400),
        ("Maze2dLarge", 100, 200),
    ],
)
def test_a_guard_with_the_true_model_never_pays(name, count, steps, held):
    cost, smallest = run(name, count, steps, guarded=True, held=held)
    assert cost == 0.0
    assert smallest >= -TOLERANCE


@pytest.mark.parametrize(
    "name", ["PointHazard", "DoubleIntegrator", "SpeedLimit", "CartPoleStab", "PlanarReach"]
)
def test_the_same_actions_without_a_guard_do_pay(name):
    cost, smallest = run(name, 250, 400, guarded=False, held=20)
    assert cost > 100.0
    assert smallest < -0.1
