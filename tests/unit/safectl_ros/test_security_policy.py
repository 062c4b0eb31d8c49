"""The SROS2 policy file: every topic and service of the running nodes is in it.

What it does in a network with DDS security is not tried here: the wheels have none.
"""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from safectl_ros.nodes.guard import GuardNode
from safectl_ros.nodes.planner import PlannerNode
from safectl_ros.nodes.policy import PolicyNode
from safectl_ros.nodes.recorder import RecorderNode
from safectl_ros.nodes.sim import SimNode
from safectl_ros.process import RosThread

PACKAGE = Path(__file__).parents[3] / "launch"
POLICY = PACKAGE / "security" / "policies" / "safectl.policy.xml"
SAFE = {"/action_safe", "/cmd_vel_safe", "/joint_command_safe"}
COMMANDS = {"/action", "/cmd_vel", "/joint_command"}


def profiles():
    """Return what each node may do: names by (node, kind, verb)."""
    allowed = {}
    root = ET.parse(POLICY).getroot()
    for enclave in root.find("enclaves"):
        (profile,) = enclave.findall("profiles/profile")
        node = profile.get("node")
        assert enclave.get("path") == f"/safectl/{node}"
        assert profile.get("ns") == "/"
        for group in profile:
            ((verb, rule),) = group.attrib.items()
            assert rule == "ALLOW"
            assert {entry.tag for entry in group} == {group.tag.removesuffix("s")}
            names = [absolute(entry.text, node) for entry in group]
            assert len(names) == len(set(names)), f"{node} {group.tag} {verb} repeats a name"
            allowed[node, group.tag, verb] = set(names)
    return allowed


def absolute(name, node):
    if name.startswith("~"):
        return f"/{node}/{name[1:]}"
    return name if name.startswith("/") else f"/{name}"


def test_the_file_has_the_structure_of_a_policy():
    root = ET.parse(POLICY).getroot()
    assert (root.tag, root.attrib) == ("policy", {"version": "0.2.0"})
    tags = {element.tag for element in root.iter()} - {"policy", "enclaves", "enclave", "profiles"}
    assert tags == {"profile", "topics", "topic", "services", "service"}
    verbs = {(kind, verb) for _, kind, verb in profiles()}
    assert verbs == {("topics", "publish"), ("topics", "subscribe"), ("services", "reply")}


def test_only_the_guard_may_publish_a_safe_command_and_it_proposes_none():
    allowed = profiles()
    publishers = {
        node for (node, kind, verb), names in allowed.items() if verb == "publish" and names & SAFE
    }
    assert publishers == {"guard"}
    assert allowed["guard", "topics", "publish"] >= SAFE
    assert not allowed["guard", "topics", "publish"] & COMMANDS
    drivers = {node for node, _, verb in allowed if verb == "subscribe"} - {"recorder"}
    listens = {node for node in drivers if allowed[node, "topics", "subscribe"] & SAFE}
    assert listens == {"sim", "serial_bridge"}


def test_no_node_may_press_or_release_the_e_stop_or_reset_the_guard():
    allowed = profiles()
    for (node, kind, verb), names in allowed.items():
        assert verb != "publish" or "/estop" not in names, node
        assert kind != "services" or verb == "reply", node
        assert node == "guard" or "/guard/reset" not in names, node


def test_every_node_of_the_launch_files_has_a_profile():
    nodes = {node for node, _, _ in profiles()}
    started = {
        node.get("name")
        for path in PACKAGE.glob("*.launch.xml")
        for node in ET.parse(path).getroot().iter("node")
        if node.get("exec").endswith("_node")
    }
    assert nodes == started


@pytest.fixture
def files(tmp_path):
    """A robot of each kind and a safeguard."""
    kinds = {
        "vector": '{name = "x", unit = "m/s", low = -1.0, high = 1.0}',
        "base": '{name = "speed", unit = "m/s", low = -1.0, high = 1.0}',
        "arm": '{name = "joint_1", unit = "rad", low = -1.0, high = 1.0}',
    }
    for kind, signal in kinds.items():
        stop = "" if kind != "arm" else "command = 'position'\nvelocities = ['joint_1_velocity']"
        seen = signal if kind != "arm" else f"{signal}, {signal.replace('_1', '_1_velocity')}"
        (tmp_path / f"{kind}.toml").write_text(
            f"kind = '{kind}'\nobservation = [{seen}]\naction = [{signal}]\n[stop]\n{stop}"
            + ("\npositions = ['joint_1']\ndeceleration = [1.0]" if stop else "")
        )
    (tmp_path / "clip.toml").write_text("kind = 'clip'\n")
    return tmp_path


def endpoints(node):
    """Return what a node has, as its own view of the graph shows it: names by (kind, verb)."""
    listed = {
        ("topics", "publish"): node.get_publisher_names_and_types_by_node,
        ("topics", "subscribe"): node.get_subscriber_names_and_types_by_node,
        ("services", "reply"): node.get_service_names_and_types_by_node,
    }
    name = node.get_name()
    return {key: {topic for topic, _ in look(name, "/")} for key, look in listed.items()}


@pytest.mark.parametrize("kind", ["vector", "base", "arm"])
def test_everything_that_a_guard_has_is_allowed(ros_domain, files, kind):
    words = ["--ros-args", "-p", f"robot:={files / kind}.toml"]
    words += ["-p", f"safeguard:={files / 'clip.toml'}"]
    with RosThread(lambda context: GuardNode(context), arguments=words) as thread:
        compare(endpoints(thread.node), "guard")


@pytest.mark.parametrize("kind", ["vector", "base"])
def test_everything_that_a_simulator_has_is_allowed(ros_domain, kind):
    words = ["--ros-args", "-p", f"kind:={kind}"]
    with RosThread(lambda context: SimNode(context), arguments=words) as thread:
        compare(endpoints(thread.node), "sim")


@pytest.mark.parametrize("kind", ["vector", "base", "arm"])
@pytest.mark.parametrize("name", ["policy", "planner"])
def test_everything_that_a_proposing_node_has_is_allowed(ros_domain, files, kind, name):
    file = files / f"{name}.toml"
    line = "goal = [0.0]\nspeed = [1.0]\npositions = ['{}']"
    seen = {"vector": "x", "base": "speed", "arm": "joint_1"}[kind]
    body = "constant'\naction = [0.0]" if name == "policy" else "joint_line'\n" + line.format(seen)
    file.write_text(f"kind = '{body}")
    words = ["--ros-args", "-p", f"robot:={files / kind}.toml", "-p", f"{name}:={file}"]
    node = {"policy": PolicyNode, "planner": PlannerNode}[name]
    with RosThread(lambda context: node(context), arguments=words) as thread:
        compare(endpoints(thread.node), name)


def test_everything_that_a_recorder_has_is_allowed(ros_domain, tmp_path):
    words = ["--ros-args", "-p", f"folder:={tmp_path / 'bag'}", "-p", "topics:=none"]
    with RosThread(lambda context: RecorderNode(context), arguments=words) as thread:
        compare(endpoints(thread.node), "recorder")


def compare(found, node):
    allowed = profiles()
    assert found["topics", "publish"]
    for (kind, verb), names in found.items():
        assert names - allowed[node, kind, verb] == set(), f"{kind} {verb}"


def test_a_recorder_may_read_every_topic_of_the_others():
    allowed = profiles()
    written = set()
    for (node, _, verb), names in allowed.items():
        written |= names if verb == "publish" and node != "recorder" else set()
    unread = written - allowed["recorder", "topics", "subscribe"]
    assert unread == {"/guard/transition_event"}
