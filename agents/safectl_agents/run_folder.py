"""The folder of a training run: its settings, and where to go on."""

from dataclasses import replace
from pathlib import Path

from safectl.config import overlay, to_mapping
from safectl.errors import ConfigError, FileFormatError
from safectl.files import read_json, write_json
from safectl_agents.episodes import rewind
from safectl_agents.guarded import Learner
from safectl_agents.sb3 import SB3Policy
from safectl_agents.settings import TrainConfig
from safectl_agents.training_state import (
    Counters,
    checkpoints,
    discard_drafts,
    file_digests,
    load_counters,
    load_learner,
    load_policy,
    read_tensors,
)

RUN_VERSION = 1


def load_config(folder: Path) -> TrainConfig:
    """Read the settings of a run.

    Raises:
        ConfigError: If they are not settings of this version.
        FileFormatError: If the folder holds no run.
    """
    path = folder / "config.json"
    settings = read_json(path, advice="name the folder of a training run")
    version = settings.pop("version", None)
    if version != RUN_VERSION:
        advice = f"this program reads version {RUN_VERSION}"
        raise FileFormatError(path, f"has version {version}", advice)
    return overlay(TrainConfig(env=""), settings, source=str(path))


def load_guard(folder: Path, learner: Learner) -> None:
    """Give a newly made safeguard what it had learned by a run's last checkpoint or since.

    Raises:
        FileFormatError: If there is no checkpoint, or it is that of another safeguard.
    """
    calibrated = calibrated_path(folder)
    if calibrated.exists():
        learner.load_state(read_tensors(calibrated))
    else:
        load_learner(_last_checkpoint(folder), learner)


def calibrated_path(folder: Path) -> Path:
    """Return where the guard of the last checkpoint is kept after its calibration.

    The name holds the digest of what the checkpoint learned, so that a checkpoint which was made
    again does not meet the calibration of its predecessor.

    Raises:
        FileFormatError: If there is no checkpoint with a learned guard.
    """
    last = _last_checkpoint(folder)
    digest = file_digests(last).get("safeguard.safetensors")
    if digest is None:
        raise FileFormatError(last, "holds no learned guard", "train with --guard speed")
    return folder / "calibrated" / f"{last.name}-{digest[:16]}.safetensors"


def is_calibrated(folder: Path) -> bool:
    """Return whether the learned guard of the last checkpoint is calibrated on its policy."""
    learned = "safeguard.safetensors" in file_digests(_last_checkpoint(folder))
    return learned and calibrated_path(folder).exists()


def load_trained(folder: Path) -> SB3Policy:
    """Read the deterministic actor of a run's last checkpoint.

    Raises:
        FileFormatError: If there is none or it cannot be read.
    """
    config = load_config(folder)
    return load_policy(_last_checkpoint(folder), config)


def _last_checkpoint(folder: Path) -> Path:
    found = checkpoints(folder / "checkpoints")
    if not found:
        raise FileFormatError(folder, "holds no checkpoint", "train it first")
    return found[-1]


def open_run(config: TrainConfig, folder: Path, *, resume: bool) -> Counters:
    """Prepare the folder and return where to go on; a run without checkpoint begins anew.

    Raises:
        ConfigError: If the folder holds a run and `resume` is off, or the settings differ.
        FileFormatError: If the settings or the last checkpoint cannot be read.
        StorageError: If a file cannot be written.
    """
    found = checkpoints(folder / "checkpoints")
    if resume:
        _require_same(config, load_config(folder), folder)
    elif found:
        raise ConfigError(str(folder), "holds a run already; resume it or name a new folder")
    counters = load_counters(found[-1]) if found else Counters()
    write_json(folder / "config.json", {"version": RUN_VERSION, **to_mapping(config)})
    discard_drafts(folder / "checkpoints")
    rewind(folder / "episodes.csv", counters.episodes_bytes)
    return counters


def _require_same(asked: TrainConfig, stored: TrainConfig, folder: Path) -> None:
    ours, theirs = to_mapping(replace(asked, steps=stored.steps)), to_mapping(stored)
    for name, value in theirs.items():
        if ours[name] != value:
            problem = f"{name} was {value!r} when the run began, now it is {ours[name]!r}"
            raise ConfigError(str(folder), f"{problem}; only steps may change")
