"""Training of a forward-backward model from a folder of episodes, resumable bit for bit.

The batch and the noise of an update depend on the seed and on its number only, so on a CPU a run
that was killed and resumed gives the same bits as one that was not.

Folder of a run: `config.json`, `updates.csv`, `evaluations.csv`, `tensorboard/` and
`checkpoints/step-<updates>/`.
"""

import csv
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.utils.tensorboard import SummaryWriter

from safectl.config import overlay, to_mapping
from safectl.errors import ConfigError, FileFormatError, NonFiniteError, ShapeError
from safectl.files import new_file, new_folder, read_json, write_json
from safectl.models import Batch, Draws, ForwardBackward, Learner, draw
from safectl.seed import torch_generator
from safectl_agents.fb.domains import Domain, facts_of
from safectl_agents.fb.episodes import Transitions, load_transitions
from safectl_agents.fb.evaluate import Labels, infer_tasks, make_labels, run_tasks, score
from safectl_agents.fb.settings import FBConfig
from safectl_agents.training_state import checkpoints, discard_drafts

Progress = Callable[[int, Mapping[str, float]], None]

_ADVICE = "delete this folder to go on from the checkpoint before it, or train again"
_VERSION = 1


def train(
    config: FBConfig, data: Path, folder: Path, *, progress: Progress | None = None
) -> ForwardBackward:
    """Train, or go on from the last checkpoint of the folder.

    Args:
        config: What to train; only `steps` may differ from what the folder holds.
        data: Folder of episodes.
        folder: Folder of the run.
        progress: Called at every logged update with its number and figures.

    Raises:
        ConfigError: If the folder holds a run of other settings or of other data.
        FileFormatError: If data or checkpoint cannot be read.
        NonFiniteError: If a weight becomes NaN or infinite; the last checkpoint is before that.
        ShapeError: If the data are not those of the domain.
        StorageError: If a file cannot be written.
    """
    _claim(config, data, folder)
    torch.set_num_threads(config.threads)
    domain = Domain(config.domain)
    transitions = load_transitions(data, count=config.transitions, subset=config.subset)
    _require_fit(domain, transitions)
    learner, step = _resume(config, folder, domain)
    rows = Batch(*(torch.from_numpy(part).to(config.device) for part in transitions[:4]))
    labels = make_labels(config.domain, transitions, config.labels, seed=0)
    _forget_after(step, folder)
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        while step < config.steps:
            metrics = learner.update(*_inputs(config, learner, rows, step))
            step += 1
            if step % config.log_every == 0 or step == config.steps:
                figures = {name: float(value) for name, value in metrics.items()}
                _log(folder / "updates.csv", step, figures, writer, "update")
                if progress is not None:
                    progress(step, figures)
            if step % config.evaluate_every == 0 or step == config.steps:
                _evaluate(config, learner.model, labels, step, folder, writer)
            if step % config.checkpoint_every == 0 or step == config.steps:
                _save(learner, folder / "checkpoints", step, keep=config.keep)
    return learner.model


def load_run(folder: Path, *, device: str | None = None) -> tuple[FBConfig, ForwardBackward, int]:
    """Read the settings, the model and the number of updates of a run's last checkpoint.

    Args:
        folder: Of the run.
        device: Where the model goes; None for where it was trained.

    Raises:
        FileFormatError: If there is none, or it cannot be read.
    """
    config = load_config(folder, device=device)
    if not checkpoints(folder / "checkpoints"):
        raise FileFormatError(folder, "holds no checkpoint", "train it first")
    learner, step = _resume(config, folder, Domain(config.domain))
    return config, learner.model, step


def load_config(folder: Path, *, device: str | None = None) -> FBConfig:
    """Read the settings of a run, for another device where one is given.

    Raises:
        FileFormatError: If the folder holds no run.
    """
    path = folder / "config.json"
    stored = read_json(path, advice="name the folder of a training of a forward-backward model")
    if stored.pop("version", None) != _VERSION:
        raise FileFormatError(path, "has another version", f"this program reads {_VERSION}")
    stored.pop("data", None)
    stored |= {} if device is None else {"device": device}
    return overlay(FBConfig(), stored, source=str(path))


def _inputs(config: FBConfig, learner: Learner, rows: Batch, step: int) -> tuple[Batch, Draws]:
    """Return batch and noise of one update; both follow from the seed and its number."""
    generator = torch_generator(config.seed, f"update {step}", config.device)
    chosen = torch.randint(
        len(rows.action), (config.batch,), generator=generator, device=generator.device
    )
    sizes = learner.model.sizes
    draws = draw(config.batch, sizes.nu, sizes.nz, learner.settings.mix, generator)
    return Batch(*(part[chosen] for part in rows)), draws


def _claim(config: FBConfig, data: Path, folder: Path) -> None:
    path = folder / "config.json"
    if path.exists():
        stored = load_config(folder)
        ours = to_mapping(replace(config, steps=stored.steps))
        for name, value in to_mapping(stored).items():
            if ours[name] != value:
                problem = f"{name} was {value!r} when the run began, now it is {ours[name]!r}"
                raise ConfigError(str(folder), f"{problem}; only steps may change")
        before = read_json(path, advice=_ADVICE).get("data")
        if before != str(data.resolve()):
            problem = f"data were {before!r} when the run began, now they are {str(data)!r}"
            raise ConfigError(str(folder), f"{problem}; name another folder for this run")
    write_json(path, {"version": _VERSION, "data": str(data.resolve()), **to_mapping(config)})


def _require_fit(domain: Domain, transitions: Transitions) -> None:
    for name, width in (("observation", domain.nx), ("action", domain.nu)):
        shape = getattr(transitions, name).shape
        if shape[1] != width:
            raise ShapeError(f"{name} of the data", expected=("rows", width), got=shape)


def _resume(config: FBConfig, folder: Path, domain: Domain) -> tuple[Learner, int]:
    model = ForwardBackward(config.sizes(domain.nx, domain.nu), seed=config.seed)
    model.networks.to(config.device)
    learner = Learner(model, config.learning)
    discard_drafts(folder / "checkpoints")
    found = checkpoints(folder / "checkpoints")
    if not found:
        return learner, 0
    try:
        learner.load_state(load_file(found[-1] / "state.safetensors", device=config.device))
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise FileFormatError(found[-1], f"does not fit the settings ({error})", _ADVICE) from error
    return learner, int(read_json(found[-1] / "state.json", advice=_ADVICE)["step"])


def _save(learner: Learner, parent: Path, step: int, *, keep: int) -> None:
    state = {name: value.detach().clone() for name, value in learner.state().items()}
    for name, value in state.items():
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            advice = "lower the learning rate"
            raise NonFiniteError(name, count=bad, size=value.numel(), advice=advice)
    with new_folder(parent / f"step-{step:010d}", replace=True) as draft:
        save_file(state, draft / "state.safetensors")
        write_json(draft / "state.json", {"step": step})
    for old in checkpoints(parent)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def _evaluate(
    config: FBConfig,
    model: ForwardBackward,
    labels: Labels,
    step: int,
    folder: Path,
    writer: SummaryWriter,
) -> None:
    tasks = infer_tasks(model, config.domain, labels)
    returns = run_tasks(model, config.domain, tasks, config.episodes)
    names = facts_of(config.domain).tasks
    scores = {name: score(returns[name]) if name in returns else 0.0 for name in names}
    _log(folder / "evaluations.csv", step, scores, writer, "score")


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
    """Drop what was logged after the checkpoint; those updates are made again."""
    for name in ("updates.csv", "evaluations.csv"):
        path = folder / name
        if path.exists():
            head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if int(line.partition(",")[0]) <= step]
            with new_file(path) as draft:
                draft.write_text("".join([head, *kept]), encoding="utf-8")
