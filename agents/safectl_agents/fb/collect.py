"""Collection of reward-free data by several processes, resumable.

Process w of n makes the episodes w, w + n, w + 2n, ... and has an explorer of its own if it learns.
A collection that was stopped goes on with the first missing
episode and the explorer of its last checkpoint. So its data differ from those of an uninterrupted
one, and no claim of equal bits is made.

Folder: `collection.json`, `buffer/episode_<index>_<length>.npz`, `explorers/<process>.safetensors`.
"""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from safectl.config import to_mapping
from safectl.errors import ConfigError, FileFormatError, RangeError
from safectl.files import new_file, read_json, write_json
from safectl.seed import torch_generator
from safectl_agents.fb.ddpg import Explorer, ExplorerSettings
from safectl_agents.fb.diayn import DIAYNAgent
from safectl_agents.fb.domains import Domain, facts_of
from safectl_agents.fb.episodes import Episode, episode_path, load_episode, save_episode
from safectl_agents.fb.maze_batch import wander
from safectl_agents.fb.rnd import RNDAgent
from safectl_agents.one_writer import one_writer
from safectl_agents.pool import TrainingLost, end_with_parent
from safectl_agents.settings import require_device

Collector = Literal["rnd", "diayn", "random", "wander"]

_EXPLORERS: dict[str, type[RNDAgent] | type[DIAYNAgent]] = {"rnd": RNDAgent, "diayn": DIAYNAgent}

_SAVE_EVERY = 10
"""Episodes of a process between two checkpoints of its explorer."""
_POLL_S = 1.0
_WANDERED = "point_mass_maze"
_ADVICE = "delete it; the collection then goes on with a new explorer"


@dataclass(frozen=True, slots=True)
class CollectConfig:
    """What to collect.

    Raises:
        RangeError: If a number is below 1, or the seed below 0.
        UnknownNameError: If there is no domain of this name.
    """

    domain: str = "point_mass_maze"
    """`point_mass_maze`, `walker` or `planar_reach`."""
    collector: Collector = "rnd"
    """`rnd` explores what is new to it, `diayn` learns skills that can be told apart, `random` acts
    uniformly, `wander` starts anywhere in the point-mass maze and holds random pushes for a while:
    100 episodes cover it in seconds."""
    episodes: int = 1_000
    """Episodes in all, >= 1; ExORL has 10,000."""
    processes: int = 1
    """Processes, >= 1, each with an explorer of its own."""
    seed: int = 0
    """Of everything random, >= 0."""
    device: str = "cpu"
    """Torch device of the explorers."""
    explorer: ExplorerSettings = field(default_factory=ExplorerSettings)
    """The explorer of `rnd` and `diayn`."""

    def __post_init__(self) -> None:
        facts_of(self.domain)
        for name, low in (("episodes", 1), ("processes", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise RangeError(name, value=getattr(self, name), expected=f">= {low}")
        require_device(self.device)
        if self.collector == "wander" and (self.domain, self.processes) != (_WANDERED, 1):
            expected = f"{_WANDERED} by one process where the collector is wander"
            raise RangeError("domain", value=self.domain, expected=expected)


def collect(
    config: CollectConfig, folder: Path, *, progress: Callable[[int], None] | None = None
) -> Path:
    """Collect, or go on collecting.

    Args:
        config: What to collect; only `episodes` may differ from what the folder holds.
        folder: Folder of the collection.
        progress: Called about once a second with the number of episodes on disk.

    Returns:
        The folder of the episodes.

    Raises:
        ConfigError: If the folder holds another collection, or another command writes there.
        FileFormatError: If an explorer or episode on disk is damaged.
        StorageError: If a file cannot be written.
        TrainingLost: If a process was killed.
    """
    with one_writer(folder):
        _claim(config, folder)
        return _collect(config, folder, progress)


def _collect(config: CollectConfig, folder: Path, progress: Callable[[int], None] | None) -> Path:
    buffer = folder / "buffer"
    if config.collector == "wander":
        steps = Domain(config.domain).episode_steps
        numbers = range(config.episodes)
        missing = [n for n in numbers if not episode_path(buffer, n, steps).exists()]
        for number, episode in zip(missing, wander(missing, config.seed), strict=True):
            save_episode(episode, buffer, number)
            if progress is not None:
                progress(number + 1)
        return buffer
    if config.processes == 1:
        _work(config, folder, 0, progress)
        return buffer
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        config.processes, mp_context=context, initializer=end_with_parent
    ) as pool:
        running = [pool.submit(_work, config, folder, w) for w in range(config.processes)]
        while not all(work.done() for work in running):
            time.sleep(_POLL_S)
            if progress is not None:
                progress(len(list(buffer.glob("episode_*.npz"))))
        try:
            for work in running:
                work.result()
        except BrokenProcessPool as error:
            raise TrainingLost from error
    return buffer


def _claim(config: CollectConfig, folder: Path) -> None:
    path = folder / "collection.json"
    ours = to_mapping(config)
    if path.exists():
        theirs = read_json(path, advice="name another folder")
        if "rnd" in theirs:  # its name before there was another explorer
            theirs["explorer"] = theirs.pop("rnd")
        for name, value in ours.items():
            if name != "episodes" and theirs.get(name) != value:
                problem = f"{name} was {theirs.get(name)!r}, now it is {value!r}"
                raise ConfigError(str(folder), f"{problem}; only episodes may change")
    write_json(path, ours)


def _work(
    config: CollectConfig,
    folder: Path,
    process: int,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Make the episodes of one process."""
    torch.set_num_threads(1)
    buffer, saved = folder / "buffer", folder / "explorers" / f"{process}.safetensors"
    domain = Domain(config.domain, seed=0)
    generator = torch_generator(config.seed, f"explorer {process}", config.device)
    kind = _EXPLORERS.get(config.collector)
    agent: Explorer[Any] = (kind or RNDAgent)(domain.nx, domain.nu, config.explorer, generator)
    numbers = range(process, config.episodes, config.processes)
    paths = [episode_path(buffer, number, domain.episode_steps) for number in numbers]
    done = 0
    while done < len(paths) and paths[done].exists():
        done += 1
    if kind is not None and done < len(numbers):
        if saved.exists():
            _restore(agent, saved)
        for path in paths[max(0, done - config.explorer.capacity) : done]:
            agent.remember(_load(path, domain, agent))
    for index in range(done, len(numbers)):
        # Seeded by its number, so that an episode does not depend on where a collection stopped.
        seeded = torch_generator(config.seed, f"episode {numbers[index]}", config.device)
        agent.generator.set_state(seeded.get_state())
        domain = Domain(config.domain, seed=seeded.initial_seed())
        episode = _run(domain, agent, config, index * domain.episode_steps)
        save_episode(episode, buffer, numbers[index])
        if kind is not None:
            agent.remember(episode)
            if (index + 1) % _SAVE_EVERY == 0 or index + 1 == len(numbers):
                with new_file(saved) as draft:
                    save_file({k: v.contiguous() for k, v in agent.state().items()}, draft)
        if progress is not None:
            progress(numbers[index] + 1)


def _run(domain: Domain, agent: Explorer[Any], config: CollectConfig, first_step: int) -> Episode:
    """Run one episode; `first_step` counts those of the process before it."""
    learns, steps = config.collector in _EXPLORERS, domain.episode_steps
    columns = [list(domain.facts.tasks).index(task) for task in domain.facts.collected]
    observation = [domain.reset()]
    action = [np.zeros(domain.nu, np.float32)]
    reward, physics = [np.zeros(len(columns), np.float32)], [domain.state()]
    skill: list[NDArray[np.float32]] = []
    for step in range(first_step, first_step + steps):
        agent.begin_step(step - first_step)
        skill.append(agent.skill)
        is_random = not learns or step < config.explorer.random_steps
        action.append(agent.draw() if is_random else agent.act(observation[-1]))
        observation.append(domain.step(action[-1]))
        reward.append(domain.rewards()[columns])
        physics.append(domain.state())
        if learns and step % config.explorer.update_every == 0:
            agent.update()
    return Episode(
        np.stack(observation),
        np.stack(action),
        np.stack(reward),
        np.ones(steps + 1, np.float32),
        np.stack(physics),
        np.stack([*skill, agent.skill]) if agent.skill.size else None,
    )


def _load(path: Path, domain: Domain, agent: Explorer[Any]) -> Episode:
    """Read an episode that this explorer can remember."""
    episode = load_episode(path)
    skills = 0 if episode.skill is None else episode.skill.shape[1]
    found = (episode.steps, episode.observation.shape[1], episode.action.shape[1], skills)
    expected = (domain.episode_steps, domain.nx, domain.nu, len(agent.skill))
    if found != expected:
        problem = f"has (steps, observations, actions, skills) {found}, expected {expected}"
        raise FileFormatError(path, problem, "collect into another folder")
    return episode


def _restore(agent: Explorer[Any], path: Path) -> None:
    try:
        agent.load_state(load_file(path))
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise FileFormatError(path, f"is no explorer of this size ({error})", _ADVICE) from error
