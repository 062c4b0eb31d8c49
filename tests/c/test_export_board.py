"""Generated C on an emulated Cortex-M4F: equal bits, sizes, instructions, closed loop."""

import inspect
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from safectl.errors import MissingTool, ShapeError, VerificationError
from safectl.export import Program, example_observations, interpret
from safectl.types import Status
from safectl_hardware.emulator import Emulator
from safectl_hardware.image import Image, build_image
from safectl_hardware.stack import stack_bound
from safectl_hardware.verify import verify_on_board

INSTRUCTION_BUDGET = 2500  # for 36-10-5-3 on a Cortex-M4F; plain loops take 2,912
LOOP_LIMIT_S = 20.0  # for a thousand steps in closed loop


@pytest.fixture(scope="module")
def image(small_guarded, tmp_path_factory):
    return build_image(small_guarded, tmp_path_factory.mktemp("board") / "build")


@pytest.mark.parametrize("optimisation", ["-O2", "-O3"])
def test_the_benchmark_network_meets_its_budget(benchmark_policy, optimisation):
    report = verify_on_board(benchmark_policy.program, optimisation=optimisation)
    assert report.rows == 1000
    assert report.instructions_max <= INSTRUCTION_BUDGET
    assert report.ram_bytes < 128
    assert report.stack_used_bytes <= report.stack_bound_bytes < 256


def test_the_guarded_policy_equals_the_interpreter_bit_for_bit(guarded):
    report = verify_on_board(guarded)
    assert report.flash_bytes < 64_000
    assert report.ram_bytes < 1024
    assert report.stack_used_bytes <= report.stack_bound_bytes
    assert report.instructions_mean <= report.instructions_max < 60_000


def test_counts_are_the_same_in_every_run(image, small_guarded):
    row = example_observations(small_guarded, 1)[0]
    counts = []
    for _ in range(2):
        with Emulator(image) as board:
            counts.append(board.step(row).instructions)
    assert counts[0] == counts[1] > 0


def test_non_finite_observations_cross_the_wire(image, small_guarded):
    with Emulator(image) as board:
        for bad in (np.nan, np.inf, -np.inf):
            step = board.step(np.array([0.0, bad, 0.0], np.float32))
            assert step.status == Status.FALLBACK
            assert np.array_equal(step.action, small_guarded.constants["fail_safe"])


def test_a_thousand_steps_in_closed_loop_are_fast_and_exact(image, small_guarded):
    observation = np.array([0.5, -0.2, 0.1], np.float32)
    began = time.monotonic()
    with Emulator(image) as board:
        for _ in range(1000):
            step = board.step(observation)
            assert np.array_equal(
                step.action, interpret(small_guarded, observation[None]).action[0]
            )
            push = np.array([*step.action, 0.01], np.float32)
            observation = np.float32(0.95) * observation + np.float32(0.1) * push
    assert time.monotonic() - began < LOOP_LIMIT_S


def test_objects_hold_no_allocator_no_double_arithmetic_and_no_data(image, small_guarded):
    folder = image.path.parent
    names = subprocess.run(
        ["arm-none-eabi-nm", "-u", folder / "controller.o"],
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
    ).stdout.split()
    assert [name for name in names if name != "U"] == []
    for path in folder.glob("*.o"):
        output = subprocess.run(
            ["arm-none-eabi-size", path], check=True, capture_output=True, text=True, timeout=10
        ).stdout
        text, data, bss = (int(word) for word in output.splitlines()[1].split()[:3])
        assert text > 0
        assert (data, bss) == (0, 0)
    assert image.ram_bytes == 0


def test_an_image_of_another_program_is_refused(image, small_guarded, tmp_path):
    """The self-test fails when the flash does not hold what the header says."""
    data = bytearray(image.path.read_bytes())
    weight = small_guarded.constants["signal_0_bias"].tobytes()
    at = data.find(weight)
    assert at > 0
    data[at] ^= 1
    broken = tmp_path / "broken.elf"
    broken.write_bytes(data)
    changed = Image(small_guarded, image.board, broken, 0, 0, 0)
    with pytest.raises(VerificationError, match="self-test"), Emulator(changed) as board:
        board.step(np.zeros(3, np.float32))


def test_a_board_that_is_not_a_program_is_reported(image, small_guarded, tmp_path):
    broken = tmp_path / "empty.elf"
    broken.write_bytes(b"not an image")
    changed = Image(small_guarded, image.board, broken, 0, 0, 0)
    with (
        pytest.raises(VerificationError, match=r"stopped with status|did not answer"),
        Emulator(changed, timeout_s=2.0),
    ):
        pass


def test_steps_outside_the_context_and_wrong_shapes_are_refused(image):
    board = Emulator(image)
    with pytest.raises(VerificationError, match="not running"):
        board.step(np.zeros(3, np.float32))
    with board, pytest.raises(ShapeError):
        board.step(np.zeros(4, np.float32))


def test_a_dead_emulator_is_reported_at_once(image):
    with Emulator(image) as board:
        board.step(np.zeros(3, np.float32))
        board._running.process.kill()
        with pytest.raises(VerificationError, match="stopped with status"):
            board.step(np.zeros(3, np.float32))


def test_doubles_are_rounded_before_they_are_sent(image, small_guarded):
    row = np.array([0.1, -0.2, 0.3])
    with Emulator(image) as board:
        step = inspect.unwrap(Emulator.step)(board, row)
        assert np.array_equal(
            step.action, interpret(small_guarded, row[None].astype(np.float32)).action[0]
        )
        huge = inspect.unwrap(Emulator.step)(board, np.full(3, 1e300))
        assert huge.status == Status.FALLBACK


def test_a_late_reply_never_answers_the_next_observation(image):
    zero = np.zeros(3, np.float32)
    with Emulator(image, timeout_s=5.0) as board:
        board.step(zero)
        process = board._running.process
        process.send_signal(signal.SIGSTOP)
        threads = list(Path(f"/proc/{process.pid}/task").iterdir())
        while any("\nState:\tT" not in (thread / "status").read_text() for thread in threads):
            pass  # a signal stops the threads of the emulator one after the other
        board._timeout_s = 0.2
        with pytest.raises(VerificationError, match="did not answer"):
            board.step(zero)
        assert process.returncode is not None
        with pytest.raises(VerificationError, match="not running"):
            board.step(zero + 1.0)


def test_a_missing_tool_names_its_package(image, small_guarded, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="gcc-arm-none-eabi"):
        build_image(small_guarded, tmp_path / "build")
    with pytest.raises(MissingTool, match="qemu-system-arm"), Emulator(image):
        pass


def test_stack_bound_refuses_what_it_cannot_bound():
    node = 'node: {{ title: "{0}" label: "{0}\\nf.c:1:1\\n{1}" }}'
    edge = 'edge: { sourcename: "a" targetname: "b" }'
    bounded = node.format("a", "8 bytes (static)") + node.format("b", "16 bytes (static)") + edge
    assert stack_bound([bounded], "a") == 24
    with pytest.raises(VerificationError, match="dynamic"):
        stack_bound([node.format("a", "8 bytes (dynamic)")], "a")
    with pytest.raises(VerificationError, match="not known"):
        stack_bound([node.format("a", "8 bytes (static)"), edge], "a")
    with pytest.raises(VerificationError, match="calls itself"):
        stack_bound([bounded, 'edge: { sourcename: "b" targetname: "a" }'], "a")


def test_relu_and_tanh_networks_of_odd_sizes_equal_the_interpreter(policy_factory):
    for sizes, activation in (([1, 1], nn.Tanh), ([5, 7, 3], nn.ReLU), ([3, 6, 2, 1], nn.Tanh)):
        program: Program = policy_factory(sizes, activation, seed=9).program
        verify_on_board(program, rows=50)
