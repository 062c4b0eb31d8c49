"""A simulated robot behind the control loop."""

import gymnasium
import numpy as np
import pytest
import torch

import safectl_envs
from safectl.errors import BridgeError, NonFiniteError, ShapeError
from safectl.loop import run_loop
from safectl.record import Recorder, read_record
from safectl.safeguards import BarrierQP, Clip
from safectl.spec import Signal, Spec
from safectl.types import Bridge, Certificate, Decision
from safectl_hardware.sim import SimBridge


class Forward:
    """Full speed ahead."""

    def act(self, observation):
        return torch.full((len(observation), 2), 1.0)


def make(name="safectl/SpeedLimit-v0"):
    assert safectl_envs
    env = gymnasium.make(name)
    world = env.unwrapped.world
    return SimBridge(env, world.spec, stop_action=np.zeros(world.spec.nu)), world


def test_it_is_a_bridge_on_its_own_clock():
    bridge, world = make()
    assert isinstance(bridge, Bridge)
    assert bridge.spec == world.spec
    assert bridge.now() == 0.0
    bridge.wait_until(1.5)
    bridge.wait_until(1.0)
    assert bridge.now() == 1.5


def test_a_guarded_loop_over_a_simulated_robot_costs_nothing(tmp_path):
    bridge, world = make()
    guard = BarrierQP(world.barrier, world.dynamics, fallback=world.fallback)
    recorder = Recorder(tmp_path / "run.mcap", world.spec)
    result = run_loop(
        bridge, Forward(), guard, steps=200, patience=200, recorder=recorder, clock=bridge
    )
    assert result.steps == 200
    assert result.corrected > 100
    assert bridge.total_cost == 0.0
    assert bridge.total_return > 100.0
    assert len(read_record(tmp_path / "run.mcap").stamp) == 200


def test_the_same_loop_without_the_barrier_costs():
    bridge, world = make()
    run_loop(bridge, Forward(), Clip(world.spec), steps=200, patience=200, clock=bridge)
    assert bridge.total_cost > 50.0


def test_a_new_episode_starts_where_one_ended():
    bridge, world = make()
    run_loop(bridge, Forward(), Clip(world.spec), steps=450, patience=500, clock=bridge)
    assert bridge.episodes == 2


def test_two_runs_are_equal(tmp_path):
    returns = []
    for _ in range(2):
        bridge, world = make()
        run_loop(bridge, Forward(), Clip(world.spec), steps=50, clock=bridge)
        returns.append(bridge.total_return)
    assert returns[0] == returns[1]


def test_stopping_before_the_first_reading_and_twice_is_harmless():
    bridge, _ = make()
    with bridge:
        bridge.stop()
        bridge.stop()


def test_an_environment_that_raises_still_stops_and_closes():
    bridge, world = make()

    class Broken:
        def act(self, observation):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_loop(bridge, Broken(), Clip(world.spec), steps=5, clock=bridge)


def test_a_foreign_specification_is_refused():
    env = gymnasium.make("safectl/SpeedLimit-v0")
    spec = Spec((Signal("x", "m", -1.0, 1.0),), env.unwrapped.world.spec.action, 0.1)
    with pytest.raises(ShapeError, match="observation of the environment"):
        SimBridge(env, spec, stop_action=np.zeros(2))
    with pytest.raises(ShapeError, match="stop_action"):
        SimBridge(env, env.unwrapped.world.spec, stop_action=np.zeros(3))


def test_a_decision_for_two_rows_is_refused():
    bridge, world = make()
    decision = Clip(world.spec).filter(torch.zeros(2, world.spec.nx), torch.zeros(2, 2))
    with bridge, pytest.raises(ShapeError, match="action has shape"):
        bridge.write(decision)


class Logged(gymnasium.Env):
    """Notes what it is asked; costs one and pays one per step."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    action_space = gymnasium.spaces.Box(-9.0, 9.0, (2,))

    def __init__(self, *, failing=False):
        self.failing, self.actions, self.is_closed = failing, [], False

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.actions.append(action.tolist())
        if self.failing and len(self.actions) > 1:
            raise ZeroDivisionError
        return np.zeros(1, np.float32), 1.0, False, False, {"cost": 1.0}

    def close(self):
        self.is_closed = True


LOGGED = Spec((Signal("x", "m", -1.0, 1.0),), tuple(Signal(n, "m/s", -1.0, 0.5) for n in "uv"), 0.1)


def decide(*action):
    zero = torch.zeros(1)
    return Decision(torch.tensor([action]), Certificate(zero.to(torch.int8), zero, zero, zero))


def logged(**options):
    env = Logged(**options)
    return env, SimBridge(env, LOGGED, stop_action=np.array([0.25, -5.0]))


def test_writing_clips_to_the_limits_of_the_robot():
    env, bridge = logged()
    with bridge:
        bridge.read()
        sent = bridge.write(decide(3.0, -0.5))
    assert env.actions[0] == sent.action.tolist() == [0.5, -0.5]


def test_a_decision_that_is_not_finite_is_not_written():
    env, bridge = logged()
    with bridge:
        bridge.read()
        with pytest.raises(BridgeError, match="not finite"):
            bridge.write(decide(0.0, float("nan")))
    assert env.actions == []


def test_stopping_takes_one_step_that_is_not_counted():
    env, bridge = logged()
    with bridge:
        bridge.stop()
        bridge.read()
        bridge.stop()
        assert env.actions == []
        for count in (1, 2):
            bridge.write(decide(0.0, 0.0))
            bridge.stop()
            bridge.stop()
            assert len(env.actions) == 2 * count
            assert env.actions[-1] == [0.25, -1.0]
    assert len(env.actions) == 4
    assert (bridge.total_return, bridge.total_cost) == (2.0, 2.0)


def test_an_environment_that_raises_on_the_stop_action_is_closed(caplog):
    env, bridge = logged(failing=True)
    with bridge:
        bridge.read()
        bridge.write(decide(0.0, 0.0))
        bridge.stop()
        assert "raised on the stop action" in caplog.text
    assert env.is_closed


def test_a_stop_action_that_is_not_finite_is_refused():
    with pytest.raises(NonFiniteError, match="stop_action holds 1 non-finite"):
        SimBridge(Logged(), LOGGED, stop_action=np.array([np.nan, 0.0]))
