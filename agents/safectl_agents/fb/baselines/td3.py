"""TD3 on a fixed data set, with or without behaviour cloning (TD3+BC).

Fujimoto, van Hoof and Meger 2018 (arXiv 1802.09477); Fujimoto and Gu 2021 (arXiv 2106.06860),
equation 3, here on data that are not normalised. Sees the rewards of its one task.
"""

import copy
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from safectl.models.networks import noisy
from safectl.models.saved import load_named_state, named_state
from safectl_agents.fb.baselines import parts
from safectl_agents.fb.baselines.parts import Perceptron, Rows, Twins

BC = 2.5
"""Weight of the value against imitation in TD3+BC."""
_POLYAK = 0.01


def critic_loss(
    q: Float[Tensor, "heads batch"],
    reward: Float[Tensor, " batch"],
    discount: Float[Tensor, " batch"],
    following: Float[Tensor, "heads batch"],
) -> Float[Tensor, ""]:
    """Return sum_k mean (Q_k - y)^2 with y = r + discount min_k Q'_k, without gradient in y."""
    aim = (reward + discount * following.amin(0)).detach()
    return (q - aim).square().mean(-1).sum()


def actor_loss(
    q: Float[Tensor, " batch"],
    mean: Float[Tensor, "batch nu"],
    action: Float[Tensor, "batch nu"],
    weight: float | None,
) -> Float[Tensor, ""]:
    """Return - lambda mean Q + mean (mean - a)^2 with lambda = weight / mean |Q|.

    Without a weight there is no imitation: - mean Q.
    """
    if weight is None:
        return -q.mean()
    scale = weight / q.detach().abs().mean().clamp(min=1e-6)
    return -scale * q.mean() + (mean - action).square().mean()


class TD3:
    """One task.

    Args:
        nx: Observations.
        nu: Actions.
        hidden: Units per layer.
        discount: Per step.
        seed: Of the first weights.
        bc: Weight of TD3+BC; None for TD3.
        device: Of the weights.
    """

    def __init__(
        self, nx: int, nu: int, *, hidden: int, discount: float, seed: int, device: str,
        bc: float | None,
    ) -> None:  # fmt: skip
        with parts.first_weights(seed, "td3"):
            self.critic = Twins(nx + nu, hidden, normalised=True).to(device)
            self.actor = nn.Sequential(Perceptron(nx, hidden, nu, normalised=True), nn.Tanh()).to(
                device
            )
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self._discount, self._bc = discount, bc
        self._optimizers = {"critic": parts.adam(self.critic), "actor": parts.adam(self.actor)}

    def update(
        self, batch: Rows, reward: Float[Tensor, " batch"], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Take one step of the critics and of the policy."""
        with torch.no_grad():
            mean = self.actor(batch.next_observation)
            action = noisy(mean, parts.noise_like(mean, generator))
            following = self.target(batch.next_observation, action)
        q = self.critic(batch.observation, batch.action)
        fit = critic_loss(q, reward, self._discount * batch.discount, following)
        parts.descend(self._optimizers["critic"], fit)
        mean = self.actor(batch.observation)
        chosen = noisy(mean, parts.noise_like(mean, generator)) if self._bc is None else mean
        value = self.critic(batch.observation, chosen).amin(0)
        parts.descend(self._optimizers["actor"], actor_loss(value, mean, batch.action, self._bc))
        parts.follow(self.target, self.critic, _POLYAK)
        return {"critic_loss": fit.detach(), "value": value.detach().mean()}

    def act(self, observation: Float[Tensor, "batch nx"]) -> Float[Tensor, "batch nu"]:
        """Return the mean action."""
        action: Tensor = self.actor(observation)
        return action

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next update depends on."""
        return named_state(self._modules(), self._optimizers)

    def load_state(self, named: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned."""
        load_named_state(named, self._modules(), self._optimizers)

    def _modules(self) -> dict[str, nn.Module]:
        return {"critic": self.critic, "actor": self.actor, "target": self.target}
