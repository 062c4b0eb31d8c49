"""The loop of a training on a data set: log, evaluate, keep checkpoints, go on after a kill.

Folder of a run: `updates.csv`, `evaluations.csv`, `tensorboard/` and
`checkpoints/step-<updates>/`, whose `state.json` holds the SHA-256 of the weights. Checkpoints of
versions before that hold the number of updates only, and are read without.
"""

import csv
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from safectl.errors import FileFormatError, NonFiniteError
from safectl.files import new_file, new_folder, read_json, write_json
from safectl_agents.fb.domains import facts_of
from safectl_agents.fb.evaluate import LOWER, Policies, play, score
from safectl_agents.fb.settings import FBConfig
from safectl_agents.training_state import (
    STATE_VERSION,
    checkpoints,
    digests_of,
    discard_drafts,
    verified,
)

Progress = Callable[[int, Mapping[str, float]], None]
"""Called at every logged update with its number and figures."""

_LOG = logging.getLogger(__name__)
_WARM_UP = 2_000
"""Updates after which the mass of a model that learns is on its way to 1 / (1 - discount)."""

_ADVICE = "delete this folder to go on from the checkpoint before it, or train again"


@runtime_checkable
class Trainee(Protocol):
    """A method that learns from a data set; one update depends on the state and its number only."""

    def update(self, step: int) -> Mapping[str, Tensor]:
        """Take the update of this number, from 0; return scalars to log."""
        ...

    def policies(self) -> Policies:
        """Return the policies of all tasks that can be done, as they stand."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next update depends on, by name."""
        ...

    def load_state(self, named: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned.

        Raises:
            KeyError, RuntimeError: If it is the state of another method or of other sizes.
        """
        ...


def fit(
    trainee: Trainee, config: FBConfig, folder: Path, *, progress: Progress | None = None
) -> None:
    """Train up to `steps` from the last checkpoint of the folder.

    Warns once in the log when the mass says that the model diverges.

    Raises:
        FileFormatError: If the checkpoint cannot be read.
        NonFiniteError: If a weight becomes NaN or infinite; the last checkpoint is before that.
        StorageError: If a file cannot be written.
    """
    discard_drafts(folder / "checkpoints")
    step = restore(trainee.load_state, folder, config.device)
    _forget_after(step, folder)
    has_warned = False
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        while step < config.steps:
            metrics = trainee.update(step)
            step += 1
            if step % config.log_every == 0 or step == config.steps:
                figures = {name: float(value) for name, value in metrics.items()}
                if not has_warned and step > _WARM_UP and _diverges(figures, config):
                    has_warned = True
                    _warn(step, figures["mass"], config)
                _log(folder / "updates.csv", step, figures, writer, "update")
                if progress is not None:
                    progress(step, figures)
            if step % config.evaluate_every == 0 or step == config.steps:
                _require_finite(trainee.state())
                scores = _evaluate(trainee.policies(), config)
                _log(folder / "evaluations.csv", step, scores, writer, "score")
            if step % config.checkpoint_every == 0 or step == config.steps:
                _save(trainee, folder / "checkpoints", step, keep=config.keep)


def restore(load: Callable[[Mapping[str, Tensor]], None], folder: Path, device: str) -> int:
    """Load the last checkpoint, if there is one, and return the number of updates done.

    Nothing is written, so that a run can be read while it is trained.

    Args:
        load: Takes over a state.
        folder: Of the run.
        device: Where the state goes.

    Raises:
        FileFormatError: If it cannot be read.
    """
    found = checkpoints(folder / "checkpoints")
    if not found:
        return 0
    step = _step_of(found[-1])
    try:
        state = load_file(found[-1] / "state.safetensors", device=device)
        bad = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
        if bad:
            raise FileFormatError(found[-1], f"holds NaN or infinity in {bad[0]}", _ADVICE)
        load(state)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise FileFormatError(found[-1], f"does not fit the settings ({error})", _ADVICE) from error
    return step


def _step_of(folder: Path) -> int:
    """Return the number of updates of a checkpoint, whose files are checked where it says how."""
    state = read_json(folder / "state.json", advice=_ADVICE)
    if state.keys() != {"step"}:
        state = verified(folder)
    step = state.get("step")
    if not isinstance(step, int) or step < 0:
        raise FileFormatError(folder / "state.json", "holds no number of updates", _ADVICE)
    return step


def _save(trainee: Trainee, parent: Path, step: int, *, keep: int) -> None:
    state = {name: value.detach().clone() for name, value in trainee.state().items()}
    _require_finite(state)
    with new_folder(parent / f"step-{step:010d}", replace=True) as draft:
        save_file(state, draft / "state.safetensors")
        facts = {"version": STATE_VERSION, "step": step, "sha256": digests_of(draft)}
        write_json(draft / "state.json", facts)
    for old in checkpoints(parent)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def _diverges(figures: Mapping[str, float], config: FBConfig) -> bool:
    """Tell whether the mass lies outside [0, 2 / (1 - discount)]; False for a method without."""
    highest = 2.0 / (1.0 - config.gamma)
    return "mass" in figures and not 0.0 <= figures["mass"] <= highest


def _warn(step: int, mass: float, config: FBConfig) -> None:
    is_mean = config.update.target_heads == "mean"
    _LOG.warning(
        "%s, seed %d: mass is %.3g at update %d and should approach %.3g: the model diverges; "
        "train anew with %s",
        *(config.update.method, config.seed, mass, step, 1.0 / (1.0 - config.gamma)),
        "lower learning rates" if is_mean else "--update.target-heads mean",
    )


def _require_finite(state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            raise NonFiniteError(name, count=bad, size=value.numel(), advice=LOWER)


def _evaluate(policies: Policies, config: FBConfig) -> dict[str, float]:
    returns = play(policies, config.domain, config.episodes)
    names = facts_of(config.domain).tasks
    return {name: score(returns[name]) if name in returns else 0.0 for name in names}


def _log(
    path: Path, step: int, figures: Mapping[str, float], writer: SummaryWriter, group: str
) -> None:
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        if is_new:
            table.writerow(["step", *figures])
        table.writerow([step, *figures.values()])
    for name, value in figures.items():
        writer.add_scalar(f"{group}/{name}", value, step)


def _forget_after(step: int, folder: Path) -> None:
    """Drop what was logged after the checkpoint; those updates are made again.

    Raises:
        FileFormatError: If a log is damaged.
    """
    for name in ("updates.csv", "evaluations.csv"):
        path = folder / name
        if path.exists():
            try:
                head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
                kept = [line for line in lines if int(line.partition(",")[0]) <= step]
            except (OSError, ValueError) as error:
                advice = "delete it; the run then goes on with a new log"
                raise FileFormatError(path, f"is no log ({error})", advice) from error
            with new_file(path) as draft:
                draft.write_text("".join([head, *kept]), encoding="utf-8")
