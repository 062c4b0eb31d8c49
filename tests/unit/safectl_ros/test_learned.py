"""What was learned, on a robot: safeguards and policies from the folders of their trainings."""

import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import Float64MultiArray

from safectl.errors import ConfigError
from safectl.models import VisitTable
from safectl.types import Status, Task
from safectl_agents.acs.seed_run import RunSettings, run_seed
from safectl_ros.adapters.vector import numbers_to_message
from safectl_ros.nodes.guard import GuardNode
from safectl_ros.nodes.policy import PolicyNode
from safectl_ros.policies import load_policy
from safectl_ros.qos import COMMAND, LATCHED, STATE
from safectl_ros.robot_file import limited, load_robot
from safectl_ros.safeguards import compile_rows, load_safeguard
from tests.fb_run import SPEC, TABLE, keep_visits, write_run
from tests.ros_graph import Inbox
from tests.unit.safectl_ros.robot_files import write

POINT = "safectl/PointHazard-v0"


def _signals(signals):
    rows = ", ".join(
        f"{{name = '{s.name}', unit = '{s.unit}', low = {s.low}, high = {s.high}}}" for s in signals
    )
    return f"[{rows}]"


MASS = f"""
kind = "vector"
period = {SPEC.period}
observation = {_signals(SPEC.observation)}
action = {_signals(SPEC.action)}
"""


@pytest.fixture(scope="session")
def seed(tmp_path_factory):
    """Return the folder of a seed of ACS that has hardly begun to learn."""
    folder = tmp_path_factory.mktemp("seeds") / "acs-1"
    sizes = {"evaluate_every": 20, "checkpoint_every": 20, "episodes": 1}
    run_seed(RunSettings("point-hazard", "acs", 40, 1, **sizes), folder, command="test")
    return folder


@pytest.fixture
def visits(tmp_path):
    """Return the folder of a forward-backward run with a limit of visits, and its mass."""
    model = write_run(tmp_path / "run")
    never = VisitTable(TABLE.edges, TABLE.probability, torch.tensor([0.05, 0.05]), 0.5)
    keep_visits(tmp_path / "run", Task(torch.rand(model.sizes.nz)), torch.rand(8), never)
    return tmp_path / "run", load_robot(write(tmp_path, "robot.toml", MASS))


def decide(loaded, observation, action):
    return loaded.safeguard.filter(torch.tensor([observation]), torch.tensor([action]))


def claim(inbox):
    return {pair.key: pair.value for pair in inbox.messages[-1].values}["claim"]


def test_the_bare_folder_of_a_seed_guards_over_topics(probe, start, seed):
    start(GuardNode, robot=POINT, safeguard=seed, use_estop=False, filter_budget_s=0.5)
    safe = Inbox(probe.node, Float64MultiArray, "action_safe", COMMAND)
    told = Inbox(probe.node, DiagnosticStatus, "guard/intervention", LATCHED)
    commands = probe.node.create_publisher(Float64MultiArray, "action", COMMAND)
    states = probe.node.create_publisher(Float64MultiArray, "observation", STATE)

    def tick():
        now = probe.node.get_clock().now().nanoseconds
        states.publish(numbers_to_message(np.zeros(36), now))
        commands.publish(numbers_to_message(np.array([0.5, 0.25]), now))

    timer = probe.node.create_timer(0.02, tick)
    safe.wait(lambda messages: max(map(abs, messages[-1].data)) > 0.0)
    timer.cancel()
    assert claim(told).startswith("Q_c(s, a) <= 1 (0.2 V_c(s) + 0.08) by the critic's prediction")


def test_an_archive_of_a_trainer_guards_with_the_bound_of_its_file(tmp_path, seed):
    robot = load_robot(POINT)
    bound = "[options.bound]\ntolerance = {}\n"
    text = f"kind = 'acs'\nmodel = '{seed / 'model.zip'}'\n" + bound
    at = [0.0] * robot.spec.nx, [1.0, 1.0]
    found = {}
    for tolerance in (1e-6, 1e6):
        path = tmp_path / "safeguard.toml"
        path.write_text(text.format(tolerance))
        loaded = load_safeguard(path, robot, limited(robot.spec, (0.5,)))
        found[tolerance] = decide(loaded, *at)
    assert found[1e6].action.tolist() == [[0.5, 0.5]]
    assert float(found[1e6].certificate.margin) > 1e5
    assert found[1e-6].certificate.status.tolist() != [Status.KEPT]
    assert loaded.labels == ("cost",)


def test_learned_safeguards_are_decided_by_torch_and_say_why(seed, visits):
    point = load_robot(POINT)
    folder, mass = visits
    for path, robot in ((seed, point), (folder, mass)):
        loaded = load_safeguard(path, robot, robot.spec)
        same, how = compile_rows(loaded, robot.spec)
        assert same is loaded
        assert how.startswith("torch: cannot export")


def test_the_bare_folder_of_a_forward_backward_run_limits_visits(visits, tmp_path):
    folder, mass = visits
    loaded = load_safeguard(folder, mass, mass.spec)
    kept = decide(loaded, [0.0] * 4, [0.5, -0.5])
    assert kept.certificate.status.tolist() == [Status.KEPT]
    assert float(kept.certificate.risk) == pytest.approx(0.05)
    path = tmp_path / "safeguard.toml"
    path.write_text("kind = 'visit_limit'\nrun = 'run'\nlimit = 0.01")
    strict = load_safeguard(path, mass, mass.spec)
    assert decide(strict, [0.0] * 4, [0.5, -0.5]).certificate.status.tolist() == [Status.FALLBACK]


def test_a_task_of_a_forward_backward_model_drives_over_topics(probe, start, visits, tmp_path):
    folder, mass = visits
    text = f"kind = 'fb'\nrun = '{folder}'\ntask = 'reach_top_right'"
    policy = write(tmp_path, "policy.toml", text)
    start(PolicyNode, robot=tmp_path / "robot.toml", policy=policy)
    actions = Inbox(probe.node, Float64MultiArray, "action", COMMAND)
    states = probe.node.create_publisher(Float64MultiArray, "observation", STATE)
    seen = np.array([0.1, -0.1, 0.0, 0.0])
    timer = probe.node.create_timer(0.05, lambda: states.publish(numbers_to_message(seen, 77)))
    found = actions.wait()
    timer.cancel()
    expected = load_policy(tmp_path / "policy.toml", mass.spec).act(
        torch.tensor(seen[None]).float()
    )
    np.testing.assert_allclose(found.data, expected[0].numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("kind = 'acs'\nmodel = 'absent.zip'", r"absent\.zip: cannot be read"),
        ("kind = 'acs'\nmodel = 'robot.toml'", r"robot\.toml: cannot be read"),
        ("kind = 'visit_limit'\nrun = 'absent'", r"absent/config\.json"),
        ("kind = 'visit_limit'\nrun = 'run'\nlimit = 2.0", "limit is 2.0"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(visits, tmp_path, kind, problem):
    _, mass = visits
    (tmp_path / "safeguard.toml").write_text(kind)
    with pytest.raises(ConfigError, match=problem):
        load_safeguard(tmp_path / "safeguard.toml", mass, mass.spec)


def test_what_was_learned_on_another_robot_is_refused(seed, visits, tmp_path):
    folder, mass = visits
    with pytest.raises(ConfigError, match="the robot differ"):
        load_safeguard(seed, mass, mass.spec)
    with pytest.raises(ConfigError, match="signals of the robot"):
        load_safeguard(folder, load_robot(POINT), load_robot(POINT).spec)
    (tmp_path / "policy.toml").write_text("kind = 'fb'\nrun = 'run'\ntask = 'fly'")
    with pytest.raises(ConfigError, match="reach_top_right"):
        load_policy(tmp_path / "policy.toml", mass.spec)
