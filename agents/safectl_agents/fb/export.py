"""A forward-backward run as a program for C: the policy of a task, with visits behind its veto."""

import math
from dataclasses import dataclass
from pathlib import Path

from safectl.errors import ConfigError, FileFormatError
from safectl.export import Program
from safectl.export.visits import task_policy_program, visit_limit_program
from safectl.files import read_json
from safectl.spec import Signal, Spec
from safectl_agents.fb import VISITS
from safectl_agents.fb.arm import ARM_SPEC
from safectl_agents.fb.domains import Domain
from safectl_agents.fb.saved import load_task_policy, load_visits
from safectl_agents.fb.train import load_config
from safectl_agents.fb.visit_rollouts import MAZE_SPEC


@dataclass(frozen=True, slots=True)
class FBExportSettings:
    """For a run of `safectl train fb`: what of it."""

    task: str = ""
    """Task of the domain, for a run without `visits.safetensors`; one with it is exported with what
    is in there."""
    data: Path | None = None
    """Episodes it was trained on, for a task that has no goal."""
    limit: float = 0.1
    """Of visits: largest admissible probability of one, in (0, 1)."""
    candidates: int = 3
    """Of visits: actions tried besides the proposal, the middle and the corners, >= 1; each
    costs a pass through F in every step."""


_DEFAULTS = FBExportSettings()


def is_fb_run(folder: Path) -> bool:
    """Return whether a folder holds a run of `safectl train fb`."""
    path = folder / "config.json"
    return path.exists() and "backward_hidden" in read_json(path, advice="name another folder")


def fb_program(folder: Path, name: str, settings: FBExportSettings) -> Program:
    """Build the program of a run's last checkpoint.

    Args:
        folder: Of the run.
        name: Lower-case C identifier.
        settings: What of it.

    Raises:
        ConfigError: If a setting was given that does not count for what the run holds.
        FileFormatError: If run or visits cannot be read, or neither they nor the settings name a
            task.
        RangeError: If no action can be within the limit.
        UnknownNameError: If the domain has no such task.
    """
    spec = spec_of_domain(load_config(folder).domain)
    _require_used(settings, folder)
    if settings.task:
        policy = load_task_policy(folder, spec, task=settings.task, data=settings.data)
        return task_policy_program(name, spec, policy.model, policy.task)
    if not (folder / VISITS).exists():
        problem = f"holds no {VISITS} and no task was named"
        raise FileFormatError(folder, problem, "name a task with --fb.task, or: safectl visits")
    visits = load_visits(folder, spec)
    guard = visits.limit(spec, limit=settings.limit, candidates=settings.candidates)
    points = guard.unit_points.tolist()
    threshold = visits.table.threshold(settings.limit)
    return visit_limit_program(name, spec, visits.critic, threshold, points, scope=visits.scope)


def _require_used(settings: FBExportSettings, folder: Path) -> None:
    """Refuse settings of a policy alone for a run with visits, and those of visits without."""
    has_visits = (folder / VISITS).exists()
    kind = f"{folder} holds {VISITS}" if has_visits else f"{folder} holds no {VISITS}"
    advice = "leave it out" + (", or move that file to export a policy alone" if has_visits else "")
    for name in ("task", "data") if has_visits else ("limit", "candidates"):
        if getattr(settings, name) != getattr(_DEFAULTS, name):
            raise ConfigError(f"--fb.{name}", f"does not count: {kind}; {advice}")


def spec_of_domain(name: str) -> Spec:
    """Return the signals of a domain; those of walker have no names or units."""
    known = {"point_mass_maze": MAZE_SPEC, "planar_reach": ARM_SPEC}
    if name in known:
        return known[name]
    domain = Domain(name)
    seen = (Signal(f"observation_{i}", "?", -math.inf, math.inf) for i in range(domain.nx))
    action = (Signal(f"action_{i}", "1", -1.0, 1.0) for i in range(domain.nu))
    return Spec(tuple(seen), tuple(action), domain.period)
