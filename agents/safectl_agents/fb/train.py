"""Training of a forward-backward model from a folder of episodes, resumable bit for bit.

The batch and the noise of an update depend on the seed and on its number only, so on a CPU a run
that was killed and resumed gives the same bits as one that was not.

Folder of a run: `config.json` and what `safectl_agents.fb.loop` writes. `config.json` holds a
SHA-256 of names and sizes of the episodes, by which data that changed are refused; runs of versions
before that have none, and get it when they go on.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from safectl.config import to_mapping
from safectl.errors import ConfigError, FileFormatError, ShapeError
from safectl.files import read_json, write_json
from safectl.models import Batch, ForwardBackward, Learner, draw
from safectl.models.saved import load_named_state
from safectl.seed import torch_generator
from safectl_agents.fb.domains import Domain
from safectl_agents.fb.episodes import Transitions, digest_of_data, load_transitions
from safectl_agents.fb.evaluate import Policies, infer_tasks, make_labels, task_policies
from safectl_agents.fb.loop import Progress, Trainee, fit, restore
from safectl_agents.fb.settings import FBConfig, read_settings
from safectl_agents.one_writer import one_writer
from safectl_agents.training_state import checkpoints

MODEL = "forward-backward"
"""What a folder holds unless it says otherwise."""

_VERSION = 1

TraineeT = TypeVar("TraineeT", bound=Trainee)


class ModelTrainee:
    """A forward-backward model that learns from transitions.

    Args:
        config: What to train.
        domain: Its world.
        transitions: Of that world.
    """

    def __init__(self, config: FBConfig, domain: Domain, transitions: Transitions) -> None:
        self._config = config
        self.learner = make_learner(config, domain)
        self._rows = Batch(*(torch.from_numpy(part).to(config.device) for part in transitions[:4]))
        self._labels = make_labels(config.domain, transitions, config.labels, seed=0)

    def update(self, step: int) -> Mapping[str, Tensor]:
        """Take one step of everything."""
        config, sizes = self._config, self.learner.model.sizes
        generator = torch_generator(config.seed, f"update {step}", config.device)
        chosen = torch.randint(
            len(self._rows.action), (config.batch,), generator=generator, device=generator.device
        )
        draws = draw(config.batch, sizes.nu, sizes.nz, self.learner.settings.mix, generator)
        return self.learner.update(Batch(*(part[chosen] for part in self._rows)), draws)

    def policies(self) -> Policies:
        """Return the mean policies, their tasks inferred anew."""
        model = self.learner.model
        return task_policies(model, infer_tasks(model, self._config.domain, self._labels))

    def state(self) -> dict[str, Tensor]:
        """Return what the learner depends on."""
        return self.learner.state()

    def load_state(self, named: Mapping[str, Tensor]) -> None:
        """Take over the state of a learner."""
        self.learner.load_state(named)


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
        ConfigError: If the folder holds a run of other settings or of other data, or another
            command writes there.
        FileFormatError: If data or checkpoint cannot be read.
        NonFiniteError: If a weight becomes NaN or infinite; the last checkpoint is before that.
        ShapeError: If the data are not those of the domain.
        StorageError: If a file cannot be written.
    """
    trained = train_as(MODEL, ModelTrainee, config, data, folder, progress=progress)
    return trained.learner.model


def train_as(
    kind: str,
    make: Callable[[FBConfig, Domain, Transitions], TraineeT],
    config: FBConfig,
    data: Path,
    folder: Path,
    *,
    progress: Progress | None = None,
) -> TraineeT:
    """Train any method as `train` does; `kind` names it in the folder.

    Sizes that do not fit the domain are refused before anything is written.
    """
    check_run(kind, config, data, folder)
    domain = Domain(config.domain)
    config.sizes(domain.nx, domain.nu)
    facts = {"version": _VERSION, "kind": kind, "data": str(data.resolve())}
    facts |= {"data_sha256": digest_of_data(data)}
    with one_writer(folder):
        check_run(kind, config, data, folder)  # again: nobody else changes it from here on
        write_json(folder / "config.json", facts | to_mapping(config))
        torch.set_num_threads(config.threads)
        transitions = load_transitions(data, count=config.transitions, subset=config.subset)
        _require_fit(domain, transitions)
        trainee = make(config, domain, transitions)
        fit(trainee, config, folder, progress=progress)
    return trainee


def load_run(folder: Path, *, device: str | None = None) -> tuple[FBConfig, ForwardBackward, int]:
    """Read the settings, the model and the number of updates of a run's last checkpoint.

    Only the model is read: a checkpoint without targets and optimisers will do.

    Args:
        folder: Of the run.
        device: Where the model goes; None for where it was trained.

    Raises:
        FileFormatError: If there is none, or it cannot be read.
    """
    kind, config, *_ = _read_config(folder, device)
    if kind != MODEL:
        advice = "name a training of a forward-backward model"
        raise FileFormatError(folder, f"holds a training of {kind}", advice)
    if not checkpoints(folder / "checkpoints"):
        raise FileFormatError(folder, "holds no checkpoint", "train it first")
    model = _make_model(config, Domain(config.domain))

    def load(named: Mapping[str, Tensor]) -> None:
        load_named_state(named, {"model": model.networks}, {})

    return config, model, restore(load, folder, config.device)


def load_run_data(folder: Path, data: Path | None = None) -> Transitions:
    """Read the transitions that a run was trained on.

    Args:
        folder: Of the run.
        data: Its episodes; those that the run names where absent.

    Raises:
        FileFormatError: If the folder holds no run, or the data cannot be read.
        NonFiniteError: If a number of them is NaN or infinite.
        ShapeError: If they are those of another domain.
    """
    _, config, stored, _ = _read_config(folder, None)
    if data is None:
        if not stored or not Path(stored).is_dir():
            problem = f"names data that are not here: {stored!r}"
            raise FileFormatError(folder, problem, "name the folder of the episodes with --data")
        data = Path(stored)
    transitions = load_transitions(data, count=config.transitions, subset=config.subset)
    _require_fit(Domain(config.domain), transitions)
    return transitions


def load_config(folder: Path, *, device: str | None = None) -> FBConfig:
    """Read the settings of a run, for another device where one is given.

    Raises:
        FileFormatError: If the folder holds no run.
    """
    return _read_config(folder, device).config


def make_learner(config: FBConfig, domain: Domain) -> Learner:
    """Return an untrained learner on the device of the settings."""
    return Learner(_make_model(config, domain), config.update, discount=config.gamma)


def _make_model(config: FBConfig, domain: Domain) -> ForwardBackward:
    model = ForwardBackward(config.sizes(domain.nx, domain.nu), seed=config.seed)
    model.networks.to(config.device)
    return model


class _Stored(NamedTuple):
    """What a folder holds, its settings, its data, and their digest where it is known."""

    kind: str
    config: FBConfig
    data: str | None
    digest: str | None


def _read_config(folder: Path, device: str | None) -> _Stored:
    path = folder / "config.json"
    stored = read_json(path, advice="name the folder of a training of a forward-backward model")
    if stored.pop("version", None) != _VERSION:
        raise FileFormatError(path, "has another version", f"this program reads {_VERSION}")
    kind = str(stored.pop("kind", MODEL))
    data, digest = stored.pop("data", None), stored.pop("data_sha256", None)
    for name, value in (("data", data), ("data_sha256", digest)):
        if not isinstance(value, str | None):
            raise FileFormatError(path, f"holds {name} {value!r}", "name the folder of a training")
    stored |= {} if device is None else {"device": device}
    return _Stored(kind, read_settings(stored, source=str(path)), data, digest)


def check_run(kind: str, config: FBConfig, data: Path, folder: Path) -> None:
    """Refuse a folder that holds another training, or one of data that have changed since.

    Raises:
        ConfigError: If it does.
        FileFormatError: If its settings cannot be read.
    """
    if not (folder / "config.json").exists():
        return
    before, stored, data_before, digest = _read_config(folder, None)
    if before != kind:
        problem = f"holds a training of {before}, not of {kind}; name another folder"
        raise ConfigError(str(folder), problem)
    ours = to_mapping(replace(config, steps=stored.steps))
    for name, value in to_mapping(stored).items():
        if ours[name] != value:
            problem = f"{name} was {value!r} when the run began, now it is {ours[name]!r}"
            raise ConfigError(str(folder), f"{problem}; only steps may change")
    if data_before != str(data.resolve()):
        problem = f"data were {data_before!r} when the run began, now they are {str(data)!r}"
        raise ConfigError(str(folder), f"{problem}; name another folder for this run")
    if digest is not None and data.is_dir() and digest_of_data(data) != digest:
        problem = f"the episodes in {data} are not those of when the run began"
        raise ConfigError(str(folder), f"{problem}; restore them, or name another folder")


def _require_fit(domain: Domain, transitions: Transitions) -> None:
    for name, width in (("observation", domain.nx), ("action", domain.nu)):
        shape = getattr(transitions, name).shape
        if shape[1] != width:
            raise ShapeError(f"{name} of the data", expected=("rows", width), got=shape)
