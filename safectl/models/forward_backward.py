"""A forward-backward model: one training without rewards, a policy for every task.

It is called a world model because it is asked about a world it has learned; it predicts how often
states will be visited and neither generates states nor plans.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from safectl.errors import ShapeError
from safectl.models.measure import values
from safectl.models.networks import Actor, Backward, Forward, Sizes
from safectl.models.tasks import infer_from_goal, infer_from_rewards
from safectl.seed import derive
from safectl.types import Task


class ForwardBackward:
    """F, B and the policy as a `WorldModel`.

    Args:
        sizes: Widths of the networks.
        seed: Of the first weights.
    """

    def __init__(self, sizes: Sizes, *, seed: int = 0) -> None:
        self.sizes = sizes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "forward-backward"))
            self.forward, self.backward, self.actor = Forward(sizes), Backward(sizes), Actor(sizes)

    @property
    def networks(self) -> nn.ModuleDict:
        """The three networks by name, for weights and devices."""
        return nn.ModuleDict(
            {"forward_net": self.forward, "backward_net": self.backward, "actor": self.actor}
        )

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take over weights named as in `networks`."""
        self.networks.load_state_dict(dict(weights))

    @torch.no_grad()
    def unscaled(self) -> "ForwardBackward":
        """Return the same functions, on the CPU, with the scale in the first weights."""
        same = ForwardBackward(replace(self.sizes, observation_scale=()))
        same.load(self.networks.state_dict())
        for layers in (
            *(same.forward.action_embedding, same.forward.task_embedding, same.backward.layers),
            *(same.actor.observation_embedding, same.actor.task_embedding),
        ):
            assert isinstance(layers, nn.Sequential)
            first = layers[0]
            assert isinstance(first, nn.Linear)
            first.weight[:, : self.sizes.nx] *= self.sizes.gain
        return same

    def infer(self, observation: Shaped[Tensor, "..."], reward: Shaped[Tensor, "..."], /) -> Task:
        """Find the task vector from next observations and the rewards on entering them.

        Raises:
            ShapeError, NonFiniteError, TaskNotInferable: As `infer_from_rewards`.
        """
        self._require_width("observation", observation, self.sizes.nx)
        return infer_from_rewards(self.backward, observation, reward)

    def infer_goal(self, goal: Shaped[Tensor, "..."]) -> Task:
        """Find the task vector of reaching an observation.

        Raises:
            ShapeError, NonFiniteError: As `infer_from_goal`.
        """
        self._require_width("goal", goal, self.sizes.nx)
        return infer_from_goal(self.backward, goal)

    @torch.no_grad()
    def act(self, observation: Shaped[Tensor, "..."], task: Task, /) -> Float[Tensor, "batch nu"]:
        """Return the mean action of the task's policy per row, in [-1, 1].

        Raises:
            ShapeError: If a width is not that of the model.
        """
        action: Tensor = self.actor(observation, self._rows(observation, task))
        return action

    @torch.no_grad()
    def value(
        self,
        observation: Shaped[Tensor, "..."],
        action: Shaped[Tensor, "..."],
        task: Task,
        /,
    ) -> Float[Tensor, " batch"]:
        """Predict the discounted reward from the next state on: min_k F_k(s, a, z)^T z.

        It is in the unit of the reward only if z is the unscaled mean of r B; `infer` scales z.

        Raises:
            ShapeError: If a width is not that of the model.
        """
        rows = self._rows(observation, task)
        return values(self.forward(observation, action, rows), rows).amin(0)

    def _rows(self, observation: Tensor, task: Task) -> Tensor:
        self._require_width("observation", observation, self.sizes.nx)
        self._require_width("task", task.vector, self.sizes.nz)
        return task.vector.to(observation).expand(len(observation), -1)

    def _require_width(self, name: str, values: Tensor, width: int) -> None:
        if values.shape[-1:] != (width,):
            expected = (*values.shape[:-1], width)
            raise ShapeError(name, expected=expected, got=tuple(values.shape))
