"""Ant-Run: a four-legged robot runs in a lane, the faster the better, until the speed limit.

The task SafetyAntRun of Bullet-Safety-Gym (Gronauer, 2022) in the edition of SafeRL-Kit (Zhang et
al., 2023), written anew for Gymnasium 1; the physics is Bullet's and the robot that of its package.
Only this module imports pybullet.
"""

import functools
import importlib
import inspect
import math
import weakref
from types import SimpleNamespace
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float, Float32, UInt8

from safectl.errors import MissingExtra
from safectl.spec import Signal, Spec
from safectl_envs.graphics import check_render_mode
from safectl_envs.normalised import unit_of
from safectl_envs.spaces import box_of, saturate

Untyped: TypeAlias = Any
"""Something that belongs to pybullet, which is published without types."""

_PERIOD, _SUBSTEPS, _SOLVER_ITERATIONS = 1.0 / 60.0, 4, 5
_TORQUE = 2.5 * 100.0  # at action 1 [N m]
_SPEED_LIMIT, _HALF_WIDTH = 1.5, 2.0  # [m/s], [m]
_DEAD = 0.26  # height of the torso's centre at which it touches the ground [m]
_GOAL = 1000.0  # x of the point to run to [m]
_BOUND = 1000.0  # of the observations, in their units
_FEET = ("front_left_foot", "front_right_foot", "left_back_foot", "right_back_foot")
_AXES = "xyz"
_POSITION, _VELOCITY, _RATE, _JOINT = 0.1, 0.3, 0.15, 0.5
"""What position, velocity, angular velocity and joints are multiplied by."""
_BODY = np.repeat([_POSITION, _VELOCITY, 1.0, _RATE], [3, 3, 4, 3])


def _spec() -> Spec:
    scaled = [
        *((f"position_{axis}", unit_of(1.0 / _POSITION, "m")) for axis in _AXES),
        *((f"velocity_{axis}", unit_of(1.0 / _VELOCITY, "m/s")) for axis in _AXES),
        *((f"quaternion_{axis}", "1") for axis in "xyzw"),
        *((f"turn_rate_{axis}", unit_of(1.0 / _RATE, "rad/s")) for axis in _AXES),
    ]
    joints = [f"{joint}_{leg}" for leg in (1, 2, 3, 4) for joint in ("hip", "ankle")]
    for joint in joints:
        scaled += [(joint, "range"), (f"{joint}_rate", unit_of(10.0 / _JOINT, "rad/s"))]
    observation = [Signal(name, unit, -_BOUND, _BOUND) for name, unit in scaled]
    contacts = [Signal(f"{foot}_contact", "1", 0.0, 1.0) for foot in _FEET]
    action = [Signal(joint, unit_of(_TORQUE, "N m"), -1.0, 1.0) for joint in joints]
    return Spec((*observation, *contacts), tuple(action), _PERIOD)


class AntRun(gymnasium.Env[Float32[np.ndarray, " nx"], Float[np.ndarray, " nu"]]):
    """A torso on four legs with eight motors, in Bullet.

    Reward: 60 times the decrease of the planar distance [m] to (1000 m, 0), about the forward speed
    [m/s]; plus 1 while alive, else minus 1; minus 2 mean |a_i w_i| with the joint velocities w in
    [10 rad/s]; minus 0.1 mean a_i^2; minus 0.1 per joint beyond 99 % of its range.
    Cost: 1 while |y| > 2 m or the planar speed is above 1.5 m/s.
    Terminates when the torso's centre is 0.26 m high or lower.

    An action beyond its bounds saturates. Contact physics needs Bullet: there is no model, hence no
    barrier; safeguards learn from `info["cost"]`.

    Attributes:
        signals: Names, units and bounds of observation and action.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 60}  # noqa: RUF012 - as in gymnasium.Env
    name = "AntRun"
    horizon = 500
    cost_meaning = "planar speed above 1.5 m/s, or more than 2 m beside the middle of the lane"
    source = "SafetyAntRun of Bullet-Safety-Gym (Gronauer, 2022), edition of SafeRL-Kit"
    signals = _spec()

    def __init__(self, *, render_mode: str | None = None) -> None:
        """Load robot and ground.

        Args:
            render_mode: `rgb_array` or none.

        Raises:
            RangeError: If the render mode is another one.
            MissingExtra: If pybullet is not installed.
        """
        check_render_mode(render_mode)
        try:
            pybullet: Untyped = importlib.import_module("pybullet")
            data: Untyped = importlib.import_module("pybullet_data")
        except ModuleNotFoundError as error:
            raise MissingExtra("pybullet", "bullet") from error
        self.render_mode = render_mode
        self.observation_space = box_of(self.signals.observation)
        self.action_space: Box = box_of(self.signals.action)
        client = pybullet.connect(pybullet.DIRECT)
        self._disconnect = weakref.finalize(self, pybullet.disconnect, client)
        self._bullet = _bind(pybullet, client)
        self._load(data.getDataPath())
        self._start = self._bullet.saveState()
        self._step: int | None = None
        self._distance = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32[np.ndarray, " nx"], dict[str, Any]]:
        """Start an episode; the same seed gives the same episode.

        The torso stands 0.75 m high with x and y within 0.01 m of zero; hips at 0, ankles at a
        right angle, each with noise of 0.1 rad.

        Args:
            seed: Seed of this and the following episodes; without one, the generator goes on.
            options: Not used.

        Returns:
            Observation, shape (33,), and empty information.
        """
        super().reset(seed=seed)
        bullet = self._bullet
        bullet.restoreState(self._start)
        upright = 0.5 * math.pi * np.array([0.0, 1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 1.0])
        # The noise is added before an ankle is mirrored, as in the original.
        mirror = np.where(upright < 0.0, -1.0, 1.0)
        angles = upright + mirror * self.np_random.uniform(-0.1, 0.1, len(self._motors))
        for motor, angle in zip(self._motors, angles, strict=True):
            bullet.resetJointState(self._ant, motor, angle, 0.0)
        x, y = self.np_random.uniform(-0.01, 0.01, 2)
        bullet.resetBasePositionAndOrientation(self._ant, (x, y, 0.75), (0.0, 0.0, 0.0, 1.0))
        self._distance = math.hypot(_GOAL - x, y)
        bullet.stepSimulation()
        self._step = 0
        body, joints, _ = self._read()
        return self._observe(body, joints, np.zeros(len(_FEET))), {}

    def step(
        self, action: Float[np.ndarray, "..."]
    ) -> tuple[Float32[np.ndarray, " nx"], float, bool, bool, dict[str, Any]]:
        """Apply torques for one period.

        Args:
            action: Shape (8,), in the units of `signals.action`.

        Returns:
            Observation, shape (33,), reward, whether the torso fell, whether the time is up, and
            `{"cost": 0.0 or 1.0}`.

        Raises:
            ShapeError: If the action has another shape.
            NonFiniteError: If the action holds NaN or infinity.
            gymnasium.error.ResetNeeded: Before the first `reset`.
        """
        if self._step is None:
            raise gymnasium.error.ResetNeeded("call reset before anything else")
        command = saturate(action, self.action_space)
        bullet = self._bullet
        bullet.setJointMotorControlArray(
            self._ant, self._motors, bullet.TORQUE_CONTROL, forces=(_TORQUE * command).tolist()
        )
        bullet.stepSimulation()
        self._step += 1
        body, joints, contacts = self._read()
        (x, y, height), (speed_x, speed_y) = body[:3], body[3:5]
        before, self._distance = self._distance, math.hypot(_GOAL - x, y)
        alive = bool(height > _DEAD)
        reward = (before - self._distance) / _PERIOD + (1.0 if alive else -1.0)
        reward -= 2.0 * np.abs(command * joints[:, 1]).mean() + 0.1 * np.square(command).mean()
        reward -= 0.1 * np.count_nonzero(np.abs(joints[:, 0]) > 0.99)
        broken = abs(y) > _HALF_WIDTH or math.hypot(speed_x, speed_y) > _SPEED_LIMIT
        truncated = alive and self._step >= self.horizon
        observation = self._observe(body, joints, contacts)
        return observation, float(reward), not alive, truncated, {"cost": float(broken)}

    def render(self) -> UInt8[np.ndarray, "height width 3"] | None:  # type: ignore[override]  # the base names a type variable
        """Return a picture of the robot and the lane, or none without the mode."""
        if self.render_mode is None:
            return None
        bullet = self._bullet
        (x, _, _), _ = bullet.getBasePositionAndOrientation(self._ant)
        view = bullet.computeViewMatrix((x - 2.2, -2.2, 2.4), (x + 0.6, 0.0, 0.2), (0, 0, 1))
        lens = bullet.computeProjectionMatrixFOV(50.0, 480 / 360, 0.1, 60.0)
        *_, pixels, _, _ = bullet.getCameraImage(
            480, 360, view, lens, renderer=bullet.ER_TINY_RENDERER
        )
        return np.asarray(pixels, dtype=np.uint8).reshape(360, 480, 4)[:, :, :3].copy()

    def close(self) -> None:
        """Leave the physics server."""
        self._disconnect()

    def _load(self, folder: str) -> None:
        bullet = self._bullet
        bullet.setPhysicsEngineParameter(
            fixedTimeStep=_PERIOD,
            numSubSteps=_SUBSTEPS,
            numSolverIterations=_SOLVER_ITERATIONS,
            deterministicOverlappingPairs=1,
        )
        bullet.setGravity(0.0, 0.0, -9.81)
        bullet.setDefaultContactERP(0.9)
        half = (250.0, 250.0, 1.0)
        shape = bullet.createCollisionShape(bullet.GEOM_BOX, halfExtents=half)
        self._ground = bullet.createMultiBody(0.0, shape, basePosition=(0.0, 0.0, -1.0))
        bullet.changeDynamics(self._ground, -1, lateralFriction=0.8, restitution=0.5)
        flags = bullet.URDF_USE_SELF_COLLISION | bullet.URDF_USE_SELF_COLLISION_EXCLUDE_ALL_PARENTS
        (self._ant, *_) = bullet.loadMJCF(f"{folder}/mjcf/ant.xml", flags=flags)
        joints = [
            bullet.getJointInfo(self._ant, index) for index in range(bullet.getNumJoints(self._ant))
        ]
        links = {joint[12].decode(): joint[0] for joint in joints}
        self._feet = [links[foot] for foot in _FEET]
        motors = [joint for joint in joints if joint[2] == bullet.JOINT_REVOLUTE]
        self._motors = [joint[0] for joint in motors]
        low, high = (np.array([joint[column] for joint in motors]) for column in (8, 9))
        self._middle, self._half_range = 0.5 * (low + high), 0.5 * (high - low)
        for joint in joints:  # by default Bullet brakes every joint
            bullet.setJointMotorControl2(self._ant, joint[0], bullet.POSITION_CONTROL, force=0.0)
        if self.render_mode is not None:
            self._decorate()

    def _decorate(self) -> None:
        """Paint the sides of the lane and a mark at every second metre; nothing can touch them."""
        bullet = self._bullet
        bullet.changeVisualShape(self._ground, -1, rgbaColor=(0.93, 0.94, 0.95, 1.0))
        for link in range(-1, bullet.getNumJoints(self._ant)):
            bullet.changeVisualShape(self._ant, link, rgbaColor=(0.15, 0.39, 0.92, 1.0))
        side, mark = (0.86, 0.15, 0.15, 1.0), (0.75, 0.78, 0.82, 1.0)
        boxes = [((20.0, y, 0.0), (25.0, 0.04, 0.01), side) for y in (-_HALF_WIDTH, _HALF_WIDTH)]
        marks = [float(x) for x in range(-4, 46, 2)]
        boxes += [((x, 0.0, 0.0), (0.02, _HALF_WIDTH, 0.005), mark) for x in marks]
        for place, half, colour in boxes:
            shape = bullet.createVisualShape(bullet.GEOM_BOX, halfExtents=half, rgbaColor=colour)
            bullet.createMultiBody(0.0, -1, shape, basePosition=place)

    def _read(self) -> tuple[Untyped, Untyped, Untyped]:
        """Read position, velocity, quaternion, turn rate (13); joints (8, 2); contacts (4).

        Joints are relative: 0 in the middle of the range, 1 at its end, and in [10 rad/s].
        """
        bullet = self._bullet
        position, quaternion = bullet.getBasePositionAndOrientation(self._ant)
        velocity, rate = bullet.getBaseVelocity(self._ant)
        body = np.array((*position, *velocity, *quaternion, *rate))
        joints = np.array([row[:2] for row in bullet.getJointStates(self._ant, self._motors)])
        joints[:, 0] = (joints[:, 0] - self._middle) / self._half_range
        joints[:, 1] *= 0.1
        touching = {point[3] for point in bullet.getContactPoints(self._ant, self._ground)}
        return body, joints, np.array([float(foot in touching) for foot in self._feet])

    def _observe(
        self,
        body: Float[np.ndarray, " 13"],
        joints: Float[np.ndarray, "8 2"],
        contacts: Float[np.ndarray, " 4"],
    ) -> Float32[np.ndarray, " nx"]:
        parts = [body * _BODY, _JOINT * joints.ravel(), contacts]
        scaled: Float32[np.ndarray, " nx"] = np.concatenate(parts, dtype=np.float32)
        return scaled.clip(-_BOUND, _BOUND)


def _bind(pybullet: Untyped, client: int) -> SimpleNamespace:
    """Collect the functions and constants of pybullet for one physics server."""
    bound = {
        name: functools.partial(value, physicsClientId=client)
        if inspect.isbuiltin(value)
        else value
        for name, value in vars(pybullet).items()
    }
    return SimpleNamespace(**bound)
