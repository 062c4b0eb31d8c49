"""Small controllers that the tests of generated code share."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from safectl.export import (
    AffineSignal,
    Network,
    Normaliser,
    Program,
    guarded_policy_program,
    policy_program,
)
from safectl.spec import Signal, Spec


@dataclass(frozen=True)
class Example:
    """A program and its meaning in torch."""

    program: Program
    reference: Callable[[Tensor], Tensor]


def make_spec(nx: int, nu: int) -> Spec:
    observation = tuple(Signal(f"sensor {i}", "m", -math.inf, math.inf) for i in range(nx))
    action = tuple(Signal(f"motor {i}", "N m", -1.0, 0.5 + i) for i in range(nu))
    return Spec(observation, action, 0.02)


def make_network(sizes: list[int], activation: type[nn.Module], *, seed: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.Linear(inputs, outputs)
        nn.init.normal_(layer.weight, std=1.0 / math.sqrt(inputs), generator=generator)
        nn.init.normal_(layer.bias, std=0.2, generator=generator)
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


def make_policy(sizes: list[int], activation: type[nn.Module], *, seed: int) -> Example:
    network = make_network(sizes, activation, seed=seed)
    spec = make_spec(sizes[0], sizes[-1])
    low, high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
    program = policy_program("policy", spec, Network(network))
    return Example(program, lambda observation: network(observation).clamp(low, high))


def make_guarded(nx: int, nu: int, hidden: int, *, seed: int, limit: float = 0.3) -> Program:
    rng = np.random.default_rng(seed)
    normaliser = Normaliser(rng.standard_normal(nx), rng.random(nx) + 0.1)
    policy = make_network([nx, hidden, hidden, nu], nn.Tanh, seed=seed)
    model = make_network([nx, hidden, hidden, 1 + nu], nn.Tanh, seed=seed + 1)
    signal = AffineSignal(Network(model, normaliser), limit=limit, margin=0.1)
    spec = make_spec(nx, nu)
    return guarded_policy_program("guarded", spec, Network(policy, normaliser), signal)


@pytest.fixture(scope="session")
def benchmark_policy() -> Example:
    """The network 36-10-5-3 (relu, relu, tanh) of the survey."""
    body = make_network([36, 10, 5], nn.ReLU, seed=0)
    network = nn.Sequential(body, nn.ReLU(), make_network([5, 3], nn.ReLU, seed=1), nn.Tanh())
    spec = make_spec(36, 3)
    low, high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
    return Example(
        policy_program("policy", spec, Network(network)),
        lambda observation: network(observation).clamp(low, high),
    )


@pytest.fixture(scope="session")
def guarded() -> Program:
    """A 64-64 tanh policy, 17 observations, 6 actions, behind a learned constraint."""
    return make_guarded(17, 6, 64, seed=3)


@pytest.fixture(scope="session")
def small_guarded() -> Program:
    return make_guarded(3, 2, 5, seed=5)


@pytest.fixture(scope="session")
def policy_factory() -> Callable[..., Example]:
    return make_policy


@pytest.fixture(scope="session")
def guarded_factory() -> Callable[..., Program]:
    return make_guarded
