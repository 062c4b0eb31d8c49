"""The values that travel between the parts, and the protocols at the seams.

Sizes: `batch` rows, `nx` observations, `nu` actions, `m` constraints, `H` planning steps, `nz`
entries of a task.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int8
from torch import Tensor

from safectl.spec import Spec


class Status(IntEnum):
    """What became of a proposed action."""

    KEPT = 0
    CORRECTED = 1
    FALLBACK = 2


@dataclass(frozen=True, slots=True)
class Certificate:
    """Evidence for a batch of actions, recomputed from the actions themselves.

    Attributes:
        status: `Status` per row, shape (batch,).
        margin: Smallest constraint value at the returned action, shape (batch,), in the unit of the
            constraint; below zero means violated.
        risk: Bound on the probability of violation, shape (batch,), in [0, 1]; 1 in a fallback.
        residual: Largest violation of any constraint or limit by the returned action, (batch,).
    """

    status: Int8[Tensor, " batch"]
    margin: Float[Tensor, " batch"]
    risk: Float[Tensor, " batch"]
    residual: Float[Tensor, " batch"]


class Decision(NamedTuple):
    """An action with its evidence; only safeguards make one, and only this reaches a robot."""

    action: Float[Tensor, "batch nu"]
    certificate: Certificate


class Gaussian(NamedTuple):
    """A normal distribution per row: mean (batch, nx) and covariance (batch, nx, nx)."""

    mean: Float[Tensor, "batch nx"]
    covariance: Float[Tensor, "batch nx nx"]


class Plan(NamedTuple):
    """States (batch, H, nx) and actions (batch, H, nu) with one certificate row per plan."""

    states: Float[Tensor, "batch H nx"]
    actions: Float[Tensor, "batch H nu"]
    certificate: Certificate


class Task(NamedTuple):
    """What to do, as the task vector of a world model: shape (nz,)."""

    vector: Float[Tensor, " nz"]


class Reading(NamedTuple):
    """An observation of shape (nx,) in float32 and its monotonic stamp [s]."""

    observation: Float[Tensor, " nx"]
    stamp: float


class Sent(NamedTuple):
    """What left a bridge after its last limit: action of shape (nu,) and monotonic stamp [s]."""

    action: Float[Tensor, " nu"]
    stamp: float


@runtime_checkable
class Policy(Protocol):
    """Proposes actions. A proposal is not safe; it cannot be written to a bridge."""

    def act(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nu"]:
        """Propose one action per row."""
        ...


@runtime_checkable
class Safeguard(Protocol):
    """Turns proposals into decisions.

    `filter` never raises for numerical reasons and never returns an uncertified action: what cannot
    be certified is the named fallback, marked `Status.FALLBACK`. It refuses a batch of the wrong
    shape (`ShapeError`) or of mixed dtypes (`RangeError`).
    """

    @property
    def claim(self) -> str:
        """What the certificate asserts, and under which assumption, in one sentence."""
        ...

    def filter(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Decision:
        """Return the nearest certified action per row, or the fallback."""
        ...


@runtime_checkable
class Planner(Protocol):
    """Plans several steps ahead."""

    def plan(self, observation: Float[Tensor, "batch nx"], /) -> Plan:
        """Plan from every row."""
        ...


@runtime_checkable
class WorldModel(Protocol):
    """Learned once from data, asked for many tasks later."""

    def infer(
        self, observation: Float[Tensor, "samples nx"], reward: Float[Tensor, " samples"], /
    ) -> Task:
        """Find the task vector from labelled data."""
        ...

    def act(
        self, observation: Float[Tensor, "batch nx"], task: Task, /
    ) -> Float[Tensor, "batch nu"]:
        """Propose actions for a task."""
        ...

    def value(
        self,
        observation: Float[Tensor, "batch nx"],
        action: Float[Tensor, "batch nu"],
        task: Task,
        /,
    ) -> Float[Tensor, " batch"]:
        """Predict the discounted reward of an action followed by the task's policy."""
        ...


@runtime_checkable
class Dynamics(Protocol):
    """A control-affine model x' = f(x) + g(x) u with a one-step prediction."""

    @property
    def nx(self) -> int:
        """Number of states."""
        ...

    @property
    def nu(self) -> int:
        """Number of actions."""
        ...

    def drift(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx"]:
        """Return f(x), in units of the state per second."""
        ...

    def gain(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nx nu"]:
        """Return g(x), in units of the state per second and unit of action."""
        ...

    def predict(
        self, state: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Gaussian:
        """Return mean and covariance of the state one period later, the action held constant."""
        ...


@runtime_checkable
class Barrier(Protocol):
    """A safe set {x : h(x) >= 0 in every entry}."""

    def value(self, state: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch m"]:
        """Return h(x), one column per constraint."""
        ...


@runtime_checkable
class Bridge(Protocol):
    """One robot, real or simulated: a context manager that stops the robot on entry and on exit."""

    @property
    def spec(self) -> Spec:
        """Signals of the robot; readable without a connection."""
        ...

    def read(self) -> Reading:
        """Return the newest observation."""
        ...

    def write(self, decision: Decision, /) -> Sent:
        """Send a decision for one row and return what was sent after the last limit."""
        ...

    def stop(self) -> None:
        """Bring the robot to its safe state; idempotent; never raises."""
        ...

    def __enter__(self) -> "Bridge":
        """Connect, then stop."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Stop, then disconnect."""
        ...
