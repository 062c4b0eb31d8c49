"""`safectl launch`: run a launch file without `ros2 launch`, or print what it would run."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from safectl.errors import ConfigError
from safectl_ros.launch_file import read_launch_file
from safectl_ros.launchlite import (
    assignments,
    find_launch_file,
    run_plan,
    show_arguments,
    show_commands,
)


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """Which file, with which arguments."""

    arguments: tyro.conf.Positional[tuple[str, ...]] = ()
    """Values of the file's arguments, each as key:=value."""
    file: Path = Path()
    """XML launch file, or the name of one of this project's; also the first word."""
    print: bool = False
    """Print the command lines instead of running them."""
    show_args: bool = False
    """Print the file's arguments with their defaults."""
    json: bool = False
    """Print commands and arguments as JSON instead of running them."""


DEFAULTS = LaunchSettings()


def run(settings: LaunchSettings) -> int:
    """Return the exit status of the first node that fails, 0 where none does."""
    if settings.file == Path():
        raise ConfigError("launch", "name a launch file, for example sim.launch.xml")
    plan = read_launch_file(find_launch_file(settings.file), assignments(settings.arguments))
    if settings.json:
        sys.stdout.write(json.dumps(asdict(plan)) + "\n")
    elif settings.show_args:
        sys.stdout.write(show_arguments(plan))
    elif settings.print:
        sys.stdout.write(show_commands(plan))
    else:
        return run_plan(plan)
    return 0
