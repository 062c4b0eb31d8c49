"""Whether any way leads through a maze with obstacles, before plans are drawn in vain."""

import torch
from jaxtyping import Float
from scipy.ndimage import label
from torch import Tensor

from safectl.errors import RangeError
from safectl.planners import Specification
from safectl_envs.maze_layout import MazeLayout

CELL = 0.02
"""Edge of the squares that the maze is searched by [m]; a narrower gap counts as closed."""


def require_way(
    specification: Specification,
    layout: MazeLayout,
    starts: Float[Tensor, "batch nx"],
    goal: Float[Tensor, " nx"],
) -> None:
    """Refuse a specification that closes the maze between a start and the goal.

    Squares of free space whose edges meet are one region; start and goal must lie in the same one.
    Barriers are taken at rest and at time zero.

    Raises:
        RangeError: If they do not.
    """
    rows, columns = layout.shape
    grid = torch.cartesian_prod(
        torch.arange(0.0, rows, CELL, dtype=torch.float64),
        torch.arange(0.0, columns, CELL, dtype=torch.float64),
    )
    nx = len(goal)
    state = torch.cat([grid, grid.new_zeros(len(grid), nx - 1)], dim=1)
    free = ~layout.touches(grid) & ~specification.violated(state)
    shape = (len(torch.arange(0.0, rows, CELL)), -1)
    region = torch.from_numpy(label(free.reshape(shape).numpy())[0])
    ends = torch.cat([starts, goal.unsqueeze(0)])[:, :2].cpu().double()
    place = (ends / CELL).round().long()
    found = region[place[:, 0], place[:, 1]]
    closed = (found != found[-1]) & (found > 0) & (found[-1] > 0)
    if bool(closed.any()):
        start = [round(float(entry), 2) for entry in ends[closed][0]]
        expected = (
            f"a way from the start {start} to the goal {ends[-1].tolist()} that is wider than "
            f"{CELL} m: make the obstacles smaller or move start or goal"
        )
        raise RangeError("specification", value=list(specification.barriers), expected=expected)
