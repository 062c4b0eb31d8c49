"""The methods of a diffusion planner side by side, on the same starts and one model."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import RangeError, UnknownNameError
from safectl.planners import PlanFollower, PlanModel, Proposal, Specification, Step
from safectl.seed import torch_generator
from safectl.types import Certificate, Plan, Status
from safectl_agents.diffusion.methods import make_planner
from safectl_agents.diffusion.metrics import acceleration, curvature, normalised_score
from safectl_agents.diffusion.model import load_model
from safectl_agents.diffusion.pictures import Scene, Stage
from safectl_agents.diffusion.reachable import require_way
from safectl_agents.diffusion.rollouts import roll_out
from safectl_agents.diffusion.specifications import named_barriers
from safectl_envs import maze2d
from safectl_envs.maze_layout import LAYOUTS, WALL_LOW

SHIPPED = Path(__file__).parent / "shipped" / "umaze"
"""A small model of the umaze; `metrics.json` beside it holds the command that trained it."""
START_CELL = {"umaze": (3, 3), "medium": (1, 1), "large": (1, 3)}
"""From here the goal is within a plan's horizon."""
_START_JITTER, _START_SPEED = 0.1, 0.1  # as resets of maze2d [m], [m/s]
_RADIUS = 0.1  # of the mass, by which grown walls are larger [m]


class Setup(NamedTuple):
    """A model with its world: where plans begin, end, and what they are drawn over."""

    model: PlanModel
    specification: Specification
    world: str
    goal: Float[Tensor, " nx"]
    scene: Scene


class Compared(NamedTuple):
    """Plans of one method with their stages, the time they took and that of the processor [s].

    `score` is the return of following each plan once, without a safeguard, as D4RL counts it;
    `period` is the time between two states [s].
    """

    proposal: Proposal
    stages: list[Stage]
    seconds: float
    processor_seconds: float
    score: Float[Tensor, " batch"]
    period: float

    def row(self, steps: int) -> dict[str, float]:
        """Return the figures of a table, in the unit of the barriers.

        `s_spec` is the smallest margin of the first barrier, `c_spec` that of all others.
        """
        evidence = self.proposal.evidence
        rows = len(evidence.jumps)
        margins = evidence.margins.amin(0).tolist()
        return {
            "s_spec": margins[0],
            "c_spec": min(margins[1:] or margins),
            "waypoints_safe": float((evidence.margins >= 0.0).all(-1).double().mean()),
            "plans_safe": float(evidence.is_safe.double().mean()),
            "segment_margin": float(evidence.segment_margin.min()),
            "score": float(self.score.mean()),
            "score_deviation": float(self.score.double().std(correction=0)),
            "trap_rate": float((evidence.jumps >= 1).double().mean()),
            "trap_2_rate": float((evidence.jumps >= 2).double().mean()),
            "curvature": float(curvature(self.proposal.states[..., :2]).mean()),
            "acceleration": float(acceleration(self.proposal.states[..., :2], self.period).mean()),
            "corrected_share": float(evidence.corrected.mean()),
            "clipped_share": float(evidence.clipped.mean()),
            "ms_per_step_of_the_batch": 1e3 * self.seconds / steps,
            "processor_ms_per_step_of_the_batch": 1e3 * self.processor_seconds / steps,
            "plans": float(rows),
        }


def set_up(
    folder: Path,
    *,
    specification: str | None = None,
    device: str = "cpu",
    captures: bool = True,
) -> Setup:
    """Load a model of a maze and compile a specification for it; by default that of the maze.

    Args:
        folder: Of the model.
        specification: A name; that of the maze without.
        device: Where to plan.
        captures: On a GPU, capture the network as a graph.

    Raises:
        FileFormatError: If the folder holds no model.
        UnknownNameError: If the model is of no maze, or there is no such specification.
    """
    model, config, _ = load_model(folder, device=device, captures=captures)
    if config.dataset not in LAYOUTS:
        raise UnknownNameError("maze", config.dataset, known=list(LAYOUTS))
    layout = LAYOUTS[config.dataset]
    barriers = named_barriers(specification or config.dataset)
    compiled = Specification(barriers, model.observation_normaliser)
    goal = torch.tensor([*map(float, layout.goal), 0.0, 0.0], device=device)
    corner = WALL_LOW + _RADIUS
    walls = [(row + corner, column + corner) for row, column in layout.walls.nonzero().tolist()]
    high = (layout.shape[0] + corner - 0.6, layout.shape[1] + corner - 0.6)
    low = (corner + 0.6, corner + 0.6)
    place = (float(goal[0]), float(goal[1]))
    scene = Scene(compiled, walls, low, high, place, model.period)
    return Setup(model, compiled, config.dataset, goal, scene)


def draw_starts(
    setup: Setup, count: int, *, seed: int = 0, cell: tuple[float, float] | None = None
) -> Float[Tensor, "count nx"]:
    """Draw starts about a cell as maze2d resets do: +-0.1 m per axis, 0.1 m/s.

    Raises:
        UnknownNameError: If there is no cell for the maze.
    """
    if cell is None and setup.world not in START_CELL:
        raise UnknownNameError("start cell of the maze", setup.world, known=list(START_CELL))
    centre = torch.tensor(START_CELL[setup.world] if cell is None else cell, dtype=torch.float32)
    generator = torch_generator(seed, "starts of plans")
    jitter = _START_JITTER * (2.0 * torch.rand(count, 2, generator=generator) - 1.0)
    speed = _START_SPEED * torch.randn(count, 2, generator=generator)
    return torch.cat([centre + jitter, speed], dim=1).to(setup.goal.device)


def compare(
    setup: Setup,
    starts: Float[Tensor, "batch nx"],
    methods: Sequence[str],
    *,
    steps: int | None = None,
    eta: float = 0.0,
    seed: int = 0,
) -> dict[str, Compared]:
    """Plan from the same starts with several methods.

    Raises:
        RangeError: If a start or the goal violates the specification or lies in a wall, or no way
            leads from one to the other.
        UnknownNameError: If there is no such method.
    """
    _require_free(setup, torch.cat([starts, setup.goal.unsqueeze(0)]))
    require_way(setup.specification, LAYOUTS[setup.world], starts, setup.goal)
    found = {}
    for method in methods:
        planner = make_planner(
            method,
            setup.model,
            setup.specification,
            setup.goal,
            steps=steps,
            eta=eta,
            seed=seed,
            device=str(setup.goal.device),
        )
        planner.require_start(starts)
        stages = list[Stage]()

        def keep(step: Step, plan: Tensor, stages: list[Stage] = stages) -> None:
            first = plan[:: len(plan) // len(starts)]  # of the candidates of each start
            stages.append(Stage(f"t = {step.at}", _places(setup.model, first)))

        started, processor = time.perf_counter(), time.process_time()
        proposal = planner.propose(starts, watch=keep)
        seconds, processor = time.perf_counter() - started, time.process_time() - processor
        stages.append(Stage("returned", proposal.states.cpu()))
        score = _score(setup, proposal, starts)
        period = setup.model.period
        found[method] = Compared(proposal, stages, seconds, processor, score, period)
    return found


@dataclass(frozen=True, slots=True)
class _Given:
    """A planner that has made its plans already."""

    proposal: Proposal

    def plan(self, observation: Float[Tensor, "batch nx"], /) -> Plan:
        states, actions, evidence = self.proposal
        status = torch.full((len(observation),), Status.KEPT.value, dtype=torch.int8)
        zero = torch.zeros(len(observation))
        return Plan(states, actions, Certificate(status, evidence.segment_margin, zero, zero))


def _require_free(setup: Setup, states: Tensor) -> None:
    """Refuse the first start or goal that lies in a wall or outside the maze."""
    walled = LAYOUTS[setup.world].touches(states[:, :2].double())
    if bool(walled.any()):
        place = [round(float(entry), 3) for entry in states[walled][0, :2]]
        expected = f"a place in the free space of the maze {setup.world}"
        raise RangeError("start or goal", value=place, expected=expected)


def _score(setup: Setup, proposal: Proposal, starts: Tensor) -> Tensor:
    world = maze2d(setup.world)
    proposal = Proposal(proposal.states.cpu(), proposal.actions.cpu(), proposal.evidence)
    follower = PlanFollower(_Given(proposal), world.spec)
    barriers = setup.specification.barriers
    total = roll_out(world, follower, starts.cpu(), barriers, guard=None).total
    return normalised_score(total, world.name)


def _places(model: PlanModel, plan: Tensor) -> Tensor:
    return model.observation_normaliser.unnormalise(plan[..., model.nu :]).cpu()
