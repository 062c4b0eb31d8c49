"""The control loop over a robot that misbehaves, and the record it leaves."""

import json

import pytest
import torch
from mcap.reader import make_reader

from safectl.errors import (
    BridgeError,
    FileFormatError,
    LoopStopped,
    RangeError,
    ShapeError,
    StorageError,
)
from safectl.loop import run_loop
from safectl.record import Recorder, read_record
from safectl.safeguards import Clip
from safectl.spec import Signal, Spec
from safectl.types import Status
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
    assert (record.status == Status.CORRECTED).all()
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
