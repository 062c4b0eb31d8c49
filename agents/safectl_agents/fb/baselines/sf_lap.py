"""Universal successor features over Laplacian features (SF-LAP): zero-shot, without rewards.

psi(s, a, z) predicts the sum of phi(s') to come, whose products with z are the rewards of task z
(Borsa et al. 2019, arXiv 1812.07626); phi are features that change slowly (Wu, Tucker and Nachum
2019, arXiv 1810.04586). The networks are those of a forward-backward model, psi as F, phi as B.
"""

import copy
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from safectl.models import ForwardBackward, draw, measure
from safectl.models.networks import noisy, on_sphere
from safectl.models.saved import load_named_state, named_state
from safectl_agents.fb.baselines import parts
from safectl_agents.fb.domains import Domain
from safectl_agents.fb.episodes import Transitions
from safectl_agents.fb.evaluate import Policies, make_labels
from safectl_agents.fb.settings import FBConfig

_FEATURE_RATE = 5e-4
_POLYAK = 0.01


def feature_loss(
    here: Float[Tensor, "batch nz"], following: Float[Tensor, "batch nz"]
) -> Float[Tensor, ""]:
    """Return mean (phi(s) - phi(s'))^2 plus the orthonormality of phi(s)."""
    return (here - following).square().mean() + measure.orthonormality_loss(here)


def successor_loss(
    psi: Float[Tensor, "heads batch nz"],
    following: Float[Tensor, "heads batch nz"],
    features: Float[Tensor, "batch nz"],
    task: Float[Tensor, "batch nz"],
    discount: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Return sum_k mean (psi_k^T z - y)^2 with y = phi(s')^T z + discount min_k psi'_k^T z.

    No gradient flows into y.
    """
    reward = (features * task).sum(-1)
    aim = (reward + discount * measure.values(following, task).amin(0)).detach()
    return (measure.values(psi, task) - aim).square().mean(-1).sum()


def sample_tasks(
    features: Float[Tensor, "batch nz"],
    normal: Float[Tensor, "batch nz"],
    from_data: Bool[Tensor, " batch"],
    shuffle: Int[Tensor, " batch"],
) -> Float[Tensor, "batch nz"]:
    """Return a task per row on the sphere: pinv(E[phi phi^T]) phi of another row, or uniform.

    The first is what least squares infers from a reward at that row alone.
    """
    covariance = features.T @ features / len(features)
    inferred = features[shuffle] @ torch.linalg.pinv(covariance, hermitian=True)
    return on_sphere(torch.where(from_data[:, None], inferred, normal))


def infer_task(
    features: Float[Tensor, "samples nz"], reward: Float[Tensor, " samples"]
) -> Float[Tensor, " nz"]:
    """Return z of least |phi z - r|, scaled to the sphere; zeros where every reward is zero."""
    solution: Tensor = torch.linalg.lstsq(
        features.double().cpu(), reward.double().cpu()[:, None], driver="gelsd"
    ).solution[:, 0]
    return on_sphere(solution.to(features))


class SFLap:
    """Learns from transitions; the arguments are those of every method."""

    def __init__(self, config: FBConfig, domain: Domain, transitions: Transitions) -> None:
        self._config, self._facts = config, domain.facts
        self.model = ForwardBackward(config.sizes(domain.nx, domain.nu), seed=config.seed)
        self.model.networks.to(config.device)
        self.target = copy.deepcopy(self.model.forward).requires_grad_(False)
        self._rows = parts.rows_of(transitions, config.device)
        self._labels = make_labels(config.domain, transitions, config.labels, seed=0)
        self._optimizers = {
            "features": parts.adam(self.model.backward, rate=_FEATURE_RATE),
            "successor": parts.adam(self.model.forward),
            "actor": parts.adam(self.model.actor),
        }

    def update(self, step: int) -> dict[str, Tensor]:
        """Take one step of phi, psi and the policy."""
        config, model = self._config, self.model
        sizes = model.sizes
        chosen, generator = parts.batch_of(config, step, len(self._rows.action))
        batch = self._rows.at(chosen)
        draws = draw(config.batch, sizes.nu, sizes.nz, config.update.mix, generator)
        here, following = model.backward(batch.observation), model.backward(batch.next_observation)
        slow = feature_loss(here, following)
        with torch.no_grad():
            task = sample_tasks(here, draws.normal, draws.from_data, draws.shuffle)
            mean = model.actor(batch.next_observation, task)
            action = noisy(mean, draws.target_noise)
            target = self.target(batch.next_observation, action, task)
        psi = model.forward(batch.observation, batch.action, task)
        discount = config.gamma * batch.discount
        fit = successor_loss(psi, target, following, task, discount)
        parts.descend(self._optimizers["features"], slow)
        parts.descend(self._optimizers["successor"], fit)
        action = noisy(model.actor(batch.observation, task), draws.actor_noise)
        loss = measure.actor_loss(model.forward(batch.observation, action, task), task)
        parts.descend(self._optimizers["actor"], loss)
        parts.follow(self.target, model.forward, _POLYAK)
        return {
            "feature_loss": slow.detach(),
            "successor_loss": fit.detach(),
            "value": -loss.detach(),
        }

    @torch.no_grad()
    def policies(self) -> Policies:
        """Return the policies of the tasks; of a goal z = phi(g) - phi(s), anew at every step."""
        model, device, goals = self.model, self._config.device, self._facts.goals
        vectors = {name: self._infer(name) for name in self._facts.tasks if name not in goals}
        seen = {name: z for name, z in vectors.items() if bool(z.any())}
        names = tuple(name for name in self._facts.tasks if name in goals or name in seen)

        def act(observation: Tensor) -> Tensor:
            tasks = []
            for name, rows in zip(names, observation.to(device), strict=True):
                if name in goals:
                    goal = torch.tensor(goals[name], device=device)[None]
                    tasks.append(on_sphere(model.backward(goal) - model.backward(rows)))
                else:
                    tasks.append(seen[name].expand(len(rows), -1))
            return torch.stack(
                [
                    model.actor(rows, task)
                    for rows, task in zip(observation.to(device), tasks, strict=True)
                ]
            )

        return Policies(names, act)

    def _infer(self, name: str) -> Tensor:
        device = self._config.device
        features = self.model.backward(self._labels.observation.to(device))
        return infer_task(features, self._labels.rewards[name].to(device))

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next update depends on."""
        return named_state(self._modules(), self._optimizers)

    def load_state(self, named: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned."""
        load_named_state(named, self._modules(), self._optimizers)

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model.networks, "target": self.target}
