"""A small drawing board in world coordinates: metres in, a smooth RGB picture out."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from safectl.errors import RangeError

_OVERSAMPLING = 3  # drawn larger, then averaged: Pillow's own shapes have hard edges

Point = tuple[float, float]
Colour = tuple[int, int, int]

PAPER: Colour = (250, 250, 247)
GRID: Colour = (229, 231, 235)
INK: Colour = (55, 65, 81)
ROBOT: Colour = (37, 99, 235)
TRACE: Colour = (147, 187, 253)
HAZARD: Colour = (248, 164, 164)
HAZARD_EDGE: Colour = (220, 38, 38)
GOAL: Colour = (134, 239, 172)
GOAL_EDGE: Colour = (22, 163, 74)


class Canvas:
    """A rectangle of the world, with y upwards.

    Args:
        left: Smallest x that is shown [m].
        right: Largest x that is shown [m].
        bottom: Smallest y that is shown [m].
        top: Largest y that is shown [m].
        width: Width of the picture [pixel]; the height follows.

    Raises:
        RangeError: If the rectangle is empty.
    """

    def __init__(
        self, left: float, right: float, bottom: float, top: float, *, width: int = 480
    ) -> None:
        if not (left < right and bottom < top):
            raise RangeError("view", value=(left, right, bottom, top), expected="a rectangle")
        self.left, self.right, self.bottom, self.top = left, right, bottom, top
        self._scale = _OVERSAMPLING * width / (right - left)
        height = round(width * (top - bottom) / (right - left))
        self._size = (width, height)
        large = (_OVERSAMPLING * width, _OVERSAMPLING * height)
        self._image = Image.new("RGB", large, PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def grid(self, spacing: float) -> None:
        """Draw lines at the multiples of `spacing` [m]."""
        for x in _multiples(self.left, self.right, spacing):
            self.line([(x, self.bottom), (x, self.top)], GRID, 1.0)
        for y in _multiples(self.bottom, self.top, spacing):
            self.line([(self.left, y), (self.right, y)], GRID, 1.0)

    def line(self, points: Sequence[Point], colour: Colour, width: float = 2.0) -> None:
        """Draw a path, `width` in [pixel]."""
        if len(points) > 1:
            pixels = [self._pixel(point) for point in points]
            self._draw.line(pixels, fill=colour, width=self._pen(width), joint="curve")

    def disc(self, centre: Point, radius: float, fill: Colour, edge: Colour | None = None) -> None:
        """Fill a disc, `radius` in [m]."""
        x, y = self._pixel(centre)
        r = radius * self._scale
        pen = self._pen(2.0) if edge else 0
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=edge, width=pen)

    def polygon(self, points: Sequence[Point], fill: Colour, edge: Colour | None = None) -> None:
        """Fill a polygon."""
        pixels = [self._pixel(point) for point in points]
        self._draw.polygon(pixels, fill=fill, outline=edge, width=self._pen(2.0) if edge else 0)

    def rectangle(self, left: float, right: float, bottom: float, top: float, fill: Colour) -> None:
        """Fill a rectangle, cut at the edge of the picture."""
        self.polygon([(left, bottom), (right, bottom), (right, top), (left, top)], fill)

    def arrow(self, start: Point, end: Point, colour: Colour, width: float = 3.0) -> None:
        """Draw an arrow; one shorter than its head is left out."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        length, head = math.hypot(dx, dy), 4.0 * width * _OVERSAMPLING / self._scale
        if length <= head:
            return
        ux, uy = dx / length, dy / length
        neck = (end[0] - head * ux, end[1] - head * uy)
        side = 0.5 * head
        self.line([start, neck], colour, width)
        left = (neck[0] - side * uy, neck[1] + side * ux)
        self.polygon([end, left, (neck[0] + side * uy, neck[1] - side * ux)], colour)

    def text(self, lines: str) -> None:
        """Write into the top left corner."""
        font = ImageFont.load_default(size=13.0 * _OVERSAMPLING)
        place = (8 * _OVERSAMPLING, 6 * _OVERSAMPLING)
        self._draw.multiline_text(place, lines, fill=INK, font=font, spacing=4 * _OVERSAMPLING)

    def picture(self) -> UInt8[np.ndarray, "height width 3"]:
        """Return what was drawn."""
        return np.asarray(self._image.resize(self._size, Image.Resampling.BOX)).copy()

    def _pixel(self, point: Point) -> Point:
        return (point[0] - self.left) * self._scale, (self.top - point[1]) * self._scale

    def _pen(self, width: float) -> int:
        return max(1, round(width * _OVERSAMPLING))


def _multiples(low: float, high: float, spacing: float) -> list[float]:
    first, last = math.ceil(low / spacing), math.floor(high / spacing)
    return [spacing * index for index in range(first, last + 1)]
