"""Diversity is all you need (Eysenbach et al. 2019): skills that tell themselves apart.

As in the Unsupervised Reinforcement Learning Benchmark there are 16 one-hot skills, a new one at
the start of an episode and every 50 steps, and the reward of a row is log q(skill | s') + log 16,
with q before its step on this batch. s' is three steps later, rarely under the next skill.
"""

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from safectl_agents.fb.ddpg import ActorCritic, Explorer, ExplorerSettings, Rows

SKILLS, SKILL_STEPS = 16, 50


class DIAYNNetworks(ActorCritic):
    """Actor and twin critic that see the skill, and the discriminator q, which does not."""

    def __init__(self, nx: int, nu: int, hidden: int) -> None:
        super().__init__(nx + SKILLS, nu, hidden)
        self.discriminator = nn.Sequential(
            *(nn.Linear(nx, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, SKILLS),
        )
        self.initialise()


class DIAYNAgent(Explorer[DIAYNNetworks]):
    """Goes where the discriminator knows its skill.

    Args:
        nx: Observations.
        nu: Actions.
        settings: Sizes.
        generator: Source of all its randomness, on the device of the networks.
    """

    def __init__(
        self, nx: int, nu: int, settings: ExplorerSettings, generator: torch.Generator
    ) -> None:
        make = partial(DIAYNNetworks, nx, nu, settings.hidden)
        super().__init__(make, "discriminator", nu, settings, generator)
        self.skill = np.zeros(SKILLS, np.float32)

    def begin_step(self, step: int) -> None:
        """Draw a new skill where one is due."""
        if step % SKILL_STEPS == 0:
            device = self.generator.device
            drawn = torch.randint(SKILLS, (), generator=self.generator, device=device)
            self.skill = np.eye(SKILLS, dtype=np.float32)[int(drawn)]

    def learn_reward(self, rows: Rows) -> Tensor:
        """Fit the discriminator; return how well it had told the skills from s'."""
        logits = self.networks.discriminator(rows.there)
        error = functional.cross_entropy(logits, rows.skill.argmax(-1), reduction="none")
        self.descend("discriminator", error.mean())
        return math.log(SKILLS) - error.detach()
