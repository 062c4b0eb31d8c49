"""Firmware on emulated boards: handshake, closed loop, silence, damaged flash, noisy line."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from safectl.errors import BridgeError, ShapeError, SpecMismatch, VerificationError
from safectl.export import example_observations, interpret
from safectl_agents.bench import hardware_loop as bench
from safectl_agents.bench.hardware_loop import SILENCE_PERIODS, hardware_loop
from safectl_hardware.board import board_names, load_board
from safectl_hardware.controller import SerialController
from safectl_hardware.firmware import build_firmware
from safectl_hardware.frames import Decoder, Frame, Kind
from safectl_hardware.line import BoardFault, FaultCode, Role, SerialLine, fault_of
from safectl_hardware.noisy import NoisyPort
from safectl_hardware.port import serial_port
from safectl_hardware.virtual import VirtualBoard

EMULATED = [
    name for name in board_names() if load_board(name).serial and load_board(name).emulation
]
WAIT_S = 30.0
"""Emulated time runs slower than ours, and more so on a busy machine."""


@pytest.fixture(scope="module")
def firmware(small_guarded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("firmware") / "build"
    return build_firmware(small_guarded, folder, board=load_board("mps2-an386"))


@pytest.fixture
def port(firmware):
    with VirtualBoard(firmware.board, firmware.path) as virtual:
        yield serial_port(virtual.port)


def await_fault(line):
    frame = line.receive(time.monotonic() + WAIT_S)
    while frame is not None and frame.kind != Kind.FAULT:
        frame = line.receive(time.monotonic() + WAIT_S)
    assert frame is not None
    return fault_of(frame), frame


def test_four_boards_have_firmware_that_is_emulated():
    assert EMULATED == ["mps2-an386", "mps2-an500", "netduinoplus2", "riscv-virt"]


@pytest.mark.parametrize("name", EMULATED)
def test_the_board_answers_like_the_interpreter_and_stops_on_silence(name, small_guarded, tmp_path):
    firmware = build_firmware(small_guarded, tmp_path / "build", board=load_board(name))
    assert firmware.flash_bytes < 10_000
    assert firmware.ram_bytes < 2_048
    rows = example_observations(small_guarded, 20)
    rows[7, 1] = np.nan
    expected = interpret(small_guarded, rows)
    with (
        VirtualBoard(firmware.board, firmware.path) as virtual,
        SerialController(serial_port(virtual.port), small_guarded, patience_s=WAIT_S) as board,
    ):
        for row, action, status in zip(rows, expected.action, expected.status, strict=True):
            answer = board.step(row)
            assert answer.action.tobytes() == action.tobytes()
            assert answer.status == status
        fault, frame = await_fault(board.line)
        assert fault.code is FaultCode.SILENCE
        period = small_guarded.spec.period
        assert period < fault.age_us / 1e6 <= SILENCE_PERIODS * period
        assert frame.payload[5:] == small_guarded.constants["fail_safe"].tobytes()
        with pytest.raises(BoardFault, match="silence"):
            board.step(rows[0])
        board.line.connect()
        assert board.step(rows[0]).action.tobytes() == expected.action[0].tobytes()


def test_as_a_policy_it_takes_a_batch_of_one(port, small_guarded):
    with SerialController(port, small_guarded, patience_s=WAIT_S) as board:
        observation = torch.tensor([[0.1, 0.2, 0.3]])
        expected = interpret(small_guarded, observation.numpy()).action
        assert torch.equal(board.act(observation), torch.from_numpy(expected))
        with pytest.raises(ShapeError):
            board.act(torch.zeros(2, 3))


def test_a_status_that_no_board_of_ours_sends_is_an_error_of_the_line(port, small_guarded):
    board = SerialController(port, small_guarded, patience_s=WAIT_S)
    size = 4 * small_guarded.spec.nu
    with pytest.raises(BridgeError, match="sent the status 7"):
        board._unpack(Frame(Kind.COMMAND, 1, 0, b"\0" * (size + 4) + b"\7"))


def test_a_repeated_observation_gives_the_same_bytes_and_an_old_one_nothing(port, small_guarded):
    line = SerialLine(port, small_guarded.spec, role=Role.CONTROLLER)
    line.connect()
    row = np.array([0.1, 0.2, 0.3], np.float32).tobytes()
    first = line.send(Kind.STATE, row)
    answer = line.receive(time.monotonic() + WAIT_S)
    line.send(Kind.STATE, b"\0" * 12, sequence=first)
    assert line.receive(time.monotonic() + WAIT_S) == answer
    line.send(Kind.STATE, row, sequence=(first - 1) % 2**16)
    line.send(Kind.STATE, row, sequence=(first + 1) % 2**16)
    following = line.receive(time.monotonic() + WAIT_S)
    assert following.sequence == first + 1
    assert following.payload == answer.payload
    line.close()


def test_nothing_is_computed_before_a_handshake_after_a_stop_or_from_a_wrong_size(
    port, small_guarded
):
    line = SerialLine(port, small_guarded.spec, role=Role.CONTROLLER)
    raw = port()
    raw.send(Frame(Kind.STATE, 1, 0, b"\0" * 12).to_bytes())
    decoder, frames = Decoder(), []
    while not frames:
        frames = decoder.push(raw.receive(WAIT_S))
    assert fault_of(frames[0]).code is FaultCode.NOT_CONNECTED
    raw.close()
    line.connect()
    line.send(Kind.STATE, b"\0" * 13)
    assert await_fault(line)[0].code is FaultCode.MALFORMED
    line.send(Kind.STOP)
    assert line.receive(time.monotonic() + WAIT_S).kind == Kind.ACK
    line.send(Kind.STATE, b"\0" * 12)
    assert await_fault(line)[0].code is FaultCode.STOPPED
    line.close()


def test_another_specification_limit_or_program_is_refused(port, small_guarded):
    spec = small_guarded.spec
    other = replace(spec, period=0.03)
    with pytest.raises(SpecMismatch, match="digest"):
        SerialLine(port, other, role=Role.CONTROLLER).connect(timeout_s=WAIT_S)
    with pytest.raises(BridgeError, match="has role 1, expected robot"):
        SerialLine(port, spec, role=Role.ROBOT).connect(timeout_s=WAIT_S)
    line = SerialLine(port, spec, role=Role.CONTROLLER, program_digest=1)
    with pytest.raises(BridgeError, match="expected 00000001"):
        line.connect(timeout_s=WAIT_S)


def test_damaged_flash_fails_the_self_test_and_is_refused(firmware, small_guarded, tmp_path):
    data = bytearray(firmware.path.read_bytes())
    at = data.find(small_guarded.constants["signal_0_bias"].tobytes())
    assert at > 0
    data[at] ^= 1
    (tmp_path / "damaged.elf").write_bytes(data)
    with VirtualBoard(firmware.board, tmp_path / "damaged.elf") as virtual:
        line = SerialLine(serial_port(virtual.port), small_guarded.spec, role=Role.CONTROLLER)
        with pytest.raises(BridgeError, match="failed its self-test"):
            line.connect(timeout_s=WAIT_S)


def test_a_board_that_vanishes_is_reported(firmware, small_guarded):
    with VirtualBoard(firmware.board, firmware.path) as virtual:
        board = SerialController(serial_port(virtual.port), small_guarded, patience_s=WAIT_S)
        board.line.connect()
        virtual.__exit__(None, None, None)
        with pytest.raises(BridgeError, match=r"gone|did not answer"):
            board.step(np.zeros(3, np.float32))
        with pytest.raises(BridgeError, match=r"does not open|gone|no board"):
            board.line.connect(timeout_s=0.1)


def test_a_port_without_a_board_and_a_name_without_a_port_are_refused(small_guarded):
    line = SerialLine(serial_port("/dev/nowhere"), small_guarded.spec, role=Role.ROBOT)
    with pytest.raises(BridgeError, match="does not open"):
        line.connect()
    with pytest.raises(BridgeError, match="not connected"):
        line.send(Kind.STOP)


def test_a_board_without_a_known_line_gets_no_firmware(small_guarded, tmp_path):
    with pytest.raises(VerificationError, match=r"teensy41 is not known.*netduinoplus2"):
        build_firmware(small_guarded, tmp_path / "build", board=load_board("teensy41"))


def test_no_wrong_action_is_accepted_over_a_noisy_line():
    run = hardware_loop(200, seed=1)
    assert run.steps == 200
    assert run.wrong == 0
    assert min(run.corrupted, run.dropped, run.duplicated, run.repetitions) > 0
    assert run.silence_periods <= SILENCE_PERIODS


def test_the_only_message_of_a_stop_is_not_lost_in_the_noise(monkeypatch):
    ports, drive = [], bench._drive

    class Kept(NoisyPort):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            ports.append(self)

    def drive_into_noise(*arguments, **options):
        outcome = drive(*arguments, **options)
        ports[-1].probability = 0.5  # from now on every frame is damaged or lost
        return outcome

    monkeypatch.setattr(bench, "NoisyPort", Kept)
    monkeypatch.setattr(bench, "_drive", drive_into_noise)
    monkeypatch.setattr(bench, "_SILENCE_WAIT_S", 10.0)
    assert hardware_loop(5, seed=3).silence_periods <= SILENCE_PERIODS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mps2-an500", "netduinoplus2"])
def test_no_wrong_action_is_accepted_in_ten_thousand_steps(name):
    run = hardware_loop(10_000, board=name, seed=2)
    assert run.wrong == 0
    assert run.refused > 50
    assert min(run.corrupted, run.dropped, run.duplicated, run.replayed) > 50
    assert run.silence_periods <= SILENCE_PERIODS
