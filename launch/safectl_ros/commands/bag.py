"""`safectl bag`: repair a bag whose recorder was killed, or store it as a Minari dataset."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from safectl.errors import ConfigError
from safectl_ros.bag_writer import recover
from safectl_ros.bags import to_minari
from safectl_ros.recording import read_recording
from safectl_ros.robot_file import load_robot


@dataclass(frozen=True, slots=True)
class BagSettings:
    """Which bag, and what to make of it."""

    bag: Path = Path()
    """Folder of the bag; also the first word."""
    recover: Path | None = None
    """New folder for the whole messages of a bag that was not closed."""
    minari: str = ""
    """Identifier of a new Minari dataset, such as robot/kitchen-v0."""
    robot: str = ""
    """TOML file of the robot, or name of its environment; for --minari."""
    json: bool = False
    """Print JSON."""


DEFAULTS = BagSettings()


def run(settings: BagSettings) -> int:
    """Return 0."""
    if settings.bag == Path() or (settings.recover is None) == (not settings.minari):
        raise ConfigError("bag", "name a bag and one of --recover FOLDER and --minari DATASET")
    if settings.recover is not None:
        return _say(settings, "messages", recover(settings.bag, settings.recover))
    if not settings.robot:
        raise ConfigError("bag", "name the robot: its TOML file or its environment")
    robot = load_robot(settings.robot)
    recording = read_recording(settings.bag, robot.interface)
    return _say(settings, "steps", to_minari(recording, robot.spec, settings.minari))


def _say(settings: BagSettings, what: str, count: int) -> int:
    text = json.dumps({what: count}) if settings.json else f"{count} {what}"
    sys.stdout.write(f"{text}\n")
    return 0
