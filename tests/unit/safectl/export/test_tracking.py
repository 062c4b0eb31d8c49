"""A follower behind its safeguard as C: the waypoint comes in, the certified action leaves."""

import numpy as np
import pytest
import torch

from safectl.barriers import HalfSpaces, Stack, StoppingDistance
from safectl.errors import UnsupportedLayer
from safectl.export import follower_network, guarded_program, verify, waypoint_spec
from safectl.planners import PlanFollower
from safectl.safeguards import BarrierQP, Brake
from safectl.seed import torch_generator
from safectl_envs import maze2d
from safectl_envs.maze_controller import WaypointPlanner
from safectl_envs.point_mass import PERIOD, PUSH

OPEN = maze2d("open")
GAINS = (1.5, 0.8)


def make_follower():
    planner = WaypointPlanner(OPEN, 128, torch_generator(0, "plan"))
    return PlanFollower(planner, OPEN.spec, gains=GAINS)


def make_guard():
    """The outer walls by room to brake, and a half-space that looks 0.1 s ahead."""
    room = StoppingDistance(
        (0.4, 0.4),
        (3.2, 5.2),
        braking=PUSH / PERIOD,
        period=PERIOD,
        positions=(0, 1),
        velocities=(2, 3),
    )
    gate = HalfSpaces(
        torch.tensor([[1.0, 0.5, 0.1, 0.05]]), torch.tensor([1.5]), positions=(0, 1, 2, 3)
    )
    brake = Brake(OPEN.spec, law=lambda state: -state[:, 2:] / PUSH)
    return BarrierQP(Stack(room, gate), OPEN.dynamics, fallback=brake)


def inputs(count=200):
    """States with all speeds and waypoints up to 0.5 away, float32."""
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor([0.5, 0.5, -3.0, -3.0]), torch.tensor([3.1, 5.1, 3.0, 3.0])
    state = low + (high - low) * torch.rand(count, 4, generator=generator)
    return torch.cat([state, state + torch.rand(count, 4, generator=generator) - 0.5], 1)


def test_the_network_is_the_law_of_the_follower():
    follower, rows = make_follower(), inputs()
    state, waypoint = rows[:, :4].double(), rows[:, 4:].double()
    expected = GAINS[0] * (waypoint - state)[:, :2] + GAINS[1] * (waypoint - state)[:, 2:]
    found = follower_network(follower).layers(rows)
    torch.testing.assert_close(found.double(), expected, rtol=0.0, atol=1e-5)


def test_the_c_of_follower_and_safeguard_is_that_of_torch():
    follower, guard = make_follower(), make_guard()
    network = follower_network(follower)
    program = guarded_program(
        "follower", waypoint_spec(follower), network, guard, state=(0, 1, 2, 3)
    )
    assert program.spec.nx == 8

    def reference(observation):
        rows = torch.as_tensor(observation)
        proposal = network.layers(rows.float()).to(rows).clamp(-1.0, 1.0)
        return guard.filter(rows[:, :4], proposal).action

    rows = inputs()
    decision = guard.filter(rows[:, :4], network.layers(rows).clamp(-1.0, 1.0))
    settled = (decision.certificate.status < 2).numpy()  # a program falls back elsewhere too
    assert 25 < settled.sum() < len(rows)
    found = verify(
        program,
        reference=reference,
        observations=np.asarray(rows)[settled],
        tolerance=2e-3,
    )
    assert found.corrected > 0


def test_braking_room_among_walls_says_that_it_stays_on_the_host():
    follower = make_follower()
    guard = BarrierQP(OPEN.barrier, OPEN.dynamics, fallback=OPEN.fallback)
    with pytest.raises(UnsupportedLayer, match="WallRoom"):
        guarded_program(
            "follower",
            waypoint_spec(follower),
            follower_network(follower),
            guard,
            state=(0, 1, 2, 3),
        )
