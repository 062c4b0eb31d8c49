"""`safectl envs`: list the environments, or describe one with its signals and units."""

import json
import sys
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Column, Table

from safectl_agents.models import Env, make_env
from safectl_envs.catalogue import catalogue
from safectl_envs.env import SafeEnv


@dataclass(frozen=True, slots=True)
class EnvsSettings:
    """What to list."""

    name: str = ""
    """Environment to describe with its signals and units; all are listed without."""
    json: bool = False
    """Print JSON."""


DEFAULTS = EnvsSettings()


def run(settings: EnvsSettings) -> int:
    """Print the catalogue or one environment."""
    if settings.name:
        _describe(settings.name, as_json=settings.json)
        return 0
    entries = catalogue()
    if settings.json:
        sys.stdout.write(json.dumps([asdict(entry) for entry in entries], indent=2) + "\n")
        return 0
    identity = Column("environment", no_wrap=True)
    table = Table(identity, "nx", "nu", "steps", "a step costs 1", "source")
    for entry in entries:
        sizes = [str(n) for n in (entry.observation, entry.action, entry.steps)]
        table.add_row(entry.id, *sizes, entry.cost, entry.source)
    Console().print(table)
    return 0


def _describe(name: str, *, as_json: bool) -> None:
    env = make_env(name)
    inner = env.unwrapped
    described = {
        "name": name,
        "observation": str(env.observation_space),
        "action": str(env.action_space),
        "steps": _horizon(env),
        "signals": json.loads(inner.signals.to_json()) if isinstance(inner, SafeEnv) else None,
    }
    env.close()
    if as_json:
        sys.stdout.write(json.dumps(described, indent=2) + "\n")
        return
    console = Console()
    for key in ("name", "observation", "action", "steps"):
        console.print(f"{key}: {described[key]}", highlight=False, markup=False)
    if isinstance(inner, SafeEnv):
        table = Table("signal", "unit", "low", "high")
        for kind, signals in (
            ("observation", inner.signals.observation),
            ("action", inner.signals.action),
        ):
            for signal in signals:
                row = (f"{signal.low:g}", f"{signal.high:g}")
                table.add_row(f"{kind} {signal.name}", signal.unit, *row)
        console.print(table)


def _horizon(env: Env) -> int | None:
    if isinstance(env.unwrapped, SafeEnv):
        return env.unwrapped.world.horizon
    return None if env.spec is None else env.spec.max_episode_steps
