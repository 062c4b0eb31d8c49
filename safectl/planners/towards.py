"""Plans that lead to a goal by simple laws, and claim nothing about what is in between."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.dynamics import Unicycle
from safectl.errors import RangeError, ShapeError
from safectl.safeguards.evidence import action_limits
from safectl.safeguards.fallback import Numbers
from safectl.spec import Spec
from safectl.types import Certificate, Plan, Status

_TURN_GAIN = 2.0  # [1/s]; the heading error halves in 0.35 s
_SLOW_S = 1.0  # time of the way to the goal at which to slow down [s]


class Pursuit:
    """Turns a unicycle towards a goal and drives there.

    With the distance d and the error e of the heading, v = min(d / 1 s, limit) max(0, cos e) and
    w = 2 e / s within the limits; both are zero within the radius of the goal. Nothing is promised
    about obstacles: give every command to a safeguard.

    Args:
        spec: Signals of the robot; the actions are speed and turn rate.
        goal: x and y [m].
        pose: Indices of x, y and heading in the observation.
        scale: What 1 means for both actions, in [m/s] and [rad/s].
        horizon: Steps of a plan.
        radius: Distance at which the goal is reached [m].

    Raises:
        ShapeError: If goal, pose or scale have the wrong length.
        RangeError: If horizon or radius is not positive.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        goal: Sequence[float],
        pose: Sequence[int] = (0, 1, 2),
        scale: Numbers = (1.0, 1.0),
        horizon: int = 40,
        radius: float = 0.1,
    ) -> None:
        for name, entries, size in (("goal", goal, 2), ("pose", pose, 3), ("scale", scale, 2)):
            if len(entries) != size:
                raise ShapeError(name, expected=(size,), got=(len(entries),))
        _require_positive(horizon=horizon, radius=radius)
        self.spec, self.goal, self.pose = spec, tuple(goal), list(pose)
        self.scale, self.horizon, self.radius = tuple(scale), horizon, radius
        self._model = Unicycle(spec.period)

    def towards(self, goal: Sequence[float]) -> "Pursuit":
        """Return the same planner with another goal, x and y [m]."""
        return Pursuit(
            self.spec,
            goal=goal,
            pose=self.pose,
            scale=self.scale,
            horizon=self.horizon,
            radius=self.radius,
        )

    @torch.no_grad()
    def plan(self, observation: Float[Tensor, "batch nx"], /) -> Plan:
        """Roll the law out: states are x, y and heading."""
        limits = action_limits(self.spec, observation)
        scale = observation.new_tensor(self.scale)
        low, high = limits.low * scale, limits.high * scale
        state, states, actions = observation[:, self.pose], [], []
        for _ in range(self.horizon):
            command = self._law(state).clamp(low, high)
            state = self._model.predict(state, command).mean
            states.append(state)
            actions.append(command / scale)
        return Plan(torch.stack(states, 1), torch.stack(actions, 1), no_claim(observation))

    def _law(self, state: Tensor) -> Tensor:
        way = state.new_tensor(self.goal) - state[:, :2]
        distance = torch.linalg.vector_norm(way, dim=1)
        error = torch.atan2(way[:, 1], way[:, 0]) - state[:, 2]
        error = torch.atan2(error.sin(), error.cos())
        speed = distance / _SLOW_S * error.cos().clamp(min=0.0)
        command = torch.stack([speed, _TURN_GAIN * error], dim=1)
        return torch.where((distance > self.radius).unsqueeze(1), command, 0.0)


class JointLine:
    """Moves joints to a goal on a straight line, all of them arriving together.

    Args:
        spec: Signals of the robot; the actions are positions.
        goal: One position per action.
        positions: Index of the measured position of every action.
        speed: Largest one per action, in units of the position per second.
        horizon: Steps of a plan.

    Raises:
        ShapeError: If a length is not nu.
        RangeError: If the horizon or a speed is not positive.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        goal: Sequence[float],
        positions: Sequence[int],
        speed: Numbers,
        horizon: int = 50,
    ) -> None:
        lengths = (("goal", goal), ("positions", positions), ("speed", speed))
        for name, entries in lengths:
            if len(entries) != spec.nu:
                raise ShapeError(name, expected=(spec.nu,), got=(len(entries),))
        _require_positive(horizon=horizon, speed=min(speed))
        self.spec, self.goal, self.positions = spec, tuple(goal), list(positions)
        self.speed, self.horizon = tuple(speed), horizon

    def towards(self, goal: Sequence[float]) -> "JointLine":
        """Return the same planner with another goal, one position per action."""
        return JointLine(
            self.spec,
            goal=goal,
            positions=self.positions,
            speed=self.speed,
            horizon=self.horizon,
        )

    @torch.no_grad()
    def plan(self, observation: Float[Tensor, "batch nx"], /) -> Plan:
        """Interpolate from where the joints are; states and actions are positions."""
        start = observation[:, self.positions]
        way = start.new_tensor(self.goal) - start
        lasts = (way.abs() / start.new_tensor(self.speed)).amax(1)
        steps = torch.arange(1, self.horizon + 1, dtype=start.dtype, device=start.device)
        share = self.spec.period * steps / lasts.clamp(min=self.spec.period).unsqueeze(1)
        points = start.unsqueeze(1) + share.clamp(max=1.0).unsqueeze(2) * way.unsqueeze(1)
        return Plan(points, points.clamp(*action_limits(self.spec, start)), no_claim(start))


def no_claim(like: Float[Tensor, "batch nx"]) -> Certificate:
    """Return certificates that assert nothing, one per row."""
    rows = len(like)
    return Certificate(
        torch.full((rows,), Status.FALLBACK.value, dtype=torch.int8, device=like.device),
        like.new_full((rows,), -torch.inf),
        like.new_ones(rows),
        like.new_full((rows,), torch.inf),
    )


def _require_positive(**numbers: float | int) -> None:
    for name, number in numbers.items():
        if not number > 0.0:
            raise RangeError(name, value=number, expected="a positive number")
