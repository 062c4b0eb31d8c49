"""Episodes of Gymnasium's locomotion tasks in which a diffusion planner chooses the actions.

Nothing stands between the plan and the robot: what is measured on the executed states says how far
a plan that meets its specification is from a robot that does.
"""

from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from safectl.errors import RangeError, ShapeError
from safectl.planners import DiffusionPlanner
from safectl.seed import derive
from safectl.types import Status
from safectl_agents.diffusion.metrics import REFERENCES, normalised_score

_RESET_BITS = 31


class Episodes(NamedTuple):
    """What happened, shape (episodes,) each.

    Attributes:
        total: Sum of rewards.
        length: Steps until the task failed or the time was over.
        margin: Smallest barrier at the executed states, in its unit.
        violating: Share of executed states at which a barrier is below zero.
        plan_margin: Smallest margin of all plans that were certified; infinity without one.
        certified: Share of plans that were certified; of the others the fallback is followed.
    """

    total: Float[Tensor, " episodes"]
    length: Int[Tensor, " episodes"]
    margin: Float[Tensor, " episodes"]
    violating: Float[Tensor, " episodes"]
    plan_margin: Float[Tensor, " episodes"]
    certified: Float[Tensor, " episodes"]

    def facts(self, env: str) -> dict[str, float]:
        """Return the figures of a table; a score only where D4RL has a reference."""
        world = env.partition("-")[0]
        found = {
            "episodes": float(len(self.total)),
            "return": float(self.total.mean()),
            "steps": float(self.length.double().mean()),
            "executed_margin": float(self.margin.min()),
            "executed_violations": float(self.violating.mean()),
            "plan_margin": float(self.plan_margin.min()),
            "plans_certified": float(self.certified.mean()),
        }
        if world in REFERENCES:
            found["score"] = float(normalised_score(self.total, world).mean())
        return found


@torch.no_grad()
def run_episodes(
    env: str, planner: DiffusionPlanner, *, episodes: int, steps: int, every: int = 1, seed: int = 0
) -> Episodes:
    """Plan for all episodes at once, execute the first actions of each plan, and plan again.

    Args:
        env: Gymnasium id.
        planner: Without a goal.
        episodes: How many.
        steps: Longest episode.
        every: Actions of a plan that are executed.
        seed: Of the first states.

    Raises:
        RangeError: If a number is below one, or `every` beyond the horizon.
        ShapeError: If the model is of another robot.
    """
    for name, number in (("episodes", episodes), ("steps", steps), ("every", every)):
        if number < 1:
            raise RangeError(name, value=number, expected="at least 1")
    if every > planner.model.horizon:
        expected = f"at most the horizon {planner.model.horizon}"
        raise RangeError("every", value=every, expected=expected)
    worlds = [gymnasium.make(env) for _ in range(episodes)]
    try:
        return _run(worlds, planner, steps, every, seed)
    finally:
        for world in worlds:
            world.close()


def _run(
    worlds: list[gymnasium.Env[Any, Any]],
    planner: DiffusionPlanner,
    steps: int,
    every: int,
    seed: int,
) -> Episodes:
    """Keep the last observation of an episode that is over; nothing of it is counted."""
    seeds = [derive(seed, f"episode {i}") >> (63 - _RESET_BITS) for i in range(len(worlds))]
    rows = [world.reset(seed=own)[0] for world, own in zip(worlds, seeds, strict=True)]
    observation = torch.as_tensor(np.stack(rows), dtype=torch.float32)
    expected = (planner.model.nx,)
    if observation.shape[1:] != expected:
        raise ShapeError("observation", expected=expected, got=tuple(observation.shape[1:]))
    spaces = worlds[0].action_space
    assert isinstance(spaces, gymnasium.spaces.Box), "locomotion pushes"
    low, high = torch.as_tensor(spaces.low), torch.as_tensor(spaces.high)
    zero = torch.zeros(len(worlds))
    total, length = zero.clone(), zero.long()
    margin, violating = _margin(planner, observation), zero.clone()
    plan_margin, certified, plans = zero + torch.inf, zero.clone(), zero.clone()
    violating += (~(margin >= 0.0)).to(zero)
    alive = zero == 0.0
    actions = zero.new_zeros(len(worlds), 0, planner.model.nu)
    for step in range(steps):
        if step % every == 0:
            plan = planner.plan(observation)
            actions = plan.actions
            good = plan.certificate.status != Status.FALLBACK.value
            found = torch.where(alive & good, plan.certificate.margin, torch.inf)
            plan_margin = torch.minimum(plan_margin, found)
            certified, plans = certified + (alive & good).to(zero), plans + alive.to(zero)
        action = actions[:, step % every].float().clamp(low, high).numpy()
        for row in alive.nonzero()[:, 0].tolist():
            state, reward, failed, over, _ = worlds[row].step(action[row])
            observation[row] = torch.as_tensor(state, dtype=torch.float32)
            total[row] += float(reward)
            alive[row] = not (failed or over)
            length[row] = step + 1
        measured = _margin(planner, observation)
        margin = torch.minimum(margin, measured)
        violating += (~(measured >= 0.0) & (length == step + 1)).to(zero)
        if not bool(alive.any()):
            break
    return Episodes(total, length, margin, violating / (length + 1), plan_margin, certified / plans)


def _margin(planner: DiffusionPlanner, observation: Tensor) -> Float[Tensor, " episodes"]:
    """Return the smallest barrier of each row, which stand still."""
    state = torch.cat([observation, torch.zeros_like(observation[:, :1])], 1)
    return planner.specification.values(state).amin(1)
