"""A method that sees rewards, trained once per task of a domain on the same rows."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from safectl_agents.fb.baselines import parts
from safectl_agents.fb.baselines.cql import CQL
from safectl_agents.fb.baselines.parts import Rows
from safectl_agents.fb.baselines.td3 import BC, TD3
from safectl_agents.fb.domains import Domain
from safectl_agents.fb.episodes import Transitions
from safectl_agents.fb.evaluate import Policies
from safectl_agents.fb.settings import FBConfig


@runtime_checkable
class Agent(Protocol):
    """What learns one task."""

    def update(self, batch: Rows, reward: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Take one step; return scalars to log."""
        ...

    def act(self, observation: Tensor) -> Tensor:
        """Return the action to evaluate."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next update depends on."""
        ...

    def load_state(self, named: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned."""
        ...


class PerTask:
    """One agent per task; an update is one of each.

    Args:
        make: Builds an agent.
        config: What to train.
        domain: Its world.
        transitions: Of that world, with states of the simulator, which are labelled.

    Raises:
        FileFormatError: If the data hold no states.
    """

    def __init__(
        self,
        make: Callable[[FBConfig, Domain], Agent],
        config: FBConfig,
        domain: Domain,
        transitions: Transitions,
    ) -> None:
        self._config = config
        self._rows = parts.rows_of(transitions, config.device)
        rewards = parts.rewards_of(domain, transitions)
        self._rewards = torch.from_numpy(rewards).to(config.device)
        self._agents = {name: make(config, domain) for name in domain.facts.tasks}

    def update(self, step: int) -> dict[str, Tensor]:
        """Take one step of every agent; return means over the tasks."""
        chosen, generator = parts.batch_of(self._config, step, len(self._rewards))
        batch, rewards = self._rows.at(chosen), self._rewards[chosen]
        return parts.mean_of(
            agent.update(batch, rewards[:, k], generator)
            for k, agent in enumerate(self._agents.values())
        )

    def policies(self) -> Policies:
        """Return the policy of every task."""
        agents, device = list(self._agents.values()), self._config.device

        def act(observation: Tensor) -> Tensor:
            rows = zip(agents, observation.to(device), strict=True)
            return torch.stack([agent.act(one) for agent, one in rows])

        return Policies(tuple(self._agents), act)

    def state(self) -> dict[str, Tensor]:
        """Return the states of all agents."""
        return {
            f"{task}/{name}": value
            for task, agent in self._agents.items()
            for name, value in agent.state().items()
        }

    def load_state(self, named: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned."""
        for task, agent in self._agents.items():
            prefix = f"{task}/"
            agent.load_state(
                {n.removeprefix(prefix): v for n, v in named.items() if n.startswith(prefix)}
            )


def make_cql(config: FBConfig, domain: Domain) -> CQL:
    """Return an untrained agent of conservative Q-learning."""
    return CQL(
        *(domain.nx, domain.nu), hidden=config.hidden, discount=config.gamma,
        seed=config.seed, device=config.device,
    )  # fmt: skip


def make_td3(config: FBConfig, domain: Domain, *, bc: float | None = None) -> TD3:
    """Return an untrained agent of TD3."""
    return TD3(
        *(domain.nx, domain.nu), hidden=config.hidden, discount=config.gamma,
        seed=config.seed, device=config.device, bc=bc,
    )  # fmt: skip


def make_td3_bc(config: FBConfig, domain: Domain) -> TD3:
    """Return an untrained agent of TD3+BC."""
    return make_td3(config, domain, bc=BC)
