"""One update of a forward-backward model as a function of a batch and of random numbers.

All random numbers are drawn before, by `draw`; so an update can be repeated, and compared with
another implementation number by number. Nothing here names a device.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from safectl.errors import RangeError
from safectl.models import conservative, imitation, measure
from safectl.models.forward_backward import ForwardBackward
from safectl.models.networks import Forward, noisy
from safectl.models.saved import load_named_state, named_state
from safectl.models.tasks import sample_tasks
from safectl.models.update import DISCOUNT, Batch, Draws, UpdateSettings

_CLAMP = 1.0
"""Bound on every entry of a gradient before the step of Adam."""


class _Compared(NamedTuple):
    """F of the candidates and of the data, at tasks."""

    candidates: conservative.Candidates
    data: Tensor
    task: Tensor


class Learner:
    """A model with its target networks, optimisers and alpha.

    Args:
        model: The model, whose weights it changes.
        settings: How it learns.
        discount: Per step.

    Raises:
        RangeError: If the discount lies outside (0, 1).
    """

    def __init__(
        self, model: ForwardBackward, settings: UpdateSettings, *, discount: float = DISCOUNT
    ) -> None:
        if not 0.0 < discount < 1.0:
            raise RangeError("discount", value=discount, expected="a number in (0, 1)")
        self.model, self.settings, self.discount = model, settings, discount
        self.target_forward = copy.deepcopy(model.forward).requires_grad_(False)
        self.target_backward = copy.deepcopy(model.backward).requires_grad_(False)
        device = next(model.actor.parameters()).device
        self.log_alpha = torch.tensor(settings.first_alpha, device=device).log()
        self._represented: list[Tensor] = [
            *model.forward.parameters(),
            *model.backward.parameters(),
        ]
        self._targets: list[Tensor] = [
            *self.target_forward.parameters(),
            *self.target_backward.parameters(),
        ]
        self._acting: list[Tensor] = [*model.actor.parameters()]
        self.optimizers = {
            "representation": _adam(self._represented, settings.learning_rate),
            "actor": _adam(self._acting, settings.actor_learning_rate),
            "alpha": _adam([self.log_alpha], settings.alpha_learning_rate),
        }

    def update(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Take one step of F, B, alpha and the policy, then move the targets.

        Returns:
            Scalars without gradient: losses, penalty, alpha, and what shows divergence. `mass` is
            the mean of F^T B over the batch and should approach 1 / (1 - discount).
        """
        with torch.no_grad(), self._precision(batch):
            task = sample_tasks(
                self.model.backward(batch.observation).float(),
                *(draws.normal, draws.from_data, draws.shuffle),
            )
        metrics = self._represent(batch, draws, task)
        metrics |= self._act(batch, draws, task)
        with torch.no_grad():
            torch._foreach_lerp_(self._targets, self._represented, self.settings.polyak)
        return {name: value.detach() for name, value in metrics.items()}

    def _represent(self, batch: Batch, draws: Draws, task: Tensor) -> dict[str, Tensor]:
        """Step F, B and alpha."""
        settings, model = self.settings, self.model
        discount = self.discount * batch.discount
        with self._precision(batch):
            mean_next, target_forward, target = self._target(batch, draws, task)
            backward = model.backward(batch.next_observation).float()
            compared = self._compare(batch, draws, (task, mean_next), backward.detach())
            if compared is not None and compared.task is task:
                forward = compared.data
            else:
                forward = model.forward(batch.observation, batch.action, task).float()
        densities = measure.densities(forward, backward)
        fit = measure.measure_loss(densities, target, discount)
        orthonormality = measure.orthonormality_loss(backward)
        loss = fit + settings.orthonormality * orthonormality
        if settings.value_weight:
            residual = measure.value_loss(forward, target_forward, backward, task, discount)
            loss = loss + settings.value_weight * residual
        metrics = {
            "measure_loss": fit,
            "orthonormality_loss": orthonormality,
            "mass": densities.mean(),
            "target": target.mean(),
            "forward_norm": forward.norm(dim=-1).mean(),
        }
        if compared is not None:
            if settings.method == "mc-fb":
                penalty = conservative.measure_penalty(compared.candidates, forward, backward)
            else:
                penalty = conservative.value_penalty(*compared)
            alpha = self._step_alpha(penalty)
            loss = loss + alpha * penalty
            metrics |= {"penalty": penalty, "alpha": alpha}
        self._step("representation", self._represented, loss)
        return metrics

    @torch.no_grad()
    def _target(self, batch: Batch, draws: Draws, task: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the policy's mean at s', the target F there, and the density it predicts."""
        mean = self.model.actor(batch.next_observation, task).float()
        action = noisy(mean, draws.target_noise)
        forward = self.target_forward(batch.next_observation, action, task).float()
        backward = self.target_backward(batch.next_observation).float()
        with torch.autocast(backward.device.type, enabled=False):
            heads = measure.densities(forward, backward)
        joined = heads.amin(0) if self.settings.target_heads == "min" else heads.mean(0)
        return mean, forward, joined

    def _act(self, batch: Batch, draws: Draws, task: Tensor) -> dict[str, Tensor]:
        """Step the policy; F is held fixed, so only its inputs get a gradient."""
        with self._precision(batch), _held(self._represented):
            mean = self.model.actor(batch.observation, task).float()
            if self.settings.actor == "aw":
                loss, value = self._imitate(batch, mean, task)
            else:
                action = noisy(mean, draws.actor_noise)
                forward = self.model.forward(batch.observation, action, task).float()
                loss = measure.actor_loss(forward, task)
                value = -loss
        self._step("actor", self._acting, loss)
        return {"actor_loss": loss, "value": value}

    def _imitate(self, batch: Batch, mean: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of FB-AW and the value of the policy.

        The advantage is A = min_k F_k(s, a, z)^T z - min_k F_k(s, mean, z)^T z.
        """
        with torch.no_grad():
            actions = torch.stack([batch.action, mean])
            forward = _at(self.model.forward, batch.observation, actions, task)
            data, own = measure.values(forward, task).amin(0)
            advantage = imitation.relative(data - own)
            weight = imitation.advantage_weights(advantage, self.settings.temperature)
        return imitation.imitation_loss(mean, batch.action, weight), own.mean()

    def _compare(
        self, batch: Batch, draws: Draws, shared: tuple[Tensor, Tensor], backward: Tensor
    ) -> _Compared | None:
        """Return what a penalty compares; the candidates share the parts of their tasks.

        Args:
            batch: Transitions.
            draws: Random numbers.
            shared: The tasks of the measure loss and the policy's mean at the next states.
            backward: B of the next states, from which DVC-FB takes its own tasks.
        """
        model, method = self.model, self.settings.method
        if method == "fb":
            return None
        task, mean_next = shared
        if method == "dvc-fb":
            task = backward[draws.shuffle]
            with torch.no_grad():
                mean_next = model.actor(batch.next_observation, task).float()
        with torch.no_grad():
            mean = model.actor(batch.observation, task).float()
            chosen = noisy(mean.expand_as(draws.policy_noise), draws.policy_noise)
            following = noisy(mean_next.expand_as(draws.next_noise), draws.next_noise)
        here = torch.cat([batch.action[None], draws.uniform, chosen])
        at_here = _at(model.forward, batch.observation, here, task)
        at_next = _at(model.forward, batch.next_observation, following, task)
        log_count = torch.zeros(len(here) + len(following), device=here.device)
        log_count[0] = math.log(conservative.DATA)
        candidates = conservative.Candidates(torch.cat([at_here, at_next], 1), log_count)
        return _Compared(candidates, at_here[:, 0], task)

    def _step_alpha(self, penalty: Tensor) -> Tensor:
        """Move log alpha against the gradient; return the new alpha."""
        if self.settings.alpha_learning_rate:
            budget = self.settings.budget
            self.log_alpha.grad = conservative.log_alpha_gradient(self.log_alpha, penalty, budget)
            self.optimizers["alpha"].step()
        return self.log_alpha.exp().clamp(max=conservative.MAX_ALPHA)

    def _step(self, name: str, parameters: list[Tensor], loss: Tensor) -> None:
        gradients = torch.autograd.grad(loss, parameters)
        torch._foreach_clamp_min_(gradients, -_CLAMP)
        torch._foreach_clamp_max_(gradients, _CLAMP)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizers[name].step()

    def _precision(self, batch: Batch) -> torch.autocast:
        kind = batch.observation.device.type
        is_short = self.settings.precision == "bfloat16"
        return torch.autocast(kind, torch.bfloat16, enabled=is_short)

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next update depends on, by name."""
        return {"log_alpha": self.log_alpha, **named_state(self._modules(), self.optimizers)}

    def load_state(self, named: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned.

        Raises:
            KeyError, RuntimeError: If it is the state of another model.
        """
        self.log_alpha.copy_(named["log_alpha"])
        load_named_state(named, self._modules(), self.optimizers)

    def _modules(self) -> dict[str, nn.Module]:
        return {
            "model": self.model.networks,
            "target_forward": self.target_forward,
            "target_backward": self.target_backward,
        }


@contextmanager
def _held(parameters: list[Tensor]) -> Iterator[None]:
    """Take the gradient from parameters for the length of a block."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _at(forward: Forward, observation: Tensor, actions: Tensor, task: Tensor) -> Tensor:
    repeated = observation.expand(len(actions), *observation.shape)
    return forward.at(repeated, actions, forward.task_part(observation, task)).float()


def _adam(parameters: list[Tensor], rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=rate, fused=True)
