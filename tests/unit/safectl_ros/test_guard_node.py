"""The guard as a node: every row of the table over real topics, and what it tells people."""

import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import MarkerArray

from safectl.errors import ConfigError
from safectl_ros.adapters.stamps import to_time
from safectl_ros.nodes.guard import GuardNode
from safectl_ros.process import RosThread
from safectl_ros.qos import COMMAND, DIAGNOSTICS, LATCHED, SENSOR
from tests.ros_graph import Inbox
from tests.unit.safectl_ros.robot_files import BASE
from tests.waiting import wait_until

DISCS = """
kind = "barrier"
discs = [[1.0, 0.0]]
radius = 0.3
rate = 0.5
"""
AT_ONCE = {"recover_s": 0.0, "min_dwell_s": 0.0, "reentry_s": 1e-3, "use_estop": False}
AT_ONCE |= {"filter_budget_s": 0.2}  # the tests check every type at run time, which takes its time


def arguments(folder, safeguard="kind = 'clip'", **parameters):
    """Write the files of a robot and a safeguard and return the node's command line."""
    files = {"robot": folder / "robot.toml", "safeguard": folder / "safeguard.toml"}
    files["robot"].write_text(BASE)
    files["safeguard"].write_text(safeguard)
    values = {name: str(path) for name, path in files.items()} | AT_ONCE | parameters
    pairs = [f"{name}:={_yaml(value)}" for name, value in values.items()]
    return ["--ros-args", *[word for pair in pairs for word in ("-p", pair)]]


def _yaml(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


NEAR = 1e-3
"""How close an output is to what is expected; corrections leave room for rounding."""


class Site:
    """A guard in this process and a node beside it that plays robot and planner."""

    def __init__(self, probe, thread):
        self.probe, self.guard = probe, thread
        node = probe.node
        self.commands = node.create_publisher(TwistStamped, "cmd_vel", COMMAND)
        self.odometry = node.create_publisher(Odometry, "odom", SENSOR)
        self.estop = node.create_publisher(Bool, "estop", LATCHED)
        self.safe = Inbox(node, TwistStamped, "cmd_vel_safe", COMMAND)
        self.interventions = Inbox(node, DiagnosticStatus, "guard/intervention", LATCHED)
        self.driver = None
        wait_until(lambda: self.commands.get_subscription_count() == 1)
        wait_until(lambda: self.odometry.get_subscription_count() == 1)
        self.safe.wait()

    def stamp(self):
        return self.probe.node.get_clock().now().to_msg()

    def see(self, x=0.0, speed=0.4, turn_rate=0.2, stamp=None):
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id, message.header.stamp = "odom", stamp or self.stamp()
        message.pose.pose.position.x, message.pose.pose.orientation.w = x, 1.0
        message.twist.twist.linear.x, message.twist.twist.angular.z = speed, turn_rate
        self.odometry.publish(message)

    def command(self, speed=0.5, turn_rate=-0.4, stamp=None):
        message = TwistStamped()
        message.header.stamp = stamp or self.stamp()
        message.twist.linear.x, message.twist.angular.z = speed, turn_rate
        self.commands.publish(message)

    def drive(self, observe=None, command=None):
        """Publish good messages at 50 Hz until the next call; either can be replaced."""
        if self.driver is not None:
            self.probe.node.destroy_timer(self.driver)

        def tick():
            (observe or self.see)()
            (command or self.command)()

        self.driver = self.probe.node.create_timer(0.02, tick)

    def release(self):
        """Release the e-stop, and wait until the guard drives."""
        self.estop.publish(Bool(data=False))
        wait_until(lambda: self.call(Trigger, "guard/reset", Trigger.Request()).success)
        self.wait_for("NOMINAL")

    def state(self):
        newest = self.interventions.messages[-1]
        return {pair.key: pair.value for pair in newest.values} | {"level": newest.level}

    def wait_for(self, state):
        """Wait for a state and return the seconds until it was announced."""
        started = time.monotonic()
        self.interventions.wait(lambda all_: all_ and all_[-1].message.startswith(state))
        return time.monotonic() - started

    def wait_for_output(self, speed, turn_rate):
        def holds(messages):
            twist = messages[-1].twist
            got = (twist.linear.x, twist.angular.z)
            return np.allclose(got, (speed, turn_rate), atol=NEAR)

        self.safe.wait(holds)

    def call(self, kind, name, request):
        return self.probe.call(self.probe.node.create_client(kind, name), request, 15.0)


@pytest.fixture
def site(probe, tmp_path):
    """Return what starts a guard with some parameters and a site around it."""
    threads = []

    def start(safeguard="kind = 'clip'", **parameters):
        line = arguments(tmp_path, safeguard, **parameters)
        threads.append(RosThread(lambda context: GuardNode(context), arguments=line))
        return Site(probe, threads[-1])

    yield start
    for thread in threads:
        thread.close()


# --- the rows of the table


def test_an_inactive_guard_sends_zeros_at_full_rate(site):
    here = site()
    here.drive()
    here.wait_for("NOMINAL")
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
    assert here.call(ChangeState, "guard/change_state", request).success
    here.wait_for("INACTIVE")
    before = len(here.safe.messages)
    here.safe.wait(lambda messages: len(messages) >= before + 10)
    assert all(message.twist.linear.x == 0.0 for message in here.safe.messages[before:])
    request.transition.id = Transition.TRANSITION_ACTIVATE
    assert here.call(ChangeState, "guard/change_state", request).success
    here.wait_for("NOMINAL")


def test_an_invalid_transition_of_a_foreign_client_changes_nothing(site):
    here = site()
    here.drive()
    here.wait_for("NOMINAL")
    for wanted in (Transition(id=Transition.TRANSITION_ACTIVATE), Transition(id=200)):
        answer = here.call(
            ChangeState, "guard/change_state", ChangeState.Request(transition=wanted)
        )
        assert not answer.success
    assert here.guard.is_alive
    before = len(here.safe.messages)
    here.safe.wait(lambda messages: len(messages) >= before + 10)
    here.wait_for_output(0.5, -0.4)
    here.command(math.nan)
    here.interventions.wait(lambda _: here.state()["refused_transitions"] == "2")


def test_commands_pass_and_are_limited(site):
    here = site()
    here.drive()
    here.wait_for("NOMINAL")
    here.wait_for_output(0.5, -0.4)
    here.drive(command=lambda: here.command(3.0, -0.4))
    here.wait_for("MODIFIED")
    here.wait_for_output(1.0, -0.4)


def test_an_answer_carries_the_stamp_of_its_command(site):
    here = site(stamp_tolerance=0.0, cmd_timeout=5.0, state_timeout=5.0)
    here.see()
    here.command(0.3, 0.0, stamp=to_time(1234567890))
    here.wait_for_output(0.3, 0.0)
    assert here.safe.messages[-1].header.stamp == to_time(1234567890)


def test_without_an_e_stop_the_robot_rests_until_heartbeat_and_reset(site):
    here = site(use_estop=True)
    here.drive()
    here.wait_for("ESTOP: e-stop: none received yet")
    refused = here.call(Trigger, "guard/reset", Trigger.Request())
    assert (refused.success, refused.message) == (False, "e-stop: none received yet")
    beats = here.probe.node.create_timer(0.05, lambda: here.estop.publish(Bool(data=False)))
    here.wait_for("ESTOP: e-stop: none received yet")
    wait_until(lambda: here.call(Trigger, "guard/reset", Trigger.Request()).success)
    here.wait_for("NOMINAL")
    beats.cancel()
    waited = here.wait_for("ESTOP: e-stop: silent")
    assert waited < 2.0


def test_a_pressed_e_stop_is_zero_at_once_and_latched(site):
    here = site(use_estop=True, estop_timeout=30.0)
    here.drive()
    here.release()
    here.estop.publish(Bool(data=True))
    here.wait_for("ESTOP: e-stop: pressed")
    here.wait_for_output(0.0, 0.0)
    here.release()


def test_a_source_of_the_e_stop_that_cannot_be_heard_latches_it(site):
    here = site(use_estop=True, estop_timeout=30.0)
    here.drive()
    here.release()
    volatile = here.probe.node.create_publisher(Bool, "estop", 10)
    here.wait_for("ESTOP: e-stop: one of its sources cannot be heard")
    here.wait_for_output(0.0, 0.0)
    diagnostics = Inbox(here.probe.node, DiagnosticArray, "/diagnostics", DIAGNOSTICS)
    told = "the e-stop has 2 publishers, merge them into one"
    diagnostics.wait(lambda all_: any(told in s.message for r in all_ for s in r.status))
    here.probe.node.destroy_publisher(volatile)


def test_a_stop_by_enable_outlasts_a_new_configuration(site):
    here = site()
    here.drive()
    here.wait_for("NOMINAL")
    assert here.call(SetBool, "guard/enable", SetBool.Request(data=False)).success
    here.wait_for("STOP: stopped by ~/enable")
    for transition in (
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
        Transition.TRANSITION_CONFIGURE,
        Transition.TRANSITION_ACTIVATE,
    ):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert here.call(ChangeState, "guard/change_state", request).success
    here.wait_for("STOP: stopped by ~/enable")
    assert here.call(Trigger, "guard/reset", Trigger.Request()).success
    here.wait_for("NOMINAL")


def test_silent_odometry_stops_by_the_ramp_from_the_measured_speed(site):
    here = site()
    here.drive()
    here.wait_for("NOMINAL")
    here.drive(observe=lambda: None)
    assert here.wait_for("STOP: observation") < 2.0
    here.wait_for_output(0.0, 0.0)
    speeds = [message.twist.linear.x for message in here.safe.messages]
    ramp = [speed for speed in speeds if 0.0 < speed < 0.4 - 1e-6]
    assert ramp, "no step between the measured 0.4 m/s and rest"
    assert ramp == sorted(ramp, reverse=True)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_odometry_that_is_not_finite_stops(site, broken):
    here = site()
    here.drive()
    here.wait_for("NOMINAL")
    here.drive(observe=lambda: here.see(speed=broken))
    here.wait_for("STOP: observation: is not finite")
    here.wait_for_output(0.0, 0.0)
    here.drive()
    here.wait_for("NOMINAL")


def test_odometry_in_a_foreign_frame_stops(site):
    here = site()
    here.drive()
    here.wait_for("NOMINAL")

    def foreign():
        message = Odometry()
        message.header.frame_id, message.header.stamp = "mars", here.stamp()
        here.odometry.publish(message)

    here.drive(observe=foreign)
    here.wait_for("STOP: observation: Odometry: is in the frame 'mars'")
    here.wait_for_output(0.0, 0.0)


@pytest.mark.parametrize(("nanoseconds", "where"), [(1, "old"), (2 * 10**18, "in the future")])
def test_odometry_with_an_implausible_stamp_stops(site, nanoseconds, where):
    here = site()
    here.drive(observe=lambda: here.see(stamp=to_time(nanoseconds)))
    here.wait_for("STOP: observation: is stamped")
    assert where in here.state()["reason"]
    here.wait_for_output(0.0, 0.0)


def test_a_silent_planner_leads_to_the_backup(site):
    here = site()
    here.drive()
    here.wait_for("NOMINAL")
    here.drive(command=lambda: None)
    assert here.wait_for("BACKUP: command") < 2.0
    here.wait_for_output(0.0, 0.0)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, 1e300])
def test_a_command_that_is_not_finite_leads_to_the_backup(site, broken):
    here = site()
    here.drive()
    here.wait_for("NOMINAL")
    here.drive(command=lambda: here.command(speed=broken))
    here.wait_for("BACKUP: command: is not finite")
    here.wait_for_output(0.0, 0.0)


def test_a_stale_stamp_of_a_command_leads_to_the_backup(site):
    here = site()
    here.drive(command=lambda: here.command(stamp=to_time(1)))
    here.wait_for("BACKUP: command: is stamped")
    here.wait_for_output(0.0, 0.0)


def test_a_filter_over_its_budget_leads_to_the_backup_and_recovers(site):
    here = site(filter_budget_s=0.005)
    here.drive()
    here.wait_for("NOMINAL")
    runtime = here.guard.node.runtime
    quick = runtime.filter.safeguard

    class Slow:
        claim = "none; for tests"

        def filter(self, observation, action):
            time.sleep(0.1)
            return quick.filter(observation, action)

    runtime.filter.safeguard = Slow()
    here.wait_for("BACKUP: filter: over its time budget")
    here.wait_for_output(0.0, 0.0)
    runtime.filter.safeguard = quick
    here.wait_for("NOMINAL")


def test_a_filter_that_raises_leads_to_the_backup(site):
    here = site()
    here.drive()
    here.wait_for("NOMINAL")

    class Broken:
        claim = "none; for tests"

        def filter(self, observation, action):
            raise ZeroDivisionError("no")

    here.guard.node.runtime.filter.safeguard = Broken()
    here.wait_for("BACKUP: filter")
    wait_until(lambda: here.guard.node.runtime.filter.failure == "ZeroDivisionError: no")
    here.wait_for_output(0.0, 0.0)


def test_a_barrier_stops_before_a_disc_and_lets_the_robot_escape_from_within(site):
    here = site(DISCS)
    here.drive(observe=lambda: here.see(x=0.68), command=lambda: here.command(1.0, 0.0))
    here.wait_for("MODIFIED")
    here.wait_for_output(0.5, 0.0)  # half of the 0.02 m that are left, in 0.02 s
    here.drive(observe=lambda: here.see(x=0.8), command=lambda: here.command(-1.0, 0.0))
    here.wait_for("NOMINAL")
    here.wait_for_output(-1.0, 0.0)
    here.drive(observe=lambda: here.see(x=0.8), command=lambda: here.command(1.0, 0.0))
    here.wait_for_output(0.0, 0.0)


# --- services


def test_enabling_is_no_bypass_and_disabling_stops_until_the_reset(site):
    here = site()
    here.drive()
    here.wait_for("NOMINAL")
    answer = here.call(SetBool, "guard/enable", SetBool.Request(data=True))
    assert not answer.success
    assert "no bypass" in answer.message
    assert here.call(SetBool, "guard/enable", SetBool.Request(data=False)).success
    here.wait_for("STOP: stopped by ~/enable")
    here.wait_for_output(0.0, 0.0)
    assert here.call(Trigger, "guard/reset", Trigger.Request()).success
    here.wait_for("NOMINAL")


# --- output rate


def test_outputs_have_no_gap_of_three_periods_whatever_arrives(site):
    here = site(DISCS)
    here.drive()
    here.wait_for("NOMINAL")
    here.drive(observe=lambda: None, command=lambda: None)
    here.wait_for("STOP")
    runtime = here.guard.node.runtime
    sent = []
    publish = runtime._safe.publish
    runtime._safe.publish = lambda message: (sent.append(time.monotonic()), publish(message))
    looks = []
    wait_until(lambda: looks.append(time.monotonic()) or len(sent) > 40)
    stall = np.diff(looks).max()  # of this process, on a machine that does other things too
    assert np.diff(sent).max() < 3 * 0.02 + stall
    assert np.median(np.diff(sent)) == pytest.approx(0.02, rel=0.2)


def test_a_flood_of_commands_is_answered_at_four_times_the_rate_at_most(site):
    here = site()
    here.drive()
    here.wait_for("NOMINAL")
    runtime = here.guard.node.runtime
    before, started = runtime.counters.outputs, time.monotonic()
    for _ in range(2000):
        here.command()
    wait_until(lambda: time.monotonic() - started > 0.5)
    rate = (runtime.counters.outputs - before) / (time.monotonic() - started)
    assert rate <= 1.25 * 50.0 * 4.0 + 50.0


# --- what people see


def test_the_documented_topics_are_those_of_the_node(site):
    drive = site(use_estop=True)
    page = (Path(__file__).parents[3] / "docs" / "guard.md").read_text()
    rows = re.findall(r"^\| `([a-z_/]+)` \| `([A-Za-z_0-9/]+)` \| (in|out) \|", page, re.MULTILINE)
    named = {
        way: {f"/{name}": [kind] for name, kind, side in rows if side == way}
        for way in ("in", "out")
    }
    node = drive.guard.node
    own = node.get_publisher_names_and_types_by_node, node.get_subscriber_names_and_types_by_node
    written, read = (dict(look("guard", "/")) for look in own)
    of_every_node = {"/rosout", "/parameter_events", "/guard/transition_event"}
    twist = {"/cmd_vel_safe": ["geometry_msgs/msg/TwistStamped"]}
    assert {k: v for k, v in written.items() if k not in of_every_node} == named["out"] | twist
    assert named["in"].items() <= dict(read).items()


def test_diagnostics_name_state_ages_solve_times_and_the_specification(site):
    here = site(DISCS)
    diagnostics = Inbox(here.probe.node, DiagnosticArray, "/diagnostics", DIAGNOSTICS)
    here.drive()
    here.wait_for("NOMINAL")
    diagnostics.wait(lambda reports: reports[-1].status[0].level == DiagnosticStatus.OK)
    diagnostics.wait(lambda reports: len(reports[-1].status) == 2)  # once a second
    state, links = diagnostics.messages[-1].status
    assert (state.name, links.name) == ("guard: state", "guard: links")
    assert state.hardware_id.endswith("robot.toml")
    values = {pair.key: pair.value for pair in state.values}
    assert float(values["command_age_s"]) < 0.5
    assert values["decided_by"] == "compiled"
    assert 0.0 <= float(values["solve_median_s"]) <= float(values["solve_p99_s"])
    assert values["spec_digest"] == f"{here.guard.node.runtime.robot.spec.digest():08x}"
    assert "h(x[k+1])" in values["claim"]
    assert links.level == DiagnosticStatus.OK


def test_a_late_reader_gets_the_last_intervention(site, probe):
    here = site()
    here.wait_for("STOP: observation: none received yet")
    late = Inbox(probe.node, DiagnosticStatus, "guard/intervention", LATCHED)
    assert late.wait().level == DiagnosticStatus.ERROR


def test_margins_have_names_and_the_distance_to_the_disc(site):
    here = site(DISCS, margins_hz=50.0)
    margins = Inbox(here.probe.node, Float64MultiArray, "guard/margins", SENSOR)
    here.drive(observe=lambda: here.see(x=0.5))
    newest = margins.wait()
    assert [dimension.label for dimension in newest.layout.dim] == ["barrier_0"]
    assert newest.data[0] == pytest.approx(0.2, abs=1e-6)


def test_markers_show_the_disc_and_both_commands(site):
    here = site(DISCS, margins_hz=50.0)
    markers = Inbox(here.probe.node, MarkerArray, "guard/markers", COMMAND)
    here.drive(observe=lambda: here.see(x=0.5))
    proposed, applied, disc = markers.wait().markers
    assert (proposed.ns, applied.ns, disc.ns) == ("proposed", "applied", "keep_out")
    assert (disc.pose.position.x, disc.scale.x) == (1.0, 0.6)
    assert proposed.points[0].x == 0.5
    assert {marker.header.frame_id for marker in (proposed, applied, disc)} == {"odom"}


def test_a_second_publisher_of_the_safe_command_is_an_error(site, probe):
    here = site()
    diagnostics = Inbox(probe.node, DiagnosticArray, "/diagnostics", DIAGNOSTICS)
    probe.node.create_publisher(TwistStamped, "cmd_vel_safe", COMMAND)

    def alarmed(reports):
        return any(
            status.level == DiagnosticStatus.ERROR and "2 publishers" in status.message
            for report in reports
            for status in report.status
        )

    diagnostics.wait(alarmed)
    assert here.guard.node.runtime is not None


def test_a_planner_that_is_best_effort_does_not_connect_and_is_reported(site, probe):
    here = site()
    diagnostics = Inbox(probe.node, DiagnosticArray, "/diagnostics", DIAGNOSTICS)
    probe.node.create_publisher(TwistStamped, "cmd_vel", SENSOR)

    def reported(reports):
        return any(
            "cmd_vel: incompatible RELIABILITY" in status.message
            for report in reports
            for status in report.status
        )

    diagnostics.wait(reported)
    assert here.guard.node.runtime.incompatible == {"cmd_vel": "incompatible RELIABILITY"}


def test_a_robot_that_asks_for_a_shorter_deadline_is_reported(site, probe):
    here = site()
    strict = QoSProfile(depth=1, deadline=Duration(seconds=0.01))
    Inbox(probe.node, TwistStamped, "cmd_vel_safe", strict)
    wait_until(lambda: here.guard.node.runtime.incompatible)
    assert here.guard.node.runtime.incompatible == {"cmd_vel_safe": "incompatible DEADLINE"}


# --- parameters


def change(here, name, value):
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return here.call(SetParameters, "guard/set_parameters", request).results[0]


def test_times_and_limits_may_only_be_tightened_while_active(site):
    here = site()
    here.drive(command=lambda: here.command(1.0, 0.0))
    here.wait_for("NOMINAL")
    for name, looser, tighter in [
        ("cmd_timeout", 0.3, 0.1),
        ("recover_s", -0.1, 0.1),
        ("limit_shares", [1.0, 1.1], [0.5, 1.0]),
        ("stamp_tolerance", 0.0, 0.4),
        ("use_sim_time", True, None),
    ]:
        answer = change(here, name, looser)
        assert not answer.successful, name
        assert tighter is None or change(here, name, tighter).successful, name
    here.wait_for_output(0.5, 0.0)
    answer = change(here, "limit_shares", [0.6, 1.0])
    assert (answer.successful, answer.reason) == (
        False,
        "limit_shares may only be tightened while the guard is active; deactivate it first",
    )
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
    assert here.call(ChangeState, "guard/change_state", request).success
    assert change(here, "limit_shares", [1.0, 1.0]).successful


def test_a_safeguard_whose_file_has_changed_is_not_loosened_by_tighter_limits(site, tmp_path):
    here = site("kind = 'convex'\n[[constraints]]\nbound = 0.2\nterms = [{action = {speed = 1.0}}]")
    here.drive(command=lambda: here.command(1.0, 0.0))
    here.wait_for_output(0.2, 0.0)
    (tmp_path / "safeguard.toml").write_text("kind = 'clip'")
    answer = change(here, "limit_shares", [0.9])
    assert not answer.successful
    assert "has changed since the guard was configured" in answer.reason
    before = len(here.safe.messages)
    here.safe.wait(lambda messages: len(messages) >= before + 10)
    assert max(message.twist.linear.x for message in here.safe.messages[before:]) <= 0.2 + NEAR


@pytest.mark.parametrize("text", [None, "kind = 'barier'"])
def test_limits_that_cannot_be_built_are_refused_and_the_guard_goes_on(site, tmp_path, text):
    here = site()
    here.drive()
    here.wait_for("NOMINAL")
    if text is None:
        (tmp_path / "safeguard.toml").unlink()
    else:
        (tmp_path / "safeguard.toml").write_text(text)
    answer = change(here, "limit_shares", [0.8])
    assert (answer.successful, "safeguard" in answer.reason) == (False, True)
    assert here.guard.is_alive
    here.wait_for_output(0.5, -0.4)


def test_a_rate_limit_goes_on_from_what_was_sent_when_the_limits_change(site):
    here = site("kind = 'rate_limit'\nrate = [1.0, 1.0]")
    here.drive(command=lambda: here.command(1.0, 0.0))
    here.wait_for_output(1.0, 0.0)
    before = len(here.safe.messages)
    assert change(here, "limit_shares", [0.9]).successful
    here.wait_for_output(0.9, 0.0)
    speeds = [message.twist.linear.x for message in here.safe.messages[before:]]
    assert min(speeds) > 0.8, "the new memory has not begun at rest"


def test_structural_parameters_are_fixed_and_every_one_is_described(site):
    here = site()
    answer = change(here, "rate_hz", 40.0)
    assert not answer.successful
    names = ["rate_hz", "cmd_timeout", "robot", "limit_shares"]
    request = DescribeParameters.Request(names=names)
    described = here.call(DescribeParameters, "guard/describe_parameters", request).descriptors
    assert all(entry.description for entry in described)
    assert described[0].read_only
    assert described[1].floating_point_range[0].to_value == 60.0


# --- what is refused at the start


@pytest.mark.parametrize(
    ("safeguard", "problem"),
    [
        ("kind = 'barier'", "did you mean 'barrier'"),
        ("kind = 'barrier'\nradius = 0.3", "at least one of them"),
        ("kind = 'barrier'\nradios = 0.3", "did you mean 'radius'"),
        ("kind = 'clip'\n[", "is not TOML"),
        ("kind = 'world'", "one of our environments"),
    ],
)
def test_a_safeguard_that_cannot_be_used_is_one_clear_error(
    ros_domain, tmp_path, safeguard, problem
):
    with pytest.raises(ConfigError, match=problem):
        RosThread(lambda context: GuardNode(context), arguments=arguments(tmp_path, safeguard))


def test_an_unreadable_checkpoint_is_one_clear_error(ros_domain, tmp_path):
    line = arguments(tmp_path)
    (tmp_path / "run").mkdir()
    line += ["-p", f"safeguard:={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match=r"guard\.json"):
        RosThread(lambda context: GuardNode(context), arguments=line)


def test_a_rate_below_that_of_the_robot_is_one_clear_error(ros_domain, tmp_path):
    line = arguments(tmp_path, rate_hz=5.0)
    with pytest.raises(ConfigError, match=r"rate_hz is 5, but the robot's period is 0\.02 s"):
        RosThread(lambda context: GuardNode(context), arguments=line)


def test_a_foreign_error_of_the_configuration_is_told(ros_domain, tmp_path, monkeypatch):
    line = arguments(tmp_path)

    def broken(*_arguments, **_names):
        raise ZeroDivisionError

    monkeypatch.setattr("safectl_ros.guard_runtime.load_robot", broken)
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        RosThread(lambda context: GuardNode(context), arguments=line)


def test_an_unknown_parameter_is_one_clear_error(ros_domain, tmp_path):
    line = arguments(tmp_path, cmd_timeot=0.1)
    with pytest.raises(ConfigError, match="did you mean 'cmd_timeout'"):
        RosThread(lambda context: GuardNode(context), arguments=line)
