"""`safectl export`: a trained agent with its learned guard, or a model file, as C99."""

import json
import math
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from safectl.errors import ConfigError, FileFormatError
from safectl.export import Program, emit_c, guarded_program, quantise_with_bound, save_program
from safectl.export.importers import import_model
from safectl.export.layouts import Layout
from safectl.files import new_folder, read_json
from safectl.record import read_record
from safectl.spec import spec_from_json
from safectl_agents.export import network_of, program_of
from safectl_agents.fb.export import FBExportSettings, fb_program, is_fb_run
from safectl_agents.guards import load_guard_name, world_guard
from safectl_agents.models import Env, make_env
from safectl_agents.run_folder import is_calibrated, load_config, load_guard, load_trained
from safectl_agents.sb3 import SB3Policy
from safectl_agents.speed_guard import SpeedGuard
from safectl_envs import SafeEnv
from safectl_envs.observed_state import observed_state
from safectl_envs.signals import spec_of
from safectl_hardware.board import Board, load_board
from safectl_hardware.release import Release, write_release


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What to export and where."""

    folder: Path = Path()
    """Folder of a training run, or an ONNX, Keras or TFLite file; also the first word."""
    output: Path | None = None
    """Folder to make, with `program/` and `c/`; `<folder>/export` or `<file>_export` without."""
    spec: Path | None = None
    """For a model file: JSON of the signals, whose limits the action keeps; none without."""
    board: str = ""
    """Board to build for: must fit; makes firmware where the serial line of the board is known."""
    format: Literal["float32", "int8", "int16"] = "float32"
    """Numbers of the layers; integers need calibration data."""
    calibration: Path | None = None
    """For integers: observations like those to come, npy of shape (rows, nx) or a step record."""
    layout: Layout = "plain"
    """Of c/: one flat folder, an Arduino library, a Zephyr application or a PlatformIO project."""
    name: str = "controller"
    """Name of the program: a lower-case C identifier."""
    fb: FBExportSettings = field(default_factory=FBExportSettings)
    """For a run of `safectl train fb`."""
    json: bool = False
    """Print JSON."""


DEFAULTS = ExportSettings()


def run(settings: ExportSettings) -> int:
    """Write `program/` and `c/` and say how to verify them."""
    if settings.folder == Path():
        raise ConfigError("export", "name the folder of a training run, or a model file")
    if settings.fb != DEFAULTS.fb and not is_fb_run(settings.folder):
        raise ConfigError("--fb", "belongs to a run of: safectl train fb; leave it out")
    board = load_board(settings.board) if settings.board else None
    release = None
    is_file = settings.folder.is_file()
    program = _in_format((imported_program if is_file else _trained)(settings), settings)
    beside = settings.folder.with_name(f"{settings.folder.stem}_export")
    output = settings.output or (beside if is_file else settings.folder / "export")
    with new_folder(output) as draft:
        save_program(program, draft / "program")
        emit_c(program, draft / "c", layout=settings.layout)
        if board is not None:
            release = write_release(program, board, draft)
    if settings.json:
        facts = {"output": str(output), "name": program.name, "digest": program.spec.digest()}
        built = None if release is None else asdict(release)
        sys.stdout.write(json.dumps(facts | {"board": built}) + "\n")
    else:
        sys.stdout.write(f"{output}/c holds the C99 code\n")
        if board is not None and release is not None:
            sys.stdout.write(_sizes(board, release, output))
        sys.stdout.write(f"next: safectl verify {output}\n")
    return 0


def _sizes(board: Board, release: Release, output: Path) -> str:
    flash = f"{release.flash_bytes:,} of {board.flash.size:,} B of flash"
    ram = f"{release.ram_bytes:,} of {board.ram.size:,} B of RAM"
    if not release.is_firmware:
        return f"it fits on {board.name}: {flash}, {ram}; compile c/ in your own project\n"
    return (
        f"{output}/firmware.elf fits on {board.name}: {flash}, {ram}\n"
        f"then: safectl flash {output} --board {board.name}\n"
    )


def _in_format(program: Program, settings: ExportSettings) -> Program:
    """Return the program with the numbers that were asked for, and say how far it may be off."""
    if settings.format == "float32":
        if settings.calibration is not None:
            raise ConfigError("--calibration", "belongs to --format int8 or int16")
        return program
    if settings.calibration is None:
        problem = f"{settings.format} needs --calibration FILE with observations"
        raise ConfigError("--format", problem)
    rows = _observations(settings.calibration)
    quantised = quantise_with_bound(program, rows, bits=int(settings.format.removeprefix("int")))
    bound = float(quantised.bound.max())
    sys.stderr.write(
        f"{settings.format}: actions within {bound:.3g} of float32 for observations like these\n"
        if math.isfinite(bound)
        else f"{settings.format}: no bound exists behind this program's safeguard or memory\n"
    )
    return quantised.program


def _observations(path: Path) -> NDArray[np.float32]:
    if path.suffix == ".mcap":
        return np.asarray(read_record(path).observation, np.float32)
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    except (OSError, ValueError, TypeError, EOFError) as error:
        advice = "write it with numpy.save(path, observations)"
        raise FileFormatError(path, f"holds no observations ({error})", advice) from error


def imported_program(settings: ExportSettings) -> Program:
    """Build the program of a model file.

    Raises:
        FileFormatError: If the file, or that of the signals, cannot be read.
        UnsupportedLayer: If the model holds a layer that has no operation.
        ShapeError: If the signals do not fit the model.
    """
    spec = None
    if settings.spec is not None:
        content = read_json(settings.spec, advice="write it with Spec.to_json")
        spec = spec_from_json(json.dumps(content), str(settings.spec))
    return import_model(settings.folder, name=settings.name, spec=spec)


def _trained(settings: ExportSettings) -> Program:
    if settings.spec is not None:
        raise ConfigError("export", "--spec belongs to a model file; a run brings its own signals")
    if is_fb_run(settings.folder):
        return fb_program(settings.folder, settings.name, settings.fb)
    return trained_program(settings.folder, settings.name)


def trained_program(folder: Path, name: str) -> Program:
    """Build the program of a run's last checkpoint.

    Raises:
        FileFormatError: If the folder holds no finished run.
            Or if its learned guard is not calibrated yet.
        UnsupportedLayer: If the guard is a barrier over a state that the sensors do not show.
    """
    config, policy, guard_name = load_config(folder), load_trained(folder), load_guard_name(folder)
    env = make_env(config.env)
    try:
        if guard_name == "barrier":
            return _behind_barrier(name, env, policy)
        if guard_name != "speed":
            return program_of(name, spec_of(env), policy)
        guard = SpeedGuard(env, seed=config.seed)
        if not is_calibrated(folder):
            advice = f"calibrate it on this policy first: safectl train --resume {folder}"
            raise FileFormatError(folder, "holds a guard that is not calibrated", advice)
        load_guard(folder, guard)
        return program_of(name, guard.spec, policy, layer=guard.require_layer(), now=guard.column)
    finally:
        env.close()


def _behind_barrier(name: str, env: Env, policy: SB3Policy) -> Program:
    """Read the state of the barrier's model from the observation."""
    inner = env.unwrapped
    assert isinstance(inner, SafeEnv), "training gives this guard to no other environment"
    guard, entries = world_guard(inner.world), observed_state(inner.world)
    return guarded_program(name, spec_of(env), network_of(policy), guard, state=entries)
