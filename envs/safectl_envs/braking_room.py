"""Room left for braking on a straight line: before the walls of a maze and before obstacles.

With the braking law of `point_mass.braking` the velocity keeps its direction, so the mass stays on
the segment from where it is to where it stops, and later segments are parts of earlier ones. What a
whole segment keeps clear of, braking keeps clear of for ever.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import RangeError
from safectl.types import Barrier
from safectl_envs.maze_layout import WALL_HIGH, WALL_LOW, MazeLayout
from safectl_envs.point_mass import DECAY, SPEED_LIMIT, stopping_distance

_AT_REST = 1e-6  # speed below which the direction of the line is not used [m/s]


class WallRoom:
    """Distance between the braking segment and the nearest walls, less a clearance [m].

    Distances are the larger one of rows and columns. For a segment and a square that is the
    largest gap along the three axes that can separate them: row, column, and across the line of
    motion. None shrinks while the mass brakes, so {h >= 0} can be kept for ever. The `nearest`
    smallest values are returned in order.

    Args:
        layout: The maze.
        clearance: How much earlier the barrier stops [m].
        nearest: Number of walls that count in a state.
    """

    def __init__(self, layout: MazeLayout, *, clearance: float, nearest: int = 4) -> None:
        centre = 0.5 * (WALL_LOW + WALL_HIGH)
        self.centres = layout.walls.nonzero().double() + centre
        self.half = 0.5 * (WALL_HIGH - WALL_LOW)
        self.clearance, self.nearest = clearance, min(nearest, len(self.centres))

    def value(self, state: Float[Tensor, "batch 4"], /) -> Float[Tensor, "batch m"]:
        """Return the smallest distances in rising order, shape (batch, nearest), [m]."""
        start, way = _segment(state)
        middle, reach = start + 0.5 * way, 0.5 * way.abs()
        away = middle.unsqueeze(1) - self.centres.to(state)  # (batch, walls, 2)
        gap = away.abs() - reach.unsqueeze(1) - self.half
        length = way.abs().sum(1, keepdim=True)  # so that h measures like the rows and columns
        moves = length > _AT_REST * DECAY
        across = torch.stack([-way[:, 1], way[:, 0]], 1) / torch.where(moves, length, 1.0)
        side = (away * across.unsqueeze(1)).sum(-1).abs() - self.half
        side = torch.where(moves, side, -torch.inf)
        room = torch.maximum(gap.amax(-1), side)
        return room.topk(self.nearest, dim=1, largest=False).values - self.clearance


class ObstacleRoom:
    """Smallest value of a barrier over positions on the braking segment, less a clearance.

    The segment is sampled, so h is too large by at most half the change of the barrier between two
    samples; the clearance must cover that. Not promised beyond it: a safe action exists in every
    state with h >= 0 up to that sampling.

    Args:
        barrier: Safe set of positions; reads the entries 0 and 1 of the state.
        clearance: How much earlier the barrier stops, in the unit of the barrier.
        samples: Points per segment, with both ends.

    Raises:
        RangeError: If there are less than two samples or the clearance is negative.
    """

    def __init__(self, barrier: Barrier, *, clearance: float = 0.01, samples: int = 9) -> None:
        if samples < 2:
            raise RangeError("samples", value=samples, expected="at least 2")
        if not clearance >= 0.0:
            raise RangeError("clearance", value=clearance, expected="a number >= 0")
        self.barrier, self.clearance, self.samples = barrier, clearance, samples

    def value(self, state: Float[Tensor, "batch 4"], /) -> Float[Tensor, "batch m"]:
        """Return the smallest value per constraint, shape (batch, m)."""
        start, way = _segment(state)
        share = torch.linspace(0.0, 1.0, self.samples, dtype=state.dtype, device=state.device)
        points = start.unsqueeze(1) + share[:, None] * way.unsqueeze(1)
        rest = torch.zeros_like(points)
        values = self.barrier.value(torch.cat([points, rest], -1).flatten(0, 1))
        return values.reshape(len(state), self.samples, -1).amin(1) - self.clearance


def _segment(state: Tensor) -> tuple[Tensor, Tensor]:
    """Return where braking begins, (batch, 2), and the way from there to rest, (batch, 2)."""
    velocity = DECAY * state[:, 2:].clamp(-SPEED_LIMIT, SPEED_LIMIT)
    fastest = velocity.abs().amax(1, keepdim=True)
    distance = stopping_distance(fastest)
    return state[:, :2], velocity / torch.where(fastest > 0.0, fastest, 1.0) * distance
