"""The learned safeguard of a trainer, standing alone."""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from gymnasium.spaces import Box, Space

from safectl.errors import ConfigError
from safectl.safeguards.acs import ACS, ACSOptions
from safectl.safeguards.fallback import Brake
from safectl.spec import Spec
from safectl_agents.acs.critic import PolicyCritic
from safectl_agents.acs.lower import Actors, Lower
from safectl_agents.acs.projection import Projection
from safectl_envs.signals import spec_of_boxes


@runtime_checkable
class HasLower(Protocol):
    """A trainer with a lower layer."""

    observation_space: Space
    action_space: Space

    @property
    def lower(self) -> Lower:
        """The lower layer."""
        ...

    @property
    def actors(self) -> Actors:
        """The task policy."""
        ...


def safeguard_of(model: HasLower, spec: Spec | None = None) -> ACS:
    """Return a trainer's projection as a safeguard on actions in their units.

    Args:
        model: The trainer; its critic and policy are shared, not copied.
        spec: Signals of the robot; numbered signals of unknown unit without.

    Raises:
        ConfigError: If the lower layer has no cost critic and projection.
    """
    lower, box = model.lower, model.action_space
    if not isinstance(lower, Projection):
        name = type(lower).__name__
        raise ConfigError("lower layer", f"{name} is no projection with a cost critic")
    assert isinstance(box, Box), "the library allows no other"
    low, high = (torch.as_tensor(end, dtype=torch.float32) for end in (box.low, box.high))
    half = 0.5 * (high - low)
    critic = PolicyCritic(lower.learner.critic_target, model.actors.now, low + half, half)
    correction = lower.settings.correction
    step = correction.step * float(half.max())
    return ACS(
        critic,
        fallback=Brake(spec or spec_of_boxes(model.observation_space, box)),
        options=ACSOptions(lower.settings.bound, replace(correction, step=step)),
    )
