"""A trained forward-backward model on a robot: a policy per task, and a limit on visits."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from safectl.barriers import Discs
from safectl.errors import FileFormatError, RangeError, ShapeError, UnknownNameError
from safectl.files import new_file, read_json
from safectl.models import ForwardBackward, VisitCritic, VisitScope, VisitTable
from safectl.safeguards import VisitLimit
from safectl.spec import Spec
from safectl.types import Task
from safectl_agents.fb import VISITS
from safectl_agents.fb.domains import facts_of
from safectl_agents.fb.episodes import load_transitions
from safectl_agents.fb.evaluate import infer_tasks, make_labels
from safectl_agents.fb.settings import FBConfig
from safectl_agents.fb.train import load_run
from safectl_agents.training_state import checkpoints, digest, read_tensors

_ADVICE = "write it with: safectl visits"


@dataclass(frozen=True, slots=True, eq=False)
class TaskPolicy:
    """The policy of one task.

    Attributes:
        model: What was trained.
        task: What to do.
    """

    model: ForwardBackward
    task: Task

    def act(self, observation: Shaped[Tensor, "..."], /) -> Float[Tensor, "batch nu"]:
        """Return the mean action, in [-1, 1]."""
        return self.model.act(observation, self.task)


def load_task_policy(
    folder: Path, spec: Spec, *, task: str = "", goal: tuple[float, ...] = (), data: Path | None
) -> TaskPolicy:
    """Build the policy of a task from the last checkpoint of a run.

    Args:
        folder: Of the run.
        spec: Signals of the robot.
        task: A task of the run's domain; empty with a goal. Without either it is the task that
            `visits.safetensors` is about.
        goal: Observation to reach; empty with a task.
        data: Folder of the episodes that were trained on; asked for where a task has no goal.

    Raises:
        UnknownNameError: If the domain has no such task, or the data do not show it.
        FileFormatError: If run or data cannot be read.
        RangeError, ShapeError: If the robot has other numbers of signals or other limits.
    """
    config, model = _load(folder, spec)
    if goal:
        return TaskPolicy(model, model.infer_goal(torch.tensor(goal)))
    if not task and (folder / VISITS).exists():
        return TaskPolicy(model, Task(_read_visits(folder / VISITS, model)["task"]))
    facts = facts_of(config.domain)
    if task not in facts.tasks:
        raise UnknownNameError(f"task of {config.domain}", task, known=list(facts.tasks))
    if task in facts.goals:
        return TaskPolicy(model, model.infer_goal(torch.tensor(facts.goals[task])))
    if data is None:
        raise RangeError("data", value=None, expected=f"the episodes, to infer {task} from rewards")
    transitions = load_transitions(data, count=config.transitions, subset=config.subset)
    labels = make_labels(config.domain, transitions, config.labels, seed=0)
    tasks = infer_tasks(model, config.domain, labels)
    if task not in tasks:
        raise UnknownNameError("task that the data show", task, known=list(tasks))
    return TaskPolicy(model, tasks[task])


class Checkpoint(NamedTuple):
    """Which model it was: the number of its updates, and the SHA-256 of its file."""

    step: int
    sha256: str


def last_checkpoint(folder: Path) -> Checkpoint:
    """Return which checkpoint of a run is the last one.

    Raises:
        FileFormatError: If there is none, or it cannot be read.
    """
    found = checkpoints(folder / "checkpoints")
    if not found:
        raise FileFormatError(folder, "holds no checkpoint", "train it first")
    stored = read_json(found[-1] / "state.json", advice="train it again")
    return Checkpoint(int(stored["step"]), digest(found[-1] / "state.safetensors"))


@dataclass(frozen=True, slots=True, eq=False)
class Visits:
    """How often the policy of one task visits one unsafe set.

    Attributes:
        critic: C_U of that policy.
        table: The bound on the probability of a visit at C_U.
        scope: Where it holds, for which set and within how many steps.
        facts: The unsafe set, and how the table was made; empty where `save_visits` was not told.
    """

    critic: VisitCritic
    table: VisitTable
    scope: VisitScope
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def policy(self) -> TaskPolicy:
        """The policy that the bound is about."""
        return TaskPolicy(self.critic.model, self.critic.task)

    def limit(self, spec: Spec, *, limit: float, candidates: int = 64) -> VisitLimit:
        """Return the safeguard that keeps the bound within a limit.

        Outside the box of the scope and in the unsafe set the bound is 1.

        Raises:
            RangeError: As `VisitLimit`.
        """

        def bound(observation: Tensor, action: Tensor) -> Tensor:
            found = self.critic.bound(self.table, observation, action)
            return self.scope.bound(observation, found)

        def order(observation: Tensor, action: Tensor) -> Tensor:
            return self.scope.order(observation, self.critic.order(observation, action))

        steps = self.scope.steps
        return VisitLimit(
            bound, spec=spec, limit=limit, steps=steps, candidates=candidates, order=order
        )


def save_visits(
    folder: Path,
    task: Task,
    unsafe: Float[Tensor, " nz"],
    table: VisitTable,
    scope: VisitScope,
    *,
    checkpoint: Checkpoint,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Keep in the folder of a run what limits the visits of one task to one unsafe set.

    Args:
        folder: Of the run.
        task: Whose policy it is about.
        unsafe: b_U.
        table: From rollouts of that policy.
        scope: Of those rollouts; its set is one disc.
        checkpoint: Whose policy was rolled out.
        facts: JSON values that are kept beside the numbers.

    Raises:
        StorageError: If it cannot be written; the file that was there stays.
    """
    tensors = {
        "task": task.vector,
        "unsafe": unsafe,
        "edges": table.edges,
        "probability": table.probability,
        "upper": table.upper,
        "alarm": torch.tensor(table.alarm),
        "low": scope.low,
        "high": scope.high,
        "disc": torch.cat([scope.unsafe.centres[0], torch.tensor([scope.unsafe.radius])]),
        "steps": torch.tensor(scope.steps),
    }
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with new_file(folder / VISITS) as draft:
        metadata = {"facts": json.dumps(facts or {}), "checkpoint": json.dumps(checkpoint)}
        draft.write_bytes(save(stored, metadata=metadata))


def load_visits(folder: Path, spec: Spec) -> Visits:
    """Read a run and what `save_visits` left in its folder.

    Args:
        folder: Of the run.
        spec: Signals of the robot.

    Raises:
        FileFormatError: If run or numbers cannot be read or do not fit each other, or were measured
            on another checkpoint than the last.
        RangeError, ShapeError: If the robot has other numbers of signals or other limits.
    """
    config, model = _load(folder, spec)
    tensors = _read_visits(folder / VISITS, model)
    discount = config.gamma
    critic = VisitCritic(model, Task(tensors["task"]), tensors["unsafe"], discount=discount)
    *centre, radius = tensors["disc"].tolist()
    try:
        shares, upper = tensors["probability"], tensors["upper"]
        table = VisitTable(tensors["edges"], shares, upper, float(tensors["alarm"]))
        discs, steps = Discs(torch.tensor([centre]), radius), int(tensors["steps"])
        scope = VisitScope(tensors["low"], tensors["high"], discs, steps)
    except RangeError as error:
        raise FileFormatError(folder / VISITS, str(error), _ADVICE) from error
    facts = _read_metadata(folder / VISITS, "facts")
    return Visits(critic, table, scope, facts if isinstance(facts, dict) else {})


def load_visit_limit(
    folder: Path, robot: Spec, spec: Spec, *, limit: float, candidates: int
) -> VisitLimit:
    """Build the safeguard that `save_visits` left the numbers of.

    Args:
        folder: Of the run.
        robot: Signals of the robot.
        spec: The same with the limits in force.
        limit: Largest admissible probability of a visit, in (0, 1).
        candidates: As in `VisitLimit`.

    Raises:
        FileFormatError, RangeError, ShapeError: As `load_visits`.
    """
    return load_visits(folder, robot).limit(spec, limit=limit, candidates=candidates)


def _read_metadata(path: Path, name: str) -> object:
    with safe_open(path, framework="pt") as file:
        stored = (file.metadata() or {}).get(name, "null")
    try:
        found: object = json.loads(stored)
    except json.JSONDecodeError as error:
        raise FileFormatError(path, f"holds {name} that are no JSON ({error})", _ADVICE) from error
    return found


def _require_last_checkpoint(path: Path) -> None:
    """Refuse visits of another checkpoint than the last of the folder that they lie in."""
    measured, last = _read_metadata(path, "checkpoint"), last_checkpoint(path.parent)
    if measured != list(last):
        problem = f"is about the checkpoint {measured}, the last one here is {list(last)}"
        raise FileFormatError(path, problem, "measure it again with: safectl visits")


def _read_visits(path: Path, model: ForwardBackward) -> dict[str, Tensor]:
    """Read what `save_visits` wrote, for a model of these sizes and the last checkpoint."""
    tensors, nz, nx = read_tensors(path), model.sizes.nz, model.sizes.nx
    ranges = tensors["upper"].numel() if "upper" in tensors else 0
    expected = {
        "task": (nz,),
        "unsafe": (nz,),
        "edges": (ranges - 1,),
        "probability": (ranges,),
        "upper": (ranges,),
        "alarm": (),
        "low": (nx,),
        "high": (nx,),
        "disc": (3,),
        "steps": (),
    }
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        raise FileFormatError(path, f"holds {found}, expected {expected}", _ADVICE)
    _require_last_checkpoint(path)
    return tensors


def _load(folder: Path, spec: Spec) -> tuple[FBConfig, ForwardBackward]:
    """Read a run for a robot with actions in [-1, 1], on the CPU."""
    config, model, _ = load_run(folder, device="cpu")
    expected = (model.sizes.nx, model.sizes.nu)
    if (spec.nx, spec.nu) != expected:
        raise ShapeError("signals of the robot", expected=expected, got=(spec.nx, spec.nu))
    limits = (*spec.action_low, *spec.action_high)
    if limits != (*(-1.0,) * spec.nu, *(1.0,) * spec.nu):
        expected_limits = "[-1, 1] for every action, as in the training"
        raise RangeError("action limits", value=limits, expected=expected_limits)
    return config, model
