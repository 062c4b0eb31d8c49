"""A task that a user names by a reward function, asked of a trained model without learning."""

import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safectl.errors import ConfigError, RangeError
from safectl.models.tasks import TaskQuality, rewards_of, task_quality
from safectl.seed import numpy_generator, torch_generator
from safectl_agents.fb.evaluate import Policies, play, task_policies
from safectl_agents.fb.train import load_run, load_run_data

RewardFunction = Callable[[Tensor], Tensor]
"""Maps observations (rows, nx) to the rewards (rows,) on entering them."""

WAYS = ("policy", "random actions", "no action")
"""What acts, each from the same starts."""


class Answer(NamedTuple):
    """What a model does with a task.

    Attributes:
        quality: How far its task vector can be trusted.
        returns: Sums of the rewards of each episode, shape (episodes,), for each of `WAYS`.
    """

    quality: TaskQuality
    returns: dict[str, NDArray[np.float64]]


def ask(
    folder: Path,
    function: RewardFunction,
    *,
    data: Path | None = None,
    episodes: int = 10,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Answer:
    """Infer the task of a reward function and follow its policy.

    Args:
        folder: Of a run of `safectl train fb`.
        function: The rewards.
        data: Episodes whose observations are labelled; those that the run names where absent.
        episodes: Starts, equal for the policy and for what it is compared with.
        seed: Of the labels that are drawn and of random actions.
        progress: Called after every step with the number of steps so far.

    Raises:
        FileFormatError: If run or data cannot be read.
        NonFiniteError, RangeError, ShapeError: If the function returns something else than one
            finite number per observation, or the data are those of another domain.
        TaskNotInferable: If no observation of the data has a reward.
    """
    if episodes < 1:
        raise RangeError("episodes", value=episodes, expected=">= 1")
    run, model, _ = load_run(folder, device="cpu")
    entered = load_run_data(folder, data).next_observation
    labelled = numpy_generator(seed, "labels").permutation(len(entered))[: run.labels]
    labels = torch.from_numpy(entered[labelled])
    rewards = rewards_of(function, labels)
    task = model.infer(labels, rewards)
    quality = task_quality(model.backward, labels, rewards, torch_generator(seed, "quality"))
    policy, uniform = task_policies(model, {WAYS[0]: task}), numpy_generator(seed, "random actions")

    def act(rows: Tensor) -> Tensor:
        chosen = policy.act(rows[:1])
        drawn = torch.from_numpy(uniform.uniform(-1.0, 1.0, chosen.shape)).to(chosen)
        return torch.cat([chosen, drawn, torch.zeros_like(chosen)])

    reward, ways = partial(rewards_of, function), Policies(WAYS, act)
    return Answer(quality, play(ways, run.domain, episodes, reward=reward, progress=progress))


def reward_function(name: str) -> RewardFunction:
    """Return a function of a Python file, which is run.

    Args:
        name: Such as `rewards.py:near`.

    Raises:
        ConfigError: If the file cannot be run or holds no such function.
    """
    path, _, wanted = name.rpartition(":")
    if not path.endswith(".py") or not wanted:
        raise ConfigError(name, "is no function of a file; write it as rewards.py:near")
    try:
        found = runpy.run_path(path).get(wanted)
    except (Exception, SystemExit) as error:  # whatever the user's file raises
        raise ConfigError(path, f"cannot be run: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ConfigError(path, f"holds no function {wanted!r}")

    def function(observation: Tensor) -> Tensor:
        try:
            returned: Tensor = found(observation)
        except (Exception, SystemExit) as error:  # whatever the user's function raises
            problem = f"{wanted} raised {type(error).__name__}: {error}"
            raise ConfigError(path, problem) from error
        return returned

    return function
