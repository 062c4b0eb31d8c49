"""Bags as Minari datasets: what a guarded robot saw and was sent, for training."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import minari
import numpy as np
from gymnasium.spaces import Box
from minari.data_collector import EpisodeBuffer

from safectl.errors import RangeError, StorageError
from safectl.spec import Signal, Spec
from safectl_ros.recording import Recording

_GAP_PERIODS = 1.5  # between two states; more is the begin of another episode


@dataclass(slots=True)
class _Episode:
    """Steps so far; the lists have the shapes (T+1, nx), (T, nu), (T,), (T,), (T,), (T,)."""

    observations: list[np.ndarray]
    actions: list[np.ndarray]
    rewards: list[float]
    costs: list[float]
    terminations: list[bool]
    truncations: list[bool]


def to_minari(recording: Recording, spec: Spec, dataset: str) -> int:
    """Store a recording as a Minari dataset.

    The action of a step is the safe command that answered its state, or the newest one before the
    next state. Rewards, costs and ends are those of the simulator; without one they are zero, and
    an episode ends, truncated, where states are missing and where the bag ends.

    Args:
        recording: What was recorded.
        spec: Signals of the robot, for the spaces.
        dataset: Identifier such as `robot/kitchen-v0`.

    Returns:
        The number of steps.

    Raises:
        RangeError: If the recording has not one whole step.
        StorageError: If there is such a dataset already, or it cannot be written.
    """
    episodes = list(_episodes(recording, spec))
    if not episodes:
        raise RangeError("steps", value=0, expected="a state, a safe command and a state")
    buffers = [
        EpisodeBuffer(
            id=number,
            observations=np.array(episode.observations, dtype=np.float32),
            actions=np.array(episode.actions, dtype=np.float32),
            rewards=episode.rewards,
            terminations=episode.terminations,
            truncations=episode.truncations,
            infos={"cost": np.array([0.0, *episode.costs])},
        )
        for number, episode in enumerate(episodes)
    ]
    try:
        with warnings.catch_warnings():  # of author, environment and scores, which a bag has not
            warnings.filterwarnings("ignore", module=r"minari\.")
            minari.create_dataset_from_buffers(
                dataset,
                buffers,
                observation_space=_box(spec.observation),
                action_space=_box(spec.action),
                description="recorded behind a safectl guard",
            )
    except (ValueError, OSError) as error:
        raise StorageError(dataset, str(error)) from error
    return sum(len(episode.actions) for episode in episodes)


def _box(signals: Sequence[Signal]) -> Box:
    low = np.array([signal.low for signal in signals], dtype=np.float32)
    return Box(low, np.array([signal.high for signal in signals], dtype=np.float32))


def _episodes(recording: Recording, spec: Spec) -> Iterator[_Episode]:
    """Cut the recording where the simulator or a gap in the states ends an episode."""
    states = recording.states
    times = states.stamp if (states.stamp >= 0).all() else states.arrival
    instants, firsts = np.unique(times, return_index=True)
    period = np.median(np.diff(instants)) if len(instants) > 1 else spec.period * 1e9
    episode = _begin(states.values[firsts[0]])
    for now, then in pairwise(firsts):
        action = _action(recording, int(now), int(then))
        is_step = times[then] - times[now] <= _GAP_PERIODS * period
        reward, cost, terminated, truncated = _outcome(recording, int(times[then]))
        if action is None or not is_step or reward is None:
            yield from _ended(episode)
            episode = _begin(states.values[then])
            continue
        episode.observations.append(states.values[then])
        episode.actions.append(action)
        episode.rewards.append(reward)
        episode.costs.append(cost)
        episode.terminations.append(terminated)
        episode.truncations.append(truncated)
    yield from _ended(episode)


def _begin(observation: np.ndarray) -> _Episode:
    return _Episode([observation], [], [], [], [], [])


def _ended(episode: _Episode) -> Iterator[_Episode]:
    """Yield an episode that has a step; one that was cut off is truncated."""
    if episode.actions:
        episode.truncations[-1] = episode.truncations[-1] or not episode.terminations[-1]
        yield episode


def _action(recording: Recording, now: int, then: int) -> np.ndarray | None:
    """Return what was sent between two states, none where nothing was."""
    states, safe = recording.states, recording.safe
    index = safe.answer(int(states.stamp[now]), int(states.arrival[now]))
    if index < 0:
        index = safe.before(int(states.arrival[then]))
    return None if index < 0 else np.asarray(safe.values[index])


def _outcome(recording: Recording, stamp: int) -> tuple[float | None, float, bool, bool]:
    """Return what the simulator said of a step; no reward where it says that there was no step."""
    outcomes = recording.outcomes
    if len(outcomes) == 0:
        return 0.0, 0.0, False, False
    found = np.flatnonzero(outcomes.stamp == stamp)
    if len(found) == 0:
        return None, 0.0, False, False
    reward, cost, terminated, truncated = outcomes.values[found[0]].tolist()
    return reward, cost, terminated > 0.0, truncated > 0.0
