"""Messages to arrays and back, without a running graph."""

import array
import math

import numpy as np
import pytest
from geometry_msgs.msg import Twist, TwistStamped
from hypothesis import given
from hypothesis import strategies as st
from nav_msgs.msg import Odometry
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from safectl.errors import AdapterError, RangeError, UnknownNameError
from safectl.spec import Signal, Spec
from safectl_ros.adapters import Interface, VectorInterface, make_interface
from safectl_ros.adapters.interface import sizes_in_si
from safectl_ros.adapters.stamps import LATEST_NS, from_time, to_time

NUMBERS = st.floats(-1e6, 1e6)
STAMPS = st.integers(1, 2**31 * 1_000_000_000 - 1)
ROUNDING = 1e-12  # relative; a quaternion and a change of unit round in float64


def signals(**units):
    return tuple(Signal(name, unit, -1.0, 1.0) for name, unit in units.items())


VECTOR = make_interface(
    "vector", Spec(signals(a="m", b="m", c="m"), signals(u="m/s", v="2 rad/s"), 0.05)
)
BASE = make_interface(
    "base",
    Spec(
        signals(x="m", y="m", heading="rad", speed="m/s", turn_rate="rad/s"),
        signals(speed="m/s", turn_rate="2 rad/s"),
        0.05,
    ),
)
JOINTS = ("shoulder", "elbow", "wrist")
ARM = make_interface(
    "arm",
    Spec(
        signals(**dict.fromkeys(JOINTS, "rad"), **{f"{j}_velocity": "rad/s" for j in JOINTS}),
        signals(**{f"{j}_velocity": "1.5 rad/s" for j in JOINTS}),
        0.02,
    ),
)
UNSTAMPED_BASE = make_interface("base", BASE.spec, is_stamped=False)
UNSTAMPED_ARM = make_interface("arm", ARM.spec, is_stamped=False)
ALL = [VECTOR, BASE, ARM, UNSTAMPED_BASE, UNSTAMPED_ARM]
NAMES = ["vector", "base", "arm", "unstamped base", "unstamped arm"]


def rows(size):
    return st.lists(NUMBERS, min_size=size, max_size=size).map(np.array)


@pytest.mark.parametrize("interface", ALL, ids=NAMES)
def test_every_kind_is_an_interface_with_three_topics(interface):
    assert isinstance(interface, Interface)
    assert interface.safe_topic == f"{interface.command_topic}_safe"
    assert interface.state_topic != interface.command_topic


@pytest.mark.parametrize("interface", ALL, ids=NAMES)
@given(data=st.data(), stamp_ns=STAMPS)
def test_a_command_survives_the_way_through_its_message(interface, data, stamp_ns):
    command = data.draw(rows(interface.spec.nu))
    message = interface.array_to_command(command, stamp_ns)
    assert isinstance(message, interface.command_type)
    np.testing.assert_allclose(interface.command_to_array(message), command, rtol=ROUNDING)
    if interface not in (UNSTAMPED_ARM, UNSTAMPED_BASE):
        assert interface.stamp_of(message) == stamp_ns


@pytest.mark.parametrize("interface", ALL, ids=NAMES)
@given(data=st.data())
def test_a_float32_command_arrives_bit_for_bit(interface, data):
    numbers = st.floats(-1.0, 1.0, width=32)
    size = interface.spec.nu
    command = np.array(data.draw(st.lists(numbers, min_size=size, max_size=size)), np.float32)
    message = interface.array_to_command(command.astype(np.float64), 1)
    arrived = interface.command_to_array(message).astype(np.float32)
    np.testing.assert_array_equal(arrived, command)


@pytest.mark.parametrize("interface", [VECTOR, ARM], ids=["vector", "arm"])
@given(data=st.data(), stamp_ns=STAMPS)
def test_a_state_survives_the_way_through_its_message(interface, data, stamp_ns):
    state = data.draw(rows(interface.spec.nx))
    message = interface.array_to_state(state, stamp_ns)
    assert isinstance(message, interface.state_type)
    np.testing.assert_array_equal(interface.state_to_array(message), state)
    assert interface.stamp_of(message) == stamp_ns


@given(state=rows(5), stamp_ns=STAMPS)
def test_the_state_of_a_base_survives_up_to_whole_turns(state, stamp_ns):
    message = BASE.array_to_state(state, stamp_ns)
    arrived = BASE.state_to_array(message)
    np.testing.assert_array_equal(arrived[[0, 1, 3, 4]], state[[0, 1, 3, 4]])
    assert math.cos(arrived[2] - state[2]) == pytest.approx(1.0, abs=ROUNDING)
    assert BASE.stamp_of(message) == stamp_ns
    assert (message.header.frame_id, message.child_frame_id) == ("odom", "base_link")


@pytest.mark.parametrize("interface", ALL, ids=NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_pass_through(interface, value):
    command = np.zeros(interface.spec.nu)
    command[-1] = value
    message = interface.array_to_command(command, 1)
    np.testing.assert_array_equal(interface.command_to_array(message), command)


def test_a_quaternion_of_nan_is_a_heading_of_nan():
    message = Odometry()
    message.pose.pose.orientation.z = math.nan
    assert math.isnan(BASE.state_to_array(message)[2])


def test_a_fraction_leaves_in_si_units():
    assert BASE.array_to_command(np.array([0.5, 0.5]), 1).twist.angular.z == 1.0
    assert ARM.array_to_command(np.ones(3), 1).points[0].velocities.tolist() == [1.5] * 3
    np.testing.assert_array_equal(
        sizes_in_si(signals(a="10 N", b="m", c="1 / s", d="?", e="kg m^2")), [10, 1, 1, 1, 1]
    )


def test_joints_are_found_by_name_in_any_order():
    point = JointTrajectoryPoint(velocities=[3.0, 1.5, 4.5])
    message = JointTrajectory(joint_names=["elbow", "shoulder", "wrist"], points=[point])
    np.testing.assert_array_equal(ARM.command_to_array(message), [1.0, 2.0, 3.0])
    state = JointState(name=["grip", "wrist", "elbow", "shoulder"])
    state.position, state.velocity = [9.0, 3.0, 2.0, 1.0], [9.0, 0.3, 0.2, 0.1]
    np.testing.assert_array_equal(ARM.state_to_array(state), [1, 2, 3, 0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("names", "points", "problem"),
    [
        (["shoulder", "elbow"], [[0.0, 0.0]], "names the joints"),
        (["shoulder", "elbow", "hand"], [[0.0] * 3], "names the joints"),
        (["shoulder", "elbow", "elbow"], [[0.0] * 3], "names the joints"),
        ([*JOINTS, "hand"], [[0.0] * 4], "names the joints"),
        (JOINTS, [], "0 points"),
        (JOINTS, [[0.0] * 3, [0.0] * 3], "2 points"),
        (JOINTS, [[0.0] * 2], "holds 2 numbers"),
    ],
)
def test_a_trajectory_for_another_arm_is_refused(names, points, problem):
    message = JointTrajectory(
        joint_names=list(names),
        points=[JointTrajectoryPoint(velocities=list(values)) for values in points],
    )
    with pytest.raises(AdapterError, match=problem):
        ARM.command_to_array(message)


@pytest.mark.parametrize(
    ("names", "positions", "velocities", "problem"),
    [
        (["shoulder", "elbow"], [0.0] * 2, [0.0] * 2, "lacks the joint 'wrist'"),
        (["shoulder", "elbow", "hand"], [0.0] * 3, [0.0] * 3, "lacks the joint 'wrist'"),
        (JOINTS, [0.0] * 2, [0.0] * 3, "position: holds 2 numbers"),
        (JOINTS, [0.0] * 3, [], "velocity: holds 0 numbers"),
        ([*JOINTS, "elbow"], [0.0] * 4, [0.0] * 4, "names a joint twice"),
    ],
)
def test_a_state_that_lacks_something_is_refused(names, positions, velocities, problem):
    message = JointState(name=list(names), position=positions, velocity=velocities)
    with pytest.raises(AdapterError, match=problem):
        ARM.state_to_array(message)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_row_of_the_wrong_size_is_refused(size):
    message = Float64MultiArray(data=array.array("d", [0.0] * size))
    with pytest.raises(AdapterError, match=f"holds {size} numbers, expected 2"):
        VECTOR.command_to_array(message)
    message = Float64MultiArray(data=array.array("d", [0.0] * (size + 4)))
    with pytest.raises(AdapterError, match="numbers, expected 3"):
        UNSTAMPED_ARM.command_to_array(message)


@pytest.mark.parametrize(
    ("interface", "message"),
    [
        (VECTOR, Twist()),
        (BASE, Twist()),
        (UNSTAMPED_BASE, TwistStamped()),
        (ARM, Float64MultiArray()),
        (UNSTAMPED_ARM, JointTrajectory()),
    ],
)
def test_a_message_of_another_type_is_refused(interface, message):
    with pytest.raises(AdapterError, match=f"{type(message).__name__}: is no "):
        interface.command_to_array(message)


def test_a_command_in_another_frame_is_refused_and_one_without_frame_is_not():
    message = TwistStamped()
    BASE.command_to_array(message)
    message.header.frame_id = "map"
    with pytest.raises(AdapterError, match="in the frame 'map', expected 'base_link'"):
        BASE.command_to_array(message)


def test_a_quaternion_that_is_no_rotation_is_refused():
    message = Odometry()
    message.pose.pose.orientation.w = 0.0
    with pytest.raises(AdapterError, match="quaternion of length 0"):
        BASE.state_to_array(message)


@pytest.mark.parametrize("interface", [VECTOR, BASE, UNSTAMPED_BASE, ARM, UNSTAMPED_ARM], ids=NAMES)
def test_a_message_without_a_stamp_has_none(interface):
    assert interface.stamp_of(interface.command_type()) is None


def test_names_that_a_message_cannot_carry_are_refused_at_once():
    with pytest.raises(UnknownNameError, match="signal of a base 'lidar'"):
        make_interface("base", Spec(signals(lidar="m"), signals(speed="m/s"), 0.05))
    with pytest.raises(RangeError, match="one sort only"):
        make_interface("arm", Spec(signals(a="rad"), signals(a="rad", b_velocity="rad/s"), 0.05))
    with pytest.raises(UnknownNameError, match="kind of robot 'boat'"):
        make_interface("boat", BASE.spec)


def test_a_foreign_label_is_no_stamp():
    message = VECTOR.array_to_state(np.zeros(3), 7)
    assert isinstance(VECTOR, VectorInterface)
    for label in ("x", "-1", "9" * 19, "9" * 400, "9" * 5000):
        message.layout.dim[0].label = label
        assert VECTOR.stamp_of(message) is None, len(label)
    message.layout.dim[0].label = str(LATEST_NS)
    assert VECTOR.stamp_of(message) == LATEST_NS
    assert from_time(to_time(LATEST_NS)) == LATEST_NS
