"""The recorder: bags that others read, and that a kill does not destroy."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore
from std_msgs.msg import Bool, Float64MultiArray, UInt64

from safectl.errors import ConfigError, FileFormatError, StorageError
from safectl_ros.adapters.vector import numbers_to_message
from safectl_ros.bag_writer import BagWriter, is_closed, recover
from safectl_ros.nodes.recorder import RecorderNode
from safectl_ros.process import RosThread
from safectl_ros.qos import LATCHED, SENSOR, safe_command
from tests.ros_graph import START_S, Inbox
from tests.waiting import wait_until

STORE = get_typestore(Stores.ROS2_JAZZY)


def numbers(value):
    return numbers_to_message(np.array([float(value)]), 7)


def read(folder):
    """Return topic, time and decoded message of a bag, by rosbags alone."""
    with Reader(folder) as reader:
        return [
            (connection.topic, stamp, STORE.deserialize_cdr(raw, connection.msgtype))
            for connection, stamp, raw in reader.messages()
        ]


def record(folder, *more):
    arguments = ["--ros-args", "-p", f"folder:={folder}", "-p", "flush_s:=0.02", *more]
    return RosThread(lambda context: RecorderNode(context), arguments=arguments)


def send(publisher, counted, values):
    """Publish values one after the other, each once the one before is recorded."""
    for value in values:
        before = counted.messages[-1].data if counted.messages else 0
        publisher.publish(numbers(value))
        counted.wait(lambda got, before=before: got and got[-1].data > before)


def first(publisher, counted):
    """Publish until the recorder has found the publisher, which may be after it was found."""

    def recorded():
        publisher.publish(numbers(-1.0))
        return bool(counted.messages)

    wait_until(recorded, START_S, poll_s=0.05)


def test_what_is_recorded_is_read_alike_by_two_other_readers(probe, tmp_path):
    commands = probe.node.create_publisher(Float64MultiArray, "action_safe", safe_command(20.0))
    with record(tmp_path / "bag", "-p", "topics:=action_safe"):
        counted = Inbox(probe.node, UInt64, "/recorder/recorded", LATCHED)
        first(commands, counted)
        send(commands, counted, range(10))
    rows = read(tmp_path / "bag")
    values = [message.data[0] for _, _, message in rows]
    assert values[-10:] == list(range(10))
    assert set(values[:-10]) == {-1.0}
    stamps = [stamp for _, stamp, _ in rows]
    assert stamps == sorted(stamps)
    with (tmp_path / "bag" / "bag.mcap").open("rb") as stream:
        decoded = make_reader(stream, decoder_factories=[DecoderFactory()]).iter_decoded_messages()
        assert [message.decoded_message.data[0] for message in decoded] == values


def test_every_topic_that_appears_is_recorded_with_its_offer(probe, tmp_path):
    latched = probe.node.create_publisher(Bool, "estop", LATCHED)
    latched.publish(Bool(data=True))
    with record(tmp_path / "bag"):
        wait_until(lambda: latched.get_subscription_count() == 1)
        late = probe.node.create_publisher(Bool, "late", LATCHED)
        late.publish(Bool(data=False))
        wait_until(lambda: late.get_subscription_count() == 1)
        counted = Inbox(probe.node, UInt64, "/recorder/recorded", LATCHED)
        counted.wait(lambda got: got and got[-1].data > 2)
    rows = {topic: message for topic, _, message in read(tmp_path / "bag")}
    assert rows["/estop"].data
    assert not rows["/late"].data
    with Reader(tmp_path / "bag") as reader:
        (offer,) = [c.ext.offered_qos_profiles for c in reader.connections if c.topic == "/estop"]
    assert {profile.durability.name for profile in offer} == {"TRANSIENT_LOCAL"}


def test_bytes_are_those_that_were_published(probe, tmp_path):
    publisher = probe.node.create_publisher(Float64MultiArray, "action", 10)
    with record(tmp_path / "bag", "-p", "topics:=action"):
        counted = Inbox(probe.node, UInt64, "/recorder/recorded", LATCHED)
        first(publisher, counted)
        send(publisher, counted, [0.1])
    with Reader(tmp_path / "bag") as reader:
        *_, (_, _, raw) = reader.messages()
    assert deserialize_message(raw, Float64MultiArray) == numbers(0.1)


def test_only_listed_topics_are_recorded_also_from_a_best_effort_publisher(probe, tmp_path):
    wanted = probe.node.create_publisher(Float64MultiArray, "scan", SENSOR)
    other = probe.node.create_publisher(Float64MultiArray, "other", 10)
    with record(tmp_path / "bag", "-p", "topics:=scan, /nobody"):
        reports = Inbox(probe.node, DiagnosticArray, "/diagnostics", 10)
        counted = Inbox(probe.node, UInt64, "/recorder/recorded", LATCHED)
        first(wanted, counted)
        assert other.get_subscription_count() == 0
        (status,) = reports.wait().status
    assert {topic for topic, _, _ in read(tmp_path / "bag")} == {"/scan"}
    assert (status.name, status.level) == ("recorder: bag", DiagnosticStatus.WARN)
    assert status.message == "waits for /nobody"


def test_a_killed_recorder_loses_nothing_that_it_has_counted(probe, tmp_path):
    publisher = probe.node.create_publisher(Float64MultiArray, "action", 100)
    command = [sys.executable, "-m", "safectl_ros.nodes.recorder", "--ros-args"]
    command += ["-p", f"folder:={tmp_path / 'bag'}", "-p", "topics:=action", "-p", "flush_s:=0.02"]
    process = subprocess.Popen(command)
    try:
        counted = Inbox(probe.node, UInt64, "/recorder/recorded", LATCHED)
        first(publisher, counted)
        for value in range(50):
            publisher.publish(numbers(float(value)))
        number = counted.wait(lambda got: got[-1].data > 40).data
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not is_closed(tmp_path / "bag")
    recovered = recover(tmp_path / "bag", tmp_path / "again")
    assert recovered >= number
    values = [message.data[0] for _, _, message in read(tmp_path / "again")]
    assert len(values) == recovered
    assert [v for v in values if v >= 0.0] == list(range(int(values[-1]) + 1))


def test_a_terminated_recorder_closes_its_bag(probe, tmp_path):
    publisher = probe.node.create_publisher(Float64MultiArray, "action", 100)
    command = [sys.executable, "-m", "safectl_ros.nodes.recorder", "--ros-args"]
    command += ["-p", f"folder:={tmp_path / 'bag'}", "-p", "topics:=action"]
    process = subprocess.Popen(command)
    try:
        first(publisher, Inbox(probe.node, UInt64, "/recorder/recorded", LATCHED))
        process.terminate()
        assert process.wait(START_S) == 0
    finally:
        process.kill()
        process.wait()
    assert is_closed(tmp_path / "bag")
    assert "/action" in {topic for topic, _, _ in read(tmp_path / "bag")}


@pytest.mark.parametrize(("lost", "left"), [(1, 5), (20, 5), (35, 4), (60, 4), (200, 3)])
def test_a_bag_that_was_cut_anywhere_is_recovered_up_to_the_cut(tmp_path, lost, left):
    """The last 31 bytes are an index; a chunk with one message is longer than a hundred."""
    with BagWriter(tmp_path / "bag") as writer:
        topic = writer.add_topic("/x", "std_msgs/msg/Bool")
        data = STORE.serialize_cdr(STORE.types["std_msgs/msg/Bool"](data=True), topic.msgtype)
        for stamp in range(5):
            writer.write(topic, stamp + 1, bytes(data))
            writer.flush()
        size = (tmp_path / "bag" / "bag.mcap").stat().st_size
        os.truncate(tmp_path / "bag" / "bag.mcap", size - lost)
        assert recover(tmp_path / "bag", tmp_path / "again") == left
    assert [stamp for _, stamp, _ in read(tmp_path / "again")] == list(range(1, left + 1))


def test_nothing_is_overwritten_and_what_is_no_bag_is_refused(tmp_path):
    (tmp_path / "bag").mkdir()
    with pytest.raises(StorageError, match="exists"):
        BagWriter(tmp_path / "bag")
    with pytest.raises(FileFormatError, match="no MCAP file"):
        recover(tmp_path / "bag", tmp_path / "again")


def test_a_parameter_that_cannot_be_used_is_one_clear_error(ros_domain):
    with pytest.raises(ConfigError, match="did you mean 'folder'"):
        RosThread(lambda context: RecorderNode(context), arguments=["--ros-args", "-p", "foldr:=x"])


def test_a_later_publisher_that_offers_less_is_told(probe, tmp_path):
    first_one = probe.node.create_publisher(Float64MultiArray, "action_safe", safe_command(20.0))
    with record(tmp_path / "bag", "-p", "topics:=action_safe"):
        counted = Inbox(probe.node, UInt64, "/recorder/recorded", LATCHED)
        reports = Inbox(probe.node, DiagnosticArray, "/diagnostics", 10)
        first(first_one, counted)
        probe.node.create_publisher(Float64MultiArray, "action_safe", SENSOR)
        told = "/action_safe: a later publisher is not recorded"
        reports.wait(lambda got: any(told in report.status[0].message for report in got))
        assert reports.messages[-1].status[0].level == DiagnosticStatus.WARN
