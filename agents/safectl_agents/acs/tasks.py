"""The tasks of the comparison by name; a new one is a line here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from safectl.errors import UnknownNameError
from safectl.safeguards.correction import Mode


class Reference(NamedTuple):
    """Scores of unconstrained PPO that ship with Safety-Gym: return, cost and cost rate."""

    reward: float
    cost: float
    cost_rate: float


@dataclass(frozen=True, slots=True)
class Learning:
    """Rates that all off-policy methods share on a task, and two choices of ACS's own.

    Attributes:
        critic_rate: Step size of the critics' Adam.
        actor_rate: Step size of the policies' Adam.
        tau: Share of the new weights in the slow copies per update.
        cost_tau: The same of the cost critic.
        cost_discount: gamma of the cost.
        multiplier_rate: Step size of the Lagrangian methods' multiplier.
        mode: How ACS moves actions.
        corrected_target: Whether ACS corrects the next action in the target of Q_c.
    """

    critic_rate: float = 3e-4
    actor_rate: float = 3e-4
    tau: float = 0.005
    cost_tau: float = 0.005
    cost_discount: float = 0.99
    multiplier_rate: float = 1e-5
    mode: Mode = "gradient"
    corrected_target: bool = False


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
        learning: Rates of the off-policy methods.
    """

    env: str
    steps: int = 1_000_000
    learning_starts: int = 5_000
    warmup_ratio: float = 0.2
    reward_penalty: float = 0.5
    reference: Reference | None = None
    cost_limit: float = 25.0
    hidden: tuple[int, ...] = (256, 256)
    learning: Learning = Learning()


_LITE: dict[str, Any] = {"steps": 100_000, "learning_starts": 1_000, "hidden": (64, 64)}
_FAST_CRITICS = Learning(  # decision 0090
    critic_rate=1e-3,
    tau=0.01,
    cost_tau=0.04,
    cost_discount=0.97,
    multiplier_rate=1e-3,
    mode="newton",
    corrected_target=True,
)
_DESCRIBED = Learning(mode="newton", corrected_target=True)  # decision 0092
_LONG_WARMUP = 1.0 / 3.0  # of the small tasks in the toolkit that cart-pole comes from


TASKS: Mapping[str, Task] = {
    "speed-limit": Task("safectl/SpeedLimit-v0", learning=_FAST_CRITICS, **_LITE),
    "point-hazard": Task("safectl/PointHazard-v0", **_LITE),
    "cart-pole": Task(
        "safectl/CartPoleStab-v0", warmup_ratio=_LONG_WARMUP, reward_penalty=0.1, **_LITE
    ),
    "planar-reach": Task("safectl/PlanarReach-v0", **_LITE),
    "ant-run": Task("safectl/AntRun-v0", learning=_DESCRIBED),
    "jaka": Task("safectl/JakaReach-v0", 500_000, learning=_DESCRIBED),
    "half-cheetah-velocity": Task("SafetyHalfCheetahVelocity-v1", learning=_DESCRIBED),
    "hopper-velocity": Task("SafetyHopperVelocity-v1", learning=_DESCRIBED),
    "swimmer-velocity": Task("SafetySwimmerVelocity-v1", learning=_DESCRIBED),
    "walker2d-velocity": Task("SafetyWalker2dVelocity-v1", learning=_DESCRIBED),
    "ant-velocity": Task("SafetyAntVelocity-v1", learning=_DESCRIBED),
    "humanoid-velocity": Task("SafetyHumanoidVelocity-v1", learning=_DESCRIBED),
    "point-goal": Task(
        "SafetyPointGoal1-v0",
        reference=Reference(25.179, 53.109, 0.063),
        learning=_DESCRIBED,
    ),
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
