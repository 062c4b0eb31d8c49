"""Benchmark of a robot in lock-step: a simulator node in another process as an environment."""

import time

import numpy as np

from safectl.errors import BridgeError
from safectl.spec import Spec
from safectl_agents.bench.benchmark import Measurement
from safectl_agents.bench.timing import time_calls
from safectl_ros.adapters import make_interface
from safectl_ros.bench.graph import loopback_graph, node_process
from safectl_ros.env import RosEnv
from safectl_ros.robot import SimulatedRobot, make_env

ENV_ID = "safectl/PointHazard-v0"
STEPS = 2000
_WARM_UP = 100
_START_S = 60.0  # a loaded machine takes long to import


def rate() -> Measurement:
    """Time whole steps through DDS, resets included."""
    inside = make_env(ENV_ID)
    inside.reset(seed=0)
    action = np.zeros(2, np.float32)
    alone = time_calls(lambda: inside.step(action), calls=STEPS, warm_up=_WARM_UP)
    interface = make_interface("vector", _spec())
    with loopback_graph(), node_process("safectl_ros.nodes.sim", env_id=ENV_ID, mode="lockstep"):
        env = RosEnv(
            interface, command_topic=interface.safe_topic, start_timeout_s=_START_S, timeout_s=5.0
        )
        try:
            env.reset(seed=0)
            started = time.monotonic()
            timing = time_calls(lambda: _step(env, action), calls=STEPS, warm_up=_WARM_UP)
            seconds = time.monotonic() - started
        finally:
            env.close()
    details = {
        "seed": 0,
        "environment": ENV_ID,
        **timing.as_details("step"),
        **alone.as_details("in_process"),
    }
    return Measurement((STEPS + _WARM_UP) / seconds, details=details)


def _step(env: RosEnv, action: np.ndarray) -> None:
    *_, terminated, truncated, info = env.step(action)
    if info["stale"]:
        raise BridgeError("the simulator node has not answered a step; the machine is overloaded")
    if terminated or truncated:
        env.reset()


def _spec() -> Spec:
    return SimulatedRobot(make_env(ENV_ID)).vector.spec
