"""The command `safectl`: one sub-command per job.

Exit status: 0 done, 1 an error, 2 a wrong call, 3 a target not met, 130 interrupted.
"""

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from safectl.config import from_command_line
from safectl.errors import MissingExtra, SafectlError, UnknownNameError

_EXTRA_OF = {
    "gymnasium": "envs",
    "mujoco": "envs",
    "safety_gymnasium": "envs",
    "rclpy": "ros",
    "rosbags": "bags",
    "minari": "bags",
}


@dataclass(frozen=True, slots=True)
class Command:
    """A sub-command: its module holds `DEFAULTS` and `run(settings) -> int`.

    The packages above this one are named, not imported: they may be missing.
    """

    module: str
    summary: str
    positional: str = ""
    package: str = "safectl_agents.commands"


COMMANDS = {
    "demo": Command(
        "demo", "train with and without a safeguard, compare, run on an emulated board"
    ),
    "train": Command("train", "train a stable-baselines3 agent through a safeguard"),
    "train diffuser": Command("train_diffuser", "train a diffusion model of plans"),
    "train value": Command("train_value", "train a value function that guides plans"),
    "train world-model": Command(
        "train_world_model", "train world models of one and two streams and compare them"
    ),
    "plan": Command("plan", "draw safe plans with a diffusion model, or --demo", "model"),
    "train fb": Command("train_fb", "train a forward-backward model from reward-free data"),
    "train kinematics": Command(
        "train_kinematics", "learn forward kinematics from logs, for predictive control", "logs"
    ),
    "collect": Command("collect", "collect reward-free data by exploring, for train fb"),
    "evaluate": Command("evaluate", "evaluate a trained folder", "folder"),
    "evaluate fb": Command(
        "evaluate_fb", "score a forward-backward model on every task of its domain", "folder"
    ),
    "evaluate diffuser": Command(
        "evaluate_diffuser", "let a diffusion planner drive a locomotion task", "model"
    ),
    "visits": Command(
        "visits", "calibrate how often a forward-backward policy visits an unsafe set", "folder"
    ),
    "export": Command("export", "write a trained folder or a model file as C99", "folder"),
    "verify": Command("verify", "build, run and compare exported C on host and board", "folder"),
    "flash": Command("flash", "write exported firmware to a board and verify it", "folder"),
    "run": Command("run", "run a trained policy with its guard on a robot", "folder"),
    "data": Command("data", "collect a data set of maze2d or locomotion", "kind"),
    "envs": Command("envs", "list the environments: spaces, cost, source", "name"),
    "bench": Command("bench", "list or run the named benchmarks", "name"),
    "experiment": Command(
        "experiment", "train and compare methods of safe learning; also: safectl bench acs"
    ),
    "experiment tolerances": Command(
        "experiment_tolerances", "evaluate a seed of bench acs at other tolerances", "folder"
    ),
    "experiment calibration": Command(
        "experiment_calibration", "compare the cost critic of a seed with what happens", "folder"
    ),
    "experiment plans": Command(
        "experiment_plans",
        "compare methods of safe planning: table, plots, GIF; also: safectl bench safediffuser",
    ),
    "experiment fb": Command(
        "experiment_fb", "train and compare methods on reward-free data; also: safectl bench fb"
    ),
    "launch": Command(
        "launch", "run a ROS 2 launch file: FILE key:=value ...", "file", "safectl_ros.commands"
    ),
    "replay": Command(
        "replay",
        "filter a recorded command stream again, without a robot",
        "bag",
        "safectl_ros.commands",
    ),
    "bag": Command(
        "bag", "repair a bag, or store it as a Minari dataset", "bag", "safectl_ros.commands"
    ),
}

_EXPERIMENTS = {
    "acs": "experiment",
    "fb": "experiment fb",
    "safediffuser": "experiment plans",
}
"""Comparisons that `safectl bench` runs by the name of their figures, without the final dot."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command and return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0 if words else 2
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        is_double = " ".join(words[:2]) in COMMANDS
        return _run(" ".join(words[: 1 + is_double]), words[1 + is_double :])
    except KeyboardInterrupt as stop:
        sys.stderr.write(f"interrupted: {stop}\n" if str(stop) else "interrupted\n")
        return 130
    except SafectlError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, UnknownNameError) and error.kind == "command" else 1
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        sys.stderr.write(f"error: {MissingExtra(package, _EXTRA_OF.get(package, 'agents'))}\n")
        return 1
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  for the flush at exit
        return 1
    except OSError as error:
        sys.stderr.write(f"error: {error}; free space or choose another folder and try again\n")
        return 1


def _run(name: str, rest: Sequence[str]) -> int:
    if rest and f"{name} {rest[0]}" in COMMANDS:  # a command of two words
        name, rest = f"{name} {rest[0]}", rest[1:]
    if name not in COMMANDS:
        raise UnknownNameError("command", name, known=list(COMMANDS))
    if name == "bench" and rest and rest[0] in _EXPERIMENTS:
        name, rest = _EXPERIMENTS[rest[0]], rest[1:]
    command = COMMANDS[name]
    module = importlib.import_module(f"{command.package}.{command.module}")
    words = list(rest)
    if command.positional and words and not words[0].startswith("-"):
        words[:1] = [f"--{command.positional}", words[0]]
    settings = from_command_line(
        module.DEFAULTS, words, program=f"safectl {name}", description=command.summary
    )
    return int(module.run(settings))


def _help() -> str:
    width = max(len(name) for name in COMMANDS)
    rows = "".join(f"  {name:{width}s}  {c.summary}\n" for name, c in COMMANDS.items())
    return (
        "usage: safectl COMMAND [options]\n\n"
        f"{rows}\n"
        "safectl COMMAND --help lists the options with their units.\n"
        "--config FILE reads a TOML file of differences from the defaults.\n"
    )
