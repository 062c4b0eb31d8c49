"""Pictures of MuJoCo without a display."""

import os
import sys


def prefer_headless() -> None:
    """Let MuJoCo draw through EGL where there is no display; call it before importing MuJoCo."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        os.environ.setdefault("MUJOCO_GL", "egl")
