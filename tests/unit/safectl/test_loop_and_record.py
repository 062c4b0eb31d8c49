"""The control loop over a robot that misbehaves, and the record it leaves."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from mcap.reader import make_reader

from safectl.errors import (
    BridgeError,
    FileFormatError,
    LoopStopped,
    RangeError,
    ShapeError,
    SpecMismatch,
    StorageError,
)
from safectl.loop import run_loop
from safectl.record import Recorder, read_record
from safectl.safeguards import Clip
from safectl.spec import Signal, Spec
from safectl.types import Certificate, Decision, Status
from safectl_hardware.fake import FakeBridge, Fault

SPEC = Spec(
    observation=(Signal("x", "m", -9.0, 9.0), Signal("y", "m", -9.0, 9.0)),
    action=(Signal("vx", "m/s", -1.0, 1.0), Signal("vy", "m/s", -1.0, 1.0)),
    period=0.1,
)


class Push:
    """Proposes a constant beyond the limit."""

    def __init__(self, value: float = 2.0) -> None:
        self.value = value

    def act(self, observation):
        return torch.full((observation.shape[0], 2), self.value)


def run(bridge, policy=None, *, steps=20, patience=3, recorder=None):
    return run_loop(
        bridge,
        policy or Push(),
        Clip(SPEC),
        steps=steps,
        patience=patience,
        recorder=recorder,
        clock=bridge,
    )


def test_every_proposal_is_filtered_and_the_robot_is_stopped_twice():
    bridge = FakeBridge(SPEC)
    result = run(bridge)
    assert (result.steps, result.corrected, result.fallbacks) == (20, 20, 0)
    assert all(sample.action == (1.0, 1.0) for sample in bridge.sent)
    assert bridge.stops == 2
    assert not bridge.connected
    assert bridge.now() == pytest.approx(1.9)


def test_one_nan_reading_gives_one_fallback_and_goes_on():
    bridge = FakeBridge(SPEC, {5: Fault.NAN})
    result = run(bridge)
    assert (result.steps, result.fallbacks) == (20, 1)
    assert all(abs(value) <= 1.0 for value in bridge.sent[5].action)


def test_patience_ends_the_run():
    bridge = FakeBridge(SPEC, dict.fromkeys(range(5, 12), Fault.NAN))
    with pytest.raises(LoopStopped, match="step 7: 3 fallbacks in a row"):
        run(bridge)
    assert bridge.stops == 3
    assert len(bridge.sent) == 8


@pytest.mark.parametrize(
    ("faults", "error", "message"),
    [
        ({4: Fault.STALE}, LoopStopped, "0.300 s old, at most 0.200 s"),
        (dict.fromkeys(range(4, 9), Fault.REPEATED), LoopStopped, "s old, at most 0.200 s"),
        ({4: Fault.READ_LOST}, BridgeError, "does not answer"),
        ({4: Fault.WRITE_LOST}, BridgeError, "is gone"),
        ({4: Fault.SHORT}, ShapeError, "observation has shape"),
    ],
)
def test_faults_stop_the_robot_and_keep_the_record(tmp_path, faults, error, message):
    bridge = FakeBridge(SPEC, faults)
    with pytest.raises(error, match=message):
        run(bridge, recorder=Recorder(tmp_path / "run.mcap", SPEC))
    assert bridge.stops == 3
    assert not bridge.connected
    record = read_record(tmp_path / "run.mcap")
    assert record.complete
    assert len(record.stamp) == len(bridge.sent) >= 4


def test_a_policy_that_raises_stops_the_robot():
    class Broken:
        def act(self, observation):
            raise ZeroDivisionError

    bridge = FakeBridge(SPEC)
    with pytest.raises(ZeroDivisionError):
        run(bridge, Broken())
    assert bridge.stops == 3
    assert bridge.sent == []


def test_a_policy_that_proposes_nan_meets_the_fallback():
    bridge = FakeBridge(SPEC)
    with pytest.raises(LoopStopped, match="fallbacks in a row"):
        run(bridge, Push(float("nan")))
    assert len(bridge.sent) == 3


class Slow:
    """Takes its time at one step."""

    def __init__(self, bridge, seconds, *, step):
        self.bridge, self.seconds, self.left, self.times = bridge, seconds, step, []

    def act(self, observation):
        self.times.append(self.bridge.now())
        if self.left == 0:
            self.bridge.wait_until(self.bridge.now() + self.seconds)
        self.left -= 1
        return torch.zeros(1, 2)


def test_a_decision_on_a_reading_that_went_stale_is_not_sent():
    bridge = FakeBridge(SPEC)
    with pytest.raises(LoopStopped, match=r"step 2: .* 0\.250 s old, at most 0\.200 s"):
        run(bridge, Slow(bridge, 0.25, step=2))
    assert len(bridge.sent) == 2
    assert bridge.stops == 3


def test_a_late_step_is_not_followed_by_a_burst():
    bridge = FakeBridge(SPEC)
    policy = Slow(bridge, 0.15, step=2)
    run(bridge, policy, steps=6)
    assert policy.times == pytest.approx([0.0, 0.1, 0.2, 0.35, 0.45, 0.55])


class Ahead(FakeBridge):
    """Its clock runs ahead of the loop's."""

    ahead = 0.0

    def read(self):
        return super().read()._replace(stamp=self.now() + self.ahead)


def test_a_stamp_in_the_future_is_refused_beyond_one_period():
    bridge = Ahead(SPEC)
    bridge.ahead = 0.09
    assert run(bridge).steps == 20
    bridge.ahead = 0.11
    with pytest.raises(LoopStopped, match=r"0\.110 s in the future, at most 0\.100 s"):
        run(bridge)


def test_patience_counts_consecutive_fallbacks_only():
    bridge = FakeBridge(SPEC, dict.fromkeys([1, 2, 4, 5, 7, 8], Fault.NAN))
    assert run(bridge, patience=3).fallbacks == 6


class Decided:
    """A broken safeguard: decides whatever it is told."""

    claim = "nothing"

    def __init__(self, action):
        self.action = torch.tensor(action)

    def filter(self, observation, action):
        assert not torch.is_grad_enabled()
        zero = torch.zeros(1)
        return Decision(self.action, Certificate(zero.to(torch.int8), zero, zero, zero))


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        ([[0.5, 1.5]], LoopStopped, r"decided vy = 1\.5 m/s, the robot allows -1 to 1"),
        ([[float("nan"), 0.0]], LoopStopped, "decided vx = nan m/s"),
        ([[0.0, float("-inf")]], LoopStopped, "decided vy = -inf m/s"),
        ([[0.0]], ShapeError, r"decided action has shape \(1, 1\), expected \(1, 2\)"),
        ([[0.0, 0.0]] * 2, ShapeError, r"decided action has shape \(2, 2\)"),
    ],
)
def test_a_decision_that_no_safeguard_may_make_is_not_sent(action, error, message):
    bridge = FakeBridge(SPEC)
    with pytest.raises(error, match=message):
        run_loop(bridge, Push(), Decided(action), steps=2, clock=bridge)
    assert bridge.sent == []
    assert bridge.stops == 3


def test_limits_that_float32_cannot_hold_are_no_violation():
    action = tuple(replace(signal, high=0.1) for signal in SPEC.action)
    bridge = FakeBridge(replace(SPEC, action=action))
    assert run_loop(bridge, Push(), Decided([[0.1, 0.1]]), steps=2, clock=bridge).steps == 2


def test_a_proposal_of_another_shape_is_refused():
    class Wide:
        def act(self, observation):
            return torch.zeros(1, 3)

    bridge = FakeBridge(SPEC)
    with pytest.raises(ShapeError, match=r"proposal has shape \(1, 3\), expected \(1, 2\)"):
        run(bridge, Wide())
    assert bridge.sent == []


OTHER = replace(SPEC, period=0.2)


def test_parts_made_for_another_robot_are_refused_before_it_is_connected(tmp_path):
    bridge = FakeBridge(SPEC)
    recorder = Recorder(tmp_path / "run.mcap", OTHER)
    with pytest.raises(SpecMismatch, match="the recorder differ: period"):
        run(bridge, recorder=recorder)
    assert (tmp_path / "run.mcap").read_bytes().endswith(b"\x89MCAP0\r\n")  # closed
    with pytest.raises(SpecMismatch, match="the safeguard differ: period"):
        run_loop(bridge, Push(), Clip(OTHER), steps=1, clock=bridge)
    assert bridge.stops == 0


def test_a_record_is_closed_when_the_arguments_are_refused(tmp_path):
    with pytest.raises(RangeError):
        run(FakeBridge(SPEC), steps=0, recorder=Recorder(tmp_path / "run.mcap", SPEC))
    assert (tmp_path / "run.mcap").read_bytes().endswith(b"\x89MCAP0\r\n")


def test_a_robot_that_is_half_connected_is_stopped():
    class Half(FakeBridge):
        def __enter__(self):
            raise BridgeError("no answer to the greeting")

    bridge = Half(SPEC)
    with pytest.raises(BridgeError, match="greeting"):
        run(bridge)
    assert bridge.stops == 1


PROGRAM = """
import os, signal, sys, time
from pathlib import Path
import torch
from safectl.loop import run_loop
from safectl.record import Recorder
from safectl.safeguards import Clip
from safectl.spec import spec_from_json
from safectl_hardware.fake import FakeBridge

class Policy:
    steps = 0

    def act(self, observation):
        self.steps += 1
        if self.steps == {steps}:
            os.kill(os.getpid(), signal.{name})
        return torch.zeros(1, spec.nu)

spec = spec_from_json(Path("spec.json").read_text())
bridge = FakeBridge(spec)
recorder = Recorder(Path("run.mcap"), spec)
before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
try:
    run_loop(bridge, Policy(), Clip(spec), steps=10**6, recorder=recorder, clock=bridge)
finally:
    print(bridge.stops, bridge.connected, len(bridge.sent))
    assert before == [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
"""


def run_and_signal(folder, name, steps, spec=SPEC):
    (folder / "spec.json").write_text(spec.to_json())
    command = [sys.executable, "-c", PROGRAM.format(name=name, steps=steps)]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", -signal.SIGINT)])
def test_a_signal_stops_the_robot_and_closes_the_record(tmp_path, name, status):
    done = run_and_signal(tmp_path, name, 60)
    assert done.returncode == status, done.stderr
    assert done.stdout.split() == ["3", "False", "59"]
    record = read_record(tmp_path / "run.mcap")
    assert record.complete
    assert len(record.stamp) == 59


def test_a_killed_writer_loses_at_most_its_last_chunk(tmp_path):
    """Zeros of a wide robot: three steps fill a chunk, and dozens of chunks fit in one buffer."""
    wide = tuple(Signal(f"joint {i}", "rad/s", -1.0, 1.0) for i in range(100))
    done = run_and_signal(tmp_path, "SIGKILL", 41, Spec(wide, wide, 0.1))
    assert done.returncode == -signal.SIGKILL
    record = read_record(tmp_path / "run.mcap")
    assert not record.complete
    assert 40 - 4 <= len(record.stamp) <= 40


def test_a_signal_while_a_step_is_recorded_waits_for_its_end(tmp_path):
    class Interrupted(Recorder):
        def append(self, *step):
            if self._sequence == 4:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)
            super().append(*step)

    bridge = FakeBridge(SPEC)
    with pytest.raises(SystemExit) as stopped:
        run(bridge, recorder=Interrupted(tmp_path / "run.mcap", SPEC))
    assert stopped.value.code == 143
    assert bridge.stops == 3
    assert len(read_record(tmp_path / "run.mcap").stamp) == 5


@pytest.mark.parametrize("option", ["steps", "patience"])
def test_senseless_counts_are_refused(option):
    with pytest.raises(RangeError, match=f"{option} is 0, expected at least 1"):
        run(FakeBridge(SPEC), **{option: 0})


def test_record_holds_what_was_proposed_and_what_was_sent(tmp_path):
    bridge = FakeBridge(SPEC)
    run(bridge, recorder=Recorder(tmp_path / "run.mcap", SPEC))
    record = read_record(tmp_path / "run.mcap")
    assert record.spec == SPEC
    assert record.complete
    assert (record.proposal == 2.0).all()
    assert (record.sent == 1.0).all()
    assert (record.decision == 1.0).all()
    assert (record.status == Status.CORRECTED).all()
    assert (record.risk == 0.0).all()
    assert (record.residual == 0.0).all()
    assert record.observation[-1] == pytest.approx([1.9, 1.9], rel=1e-5)
    assert record.stamp[-1] == pytest.approx(1.9)


def test_record_is_an_ordinary_mcap_file(tmp_path):
    run(FakeBridge(SPEC), recorder=Recorder(tmp_path / "run.mcap", SPEC))
    with (tmp_path / "run.mcap").open("rb") as stream:
        reader = make_reader(stream)
        summary = reader.get_summary()
        assert {c.topic for c in summary.channels.values()} == {
            "/observation",
            "/proposal",
            "/decision",
            "/sent",
            "/certificate",
        }
        schema, _, message = next(iter(reader.iter_messages(topics=["/observation"])))
        assert json.loads(schema.data)["properties"]["x"]["description"] == "[m]"
        assert set(json.loads(message.data)) == {"x", "y"}


def test_record_of_a_killed_writer_is_read_up_to_its_last_chunk(tmp_path):
    run(FakeBridge(SPEC), steps=2000, recorder=Recorder(tmp_path / "run.mcap", SPEC))
    whole = (tmp_path / "run.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(whole[: len(whole) // 2])
    record = read_record(tmp_path / "cut.mcap")
    assert not record.complete
    assert 500 < len(record.stamp) < 2000
    assert len(record.observation) == len(record.sent) == len(record.stamp)


def test_non_finite_values_are_recorded_not_lost(tmp_path):
    bridge = FakeBridge(SPEC, {1: Fault.NAN})
    run(bridge, recorder=Recorder(tmp_path / "run.mcap", SPEC))
    record = read_record(tmp_path / "run.mcap")
    assert record.observation[1, 0] != record.observation[1, 0]
    assert record.status[1] == Status.FALLBACK


def test_a_record_is_never_overwritten(tmp_path):
    (tmp_path / "run.mcap").write_bytes(b"precious")
    with pytest.raises(StorageError, match="File exists"):
        Recorder(tmp_path / "run.mcap", SPEC)
    assert (tmp_path / "run.mcap").read_bytes() == b"precious"


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"\x89MCAP0\r\n"])
def test_files_that_are_no_record_are_refused(tmp_path, content):
    path = tmp_path / "x.mcap"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"x\.mcap"):
        read_record(path)


ARRAYS = ("stamp", "observation", "proposal", "decision", "sent", "status", "margin", "risk")


def is_prefix(part, whole):
    steps = len(part.stamp)
    assert part.spec == whole.spec
    return all(
        np.array_equal(getattr(part, name), getattr(whole, name)[:steps])
        for name in (*ARRAYS, "residual", "elapsed")
    )


def damage(data, rng):
    """Flip a byte or three, cut the end, drop, repeat or exchange a piece."""
    data = bytearray(data)
    at, end = sorted(int(i) for i in rng.integers(0, len(data), size=2))
    match int(rng.integers(0, 6)):
        case 0 | 1 | 2:
            for position in rng.integers(0, len(data), size=int(rng.choice([1, 1, 3]))):
                data[position] ^= int(rng.integers(1, 256))
        case 3:
            del data[at:]
        case 4:
            del data[at:end]
        case _:
            data[at:end] = bytes(end - at)
    return bytes(data)


def test_damage_anywhere_is_refused_or_gives_the_steps_before_it(tmp_path):
    rng = np.random.default_rng(0)

    class Noise:
        def act(self, observation):
            return torch.as_tensor(rng.standard_normal((1, 2)), dtype=torch.float32)

    path = tmp_path / "run.mcap"
    run(FakeBridge(SPEC), Noise(), steps=150, recorder=Recorder(path, SPEC))
    data, whole = path.read_bytes(), read_record(path)
    assert whole.complete
    outcomes = {"refused": 0, "part": 0, "unchanged": 0}
    for _ in range(200):
        path.write_bytes(damage(data, rng))
        try:
            record = read_record(path)
        except FileFormatError:
            outcomes["refused"] += 1
            continue
        assert is_prefix(record, whole)
        assert len(record.stamp) == 150 or not record.complete
        outcomes["part" if len(record.stamp) < 150 else "unchanged"] += 1
    assert min(outcomes.values()) > 0


def test_a_chunk_that_is_missing_in_the_middle_ends_the_record(tmp_path):
    path = tmp_path / "run.mcap"
    run(FakeBridge(SPEC), steps=150, recorder=Recorder(path, SPEC))
    data = bytearray(path.read_bytes())
    with path.open("rb") as stream:
        chunks = make_reader(stream).get_summary().chunk_indexes
    data[chunks[1].chunk_start_offset] = 0x80  # an operation code that readers must skip
    whole = read_record(path)
    path.write_bytes(data)
    record = read_record(path)
    assert not record.complete
    assert 0 < len(record.stamp) < 100
    assert is_prefix(record, whole)


def test_a_changed_specification_is_noticed(tmp_path):
    path = tmp_path / "run.mcap"
    run(FakeBridge(SPEC), recorder=Recorder(path, SPEC))
    path.write_bytes(path.read_bytes().replace(b"9.0", b"8.0", 1))
    with pytest.raises(FileFormatError, match="damaged specification"):
        read_record(path)


def test_a_stamp_that_cannot_be_written_is_refused(tmp_path):
    bridge = FakeBridge(SPEC)
    bridge.wait_until(2e10)
    with pytest.raises(RangeError, match="stamp"):
        run(bridge, recorder=Recorder(tmp_path / "run.mcap", SPEC))
