"""The published update of FB, VC-FB and MC-FB written down plainly, as oracle and as baseline.

Every pass by itself, all twelve candidates through the whole of F, alpha by a backward pass whose
other gradients are thrown away, parameters one by one: what the text of Jeen et al. 2024 (arXiv
2309.15178) and a description of its released code lead to. It shares only the modules of the
networks and the random numbers with `safectl.models.Learner`.
"""

import copy

import torch
from torch import Tensor, nn

from safectl.models import Batch, Draws, ForwardBackward, UpdateSettings
from safectl.models.networks import noisy
from safectl.models.update import DISCOUNT


class EagerLearner:
    """The same mathematics as `Learner` for `fb`, `vc-fb` and `mc-fb`."""

    def __init__(self, model: ForwardBackward, settings: UpdateSettings) -> None:
        self.model, self.settings = model, settings
        self.target_forward = copy.deepcopy(model.forward)
        self.target_backward = copy.deepcopy(model.backward)
        self.log_alpha = nn.Parameter(torch.zeros(()))
        self.representation = torch.optim.Adam(
            [*model.forward.parameters(), *model.backward.parameters()], lr=settings.learning_rate
        )
        self.actor = torch.optim.Adam(model.actor.parameters(), lr=settings.actor_learning_rate)
        self.alpha = torch.optim.Adam([self.log_alpha], lr=settings.alpha_learning_rate)

    def update(self, batch: Batch, draws: Draws) -> None:
        """Take one step of everything."""
        model, settings = self.model, self.settings
        observation, action, following, discount = batch
        with torch.no_grad():
            goals = model.backward(observation)[draws.shuffle]
            sphere = draws.normal / draws.normal.norm(dim=-1, keepdim=True)
            sphere = sphere * draws.normal.shape[-1] ** 0.5
            task = torch.where(draws.from_data[:, None], goals, sphere)
            next_action = noisy(model.actor(following, task), draws.target_noise)
            first, second = self.target_forward(following, next_action, task)
            aims = self.target_backward(following)
            target = torch.minimum(first @ aims.T, second @ aims.T)
        backward = model.backward(following)
        heads = model.forward(observation, action, task)
        measures = [head @ backward.T for head in heads]
        off = ~torch.eye(len(action), dtype=torch.bool, device=action.device)
        aim = DISCOUNT * discount[:, None] * target
        loss = sum(0.5 * (measure - aim)[off].square().mean() for measure in measures)
        loss = loss - sum(measure.diagonal().mean() for measure in measures)
        products = backward @ backward.T
        loss = loss + settings.orthonormality * (
            products[off].square().mean() - 2.0 * products.diagonal().mean()
        )
        if settings.method != "fb":
            penalty = self._penalty(batch, draws, task, backward, heads)
            self.alpha.zero_grad()
            alpha_loss = -0.5 * self.log_alpha.exp().clamp(max=1e6) * (penalty - settings.budget)
            torch.autograd.backward(alpha_loss, retain_graph=True)
            self.alpha.step()
            loss = loss + self.log_alpha.exp().clamp(max=1e6).detach() * penalty
        self.representation.zero_grad()
        torch.autograd.backward(loss)
        _clamp([*model.forward.parameters(), *model.backward.parameters()])
        self.representation.step()
        chosen = noisy(model.actor(observation, task), draws.actor_noise)
        first, second = model.forward(observation, chosen, task)
        actor_loss = -torch.minimum((first * task).sum(-1), (second * task).sum(-1)).mean()
        self.actor.zero_grad()
        torch.autograd.backward(actor_loss)
        _clamp([*model.actor.parameters()])
        self.actor.step()
        _follow(self.target_forward, model.forward, settings.polyak)
        _follow(self.target_backward, model.backward, settings.polyak)

    def _penalty(
        self, batch: Batch, draws: Draws, task: Tensor, backward: Tensor, data: Tensor
    ) -> Tensor:
        observation, action, following, _ = batch
        actor = self.model.actor
        actions = [*draws.uniform]
        actions += [noisy(actor(observation, task), noise) for noise in draws.policy_noise]
        actions += [noisy(actor(following, task), noise) for noise in draws.next_noise]
        actions += [action, action]
        uniform_and_policy = len(draws.uniform) + len(draws.policy_noise)
        states = [observation] * uniform_and_policy + [following] * len(draws.next_noise)
        states += [observation, observation]
        count = len(actions)
        heads = self.model.forward(torch.cat(states), torch.cat(actions), task.repeat(count, 1))
        candidates: Tensor = heads.unflatten(1, (count, len(task)))
        if self.settings.method == "mc-fb":
            spread: Tensor = (candidates @ backward.T).logsumexp(1).mean((1, 2)).sum()
            return spread - (data @ backward.T).mean((1, 2)).sum()
        spread = (candidates * task).sum(-1).logsumexp(1).mean(1).sum()
        return spread - (data * task).sum(-1).mean(1).sum()


def _clamp(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.clamp_(-1.0, 1.0)


def _follow(target: nn.Module, source: nn.Module, share: float) -> None:
    with torch.no_grad():
        for old, new in zip(target.parameters(), source.parameters(), strict=True):
            old.copy_(share * new + (1.0 - share) * old)
