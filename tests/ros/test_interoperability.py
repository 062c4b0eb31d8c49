"""A second DDS implementation, Eclipse Cyclone, receives the safe command without ROS."""

from dataclasses import dataclass

import pytest
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import float64, int32, uint32
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from tests.ros_prefix import PACKAGE
from tests.waiting import wait_until

CONFIGURATION = """<CycloneDDS><Domain Id="any"><General>
<Interfaces><NetworkInterface address="127.0.0.1" multicast="true"/></Interfaces>
</General></Domain></CycloneDDS>"""
START_S = 60.0


@dataclass
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    sec: int32
    nanosec: uint32


@dataclass
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    stamp: Time
    frame_id: str


@dataclass
class Vector3(IdlStruct, typename="geometry_msgs::msg::dds_::Vector3_"):
    x: float64
    y: float64
    z: float64


@dataclass
class Twist(IdlStruct, typename="geometry_msgs::msg::dds_::Twist_"):
    linear: Vector3
    angular: Vector3


@dataclass
class TwistStamped(IdlStruct, typename="geometry_msgs::msg::dds_::TwistStamped_"):
    header: Header
    twist: Twist


@pytest.fixture
def reader(ros_domain):
    """A reader of Cyclone DDS that asks for the deadline that the last link asks for."""
    domain = Domain(ros_domain, CONFIGURATION)
    participant = DomainParticipant(ros_domain)
    topic = Topic(participant, "rt/cmd_vel_safe", TwistStamped)
    quality = Qos(
        Policy.Reliability.Reliable(duration(seconds=1)),
        Policy.Deadline(duration(milliseconds=60)),
        Policy.History.KeepLast(10),
    )
    yield DataReader(participant, topic, qos=quality)
    del domain


@pytest.mark.slow
def test_another_dds_receives_the_safe_command(launched, reader):
    config = PACKAGE / "config"
    launched(
        "robot.launch.xml",
        robot=config / "base.toml",
        safeguard=config / "base_safeguard.toml",
        record=False,
    )
    received = []
    wait_until(lambda: received.extend(reader.take(10)) or len(received) >= 20, START_S)
    for sample in received:
        assert sample.header.frame_id == "base_link"
        assert sample.twist.linear == Vector3(0.0, 0.0, 0.0)
        assert sample.twist.angular == Vector3(0.0, 0.0, 0.0)
    stamps = [sample.header.stamp.sec + sample.header.stamp.nanosec * 1e-9 for sample in received]
    assert stamps == sorted(stamps)
