"""The tasks of the comparison by name; a new one is a line here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from safectl.errors import UnknownNameError


class Reference(NamedTuple):
    """Scores of unconstrained PPO that ship with Safety-Gym: return, cost and cost rate."""

    reward: float
    cost: float
    cost_rate: float


@dataclass(frozen=True, slots=True)
class Task:
    """One task with its protocol.

    Attributes:
        env: Gymnasium id.
        steps: Environment steps of a full training.
        learning_starts: Uniformly random steps before the first update.
        warmup_ratio: Share of the training before actions are corrected.
        reward_penalty: b of reward shaping.
        reference: For normalised scores, None where there is none.
        cost_limit: d of the normalised violation.
        hidden: Units per hidden layer of every network.
    """

    env: str
    steps: int = 1_000_000
    learning_starts: int = 5_000
    warmup_ratio: float = 0.2
    reward_penalty: float = 0.5
    reference: Reference | None = None
    cost_limit: float = 25.0
    hidden: tuple[int, ...] = (256, 256)


_LITE: dict[str, Any] = {"steps": 100_000, "learning_starts": 1_000, "hidden": (64, 64)}
_LONG_WARMUP = 1.0 / 3.0  # of the small tasks in the toolkit that cart-pole comes from


TASKS: Mapping[str, Task] = {
    "speed-limit": Task("safectl/SpeedLimit-v0", **_LITE),
    "point-hazard": Task("safectl/PointHazard-v0", **_LITE),
    "cart-pole": Task(
        "safectl/CartPoleStab-v0", warmup_ratio=_LONG_WARMUP, reward_penalty=0.1, **_LITE
    ),
    "planar-reach": Task("safectl/PlanarReach-v0", **_LITE),
    "ant-run": Task("safectl/AntRun-v0"),
    "jaka": Task("safectl/JakaReach-v0", 500_000),
    "half-cheetah-velocity": Task("SafetyHalfCheetahVelocity-v1"),
    "hopper-velocity": Task("SafetyHopperVelocity-v1"),
    "swimmer-velocity": Task("SafetySwimmerVelocity-v1"),
    "walker2d-velocity": Task("SafetyWalker2dVelocity-v1"),
    "ant-velocity": Task("SafetyAntVelocity-v1"),
    "humanoid-velocity": Task("SafetyHumanoidVelocity-v1"),
    "point-goal": Task("SafetyPointGoal1-v0", reference=Reference(25.179, 53.109, 0.063)),
}
"""Tasks by name."""


def find_task(name: str) -> Task:
    """Return a task.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    if name not in TASKS:
        raise UnknownNameError("task", name, known=tuple(TASKS), shown=len(TASKS))
    return TASKS[name]
