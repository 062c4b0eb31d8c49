"""The serial bridge against a board on a pseudo-terminal."""

import time

import numpy as np
import pytest
import torch

from safectl.errors import BridgeError, LoopStopped, ShapeError, SpecMismatch
from safectl.loop import run_loop
from safectl.safeguards import Clip
from safectl.spec import Signal, Spec
from safectl.types import Bridge, Certificate, Decision
from safectl_hardware.fake_board import BoardFaults, FakeBoard
from safectl_hardware.frames import Frame, Kind
from safectl_hardware.line import BoardFault, FaultCode, Role, SerialLine
from safectl_hardware.port import serial_port
from safectl_hardware.serial import SerialBridge, _BoardClock, pack_state
from tests.waiting import wait_until


def make_spec(period=0.2, high=1.0):
    return Spec(
        tuple(Signal(f"x{i}", "m", -9.0, 9.0) for i in range(2)),
        tuple(Signal(f"u{i}", "m/s", -1.0, high) for i in range(2)),
        period,
    )


SPEC = make_spec()


def decide(*action):
    row = torch.zeros(1)
    certificate = Certificate(torch.zeros(1, dtype=torch.int8), row, row, row)
    return Decision(torch.tensor([action]), certificate)


def bridge_to(board, spec=SPEC):
    return SerialBridge(serial_port(board.port), spec)


class Push:
    def act(self, observation):
        return torch.full((1, 2), 3.0)


def test_it_is_a_bridge_whose_spec_needs_no_connection():
    bridge = SerialBridge(serial_port("/dev/nowhere"), SPEC)
    assert isinstance(bridge, Bridge)
    assert bridge.spec == SPEC
    bridge.stop()
    with pytest.raises(BridgeError, match="not connected"):
        bridge.read()
    with pytest.raises(BridgeError, match="does not open"), bridge:
        pass


def test_a_guarded_loop_drives_the_board_and_stops_it_at_the_end():
    with FakeBoard(SPEC) as board:
        result = run_loop(bridge_to(board), Push(), Clip(SPEC), steps=4)
        wait_until(lambda: board.stops > 0)
        assert result.steps == result.corrected == 4
        assert board.commands == [(1.0, 1.0)] * 4
        assert not board.is_running


def test_the_board_starts_stopped_and_runs_with_the_first_command():
    with FakeBoard(SPEC) as board, bridge_to(board) as bridge:
        first = bridge.read()
        assert torch.equal(first.observation, torch.zeros(2))
        assert not board.is_running
        sent = bridge.write(decide(5.0, -0.5))
        assert torch.equal(sent.action, torch.tensor([1.0, -0.5]))
        wait_until(lambda: board.is_running)
        wait_until(lambda: bridge.read().stamp > first.stamp)
        wait_until(lambda: (bridge.read(), bridge.write(decide(1.0, -0.5)))[0].observation[0] > 0)
        assert bridge.applied.tolist() == [1.0, -0.5]


def test_silence_stops_the_board_and_the_bridge_says_so_until_it_is_entered_again():
    with FakeBoard(SPEC) as board:
        bridge = bridge_to(board)
        with bridge:
            bridge.read()
            bridge.write(decide(1.0, 1.0))
            wait_until(lambda: board.commands)
            wait_until(lambda: not board.is_running)
            with pytest.raises(BoardFault, match="silence") as caught:
                wait_until(lambda: bridge.read() is None)
            assert caught.value.code is FaultCode.SILENCE
            bridge.write(decide(1.0, 1.0))
            with pytest.raises(BoardFault):
                wait_until(lambda: bridge.read() is None)
        with bridge:
            bridge.write(decide(0.5, 0.5))
            wait_until(lambda: board.is_running)


def test_a_stop_by_the_host_lasts_until_the_next_entry():
    with FakeBoard(SPEC) as board:
        with bridge_to(board) as bridge:
            bridge.write(decide(1.0, 1.0))
            wait_until(lambda: board.is_running)
            bridge.stop()
            bridge.stop()
            wait_until(lambda: not board.is_running)
            bridge.write(decide(1.0, 1.0))
            with pytest.raises(BoardFault, match="stopped"):
                wait_until(lambda: bridge.read() is None)
        assert len(board.commands) == 1


@pytest.mark.parametrize(
    ("faults", "spec", "said"),
    [
        (BoardFaults(version=2), SPEC, "protocol 1 against 2"),
        (BoardFaults(limits_crc=1), SPEC, "action limits"),
        (BoardFaults(), make_spec(high=2.0), "digest"),
        (BoardFaults(), make_spec(period=0.1), "digest"),
    ],
)
def test_another_protocol_specification_or_limit_is_refused(faults, spec, said):
    with (
        FakeBoard(SPEC, faults) as board,
        pytest.raises(SpecMismatch, match=said),
        bridge_to(board, spec),
    ):
        pass


def test_repeated_and_old_states_do_not_go_back_in_time():
    with FakeBoard(SPEC, BoardFaults(repeats=True)) as board, bridge_to(board) as bridge:
        bridge.write(decide(1.0, 1.0))
        readings = []
        while len(readings) < 3:
            reading = bridge.read()
            bridge.write(decide(1.0, 1.0))
            if not readings or reading.stamp != readings[-1].stamp:
                readings.append(reading)
        assert readings[0].observation[0] <= readings[1].observation[0]
        assert readings[1].observation[0] < readings[2].observation[0]
        assert readings[0].stamp < readings[1].stamp < readings[2].stamp <= time.monotonic()


def test_a_board_without_states_is_reported_and_one_that_falls_silent_is_stale():
    with (
        FakeBoard(SPEC, BoardFaults(is_mute=True)) as board,
        bridge_to(board) as bridge,
        pytest.raises(BridgeError, match="sent no state"),
    ):
        bridge.read()
    with FakeBoard(SPEC) as board:

        class Mute:
            def act(self, observation):
                board.faults = BoardFaults(is_mute=True)
                return torch.zeros(1, 2)

        with pytest.raises(LoopStopped, match="old"):
            run_loop(bridge_to(board), Mute(), Clip(SPEC), steps=10)
        wait_until(lambda: not board.is_running)


def test_a_port_that_vanishes_is_an_error_and_one_that_returns_works_again():
    with FakeBoard(SPEC) as board:
        bridge = bridge_to(board)
        bridge.__enter__()
        bridge.read()
    with pytest.raises(BridgeError, match="gone"):
        wait_until(lambda: bridge.write(decide(0.0, 0.0)) is None or bridge.read() is None)
    bridge.stop()
    bridge.__exit__(None, None, None)
    with FakeBoard(SPEC) as board, bridge_to(board) as again:
        again.write(decide(0.25, 0.25))
        wait_until(lambda: board.commands == [(0.25, 0.25)])


def test_actions_that_are_not_finite_or_of_another_shape_are_not_sent():
    with FakeBoard(SPEC) as board, bridge_to(board) as bridge:
        with pytest.raises(BridgeError, match="not finite"):
            bridge.write(decide(float("nan"), 0.0))
        with pytest.raises(ShapeError):
            bridge.write(decide(0.0))
        assert board.commands == []


class Babble:
    """A port that never falls silent and never completes a frame."""

    def receive(self, timeout_s):
        return b"x"

    def send(self, data):
        pass

    def close(self):
        pass


@pytest.mark.timeout(20)
def test_a_port_that_talks_without_end_delays_nothing_beyond_its_deadline():
    line = SerialLine(Babble, SPEC, role=Role.ROBOT)
    with pytest.raises(BridgeError, match="no board answered"):
        line.connect(timeout_s=0.05)


def test_frames_of_another_size_or_kind_are_ignored():
    bridge = SerialBridge(serial_port("/dev/nowhere"), SPEC)
    for frame in (Frame(Kind.STATE, 1, 0, b"\0" * 16), Frame(Kind.ACK, 1, 0), Frame(99, 1, 0)):
        bridge._take(frame)
    assert bridge.applied is None


def test_stamps_follow_the_board_and_never_come_after_the_arrival():
    clock = _BoardClock()
    assert clock.stamp(2**32 - 100_000, 50.0) == 50.0
    assert clock.stamp(0, 50.1 + 0.03) == pytest.approx(50.1, abs=1e-3)
    assert clock.stamp(100_000, 50.2 + 3.0) == pytest.approx(50.2, abs=1e-3)
    assert clock.stamp(200_000, 50.25) == 50.25
    assert clock.stamp(300_000, 50.4) == pytest.approx(50.35, abs=1e-3)


def test_a_state_that_waited_in_a_buffer_is_as_old_as_it_is():
    with FakeBoard(SPEC) as board, SerialBridge(serial_port(board.port), SPEC) as bridge:
        board_us, ours = bridge._line.answered
        values = np.zeros(SPEC.nx + SPEC.nu, np.float32)
        payload = pack_state(values[: SPEC.nx], values[SPEC.nx :], mode=0)
        time.sleep(0.3)
        bridge._take(Frame(Kind.STATE, 1, (board_us + 50_000) % 2**32, payload))
        assert bridge._newest[1].stamp == pytest.approx(ours + 0.05, abs=0.02)
