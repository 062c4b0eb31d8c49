"""Random network distillation on a DDPG back-bone: the explorer that made the data of ExORL.

Settings follow the Unsupervised Reinforcement Learning Benchmark (Laskin et al. 2021); that ExORL
kept its defaults is an inference. The reward of a sampled row is the novelty of its current
observation over the running standard deviation of the novelty, and the target looks three steps
ahead, as there.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from safectl.errors import RangeError
from safectl.models.networks import noisy
from safectl.models.saved import load_named_state, named_state
from safectl_agents.fb.episodes import Episode

_STEPS, _DISCOUNT, _POLYAK = 3, 0.99, 0.01
_SMOOTHING, _CUT = 0.2, 0.3
_OBSERVED_LIMIT = 5.0
_EMBEDDING = 512
_FIRST_COUNT = 1e-4
"""Rows that the first mean 0 and variance 1 of the novelty count as."""


@dataclass(frozen=True, slots=True)
class RNDSettings:
    """Sizes of the explorer; the defaults are those of the benchmark and want a GPU.

    Raises:
        RangeError: If a number is below 1, that of random steps below 0, or the learning rate is
            not positive.
    """

    hidden: int = 1024
    """Units per hidden layer of every network; 256 is what a CPU can do."""
    batch: int = 1024
    """Rows per update; 256 on a CPU."""
    learning_rate: float = 1e-4
    """Step size of Adam."""
    update_every: int = 2
    """Environment steps per update."""
    random_steps: int = 4_000
    """Steps with uniformly random actions at the start."""
    capacity: int = 1_000
    """Newest episodes kept for learning; all of them stay on disk."""

    def __post_init__(self) -> None:
        for name in ("hidden", "batch", "update_every", "random_steps", "capacity"):
            low = 0 if name == "random_steps" else 1
            if getattr(self, name) < low:
                raise RangeError(name, value=getattr(self, name), expected=f">= {low}")
        if not self.learning_rate > 0.0:
            raise RangeError("learning_rate", value=self.learning_rate, expected="above zero")


class Explorer(nn.Module):
    """Actor, twin critic and the pair of networks whose difference is the novelty."""

    moments: Tensor
    """Rows seen, mean and variance of their novelty."""

    def __init__(self, nx: int, nu: int, settings: RNDSettings) -> None:
        super().__init__()
        hidden = settings.hidden
        self.actor = nn.Sequential(
            *_normalised(nx, hidden),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, nu), nn.Tanh()),
        )
        self.trunk = nn.Sequential(*_normalised(nx + nu, hidden))
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
            for _ in range(2)
        )
        self.scale = nn.BatchNorm1d(nx, affine=False)
        self.predictor, self.random = _distilled(nx, hidden), _distilled(nx, hidden)
        first = torch.tensor([_FIRST_COUNT, 0.0, 1.0], dtype=torch.float64)
        self.register_buffer("moments", first)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def value(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return Q of both heads, shape (2, batch)."""
        trunk = self.trunk(torch.cat([observation, action], -1))
        return torch.stack([head(trunk)[:, 0] for head in self.heads])

    def novelty(self, observation: Tensor) -> Tensor:
        """Return the squared error of the predictor per row."""
        scaled = self.scale(observation).clamp(-_OBSERVED_LIMIT, _OBSERVED_LIMIT)
        with torch.no_grad():
            aim = self.random(scaled)
        error: Tensor = self.predictor(scaled) - aim
        return error.square().mean(-1)

    @torch.no_grad()
    def reward(self, novelty: Tensor) -> Tensor:
        """Count these rows among those seen; return novelty over its standard deviation."""
        count, mean, variance = self.moments
        rows, batch = len(novelty), novelty.double()
        total, apart = count + rows, batch.mean() - mean
        squares = variance * count + batch.var(correction=0) * rows
        squares = squares + apart.square() * count * rows / total
        self.moments.copy_(torch.stack([total, mean + apart * rows / total, squares / total]))
        return novelty / self.moments[2].sqrt().clamp(min=1e-8).to(novelty)


class RNDAgent:
    """Explores, and learns from the episodes it is given.

    Args:
        nx: Observations.
        nu: Actions.
        settings: Sizes.
        generator: Source of all its randomness, on the device of the networks.
    """

    def __init__(self, nx: int, nu: int, settings: RNDSettings, generator: torch.Generator) -> None:
        self.settings, self.generator, self.nu = settings, generator, nu
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            self.networks = Explorer(nx, nu, settings).to(generator.device)
        self.target = copy.deepcopy(self.networks).requires_grad_(False)
        net, rate = self.networks, settings.learning_rate
        self._critic: list[Tensor] = [*net.trunk.parameters(), *net.heads.parameters()]
        self._aim: list[Tensor] = [*self.target.trunk.parameters(), *self.target.heads.parameters()]
        learned: dict[str, list[Tensor]] = {
            "predictor": [*net.predictor.parameters()],
            "critic": self._critic,
            "actor": [*net.actor.parameters()],
        }
        self._optimizers = {
            name: torch.optim.Adam(parameters, lr=rate, fused=True)
            for name, parameters in learned.items()
        }
        self._modules = {"networks": self.networks, "target": self.target}
        self._replay: tuple[Tensor, Tensor] | None = None
        self._count = 0

    def draw(self) -> NDArray[np.float32]:
        """Return a uniformly random action."""
        device = self.generator.device
        uniform = torch.rand(self.nu, generator=self.generator, device=device)
        return np.asarray((2.0 * uniform - 1.0).cpu(), np.float32)

    @torch.no_grad()
    def act(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the policy's action for one observation, with noise."""
        device = self.generator.device
        row = torch.from_numpy(observation)[None].to(device)
        noise = torch.randn(1, self.nu, generator=self.generator, device=device)
        action = self.networks.actor(row) + _SMOOTHING * noise
        return np.asarray(action[0].clamp(-1.0, 1.0).cpu(), np.float32)

    def remember(self, episode: Episode) -> None:
        """Take an episode into the replay, all of one length; the oldest leaves a full one."""
        parts = [torch.from_numpy(part) for part in (episode.observation, episode.action)]
        if self._replay is None:
            observation, action = (
                part.new_zeros(self.settings.capacity, *part.shape).to(self.generator.device)
                for part in parts
            )
            self._replay = (observation, action)
        for ring, part in zip(self._replay, parts, strict=True):
            ring[self._count % self.settings.capacity] = part
        self._count += 1

    def update(self) -> None:
        """Take one step of predictor, critic and actor; nothing before the first episode."""
        if self._replay is None:
            return
        here, action, there = self._sample(*self._replay)
        net, discount = self.networks, _DISCOUNT**_STEPS
        novelty = net.novelty(here)
        with torch.no_grad():
            reward = net.reward(novelty)
            following = noisy(net.actor(there), self._noise(len(there)))
            aim = reward + discount * self.target.value(there, following).amin(0)
        self._step("predictor", novelty.mean())
        self._step("critic", (net.value(here, action) - aim).square().mean(-1).sum())
        chosen = noisy(net.actor(here), self._noise(len(here)))
        self._step("actor", -net.value(here, chosen).amin(0).mean())
        with torch.no_grad():
            torch._foreach_lerp_(self._aim, self._critic, _POLYAK)

    def state(self) -> dict[str, Tensor]:
        """Return weights and optimisers by name."""
        return named_state(self._modules, self._optimizers)

    def load_state(self, named: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned.

        Raises:
            KeyError, RuntimeError: If it is the state of another explorer.
        """
        load_named_state(named, self._modules, self._optimizers)

    def _sample(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return observations, actions and observations three steps later."""
        kept, length = min(self._count, len(action)), action.shape[1] - _STEPS
        which, start = (
            torch.randint(
                high, (self.settings.batch,), generator=self.generator, device=action.device
            )
            for high in (kept, length)
        )
        there = observation[which, start + _STEPS]
        return observation[which, start], action[which, start + 1], there

    def _noise(self, rows: int) -> Tensor:
        device = self.generator.device
        normal = torch.randn(rows, self.nu, generator=self.generator, device=device)
        return (_SMOOTHING * normal).clamp(-_CUT, _CUT)

    def _step(self, name: str, loss: Tensor) -> None:
        optimizer = self._optimizers[name]
        parameters = optimizer.param_groups[0]["params"]
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()


def _normalised(inputs: int, hidden: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.Tanh()


def _distilled(nx: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(nx, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()),
        nn.Linear(hidden, _EMBEDDING),
    )
