"""Pictures without a display."""

import os
import sys

from safectl.errors import RangeError


def check_render_mode(mode: str | None) -> None:
    """Refuse what no environment of this package draws.

    Raises:
        RangeError: If the mode is neither `rgb_array` nor none.
    """
    if mode not in (None, "rgb_array"):
        raise RangeError("render_mode", value=mode, expected="'rgb_array' or None")


def prefer_headless() -> None:
    """Let MuJoCo draw through EGL where there is no display; call it before importing MuJoCo."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        os.environ.setdefault("MUJOCO_GL", "egl")
