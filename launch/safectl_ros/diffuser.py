"""A diffusion model as a planner whose goal can be set from outside."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import RangeError
from safectl.planners import DiffusionPlanner
from safectl.spec import require_same
from safectl.types import Plan
from safectl_agents.diffusion.compare import SHIPPED, set_up
from safectl_agents.diffusion.methods import make_planner
from safectl_agents.diffusion.model import load_model
from safectl_ros.kinds import Source
from safectl_ros.planners import DiffuserSettings


@dataclass(frozen=True, slots=True)
class MazePlanner:
    """Plans of a point mass, whose observation is its position and its velocity."""

    planner: DiffusionPlanner

    def plan(self, observation: Float[Tensor, "batch nx"], /) -> Plan:
        """Plan as `DiffusionPlanner`; states are row, column [m] and direction of motion [rad]."""
        states, actions, certificate = self.planner.plan(observation)
        heading = torch.atan2(states[..., 3], states[..., 2]).unsqueeze(-1)
        return Plan(torch.cat([states[..., :2], heading], -1), actions, certificate)

    def towards(self, goal: Sequence[float], /) -> "MazePlanner":
        """Return the same planner to another place, row and column [m], at rest.

        Raises:
            RangeError: If the goal is no place, or violates the specification.
        """
        if len(goal) != 2:
            raise RangeError("goal", value=tuple(goal), expected="row and column [m]")
        return MazePlanner(replace(self.planner, goal=torch.tensor([*goal, 0.0, 0.0])))


def build(settings: DiffuserSettings, source: Source) -> MazePlanner:
    """Build the planner.

    Raises:
        FileFormatError: If the folder holds no model.
        SpecMismatch: If the model is of another robot.
        UnknownNameError: If there is no such method or specification, or the model is of no maze.
        RangeError: If a number is out of range, or the goal violates the specification.
    """
    folder = source.path.parent / settings.model if settings.model else SHIPPED
    _, _, spec = load_model(folder)
    require_same(spec, source.spec, left_name=str(folder), right_name="the robot")
    setup = set_up(folder, specification=settings.specification or None)
    planner = MazePlanner(
        make_planner(
            settings.method,
            setup.model,
            setup.specification,
            setup.goal,
            steps=settings.steps,
            seed=settings.seed,
        )
    )
    return planner.towards(settings.goal) if settings.goal else planner
