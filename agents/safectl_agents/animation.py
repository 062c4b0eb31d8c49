"""One episode side by side, e.g. without and with a guard, as a GIF."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from safectl.errors import ConfigError, RangeError
from safectl.files import new_file
from safectl.types import Policy, Status
from safectl_agents.evaluate import run

Env = gym.Env[NDArray[Any], NDArray[Any]]
Picture = UInt8[np.ndarray, "height width 3"]

_COLOURS = {Status.KEPT: "#009E73", Status.CORRECTED: "#E69F00", Status.FALLBACK: "#D55E00"}
_VIOLATED, _INK, _PAPER = "#B00020", "#202020", "#FFFFFF"
_BAND = 44
_GAP = 8


class Frame(NamedTuple):
    """A picture after a step, the cost up to it and what the safeguard did on it.

    Attributes:
        picture: Shape (height, width, 3).
        cost: Sum of costs so far.
        violated: Whether this step has a positive cost.
        status: What became of the action; None without a guard.
    """

    picture: Picture
    cost: float
    violated: bool
    status: Status | None


def record(
    policy: Policy, env_factory: Callable[[], Env], *, seed: int, every: int = 1, limit: int = 1000
) -> list[Frame]:
    """Draw one episode.

    Args:
        policy: What proposes the actions.
        env_factory: Makes the environment, with `render_mode="rgb_array"`.
        seed: What the environment is reset with.
        every: Steps per picture, >= 1.
        limit: Steps after which to stop, >= 1.

    Raises:
        ConfigError: If the environment draws nothing.
    """
    env = env_factory()
    frames: list[Frame] = []
    cost, violated = 0.0, False
    try:
        for index, step in enumerate(run(policy, env, seed)):
            cost += step.cost
            violated |= step.cost > 0.0
            if index % every == 0:
                picture: object = env.render()
                if not isinstance(picture, np.ndarray):
                    raise ConfigError("env_factory", 'make it with render_mode="rgb_array"')
                status = None if step.margin is None else step.status
                frames.append(Frame(picture.copy(), cost, violated, status))
                violated = False
            if index + 1 >= limit:
                break
    finally:
        env.close()
    return frames


def save_gif(
    episodes: Mapping[str, list[Frame]], path: Path, *, rate_hz: float = 20.0, height: int = 240
) -> None:
    """Write episodes side by side; one that is over keeps its last picture.

    Args:
        episodes: Frames of each episode, by the title it gets.
        path: File to write.
        rate_hz: Pictures per second, at most 50: GIF counts hundredths of a second.
        height: Height of each picture [pixel].

    Raises:
        RangeError: If there is no frame or the rate is outside (0, 50].
        StorageError: If the file cannot be written.
    """
    if not episodes or not all(episodes.values()):
        raise RangeError("episodes", value=len(episodes), expected="at least one frame in each")
    if not 0.0 < rate_hz <= 50.0:
        raise RangeError("rate_hz", value=rate_hz, expected="a number in (0, 50]")
    length = max(len(frames) for frames in episodes.values())
    images = [
        _beside([_panel(t, f[min(i, len(f) - 1)], height) for t, f in episodes.items()])
        for i in range(length)
    ]
    with new_file(path) as draft:
        images[0].save(
            draft,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=round(1000.0 / rate_hz),
            loop=0,
        )


def _panel(title: str, frame: Frame, height: int) -> Image.Image:
    """Draw title, cost and status above one picture."""
    rows, columns = frame.picture.shape[:2]
    width = max(1, round(columns * height / rows))
    picture = Image.fromarray(frame.picture).resize((width, height), Image.Resampling.LANCZOS)
    panel = Image.new("RGB", (width, height + _BAND), _PAPER)
    panel.paste(picture, (0, _BAND))
    draw = ImageDraw.Draw(panel)
    draw.text((6, 4), title, fill=_INK, font=ImageFont.load_default(15))
    colour = _VIOLATED if frame.violated else _INK
    draw.text((6, 23), f"cost {frame.cost:.0f}", fill=colour, font=ImageFont.load_default(15))
    if frame.status is not None:
        name = frame.status.name.lower()
        box = (width - 100, 8, width - 6, 36)
        draw.rounded_rectangle(box, radius=6, fill=_COLOURS[frame.status])
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        draw.text(centre, name, fill=_PAPER, anchor="mm", font=ImageFont.load_default(13))
    if frame.violated:
        draw.rectangle((0, _BAND, width - 1, height + _BAND - 1), outline=_VIOLATED, width=4)
    return panel


def _beside(panels: list[Image.Image]) -> Image.Image:
    width = sum(panel.width for panel in panels) + _GAP * (len(panels) - 1)
    sheet = Image.new("RGB", (width, panels[0].height), _PAPER)
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, 0))
        left += panel.width + _GAP
    return sheet
