"""The learned safeguard of a trainer, standing alone."""

from dataclasses import replace

import torch
from gymnasium.spaces import Box

from safectl.errors import ConfigError
from safectl.safeguards.acs import ACS, ACSOptions
from safectl.safeguards.fallback import Brake
from safectl.spec import Spec
from safectl_agents.acs.critic import PolicyCritic
from safectl_agents.acs.lower import Actors, Lower
from safectl_agents.acs.projection import Projection
from safectl_envs.signals import spec_of_boxes


def safeguard_of(
    lower: Lower, actors: Actors, observation: Box, action: Box, *, spec: Spec | None = None
) -> ACS:
    """Return a trainer's projection as a safeguard on actions in their units.

    The trainer measures distances in actions scaled to [-1, 1]; the safeguard measures them in
    units, which leads to the same action only where all have limits of one width.

    Args:
        lower: The trainer's; its critic is shared, not copied.
        actors: The trainer's policy, for V_c.
        observation: Space of the observations.
        action: Space of the actions.
        spec: Signals of the robot; numbered signals of unknown unit without.

    Raises:
        ConfigError: If the lower layer has no cost critic and projection, or the limits of the
            actions are of different widths.
    """
    if not isinstance(lower, Projection):
        name = type(lower).__name__
        raise ConfigError("lower layer", f"{name} is no projection with a cost critic")
    low, high = (torch.as_tensor(end, dtype=torch.float32) for end in (action.low, action.high))
    half = 0.5 * (high - low)
    if not torch.allclose(half, half[0]):
        widths = f"the limits have the widths {(2.0 * half).tolist()}, expected are equal ones"
        advice = "train on actions that gymnasium.wrappers.RescaleAction scales"
        raise ConfigError("the safeguard of a trainer", f"{widths}: {advice}")
    critic = PolicyCritic(lower.learner.critic_target, actors.now, low + half, half)
    correction = lower.settings.correction
    unit = float(half[0])
    step, penalty = correction.step * unit, correction.penalty * unit**2
    return ACS(
        critic,
        fallback=Brake(spec or spec_of_boxes(observation, action)),
        options=ACSOptions(lower.settings.bound, replace(correction, step=step, penalty=penalty)),
    )
