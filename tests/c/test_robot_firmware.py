"""Robot firmware on emulated boards: commands in, states out, limits of its own, silence."""

import struct
import time

import numpy as np
import pytest

from safectl.errors import BridgeError
from safectl.spec import Signal, Spec
from safectl_hardware.board import load_board
from safectl_hardware.firmware import build_robot
from safectl_hardware.frames import Kind
from safectl_hardware.line import FaultCode, Role, SerialLine, fault_of
from safectl_hardware.port import serial_port
from safectl_hardware.serial import SerialBridge
from safectl_hardware.virtual import VirtualBoard

WAIT_S = 30.0
RUNNING, TRIPPED = 1, 2
SPEC = Spec(
    tuple(Signal(f"x{i}", "m", -9.0, 9.0) for i in range(2)),
    (Signal("u0", "m/s", -1.0, 1.0), Signal("u1", "m/s", -0.5, 0.25)),
    0.02,
)


@pytest.fixture(scope="module", params=["mps2-an386", "netduinoplus2", "riscv-virt"])
def robot(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("robot") / "build"
    firmware = build_robot(SPEC, folder, board=load_board(request.param))
    assert firmware.flash_bytes < 6_000
    assert firmware.ram_bytes < 2_048
    return firmware


@pytest.fixture
def line(robot):
    with VirtualBoard(robot.board, robot.path, shift=3) as virtual:
        line = SerialLine(serial_port(virtual.port), SPEC, role=Role.ROBOT)
        assert line.connect().nx == 2
        yield line
        line.close()


def command(line, *action):
    line.send(Kind.COMMAND, np.array(action, "<f4").tobytes())


def next_of(line, kind):
    while (frame := line.receive(time.monotonic() + WAIT_S)) is not None:
        if frame.kind == kind:
            return frame
    raise AssertionError(f"no {kind.name}")


def state(line):
    *values, mode = struct.unpack("<4fB", next_of(line, Kind.STATE).payload)
    return values[:2], values[2:], mode


def test_the_robot_obeys_within_its_own_limits_and_stops_on_silence(line):
    assert state(line) == ([0.0, 0.0], [0.0, 0.0], 0)
    command(line, 5.0, -7.0)
    position, applied, mode = state(line)
    while mode != RUNNING:
        position, applied, mode = state(line)
    assert applied == [1.0, -0.5]
    assert position[0] > 0.0 > position[1]
    fault = next_of(line, Kind.FAULT)
    assert fault_of(fault).code is FaultCode.SILENCE
    assert SPEC.period < fault_of(fault).age_us / 1e6 <= 2.0 * SPEC.period
    first, applied, mode = state(line)
    assert (applied, mode) == ([0.0, 0.0], TRIPPED)
    assert state(line)[0] == first
    command(line, 1.0, 0.0)
    assert fault_of(next_of(line, Kind.FAULT)).code is FaultCode.SILENCE


def test_an_action_that_is_not_finite_stops_the_robot(line):
    command(line, 1.0, 0.0)
    command(line, 1.0, float("nan"))
    assert fault_of(next_of(line, Kind.FAULT)).code is FaultCode.MALFORMED
    command(line, 1.0, 0.0)
    assert fault_of(next_of(line, Kind.FAULT)).code is FaultCode.STOPPED


def test_a_command_of_another_size_stops_the_robot(line):
    command(line, 1.0, 0.0)
    command(line, 1.0)
    assert fault_of(next_of(line, Kind.FAULT)).code is FaultCode.MALFORMED
    command(line, 1.0, 0.0)
    assert fault_of(next_of(line, Kind.FAULT)).code is FaultCode.STOPPED


def test_the_serial_bridge_connects_to_it(robot):
    with VirtualBoard(robot.board, robot.path, shift=3) as virtual:
        bridge = SerialBridge(serial_port(virtual.port), SPEC)
        with bridge:
            assert bridge.read().observation.tolist() == [0.0, 0.0]
            assert bridge.identity.period_s == SPEC.period
        with pytest.raises(BridgeError, match="not connected"):
            bridge.read()
