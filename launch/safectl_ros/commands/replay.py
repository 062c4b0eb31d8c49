"""`safectl replay`: what a safeguard would have done with a recorded command stream."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from safectl.errors import ConfigError
from safectl_ros.plots import plot_replay
from safectl_ros.recording import read_recording
from safectl_ros.replay import replay
from safectl_ros.robot_file import load_robot
from safectl_ros.safeguards import load_safeguard


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """Which bag, robot and safeguard."""

    bag: Path = Path()
    """Folder of the bag; also the first word."""
    safeguard: Path = Path()
    """TOML file of a safeguard, or folder of a run."""
    robot: str = ""
    """TOML file of the robot, or name of its environment."""
    sees_state: bool = False
    """Whether the safeguard sees the model's state, which the bag has as `model_state`."""
    plot: Path | None = None
    """Where to draw it, a PNG file."""
    json: bool = False
    """Print JSON."""


DEFAULTS = ReplaySettings()


def run(settings: ReplaySettings) -> int:
    """Return 0; what the safeguard would have done is the output."""
    for name, path in (("bag", settings.bag), ("safeguard", settings.safeguard)):
        if path == Path():
            raise ConfigError("replay", f"name the {name}, see safectl replay --help")
    if not settings.robot:
        raise ConfigError("replay", "name the robot: its TOML file or its environment")
    robot = load_robot(settings.robot, sees_state=settings.sees_state)
    loaded = load_safeguard(settings.safeguard, robot, robot.spec)
    topic = "model_state" if settings.sees_state else ""
    recording = read_recording(settings.bag, robot.interface, state_topic=topic)
    result = replay(recording, loaded.safeguard)
    if settings.plot is not None:
        plot_replay(result, robot.spec, settings.plot)
    summary = result.summary()
    if settings.json:
        sys.stdout.write(json.dumps(summary) + "\n")
        return 0
    table = Table("what", "measured", title=f"{settings.bag} through {settings.safeguard}")
    for name, value in summary.items():
        table.add_row(name.replace("_", " "), f"{value:.6g}")
    Console().print(table, highlight=False)
    Console().print(f"claim: {loaded.safeguard.claim}", highlight=False)
    return 0
