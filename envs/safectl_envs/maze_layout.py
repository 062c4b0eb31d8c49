"""Grids of walls: the layouts of D4RL's maze2d, their shortest paths and their free space.

Positions are (row, column) [m], one cell is 1 m. The centre of the mass moves in a frame that is
shifted against the grid: the walls of cell (r, c), grown by the radius 0.1 m of the mass, are the
square [r - 0.8, r + 0.4] x [c - 0.8, c + 0.4], so between two walls lies [w - 0.6, w + 0.2].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from safectl.errors import RangeError

WALL_LOW = -0.8
"""Lower edge of a grown wall, from the index of its cell [m]."""
WALL_HIGH = 0.4
"""Upper edge of a grown wall, from the index of its cell [m]."""
_TOUCH = 1e-5  # a mass that slides along a wall is not stopped by the next one; float32 at 10 m

MOVES = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))
"""Steps on the grid in the order in which D4RL's planner prefers them; the first stays."""


class Contact(NamedTuple):
    """Position after the walls, shape (batch, 2) [m], and which axes they stopped, (batch, 2)."""

    position: Float[Tensor, "batch 2"]
    stopped: Bool[Tensor, "batch 2"]


@dataclass(frozen=True)
class MazeLayout:
    """A grid with walls `#`, free cells `O` and at most one goal `G`, bordered by walls.

    Raises:
        RangeError: If rows differ in length, the border has a hole, or a letter is unknown.
    """

    rows: tuple[str, ...]

    def __post_init__(self) -> None:
        expected = "equally long rows of '#', 'O' and 'G' with walls all around"
        border = (self.rows[0], self.rows[-1], *(row[0] + row[-1] for row in self.rows))
        same = len({len(row) for row in self.rows}) == 1
        if not same or set("".join(self.rows)) - set("#OG") or set("".join(border)) != {"#"}:
            raise RangeError("maze", value=self.rows, expected=expected)
        if not {"O", "G"} & set("".join(self.rows)):
            raise RangeError("maze", value=self.rows, expected="at least one free cell")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.rows), len(self.rows[0])

    @cached_property
    def walls(self) -> Bool[Tensor, "rows columns"]:
        """Which cells are walls."""
        return torch.tensor([[letter == "#" for letter in row] for row in self.rows])

    @cached_property
    def cells(self) -> Int64[Tensor, "free 2"]:
        """Indices of the free cells, row by row."""
        return (~self.walls).nonzero()

    @cached_property
    def goal(self) -> tuple[int, int]:
        """The cell `G`, or the first free one."""
        for row, letters in enumerate(self.rows):
            if "G" in letters:
                return row, letters.index("G")
        row, column = self.cells[0].tolist()
        return row, column

    @cached_property
    def next_cell(self) -> Int64[Tensor, "cells cells"]:
        """Where the shortest path to cell `i` goes from cell `j`, at [i, j]; cells row by row.

        The greedy path of Q-iteration with a reward at the target: of equally short paths the one
        whose first move is named first in `MOVES`. A wall may be left but not entered; where no
        path leads to the target the answer is `j`.
        """
        size = self.walls.numel()
        grid = torch.arange(size).view(self.shape)
        ways = torch.stack([self._after(grid, move) for move in MOVES])  # (moves, cells)
        far = size  # longer than any path
        distance = torch.full((size, size), far)
        free = (~self.walls.flatten()).nonzero().squeeze(1)
        distance[free, free] = 0
        for _ in range(len(free)):
            distance = torch.minimum(distance, 1 + distance[:, ways].amin(1))
        choice = distance[:, ways].argmin(1)  # argmin takes the first, hence "stay" at the target
        return ways[choice, torch.arange(size)]

    def collide(self, before: Float[Tensor, "batch 2"], after: Float[Tensor, "batch 2"]) -> Contact:
        """Stop a short move at the walls: the rows first, then the columns.

        Args:
            before: Positions outside the walls, shape (batch, 2), [m].
            after: Where they would be without walls; less than 0.4 m away.
        """
        row, at_row = self._stop(before, after[:, 0], before[:, 1], axis=0)
        column, at_column = self._stop(before, row, after[:, 1], axis=1)
        return Contact(torch.stack([row, column], 1), torch.stack([at_row, at_column], 1))

    def touches(self, position: Float[Tensor, "batch 2"]) -> Bool[Tensor, " batch"]:
        """Return which positions, shape (batch, 2) [m], lie at or in a grown wall."""
        walls = self.walls.to(position.device)
        near = [self._covering(position[:, axis], axis, -_TOUCH) for axis in (0, 1)]
        held = [walls[rows, columns] for rows in near[0] for columns in near[1]]
        return torch.stack(held).any(0)

    def _after(self, grid: Tensor, move: tuple[int, int]) -> Tensor:
        """Return the cell that a move leads to from every cell; walls block."""
        target = torch.roll(grid, (-move[0], -move[1]), (0, 1))
        blocked = torch.roll(self.walls, (-move[0], -move[1]), (0, 1))
        return torch.where(blocked, grid, target).flatten()

    def _stop(
        self, before: Tensor, row: Tensor, column: Tensor, *, axis: int
    ) -> tuple[Tensor, Tensor]:
        """Move along one axis to (row, column); return that coordinate and whether a wall held."""
        walls, moved = self.walls.to(row.device), (row, column)[axis]
        near = [self._covering(values, place) for place, values in enumerate((row, column))]
        forward = moved > before[:, axis]
        stopped = torch.zeros_like(forward)
        for rows in near[0]:
            for columns in near[1]:
                held = walls[rows, columns]
                index = (rows, columns)[axis].to(moved)
                edge = torch.where(forward, index + WALL_LOW, index + WALL_HIGH)
                moved = torch.where(held, edge, moved)
                stopped = stopped | held
        return moved, stopped

    def _covering(self, values: Tensor, axis: int, depth: float = _TOUCH) -> tuple[Tensor, Tensor]:
        """Return the first and last index whose grown square reaches `depth` past a coordinate."""
        last = self.shape[axis] - 1
        low = torch.ceil(values - WALL_HIGH + depth).long().clamp(0, last)
        high = torch.floor(values - WALL_LOW - depth).long().clamp(0, last)
        return low, high


def _layout(text: str) -> MazeLayout:
    return MazeLayout(tuple(text.split("/")))


LAYOUTS: Mapping[str, MazeLayout] = {
    "umaze": _layout("#####/#GOO#/###O#/#OOO#/#####"),
    "medium": _layout("########/#OO##OO#/#OO#OOO#/##OOO###/#OO#OOO#/#O#OO#O#/#OOO#OG#/########"),
    "large": _layout(
        "############/#OOOO#OOOOO#/#O##O#O#O#O#/#OOOOOO#OOO#/#O####O###O#/"
        "#OO#O#OOOOO#/##O#O#O#O###/#OO#OOO#OGO#/############"
    ),
    "open": _layout("#######/#OOOOO#/#OOGOO#/#OOOOO#/#######"),
    "small": _layout("######/#OOOO#/#O##O#/#OOOO#/######"),
}
"""D4RL's mazes by name."""
