"""A simulated robot behind the control loop."""

import gymnasium
import numpy as np
import pytest
import torch

import safectl_envs
from safectl.errors import ShapeError
from safectl.loop import run_loop
from safectl.record import Recorder, read_record
from safectl.safeguards import BarrierQP, Clip
from safectl.spec import Signal, Spec
from safectl.types import Bridge
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
