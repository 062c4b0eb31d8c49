"""What the explorers share: DDPG with a twin critic, on a reward that each makes itself.

Settings follow the Unsupervised Reinforcement Learning Benchmark (Laskin et al. 2021); that ExORL
kept its defaults is an inference. The target looks three steps ahead, as there, and the reward of a
sampled row is that of one of its ends, no sum.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

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


@dataclass(frozen=True, slots=True)
class ExplorerSettings:
    """Sizes of an explorer; the defaults are those of the benchmark and want a GPU.

    Raises:
        RangeError: If a number is below its least, or the learning rate is not positive.
    """

    hidden: int = 1024
    """Units per hidden layer of every network, >= 1; 256 is what a CPU can do."""
    batch: int = 1024
    """Rows per update, >= 1; 256 on a CPU."""
    learning_rate: float = 1e-4
    """Step size of Adam, > 0."""
    update_every: int = 2
    """Environment steps per update, >= 1."""
    random_steps: int = 4_000
    """Steps with uniformly random actions at the start, >= 0."""
    capacity: int = 1_000
    """Newest episodes kept for learning, >= 1; all of them stay on disk."""

    def __post_init__(self) -> None:
        for name, low in (
            *(("hidden", 1), ("batch", 1), ("update_every", 1)),
            *(("random_steps", 0), ("capacity", 1)),
        ):
            if getattr(self, name) < low:
                raise RangeError(name, value=getattr(self, name), expected=f">= {low}")
        if not self.learning_rate > 0.0:
            raise RangeError("learning_rate", value=self.learning_rate, expected="above zero")


class ActorCritic(nn.Module):
    """Actor and twin critic; a child adds what makes its reward, then calls `initialise`."""

    def __init__(self, nx: int, nu: int, hidden: int) -> None:
        super().__init__()
        self.actor = nn.Sequential(
            *_normalised(nx, hidden),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, nu), nn.Tanh()),
        )
        self.trunk = nn.Sequential(*_normalised(nx + nu, hidden))
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
            for _ in range(2)
        )

    def initialise(self) -> None:
        """Give every layer orthogonal weights and no bias."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def value(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return Q of both heads, shape (2, batch)."""
        trunk = self.trunk(torch.cat([observation, action], -1))
        return torch.stack([head(trunk)[:, 0] for head in self.heads])


class Rows(NamedTuple):
    """Observations, the actions there, observations three steps later, skills (0 columns: none)."""

    here: Tensor
    action: Tensor
    there: Tensor
    skill: Tensor


NetworksT = TypeVar("NetworksT", bound=ActorCritic)


class Explorer(ABC, Generic[NetworksT]):
    """Explores, and learns from the episodes it is given.

    Args:
        make: Builds actor, critic and what makes the reward; their inputs end with the skill.
        learned: Name of the part of them that makes the reward, trained at every update.
        nu: Actions.
        settings: Sizes.
        generator: Source of all its randomness, on the device of the networks.
    """

    def __init__(
        self,
        make: Callable[[], NetworksT],
        learned: str,
        nu: int,
        settings: ExplorerSettings,
        generator: torch.Generator,
    ) -> None:
        self.settings, self.generator, self.nu = settings, generator, nu
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            self.networks = networks = make().to(generator.device)
        self.target = copy.deepcopy(networks).requires_grad_(False)
        self._critic: list[Tensor] = [*networks.trunk.parameters(), *networks.heads.parameters()]
        self._aim: list[Tensor] = [*self.target.trunk.parameters(), *self.target.heads.parameters()]
        trained: dict[str, list[Tensor]] = {
            learned: [*getattr(networks, learned).parameters()],
            "critic": self._critic,
            "actor": [*networks.actor.parameters()],
        }
        self._optimizers = {
            name: torch.optim.Adam(parameters, lr=settings.learning_rate, fused=True)
            for name, parameters in trained.items()
        }
        self._modules = {"networks": networks, "target": self.target}
        self._replay: tuple[Tensor, Tensor, Tensor] | None = None
        self._count = 0
        self.skill = np.zeros(0, np.float32)

    @abstractmethod
    def learn_reward(self, rows: Rows) -> Tensor:
        """Take a step of what makes the reward; return it without gradient, shape (batch,)."""

    def begin_step(self, step: int) -> None:
        """Prepare for a step of an episode; an explorer with skills may draw a new one."""

    def draw(self) -> NDArray[np.float32]:
        """Return a uniformly random action."""
        device = self.generator.device
        uniform = torch.rand(self.nu, generator=self.generator, device=device)
        return np.asarray((2.0 * uniform - 1.0).cpu(), np.float32)

    @torch.no_grad()
    def act(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the policy's action for one observation, with noise."""
        device = self.generator.device
        row = torch.from_numpy(np.concatenate([observation, self.skill]))[None].to(device)
        noise = torch.randn(1, self.nu, generator=self.generator, device=device)
        action = self.networks.actor(row) + _SMOOTHING * noise
        return np.asarray(action[0].clamp(-1.0, 1.0).cpu(), np.float32)

    def remember(self, episode: Episode) -> None:
        """Take an episode into the replay, all of one length; the oldest leaves a full one."""
        skill = episode.skill
        if skill is None:
            skill = np.zeros((len(episode.action), 0), np.float32)
        parts = [torch.from_numpy(part) for part in (episode.observation, episode.action, skill)]
        if self._replay is None:
            observation, action, skills = (
                part.new_zeros(self.settings.capacity, *part.shape).to(self.generator.device)
                for part in parts
            )
            self._replay = (observation, action, skills)
        for ring, part in zip(self._replay, parts, strict=True):
            ring[self._count % self.settings.capacity] = part
        self._count += 1

    def update(self) -> None:
        """Take one step of the reward, critic and actor; nothing before the first episode."""
        if self._replay is None:
            return
        rows = self._sample(*self._replay)
        net, discount = self.networks, _DISCOUNT**_STEPS
        reward = self.learn_reward(rows)
        here, there = (torch.cat([part, rows.skill], -1) for part in (rows.here, rows.there))
        with torch.no_grad():
            following = noisy(net.actor(there), self._noise(len(there)))
            aim = reward + discount * self.target.value(there, following).amin(0)
        self.descend("critic", (net.value(here, rows.action) - aim).square().mean(-1).sum())
        chosen = noisy(net.actor(here), self._noise(len(here)))
        self.descend("actor", -net.value(here, chosen).amin(0).mean())
        with torch.no_grad():
            torch._foreach_lerp_(self._aim, self._critic, _POLYAK)

    def descend(self, name: str, loss: Tensor) -> None:
        """Take one step of an optimiser."""
        optimizer = self._optimizers[name]
        parameters = optimizer.param_groups[0]["params"]
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Return weights and optimisers by name."""
        return named_state(self._modules, self._optimizers)

    def load_state(self, named: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned.

        Raises:
            KeyError, RuntimeError: If it is the state of another explorer.
        """
        load_named_state(named, self._modules, self._optimizers)

    def _sample(self, observation: Tensor, action: Tensor, skill: Tensor) -> Rows:
        kept, length = min(self._count, len(action)), action.shape[1] - _STEPS
        which, start = (
            torch.randint(
                high, (self.settings.batch,), generator=self.generator, device=action.device
            )
            for high in (kept, length)
        )
        there = observation[which, start + _STEPS]
        return Rows(observation[which, start], action[which, start + 1], there, skill[which, start])

    def _noise(self, rows: int) -> Tensor:
        device = self.generator.device
        normal = torch.randn(rows, self.nu, generator=self.generator, device=device)
        return (_SMOOTHING * normal).clamp(-_CUT, _CUT)


def _normalised(inputs: int, hidden: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.Tanh()
