"""An arm of six joints reaches for a point while a tall cylinder slides through its workspace.

Kinematics, reward and the moving cylinder are those of the authors' public environments of the JAKA
arm; the cost is the clearance between arm and cylinder, instead of a penalty for contact. Simulated
by MuJoCo, without contact forces: an arm that touches the cylinder passes through, so that a
violation is counted and can be recovered from.
"""

import importlib
import math
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float, Float32, UInt8

from safectl.errors import MissingExtra
from safectl.spec import Signal, Spec
from safectl_envs.graphics import check_render_mode, prefer_headless
from safectl_envs.normalised import unit_of
from safectl_envs.spaces import box_of, saturate

Untyped: TypeAlias = Any
"""Something that belongs to MuJoCo, which is used without its types."""

_PERIOD, _SUBSTEPS = 0.05, 5  # [s]
_JOINTS = (  # parent to joint [m], and whether the frame is rolled by a right angle
    ((0.0, 0.0, 0.094), False),
    ((0.0, 0.0, 0.0), True),
    ((0.353, 0.0, 0.0), False),
    ((0.31, 0.0, 0.109), False),
    ((0.0, -0.0955, 0.0), True),
    ((0.0, 0.085, 0.0), True),
)
_START = (0.0, 0.0, 1.0, 1.0, 1.0, 1.0)  # [rad]
_LOW, _HIGH = (-3.14, *[-1.58] * 5), (3.14, *[3.58] * 5)  # [rad]
_FULL = 3.14  # commanded angle at action 1 [rad]
_SPEED, _GAIN = 0.5, 0.3  # of the joints [rad/s]; share of the error that a step moves
_BASE = 0.2  # height [m]
_LINK, _CYLINDER, _HEIGHT = 0.06, 0.05, 1.0  # radii and the cylinder's height [m]
_GAP = 0.02  # clearance that must remain [m]
_NEAR = 0.1  # distance of success [m]
_NEAREST = 0.01  # below it the reward 1 / (5 d) grows no more [m]
_SLIDE, _TURN = 0.002, 1.0  # of the cylinder per step, and where it turns round [m]
_DOWN = np.array([0.0, 1.0, 0.0, 0.0])  # wanted orientation (w, x, y, z): the flange looks down
_FAR = 2.0  # distances beyond are not measured [m]


def _spec() -> Spec:
    offsets = [
        Signal(f"{name}_{axis}", "m", -4.0, 4.0)
        for name in ("flange_to_target", "cylinder_to_flange")
        for axis in "xyz"
    ]
    angles = [Signal(f"joint_{joint}", "rad", -4.0, 4.0) for joint in range(1, 7)]
    unit = unit_of(_FULL, "rad")
    action = tuple(Signal(f"joint_{joint}", unit, -1.0, 1.0) for joint in range(1, 6))
    return Spec((*offsets, *angles), action, _PERIOD)


class JakaReach(gymnasium.Env[Float32[np.ndarray, " nx"], Float[np.ndarray, " nu"]]):
    """Five of six joints follow commanded angles, at most at 0.5 rad/s; the last one goes to zero.

    Reward, with d the distance of the flange to the target [m]: -d from 0.1 m on; nearer
    1 / (5 d) + 0.6 - |q - q*| with quaternions q, where q* looks down and d counts at least 0.01 m.
    Cost: 1 while the clearance between a link (capsules of radius 0.06 m) and the cylinder (radius
    0.05 m, height 1 m) is below 0.02 m. No step terminates.

    `info` also holds `is_success`, whether the flange has been within 0.1 m of the target in this
    episode, and `collisions`, how often an arm without contact has touched the cylinder.

    Attributes:
        signals: Names, units and bounds of observation and action.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - as in gymnasium.Env
    name = "JakaReach"
    horizon = 500
    cost_meaning = "clearance between the arm and the sliding cylinder below 0.02 m"
    source = "JAKA arm of POAR-SRL-4-Robot (BillChan226), with a cost"
    signals = _spec()

    def __init__(self, *, render_mode: str | None = None) -> None:
        """Build the model.

        Args:
            render_mode: `rgb_array` or none.

        Raises:
            RangeError: If the render mode is another one.
            MissingExtra: If MuJoCo is not installed.
        """
        check_render_mode(render_mode)
        prefer_headless()
        try:
            self._mujoco: Untyped = importlib.import_module("mujoco")
        except ModuleNotFoundError as error:
            raise MissingExtra("mujoco", "envs") from error
        self.render_mode = render_mode
        self.observation_space = box_of(self.signals.observation)
        self.action_space: Box = box_of(self.signals.action)
        self._model = self._mujoco.MjModel.from_xml_string(model_text())
        self._data = self._mujoco.MjData(self._model)
        self._links = [self._model.geom(f"link_{index}").id for index in range(len(_JOINTS))]
        self._cylinder = self._model.geom("cylinder").id
        self._renderer: Untyped = None
        self._step: int | None = None
        self._goal, self._place = np.zeros(3), np.zeros(3)
        self._direction, self._touching = 1.0, False
        self._success, self._collisions = False, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32[np.ndarray, " nx"], dict[str, Any]]:
        """Start an episode; the same seed gives the same episode.

        The target lies at x in [-0.2, 0.2] m, y in [0.4, 0.5] m, on the ground; the cylinder 0.3
        to 0.4 m to one side of it and up to 0.1 m nearer the base, sliding towards it.

        Args:
            seed: Seed of this and the following episodes; without one, the generator goes on.
            options: Not used.

        Returns:
            Observation, shape (12,), and empty information.
        """
        super().reset(seed=seed)
        draw = self.np_random
        self._goal = np.array([draw.uniform(-0.2, 0.2), draw.uniform(0.4, 0.5), 0.0])
        self._direction = float(draw.choice([-1.0, 1.0]))
        aside = self._direction * draw.uniform(0.3, 0.4)
        nearer = draw.uniform(0.0, 0.1)
        self._place = self._goal + np.array([-aside, -nearer, 0.5 * _HEIGHT])
        self._mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = self._data.ctrl[:] = _START
        self._put()
        self._mujoco.mj_forward(self._model, self._data)
        self._step, self._touching, self._success, self._collisions = 0, False, False, 0
        return self._observe(), {}

    def step(
        self, action: Float[np.ndarray, "..."]
    ) -> tuple[Float32[np.ndarray, " nx"], float, bool, bool, dict[str, Any]]:
        """Follow the commanded angles for one period.

        Args:
            action: Shape (5,), in the units of `signals.action`.

        Returns:
            Observation, shape (12,), reward, `False`, whether the time is up, and the information
            `cost`, `is_success` and `collisions`.

        Raises:
            ShapeError: If the action has another shape.
            NonFiniteError: If the action holds NaN or infinity.
            gymnasium.error.ResetNeeded: Before the first `reset`.
        """
        if self._step is None:
            raise gymnasium.error.ResetNeeded("call reset before anything else")
        wanted = np.append(_FULL * saturate(action, self.action_space), 0.0).clip(_LOW, _HIGH)
        change = _GAIN * (wanted - self._data.ctrl)
        self._data.ctrl += change.clip(-_SPEED * _PERIOD, _SPEED * _PERIOD)
        if abs(self._place[0] + self._direction * _SLIDE) > _TURN:
            self._direction = -self._direction
        self._place[0] += self._direction * _SLIDE
        self._put()
        self._mujoco.mj_step(self._model, self._data, nstep=_SUBSTEPS)
        self._mujoco.mj_forward(self._model, self._data)  # poses of the new state
        self._step += 1
        distance = float(np.linalg.norm(self._goal - self._data.body("flange").xpos))
        clearance = self.clearance()
        self._collisions += clearance < 0.0 and not self._touching
        self._touching = clearance < 0.0
        self._success = self._success or distance < _NEAR
        info = {
            "cost": float(clearance < _GAP),
            "is_success": self._success,
            "collisions": self._collisions,
        }
        reward = self._reward(distance)
        return self._observe(), reward, False, self._step >= self.horizon, info

    def clearance(self) -> float:
        """Return the smallest distance between a link and the cylinder [m], below 0 in contact."""
        measure = self._mujoco.mj_geomDistance
        return min(
            float(measure(self._model, self._data, link, self._cylinder, _FAR, None))
            for link in self._links
        )

    def render(self) -> UInt8[np.ndarray, "height width 3"] | None:  # type: ignore[override]  # the base names a type variable
        """Return a picture, or none without the mode."""
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = self._mujoco.Renderer(self._model, height=360, width=480)
        self._renderer.update_scene(self._data, camera="side")
        return np.asarray(self._renderer.render()).copy()

    def close(self) -> None:
        """Free the graphics context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _reward(self, distance: float) -> float:
        if distance >= _NEAR:
            return -distance
        turned = self._data.body("flange").xquat
        # q and -q are one orientation.
        miss = min(np.linalg.norm(turned - _DOWN), np.linalg.norm(turned + _DOWN))
        return float(1.0 / (5.0 * max(distance, _NEAREST)) - 0.9 + 1.5 - miss)

    def _put(self) -> None:
        """Move the cylinder and the mark of the target, which the physics does not move."""
        self._data.mocap_pos[:] = self._place, self._goal

    def _observe(self) -> Float32[np.ndarray, " nx"]:
        flange = self._data.body("flange").xpos
        parts = [self._goal - flange, flange - self._place, self._data.qpos]
        observation: Float32[np.ndarray, " nx"] = np.concatenate(parts, dtype=np.float32)
        return observation.clip(-4.0, 4.0)


def model_text() -> str:
    """Write the arm as MJCF: one body per joint, links as capsules between the joints' origins."""
    ends = [place for place, _ in _JOINTS[1:]] + [(0.0, 0.0, 0.0)]
    arm, tail = "", ""
    for index, ((place, rolled), end) in enumerate(zip(_JOINTS, ends, strict=True)):
        name = "flange" if index == len(_JOINTS) - 1 else f"joint_{index + 1}"
        shape = f'type="capsule" fromto="0 0 0 {_text(end)}"' if any(end) else 'type="sphere"'
        arm += (
            f'<body name="{name}" gravcomp="1" pos="{_text(place)}" '
            f'euler="{0.5 * math.pi if rolled else 0.0} 0 0">'
            f'<joint name="joint_{index + 1}" axis="0 0 1" range="{_LOW[index]} {_HIGH[index]}"/>'
            f'<geom name="link_{index}" {shape} size="{_LINK}"/>'
        )
        tail += "</body>"
    servos = "".join(f'<position joint="joint_{index + 1}"/>' for index in range(len(_JOINTS)))
    return f"""
<mujoco model="jaka">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{_PERIOD / _SUBSTEPS}" integrator="implicitfast"/>
  <visual><global offwidth="480" offheight="360"/><headlight ambient=".4 .4 .4"/></visual>
  <asset>
    <texture name="sky" type="skybox" builtin="flat" rgb1=".98 .98 .97" width="8" height="8"/>
    <texture name="floor" type="2d" builtin="checker" rgb1=".93 .94 .95" rgb2=".86 .88 .9"
      width="64" height="64"/>
    <material name="floor" texture="floor" texrepeat="8 8"/>
  </asset>
  <default>
    <geom contype="0" conaffinity="0" density="500" rgba=".15 .39 .92 1"/>
    <joint armature="0.5" damping="1"/>
    <position kp="2000" dampratio="1"/>
  </default>
  <worldbody>
    <light pos="0 -2 3" dir="0 .5 -1" castshadow="false"/>
    <camera name="side" pos="1.45 -.3 1.3" xyaxes=".44 .9 0 -.58 .28 .77"/>
    <geom type="plane" size="2 2 .1" material="floor" rgba="1 1 1 1" pos="0 0 -.05"/>
    <geom type="cylinder" size=".08 {_BASE / 2}" pos="0 0 {_BASE / 2}" rgba=".4 .43 .48 1"/>
    <body pos="0 0 {_BASE}">{arm}{tail}</body>
    <body name="obstacle" mocap="true">
      <geom name="cylinder" type="cylinder" size="{_CYLINDER} {_HEIGHT / 2}" rgba=".9 .3 .3 .8"/>
    </body>
    <body name="target" mocap="true">
      <geom type="sphere" size=".03" rgba=".09 .64 .29 1"/>
    </body>
  </worldbody>
  <actuator>{servos}</actuator>
</mujoco>
"""


def _text(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:g}" for number in numbers)
