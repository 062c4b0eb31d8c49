"""A robot on topics as a Gymnasium environment, against the simulator node."""

import gymnasium
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from safectl.errors import BridgeError, ShapeError
from safectl_envs import PointHazard
from safectl_ros.adapters import make_interface
from safectl_ros.env import RosEnv
from safectl_ros.process import RosThread
from safectl_ros.qos import COMMAND, LATCHED, SENSOR
from safectl_ros.robot import make_env
from tests.ros_graph import Inbox
from tests.waiting import wait_until

POINT = "safectl/PointHazard-v0"
SHORT_S = 0.3


class SimulatedPoint(Node):
    """A robot without a clock of its own that listens and reports zeros."""

    interface = make_interface("vector", PointHazard().spec)

    def __init__(self, context):
        super().__init__("robot", context=context)
        interface = self.interface
        self._states = self.create_publisher(interface.state_type, interface.state_topic, SENSOR)
        self.create_subscription(
            interface.command_type, interface.safe_topic, lambda _: None, QoSProfile(depth=1)
        )
        self.create_timer(0.01, self._report)

    def _report(self):
        message = self.interface.array_to_state(np.zeros(self.interface.spec.nx), 0)
        message.layout.dim.clear()
        self._states.publish(message)


class Lossy(Node):
    """Passes on what comes on `action_lossy`, but the first command."""

    def __init__(self, context):
        super().__init__("lossy", context=context)
        self.dropped = 0
        self._out = self.create_publisher(Float64MultiArray, "action_safe", COMMAND)
        self.create_subscription(Float64MultiArray, "action_lossy", self._pass, COMMAND)

    def _pass(self, message):
        if self.dropped:
            self._out.publish(message)
        self.dropped += not self.dropped


@pytest.fixture
def connect(ros_domain):
    """Return a function that makes environments and closes them in the end."""
    made = []

    def make(interface, **options):
        options.setdefault("command_topic", interface.safe_topic)
        made.append(RosEnv(interface, **options))
        return made[-1]

    yield make
    for env in made:
        env.close()


def interface_of(thread):
    return thread.node.robot.interface


def rollout(env, seed, steps):
    """Return all that a fixed sequence of actions leads to, through the end of episodes."""
    generator = np.random.default_rng(7)
    rows = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        action = generator.uniform(env.action_space.low, env.action_space.high)
        action = action.astype(env.action_space.dtype)
        observation, reward, terminated, truncated, info = env.step(action)
        rows.append(observation)
        rows.append(np.array([reward, terminated, truncated, info.get("cost", 0.0)]))
        if terminated or truncated:
            rows.append(env.reset()[0])
    return rows


@pytest.mark.parametrize(
    ("env_id", "kind", "keywords", "dtype"),
    [
        (POINT, "vector", "", np.float32),
        ("Pendulum-v1", "vector", "{max_episode_steps: 12}", np.float32),
        ("SafetyPointGoal1-v0", "vector", "{max_episode_steps: 12}", np.float32),
        ("SafetyHopperVelocity-v1", "arm", "{max_episode_steps: 12}", np.float32),
        ("InvertedPendulum-v5", "vector", "{reset_noise_scale: 0.1}", np.float64),
    ],
)
def test_lock_step_equals_the_same_environment_in_process(
    simulator, connect, env_id, kind, keywords, dtype
):
    thread = simulator(env_id, kind=kind, env_kwargs=f"'{keywords}'")
    ours = rollout(connect(interface_of(thread), dtype=dtype, timeout_s=15.0), 3, 30)
    inside = make_env(env_id, keywords)
    theirs = rollout(inside, 3, 30)
    inside.close()
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_base_in_lock_step_moves_as_the_world_says(simulator, connect):
    thread = simulator(POINT, kind="base")
    env = connect(interface_of(thread), timeout_s=15.0)
    start, _ = env.reset(seed=1)
    state, *_ = env.step(np.array([1.0, 0.0], np.float32))
    assert np.hypot(*(state - start)[:2]) == pytest.approx(0.05, abs=1e-6)
    truth = thread.node.robot.model_state
    np.testing.assert_allclose(state[:2], truth[:2], atol=1e-6)
    assert np.cos(state[2] - truth[2]) == pytest.approx(1.0, abs=1e-6)


def test_a_robot_that_falls_silent_truncates_and_does_not_block(simulator, connect):
    thread = simulator(POINT)
    env = connect(interface_of(thread), timeout_s=SHORT_S)
    start, info = env.reset(seed=1)
    assert not info["stale"]
    thread.close()
    state, reward, terminated, truncated, info = env.step(np.ones(2, np.float32))
    np.testing.assert_array_equal(state, start)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["stale"]
    assert SHORT_S <= info["wall_time"] < 10.0 * SHORT_S
    assert info["state_age"] >= SHORT_S


def test_an_action_of_nan_is_refused_by_the_simulator_and_changes_nothing(simulator, connect):
    thread = simulator(POINT)
    env = connect(interface_of(thread), timeout_s=SHORT_S)
    start, _ = env.reset(seed=1)
    *_, truncated, info = env.step(np.array([np.nan, 0.0], np.float32))
    assert truncated
    assert info["stale"]
    np.testing.assert_array_equal(thread.node.robot.observation, start)
    wait_until(lambda: not env.step(np.ones(2, np.float32))[-1]["stale"])
    assert thread.node.robot.observation[0] == 1.0


def test_a_lost_command_is_sent_again_when_the_simulator_repeats_its_state(simulator, connect):
    thread = simulator(POINT)
    with RosThread(Lossy) as lossy:
        env = connect(interface_of(thread), command_topic="action_lossy", timeout_s=15.0)
        env.reset(seed=1)
        wait_until(lambda: lossy.node._out.get_subscription_count() == 1)
        first_ns = env._link.newest.stamp_ns
        for _ in range(3):
            *_, info = env.step(np.ones(2, np.float32))
            assert not info["stale"]
        assert lossy.node.dropped == 1
    steps = (thread.node.robot.stamp_ns - first_ns) / 50_000_000
    assert steps == 3, "a command that came twice moves the robot once"


def test_free_running_a_step_lasts_a_period_of_the_robots_time(simulator, connect):
    thread = simulator(POINT, mode="realtime", rate_factor=4.0, command_rate_hz=5.0)
    env = connect(interface_of(thread), is_lockstep=False, timeout_s=15.0)
    env.reset(seed=1)
    first_ns = env._link.newest.stamp_ns
    for _ in range(10):
        *_, info = env.step(np.zeros(2, np.float32))
        assert not info["stale"]
    assert env._link.newest.stamp_ns - first_ns >= 10 * 50_000_000


def test_closing_publishes_zeros(simulator, connect, probe):
    thread = simulator(POINT)
    commands = Inbox(probe.node, Float64MultiArray, "action_safe", QoSProfile(depth=10))
    env = connect(interface_of(thread), timeout_s=15.0)
    env.reset(seed=1)
    wait_until(lambda: env._link.listeners == 2)
    env.step(np.ones(2, np.float32))
    env.close()
    env.close()
    commands.wait(lambda messages: messages[-1].data.tolist() == [0.0, 0.0])


def test_what_the_guard_says_is_in_the_information(simulator, connect, probe):
    thread = simulator(POINT)
    publisher = probe.node.create_publisher(DiagnosticStatus, "guard/intervention", LATCHED)
    publisher.publish(DiagnosticStatus(message="MODIFIED: hazard 3"))
    env = connect(interface_of(thread), timeout_s=15.0)
    _, info = env.reset(seed=1)
    wait_until(lambda: env._link.intervention)
    *_, info = env.step(np.zeros(2, np.float32))
    assert info["intervention"] == "MODIFIED: hazard 3"


def test_without_a_simulator_the_given_function_resets_the_robot(ros_domain, connect):
    interface = SimulatedPoint.interface
    seeds = []
    with RosThread(SimulatedPoint) as robot:
        env = connect(
            interface, simulator=None, reset=seeds.append, is_lockstep=False, timeout_s=15.0
        )
        env.reset(seed=4)
        state, reward, terminated, truncated, info = env.step(np.ones(2, np.float32))
        assert robot.is_alive
    assert seeds == [4]
    assert state.tolist() == [0.0] * interface.spec.nx
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert "cost" not in info


def test_nobody_there_is_one_clear_error(connect):
    env = connect(SimulatedPoint.interface, start_timeout_s=SHORT_S)
    with pytest.raises(BridgeError, match=r"nobody listens to the commands after 0\.3 s"):
        env.reset()


def test_a_robot_without_reset_service_is_one_clear_error(ros_domain, connect):
    with RosThread(SimulatedPoint):
        env = connect(SimulatedPoint.interface, start_timeout_s=1.0)
        with pytest.raises(BridgeError, match="start sim_node"):
            env.reset(seed=1)


def test_a_reset_service_of_something_else_is_one_clear_error(ros_domain, connect):
    def answer(_, response):
        response.success, response.message = True, "reset"
        return response

    with RosThread(SimulatedPoint) as robot:
        robot.node.create_service(Trigger, "sim/reset", answer)
        env = connect(SimulatedPoint.interface)
        with pytest.raises(BridgeError, match="answers 'reset', expected the stamp"):
            env.reset()


def test_a_step_before_the_reset_and_an_action_of_another_shape_are_refused(simulator, connect):
    env = connect(interface_of(simulator(POINT)))
    with pytest.raises(ShapeError, match="action"):
        env.step(np.zeros(3, np.float32))
    lonely = connect(SimulatedPoint.interface, domain_id=99)
    with pytest.raises(gymnasium.error.ResetNeeded):
        lonely.step(np.zeros(2, np.float32))
