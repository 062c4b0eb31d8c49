"""Conservative Q-learning on soft actor-critic.

Kumar et al. 2020 (arXiv 2006.04779), equation 4, on Haarnoja et al. 2018 (arXiv 1812.05905). The
candidates of the penalty are 3 uniform actions, 3 of the policy at s, 3 of the policy at s' and the
action of the data, its weight is fixed at 0.01 and there is no importance weight within the
log-sum-exp. Sees the rewards of its one task.
"""

import copy
import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from safectl.models.saved import load_named_state, named_state
from safectl_agents.fb.baselines import parts
from safectl_agents.fb.baselines.parts import Perceptron, Rows, Twins
from safectl_agents.fb.baselines.td3 import critic_loss

ALPHA = 0.01
"""Weight of the penalty."""
CANDIDATES = 3
"""Actions of each kind per state."""
_POLYAK, _POLYAK_EVERY = 0.005, 2
_FIRST_TEMPERATURE = 0.1
_LOG_DEVIATION = (-5.0, 2.0)


def conservative_penalty(
    candidates: Float[Tensor, "heads n batch"], data: Float[Tensor, "heads batch"]
) -> Float[Tensor, ""]:
    """Return sum_k mean_i [ log sum_n exp Q_k(s_i, a_n) - Q_k(s_i, a_i) ]; one of n is the data."""
    return (candidates.logsumexp(1) - data).mean(-1).sum()


def actor_loss(
    q: Float[Tensor, " batch"], log_density: Float[Tensor, " batch"], temperature: Tensor
) -> Float[Tensor, ""]:
    """Return mean (T log pi - Q)."""
    return (temperature.detach() * log_density - q).mean()


def temperature_loss(
    log_temperature: Float[Tensor, ""], log_density: Float[Tensor, " batch"], entropy: float
) -> Float[Tensor, ""]:
    """Return - T mean (log pi + entropy), which raises T while the entropy is below its aim."""
    return -log_temperature.exp() * (log_density.detach() + entropy).mean()


def squashed(
    mean: Float[Tensor, "batch nu"],
    log_deviation: Float[Tensor, "batch nu"],
    normal: Float[Tensor, "*samples batch nu"],
) -> tuple[Float[Tensor, "*samples batch nu"], Float[Tensor, "*samples batch"]]:
    """Return tanh of Gaussian samples and the logarithms of their densities."""
    raw = mean + log_deviation.exp() * normal
    gaussian = -0.5 * normal.square() - log_deviation - 0.5 * math.log(2.0 * math.pi)
    slope = 2.0 * (math.log(2.0) - raw - functional.softplus(-2.0 * raw))
    return raw.tanh(), (gaussian - slope).sum(-1)


class CQL:
    """One task; the arguments are those of `TD3`."""

    def __init__(
        self, nx: int, nu: int, *, hidden: int, discount: float, seed: int, device: str
    ) -> None:
        with parts.first_weights(seed, "cql"):
            self.critic = Twins(nx + nu, hidden).to(device)
            self.actor = Perceptron(nx, hidden, 2 * nu).to(device)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(_FIRST_TEMPERATURE, device=device).log())
        self._nu, self._discount = nu, discount
        self._updates = torch.zeros((), dtype=torch.int64)
        self._optimizers = {
            "critic": parts.adam(self.critic),
            "actor": parts.adam(self.actor),
            "temperature": torch.optim.Adam([self.log_temperature], lr=parts.RATE, fused=True),
        }

    def update(
        self, batch: Rows, reward: Float[Tensor, " batch"], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Take one step of the critics, the policy and the temperature."""
        temperature = self.log_temperature.exp().detach()
        with torch.no_grad():
            action, log_density = self._sample(batch.next_observation, 1, generator)
            following = self.target(batch.next_observation, action[0])
            following = following - temperature * log_density[0]
            candidates = self._candidates(batch, generator)
        q = self.critic(batch.observation, batch.action)
        states = batch.observation.expand(len(candidates), *batch.observation.shape)
        others = torch.cat([self.critic(states, candidates), q[:, None]], 1)
        penalty = conservative_penalty(others, q)
        fit = critic_loss(q, reward, self._discount * batch.discount, following)
        parts.descend(self._optimizers["critic"], fit + ALPHA * penalty)
        action, log_density = self._sample(batch.observation, 1, generator)
        value = self.critic(batch.observation, action[0]).amin(0)
        parts.descend(self._optimizers["actor"], actor_loss(value, log_density[0], temperature))
        parts.descend(
            self._optimizers["temperature"],
            temperature_loss(self.log_temperature, log_density[0], -float(self._nu)),
        )
        self._updates += 1
        if int(self._updates) % _POLYAK_EVERY == 0:
            parts.follow(self.target, self.critic, _POLYAK)
        return {
            "critic_loss": fit.detach(),
            "penalty": penalty.detach(),
            "value": value.detach().mean(),
            "temperature": temperature,
        }

    def act(self, observation: Float[Tensor, "batch nx"]) -> Float[Tensor, "batch nu"]:
        """Return the squashed mean."""
        mean: Tensor = self.actor(observation)[..., : self._nu]
        return mean.tanh()

    def _candidates(self, batch: Rows, generator: torch.Generator) -> Tensor:
        shape = (CANDIDATES, *batch.action.shape)
        uniform = torch.rand(shape, generator=generator, device=generator.device)
        here, _ = self._sample(batch.observation, CANDIDATES, generator)
        following, _ = self._sample(batch.next_observation, CANDIDATES, generator)
        return torch.cat([2.0 * uniform - 1.0, here, following])

    def _sample(
        self, observation: Tensor, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        mean, log_deviation = self.actor(observation).split(self._nu, -1)
        shape = (count, *mean.shape)
        normal = torch.randn(shape, generator=generator, device=generator.device)
        return squashed(mean, log_deviation.clamp(*_LOG_DEVIATION), normal)

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next update depends on."""
        own = {"log_temperature": self.log_temperature.detach(), "updates": self._updates}
        return own | named_state(self._modules(), self._optimizers)

    def load_state(self, named: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned."""
        with torch.no_grad():
            self.log_temperature.copy_(named["log_temperature"])
        self._updates.copy_(named["updates"])
        load_named_state(named, self._modules(), self._optimizers)

    def _modules(self) -> dict[str, nn.Module]:
        return {"critic": self.critic, "actor": self.actor, "target": self.target}
