"""Random network distillation: the explorer that made most of the data of ExORL.

The reward of a row is the novelty of its current observation over the running standard deviation of
the novelty, as in the Unsupervised Reinforcement Learning Benchmark.
"""

from functools import partial

import torch
from torch import Tensor, nn

from safectl_agents.fb.ddpg import ActorCritic, Explorer, ExplorerSettings, Rows

_OBSERVED_LIMIT = 5.0
_EMBEDDING = 512
_FIRST_COUNT = 1e-4
"""Rows that the first mean 0 and variance 1 of the novelty count as."""


class RNDNetworks(ActorCritic):
    """Actor, twin critic and the pair of networks whose difference is the novelty."""

    moments: Tensor
    """Rows seen, mean and variance of their novelty."""

    def __init__(self, nx: int, nu: int, hidden: int) -> None:
        super().__init__(nx, nu, hidden)
        self.scale = nn.BatchNorm1d(nx, affine=False)
        self.predictor, self.random = _distilled(nx, hidden), _distilled(nx, hidden)
        first = torch.tensor([_FIRST_COUNT, 0.0, 1.0], dtype=torch.float64)
        self.register_buffer("moments", first)
        self.initialise()

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


class RNDAgent(Explorer[RNDNetworks]):
    """Goes where the novelty is.

    Args:
        nx: Observations.
        nu: Actions.
        settings: Sizes.
        generator: Source of all its randomness, on the device of the networks.
    """

    def __init__(
        self, nx: int, nu: int, settings: ExplorerSettings, generator: torch.Generator
    ) -> None:
        make = partial(RNDNetworks, nx, nu, settings.hidden)
        super().__init__(make, "predictor", nu, settings, generator)

    def learn_reward(self, rows: Rows) -> Tensor:
        """Make these rows less novel; return how novel they were."""
        novelty = self.networks.novelty(rows.here)
        reward = self.networks.reward(novelty)
        self.descend("predictor", novelty.mean())
        return reward


def _distilled(nx: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(nx, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()),
        nn.Linear(hidden, _EMBEDDING),
    )
