"""Looking at a graph without `ros2`: topics, messages, rates, parameters, lifecycle."""

import pytest
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Bool

from safectl_ros.cli import main, measure_rate
from safectl_ros.nodes.recorder import RecorderNode
from safectl_ros.process import RosThread
from safectl_ros.qos import LATCHED


@pytest.fixture
def latched(probe):
    publisher = probe.node.create_publisher(Bool, "estop", LATCHED)
    publisher.publish(Bool(data=True))
    return publisher


def test_topics_are_listed_with_type_and_number_of_ends(latched, capsys):
    assert main(["topics", "--seconds", "1.0"]) == 0
    assert "/estop  std_msgs/msg/Bool  1 -> 0" in capsys.readouterr().out.splitlines()


def test_messages_are_printed_also_latched_ones(latched, capsys):
    assert main(["echo", "estop", "--count", "1"]) == 0
    assert capsys.readouterr().out == "std_msgs.msg.Bool(data=True)\n"


def test_a_rate_is_measured_with_its_longest_gap(probe, capsys):
    publisher = probe.node.create_publisher(Bool, "beat", 10)
    probe.node.create_timer(0.02, lambda: publisher.publish(Bool()))
    assert main(["hz", "beat", "--seconds", "0.5"]) == 0
    words = capsys.readouterr().out.split()
    assert int(words[0]) > 2
    assert 0.0 < float(words[2]) < 60.0


def test_rate_and_gap_come_from_the_times_of_arrival():
    assert measure_rate([0.0, 0.1, 0.3]) == pytest.approx((3, 1 / 0.15, 0.2))
    assert measure_rate([1.0]) == (1, 0.0, 0.0)


def test_parameters_are_shown_with_range_and_meaning(ros_domain, tmp_path, capsys):
    arguments = ["--ros-args", "-p", f"folder:={tmp_path / 'bag'}", "-p", "topics:=none"]
    with RosThread(lambda context: RecorderNode(context), arguments=arguments):
        assert main(["params", "recorder"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "flush_s: 0.2 [0.01, 10] (fixed)  what a kill may lose [s]" in lines


def test_the_lifecycle_is_shown_and_changed(ros_domain, capsys):
    with RosThread(lambda context: LifecycleNode("managed", context=context)):
        assert main(["lifecycle", "managed"]) == 0
        assert main(["lifecycle", "managed", "configure"]) == 0
        assert main(["lifecycle", "managed", "deactivate"]) == 1
        assert main(["lifecycle", "managed", "actvate"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "unconfigured\ninactive\n"
    assert "unknown change 'deactivate'" in captured.err
    assert "did you mean 'activate'" in captured.err


@pytest.mark.parametrize("words", [[], ["list"], ["hz", "a", "--seconds", "x"], ["hz", "--count"]])
def test_a_wrong_call_shows_the_usage(words, capsys):
    assert main(words) == 2
    assert "usage:" in capsys.readouterr().err


def test_a_missing_name_is_one_error(ros_domain, capsys):
    assert main(["echo"]) == 1
    assert "name one topic or node" in capsys.readouterr().err
