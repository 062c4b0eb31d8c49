"""Goal-conditioned implicit Q-learning (GC-IQL): zero-shot, learned from trajectories alone.

Implicit Q-learning (Kostrikov, Nair and Levine 2021, arXiv 2110.06169) without Q, as goal-reaching
has it (Park et al. 2023, arXiv 2307.11949): the reward is -1 until s is the goal.
"""

import copy
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from safectl.errors import FileFormatError
from safectl.models.imitation import advantage_weights, imitation_loss
from safectl.models.saved import load_named_state, named_state
from safectl_agents.fb.baselines import parts
from safectl_agents.fb.baselines.parts import Perceptron, Twins
from safectl_agents.fb.domains import Domain
from safectl_agents.fb.episodes import Transitions
from safectl_agents.fb.evaluate import Policies, make_labels
from safectl_agents.fb.settings import FBConfig

EXPECTILE, TEMPERATURE = 0.7, 1.0
FUTURE, SAME = 0.5, 0.3
"""Shares of goals that follow in the same trajectory, and that are drawn from it; the rest are the
present state."""
_FUTURE_DISCOUNT = 0.99
_POLYAK = 0.005


def expectile_loss(
    value: Float[Tensor, "heads batch"],
    aim: Float[Tensor, "heads batch"],
    advantage: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Return sum_k mean |0.7 - 1(A < 0)| (aim_k - V_k)^2, without gradient in aim and A."""
    weight = torch.where(advantage < 0.0, 1.0 - EXPECTILE, EXPECTILE)
    return (weight * (aim.detach() - value).square()).mean(-1).sum()


def choose_goals(
    rows: Int[Tensor, " batch"],
    place: Int[Tensor, "data 2"],
    generator: torch.Generator,
) -> tuple[Int[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """Return the row of a goal per row, and whether it is the present state itself.

    Half of them lie a geometric number of steps (mean 100) ahead in the same trajectory, three in
    ten anywhere in it, the others are the present state. Of data with gaps the next row counts.

    Args:
        rows: Of the batch.
        place: As in `Transitions`: increasing.
        generator: Source of the choice.
    """
    device = generator.device
    number, last = place[:, 0].contiguous(), place[:, 1].contiguous()
    kind, share = torch.rand((2, len(rows)), generator=generator, device=device)
    steps = torch.empty(len(rows), device=device).geometric_(
        1.0 - _FUTURE_DISCOUNT, generator=generator
    )
    final = torch.searchsorted(number, last[rows], right=True) - 1
    first = torch.searchsorted(last, last[rows])
    ahead = torch.searchsorted(number, number[rows] + steps.long()).minimum(final)
    anywhere = first + (share * (final - first + 1)).long()
    goals = torch.where(kind < FUTURE, ahead, anywhere)
    goals = torch.where(kind < FUTURE + SAME, goals, rows)
    return goals, goals == rows


class GCIQL:
    """Learns from transitions; the arguments are those of every method.

    Raises:
        FileFormatError: If it is not known which transitions follow each other.
    """

    def __init__(self, config: FBConfig, domain: Domain, transitions: Transitions) -> None:
        if transitions.place is None:
            advice = "load them with load_transitions"
            raise FileFormatError("the data", "do not say which episode a row is of", advice)
        self._config, self._facts = config, domain.facts
        nx, nu = domain.nx, domain.nu
        with parts.first_weights(config.seed, "gc-iql"):
            self.value = Twins(2 * nx, config.hidden).to(config.device)
            self.actor = nn.Sequential(Perceptron(2 * nx, config.hidden, nu), nn.Tanh())
        self.actor.to(config.device)
        self.target = copy.deepcopy(self.value).requires_grad_(False)
        self._rows = parts.rows_of(transitions, config.device)
        self._place = torch.from_numpy(transitions.place).to(config.device)
        self._labels = make_labels(config.domain, transitions, config.labels, seed=0)
        self._optimizers = {"value": parts.adam(self.value), "actor": parts.adam(self.actor)}

    def update(self, step: int) -> dict[str, Tensor]:
        """Take one step of the values and of the policy."""
        chosen, generator = parts.batch_of(self._config, step, len(self._place))
        batch = self._rows.at(chosen)
        goals, reached = choose_goals(chosen, self._place, generator)
        goal = self._rows.observation[goals]
        reward = reached.float() - 1.0
        discount = self._config.gamma * batch.discount * (1.0 - reached.float())
        with torch.no_grad():
            following = self.target(batch.next_observation, goal)
            aim = reward + discount * following
            smaller = reward + discount * following.amin(0)
            advantage = smaller - self.target(batch.observation, goal).mean(0)
        fit = expectile_loss(self.value(batch.observation, goal), aim, advantage)
        parts.descend(self._optimizers["value"], fit)
        with torch.no_grad():
            here = self.value(batch.observation, goal).mean(0)
            gain = reward + discount * self.value(batch.next_observation, goal).mean(0) - here
            weight = advantage_weights(gain, TEMPERATURE)
        mean = self.actor(torch.cat([batch.observation, goal], -1))
        loss = imitation_loss(mean, batch.action, weight)
        parts.descend(self._optimizers["actor"], loss)
        parts.follow(self.target, self.value, _POLYAK)
        return {
            "value_loss": fit.detach(),
            "actor_loss": loss.detach(),
            "value": here.mean(),
            "weight": weight.mean(),
        }

    def policies(self) -> Policies:
        """Return the policies of the tasks that have a goal or a rewarded observation."""
        device = self._config.device
        found = {name: self._goal(name) for name in self._facts.tasks}
        goals = {name: goal.to(device) for name, goal in found.items() if goal is not None}

        def act(observation: Tensor) -> Tensor:
            rows = observation.to(device)
            wanted = torch.stack(list(goals.values()))[:, None].expand_as(rows)
            action: Tensor = self.actor(torch.cat([rows, wanted], -1))
            return action

        return Policies(tuple(goals), act)

    def _goal(self, name: str) -> Tensor | None:
        """Return the goal of a task: its own, or the observation with the largest reward."""
        if name in self._facts.goals:
            return torch.tensor(self._facts.goals[name])
        reward = self._labels.rewards[name]
        return self._labels.observation[reward.argmax()] if bool((reward > 0.0).any()) else None

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next update depends on."""
        return named_state(self._modules(), self._optimizers)

    def load_state(self, named: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned."""
        load_named_state(named, self._modules(), self._optimizers)

    def _modules(self) -> dict[str, nn.Module]:
        return {"value": self.value, "actor": self.actor, "target": self.target}
