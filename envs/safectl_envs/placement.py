"""Where things stand: random positions that keep apart, and the goals of an episode in order."""

import torch
from jaxtyping import Float
from torch import Tensor

_CANDIDATES = 8  # points drawn together per row
_ROUNDS = 32  # then the least bad point is taken; with eight discs this has not been seen


def place(
    placed: Float[Tensor, "batch objects 2"],
    gaps: Float[Tensor, " objects"],
    half_width: float,
    generator: torch.Generator,
) -> Float[Tensor, "batch 2"]:
    """Draw one point per row, uniform where it keeps its distance to what is there.

    Args:
        placed: Positions of other things, shape (batch, objects, 2), [m]; there may be none.
        gaps: Smallest distance to each of them, shape (objects,), [m].
        half_width: The point lies in the square [-half_width, half_width]^2 [m].
        generator: Source of randomness, on the device of `placed`.

    Returns:
        Positions, shape (batch, 2), [m]. A row without a free point after 256 candidates gets the
        candidate with the smallest overlap.
    """
    best, slack = _best_candidate(placed, gaps, half_width, generator)
    for _ in range(_ROUNDS):
        rows = (slack < 0.0).nonzero().squeeze(1)
        if not len(rows):
            break
        point, found = _best_candidate(placed[rows], gaps, half_width, generator)
        better = rows[found > slack[rows]]
        best[better] = point[found > slack[rows]]
        slack[better] = found[found > slack[rows]]
    return best


def draw_goals(
    obstacles: Float[Tensor, "batch objects 2"],
    start: Float[Tensor, "batch 2"],
    count: int,
    *,
    obstacle_gap: float,
    step_gap: float,
    half_width: float,
    generator: torch.Generator,
) -> Float[Tensor, "batch {count} 2"]:
    """Draw the goals of an episode, each away from the obstacles and from the one before.

    Args:
        obstacles: Positions, shape (batch, objects, 2), [m].
        start: Where the robot starts, shape (batch, 2), [m]; the first goal keeps away from it.
        count: Number of goals.
        obstacle_gap: Smallest distance between a goal and an obstacle [m].
        step_gap: Smallest distance between a goal and the one before [m].
        half_width: Goals lie in the square [-half_width, half_width]^2 [m].
        generator: Source of randomness.
    """
    gaps = torch.full((obstacles.shape[1] + 1,), obstacle_gap, device=start.device)
    gaps[-1] = step_gap
    goals = [start]
    for _ in range(count):
        placed = torch.cat([obstacles, goals[-1].unsqueeze(1)], 1)
        goals.append(place(placed, gaps, half_width, generator))
    return torch.stack(goals[1:], 1)


def points_of(flat: Float[Tensor, "batch coordinates"]) -> Float[Tensor, "batch points 2"]:
    """Read x, y, x, y, ... as points."""
    return flat.reshape(len(flat), -1, 2)


def current_goal(
    goals: Float[Tensor, "batch goals 2"], index: Float[Tensor, " batch"]
) -> Float[Tensor, "batch 2"]:
    """Pick goal `index`, shape (batch,), of every row; whole numbers stored as floats."""
    return goals.gather(1, index.long().view(-1, 1, 1).expand(-1, 1, 2)).squeeze(1)


def distance(
    one: Float[Tensor, "*points 2"], other: Float[Tensor, "*points 2"]
) -> Float[Tensor, "*points"]:
    """Return |one - other| [m]; faster than a norm over an axis of two, and than `hypot`."""
    x, y = (one - other).unbind(-1)
    return (x * x + y * y).sqrt()


def next_goal(
    index: Float[Tensor, " batch"], arrived: Float[Tensor, " batch"], count: int
) -> Float[Tensor, " batch"]:
    """Advance the index where `arrived` is 1; after the last goal the first comes again."""
    return torch.remainder(index + arrived, count)


def _best_candidate(
    placed: Tensor, gaps: Tensor, half_width: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the first free candidate of each row, or the least bad, and min(slack, 0)."""
    size = (placed.shape[0], _CANDIDATES, 2)
    points = torch.rand(size, generator=generator, device=generator.device)
    points = (2.0 * points - 1.0) * half_width
    x, y = points.permute(2, 1, 0).contiguous()  # axes (candidates, batch): the batch is longer
    slack = torch.zeros_like(x)
    for (placed_x, placed_y), gap in zip(placed.permute(1, 2, 0), gaps, strict=True):
        slack = torch.minimum(slack, torch.hypot(x - placed_x, y - placed_y) - gap)
    value = slack.amax(0)
    left = torch.arange(_CANDIDATES, 0, -1, device=x.device).unsqueeze(1)  # most at the first
    first = _CANDIDATES - ((slack == value) * left).amax(0)
    return points[torch.arange(len(points), device=points.device), first], value
