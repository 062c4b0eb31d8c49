"""Safeguards, policies and planners from files."""

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safectl.errors import ConfigError
from safectl.export import interpret, load_program, save_program
from safectl.types import Status
from safectl_agents.commands.export import trained_program
from safectl_agents.guards import guard_factory, save_guard_name
from safectl_agents.settings import PPOSettings, TrainConfig
from safectl_agents.train import train
from safectl_ros.guard_logic import State
from safectl_ros.guard_settings import GuardSettings
from safectl_ros.planners import HasGoal, load_planner
from safectl_ros.policies import load_policy
from safectl_ros.robot_file import limited, load_robot
from safectl_ros.safeguards import KINDS, compile_rows, load_safeguard
from tests.unit.safectl_ros.robot_files import ARM, BASE, write

WORLD = "safectl/DoubleIntegrator-v0"


@pytest.fixture
def base(tmp_path):
    return load_robot(write(tmp_path, "robot.toml", BASE))


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Return the folder of a short training run behind limits."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = TrainConfig(env=WORLD, steps=64, n_envs=2, ppo=PPOSettings(rollout=32, batch_size=32))
    train(config, folder=folder, guard=guard_factory("limits", seed=0))
    save_guard_name("limits", folder)
    return folder


def load(tmp_path, robot, text, shares=(1.0,)):
    path = tmp_path / "safeguard.toml"
    path.write_text(text)
    return load_safeguard(path, robot, limited(robot.spec, shares))


def decide(loaded, observation, action):
    return loaded.safeguard.filter(torch.tensor([observation]), torch.tensor([action]))


AT_REST = [0.0, 0.0, 0.0, 0.0, 0.0]


def test_clip_uses_the_limits_in_force_and_names_their_margins(tmp_path, base):
    loaded = load(tmp_path, base, "kind = 'clip'", shares=(0.5,))
    decision = decide(loaded, AT_REST, [0.9, 0.0])
    torch.testing.assert_close(decision.action, torch.tensor([[0.5, 0.0]]))
    assert loaded.labels == ("limits of speed", "limits of turn_rate")
    torch.testing.assert_close(
        loaded.margins(torch.tensor([AT_REST]), decision), torch.tensor([0.0, 1.0])
    )


def test_a_rate_limit_remembers_what_was_decided(tmp_path, base):
    loaded = load(tmp_path, base, "kind = 'rate_limit'\nrate = [5.0, 5.0]")
    speeds = [float(decide(loaded, AT_REST, [0.9, 0.0]).action[0, 0]) for _ in range(3)]
    assert speeds == pytest.approx([0.1, 0.2, 0.3])


def test_a_barrier_among_discs_and_half_spaces(tmp_path, base):
    text = "kind = 'barrier'\ndiscs = [[1.0, 0.0]]\nhalf_spaces = [[0.0, 1.0, -1.0]]\nrate = 0.5"
    loaded = load(tmp_path, base, text)
    decision = decide(loaded, [0.68, 0.0, 0.0, 0.0, 0.0], [1.0, 0.0])
    assert float(decision.action[0, 0]) == pytest.approx(0.5, abs=1e-3)
    assert loaded.labels == ("barrier_0", "barrier_1")
    assert loaded.discs == ((1.0, 0.0, 0.3),)


def test_a_robot_within_a_disc_may_leave_it_but_not_go_deeper(tmp_path, base):
    loaded = load(tmp_path, base, "kind = 'barrier'\ndiscs = [[1.0, 0.0]]")
    inside = [0.8, 0.0, 0.0, 0.0, 0.0]
    for escape in ([-1.0, 0.0], [-0.1, 0.5], [0.0, 1.0]):
        assert decide(loaded, inside, escape).certificate.status.tolist() == [Status.KEPT]
    deeper = decide(loaded, inside, [0.5, 0.0])
    assert float(deeper.action[0, 0]) <= 0.0
    stubborn = load(tmp_path, base, "kind = 'barrier'\ndiscs = [[1.0, 0.0]]\nescape = false")
    assert decide(stubborn, inside, [-0.1, 0.0]).certificate.status.tolist() == [Status.FALLBACK]


def test_a_box_for_a_double_integrator(tmp_path):
    robot = load_robot(WORLD, sees_state=True)
    text = "kind = 'barrier'\nmodel = 'double_integrator'\nlow = [-1.0, -1.0]\nhigh = [1.0, 1.0]\n"
    text += "state = ['state_0', 'state_1', 'state_2', 'state_3']\nrate = 1.0"
    loaded = load(tmp_path, robot, text)
    fast = [0.7, 0.0, 0.75, 0.0]
    assert float(decide(loaded, fast, [1.0, 0.0]).action[0, 0]) < -0.5
    assert decide(loaded, AT_REST[:4], [0.5, 0.0]).certificate.status.tolist() == [Status.KEPT]


def test_the_barrier_of_a_world_is_that_of_the_process(tmp_path):
    robot = load_robot("safectl/PointHazard-v0", sees_state=True)
    loaded = load(tmp_path, robot, "kind = 'world'")
    assert len(loaded.labels) == robot.world.hazards
    assert "h(x[k+1])" in loaded.safeguard.claim


@pytest.mark.parametrize("name", ["PointHazard", "DoubleIntegrator"])
def test_the_barrier_of_a_world_is_compiled(tmp_path, name):
    robot = load_robot(f"safectl/{name}-v0", sees_state=True)
    loaded = load(tmp_path, robot, "kind = 'world'")
    assert compile_rows(loaded, robot.spec)[1] == "compiled"


def test_stated_constraints_hold_and_name_their_signals(tmp_path, base):
    text = """
kind = "convex"
[[constraints]]
norm = "l1"
bound = 1.0
terms = [{action = {speed = 1.0}}, {action = {turn_rate = 0.5}}]
[[constraints]]
bound = 0.6
terms = [{action = {speed = 1.0}, observation = {speed = 0.5}}]
"""
    loaded = load(tmp_path, base, text)
    for speed in (0.0, 0.5):
        action = decide(loaded, [0.0, 0.0, 0.0, speed, 0.0], [1.0, 2.0]).action[0].tolist()
        assert abs(action[0]) + 0.5 * abs(action[1]) <= 1.0
        assert action[0] + 0.5 * speed <= 0.6


def test_a_chain_agrees_on_one_action(tmp_path, base):
    write(tmp_path, "rate.toml", "kind = 'rate_limit'\nrate = [20.0, 20.0]")
    write(tmp_path, "discs.toml", "kind = 'barrier'\ndiscs = [[1.0, 0.0]]\nrate = 0.5")
    loaded = load(tmp_path, base, "kind = 'chain'\nfiles = ['rate.toml', 'discs.toml']")
    near = [0.68, 0.0, 0.0, 0.0, 0.0]
    speeds = [float(decide(loaded, near, [1.0, 0.0]).action[0, 0]) for _ in range(3)]
    assert speeds == pytest.approx([0.4, 0.5, 0.5], abs=1e-3)
    assert loaded.labels == ("rate", "barrier_0")


def test_what_certifies_nothing_leaves_a_position_robot_where_it_is(tmp_path):
    robot = load_robot(write(tmp_path, "arm.toml", ARM))
    terms = "terms = [{action = {elbow = 1.0}, observation = {elbow = 0.0}}]"
    never = f"kind = 'convex'\nconstraints = [{{bound = -3.0, {terms}}}]"  # elbow <= -3 of -2
    write(tmp_path, "never.toml", never)
    write(tmp_path, "clip.toml", "kind = 'clip'")
    for text in (never, "kind = 'chain'\nfiles = ['clip.toml', 'never.toml']"):
        decision = decide(load(tmp_path, robot, text), [1.5, 1.0, 0.1, 0.2], [0.5, 0.5])
        assert decision.certificate.status.tolist() == [Status.FALLBACK]
        assert decision.action[0].tolist() == [1.5, 1.0]


AXIS = """
period = 0.1
observation = [
  {name = "p", unit = "m", low = -2.0, high = 2.0},
  {name = "v", unit = "m/s", low = -4.0, high = 4.0},
]
action = [{name = "a", unit = "2 m/s^2", low = -5.0, high = 5.0}]
[stop]
command = "acceleration"
velocities = ["v"]
deceleration = [1.0]
"""


def test_a_chain_that_certifies_nothing_brakes_a_robot_of_accelerations(tmp_path):
    robot = load_robot(write(tmp_path, "axis.toml", AXIS))
    box = "kind = 'barrier'\nmodel = 'double_integrator'\nstate = ['p', 'v']\n"
    write(tmp_path, "box.toml", f"{box}low = [-1.0]\nhigh = [1.0]")
    write(tmp_path, "clip.toml", "kind = 'clip'")
    loaded = load(tmp_path, robot, "kind = 'chain'\nfiles = ['box.toml', 'clip.toml']")
    decision = decide(loaded, [0.999, 3.0], [1.0])
    assert decision.certificate.status.tolist() == [Status.FALLBACK]
    assert decision.action[0].tolist() == [-5.0]


def test_a_robot_of_accelerations_in_a_world_falls_back_to_its_braking(tmp_path):
    robot = load_robot(WORLD, sees_state=True)
    seen = torch.tensor([[0.0, 0.0, 0.02, -0.01]])
    expected = robot.world.fallback.action(seen)
    assert bool((expected != 0.0).all())
    assert torch.equal(robot.rest_within(robot.spec).action(seen), expected)


@pytest.mark.parametrize("unit", ["m/s^2", "2 rad/s^2", "m", "rad"])
def test_what_does_not_rest_at_zero_is_not_stopped_by_zeros(tmp_path, unit):
    text = AXIS.split("[stop]")[0].replace("2 m/s^2", unit)
    with pytest.raises(ConfigError, match=re.escape(f"as a is in {unit}")):
        load_robot(write(tmp_path, "axis.toml", text))


def test_accelerations_without_measured_velocities_are_refused(tmp_path):
    text = AXIS.replace('velocities = ["v"]', "").replace("deceleration = [1.0]", "")
    with pytest.raises(ConfigError, match="one observed signal per acceleration"):
        load_robot(write(tmp_path, "axis.toml", text))


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Safeguards in torch by name, each with its compiled twin and how wide its row is."""
    folder = tmp_path_factory.mktemp("twins")
    robot = load_robot(write(folder, "robot.toml", BASE))
    texts = {
        "clip": "kind = 'clip'",
        "discs": "kind = 'barrier'\ndiscs = [[1.0, 0.0], [0.0, 1.5]]\nrate = 0.5",
        "half_spaces": "kind = 'barrier'\nhalf_spaces = [[0.0, 1.0, -1.0]]\nrate = 0.3",
    }
    for name in ("discs", "half_spaces"):
        write(folder, f"{name}.toml", texts[name])
    texts["chain"] = "kind = 'chain'\nfiles = ['discs.toml', 'half_spaces.toml']"
    made = {}
    for name, text in texts.items():
        loaded = load(folder, robot, text)
        compiled, how = compile_rows(loaded, robot.spec)
        assert how == "compiled"
        made[name] = (loaded.safeguard, compiled.safeguard)
    return made


NUMBERS = st.floats(-3.0, 3.0, width=32) | st.sampled_from([0.0, -0.0, 1.0, 0.7, 2.0])
FAR = 2e-4
"""Rows where rounding decides whether a touched constraint holds have a margin below this."""


@pytest.mark.parametrize("name", ["clip", "discs", "half_spaces", "chain"])
@given(
    observation=st.lists(NUMBERS, min_size=5, max_size=5),
    action=st.lists(NUMBERS, min_size=2, max_size=2),
)
def test_compiled_rows_decide_as_torch_does(twins, name, observation, action):
    reference, compiled = twins[name]
    row = torch.tensor([observation]), torch.tensor([action])
    ours, theirs = compiled.filter(*row), reference.filter(*row)
    again = reference.filter(row[0], ours.action)
    status = ours.certificate.status.item()
    if status == Status.FALLBACK:
        assert torch.equal(ours.action, theirs.action)
        return
    assert again.certificate.margin.item() >= -FAR
    assert ours.certificate.margin.item() == pytest.approx(again.certificate.margin.item(), abs=FAR)
    assert ours.certificate.residual.item() == ours.certificate.risk.item() == 0.0
    assert (status == Status.KEPT) == torch.equal(ours.action, row[1])
    if theirs.certificate.status.item() != Status.FALLBACK:
        ways = [(found.action - row[1]).norm().item() for found in (ours, theirs)]
        rooms = [found.certificate.margin.item() for found in (ours, theirs)]
        is_farther = ways[0] > ways[1] + FAR
        assert not is_farther or rooms[1] < rooms[0] < rooms[1] + FAR


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", range(7))
def test_compiled_rows_that_are_not_finite_take_the_fallback_of_torch(twins, bad, place):
    reference, compiled = twins["discs"]
    numbers = torch.zeros(1, 7)
    numbers[0, place] = bad
    row = numbers[:, :5], numbers[:, 5:]
    ours, theirs = compiled.filter(*row), reference.filter(*row)
    assert ours.certificate.status.tolist() == [Status.FALLBACK]
    assert torch.equal(ours.action, theirs.action)


def test_what_cannot_be_compiled_is_decided_by_torch_and_says_why(tmp_path, base, monkeypatch):
    limit = load(tmp_path, base, "kind = 'rate_limit'\nrate = [5.0, 5.0]")
    same, how = compile_rows(limit, base.spec)
    assert same is limit
    assert how.startswith("torch: cannot export a safeguard with memory")
    monkeypatch.setenv("PATH", str(tmp_path))
    clip = load(tmp_path, base, "kind = 'clip'")
    same, how = compile_rows(clip, base.spec)
    assert same is clip
    assert "gcc" in how


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "unknown kind of safeguard 'None'"),
        ("kind = 7", "unknown kind"),
        ("kind = 'clip'\nlow = 1", "unknown key 'low'"),
        ("kind = 'rate_limit'", "rate"),
        ("kind = 'rate_limit'\nrate = ['a', 'b']", "rate"),
        ("kind = 'barrier'\ndiscs = [[1.0, 0.0]]\nradius = -1.0", "positive length"),
        ("kind = 'barrier'\ndiscs = [[1.0]]", "discs"),
        ("kind = 'barrier'\nstate = ['x', 'z', 'heading']", "observed signal 'z'"),
        ("kind = 'convex'", "at least one"),
        ("kind = 'convex'\nconstraints = [{bound = 1.0, terms = []}]", "one term"),
        (
            "kind = 'convex'\nconstraints = [{bound = 1.0, terms = [{action = {sped = 1.0}}]}]",
            "did you mean 'speed'",
        ),
        (
            "kind = 'convex'\nconstraints = [{bound = 1.0, terms = [{acton = {speed = 1.0}}]}]",
            "acton",
        ),
        ("kind = 'chain'\nfiles = ['absent.toml']", "absent.toml"),
        ("kind = 'world'", "reports its model's state"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_error(tmp_path, base, text, problem):
    with pytest.raises(ConfigError, match=problem):
        load(tmp_path, base, text)


def test_a_chain_that_contains_itself_is_one_clear_error(tmp_path, base):
    (tmp_path / "clip.toml").write_text("kind = 'clip'")
    (tmp_path / "inner.toml").write_text("kind = 'chain'\nfiles = ['clip.toml', 'outer.toml']")
    outer = tmp_path / "outer.toml"
    outer.write_text("kind = 'chain'\nfiles = ['clip.toml', 'inner.toml']")
    with pytest.raises(ConfigError, match="is a chain that contains itself"):
        load_safeguard(outer, base, base.spec)


def test_a_chain_may_name_one_file_twice(tmp_path, base):
    (tmp_path / "clip.toml").write_text("kind = 'clip'")
    chain = tmp_path / "chain.toml"
    chain.write_text("kind = 'chain'\nfiles = ['clip.toml', 'clip.toml']")
    assert load_safeguard(chain, base, base.spec).labels


def test_a_run_gives_its_safeguard_and_its_policy(run):
    robot = load_robot(WORLD)
    loaded = load_safeguard(run, robot, robot.spec)
    assert decide(loaded, [0.0] * 6, [2.0, 0.0]).action.tolist() == [[1.0, 0.0]]
    action = load_policy(run, robot.spec).act(torch.zeros(1, 6))
    assert action.shape == (1, 2)


def test_a_program_gives_the_actions_of_its_interpreter(run, tmp_path):
    save_program(trained_program(run, "guarded"), tmp_path / "program")
    observation = torch.rand(1, 6)
    action = load_policy(tmp_path / "program", load_robot(WORLD).spec).act(observation)
    expected = interpret(load_program(tmp_path / "program"), observation.numpy()).action
    assert np.array_equal(action.numpy(), expected)


def test_a_run_for_another_robot_is_one_clear_error(run, base):
    with pytest.raises(ConfigError, match="differ"):
        load_safeguard(run, base, base.spec)
    with pytest.raises(ConfigError, match="differ"):
        load_policy(run, base.spec)


def test_an_unreadable_checkpoint_is_one_clear_error(run, tmp_path):
    robot = load_robot(WORLD)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"guard\.json"):
        load_safeguard(tmp_path / "empty", robot, robot.spec)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_policy(tmp_path / "empty", robot.spec)
    save_program(trained_program(run, "guarded"), tmp_path / "program")
    (tmp_path / "program" / "program.npz").write_bytes(b"no")
    with pytest.raises(ConfigError, match=r"program\.npz"):
        load_policy(tmp_path / "program", robot.spec)


def test_simple_policies_are_within_the_limits_and_repeatable(tmp_path, base):
    path = tmp_path / "policy.toml"
    path.write_text("kind = 'random'\nseed = 3")
    one, other = (load_policy(path, base.spec).act(torch.zeros(50, 5)) for _ in range(2))
    assert torch.equal(one, other)
    assert (one.abs() <= torch.tensor([1.0, 2.0])).all()
    assert one.std() > 0.1
    path.write_text("kind = 'constant'\naction = [0.5, -0.5]")
    constant = load_policy(path, base.spec).act(torch.zeros(1, 5))
    assert constant.tolist() == [[0.5, -0.5]]
    path.write_text("kind = 'constant'\naction = [0.5]")
    with pytest.raises(ConfigError, match="2 numbers"):
        load_policy(path, base.spec)


def test_planners_lead_to_their_goal(tmp_path, base):
    path = tmp_path / "planner.toml"
    path.write_text("kind = 'pursuit'\ngoal = [0.5, 0.5]\nhorizon = 400")
    planner = load_planner(path, base.spec)
    assert isinstance(planner, HasGoal)
    plan = planner.towards((0.4, -0.3)).plan(torch.tensor([AT_REST]))
    assert (plan.states[0, -1, :2] - torch.tensor([0.4, -0.3])).norm() < 0.11
    arm = load_robot(write(tmp_path, "arm.toml", ARM))
    path.write_text("kind = 'joint_line'\ngoal = [1.0, -0.5]\nspeed = [1.0, 1.0]\nhorizon = 60")
    plan = load_planner(path, arm.spec).plan(torch.zeros(1, 4))
    torch.testing.assert_close(plan.actions[0, -1], torch.tensor([1.0, -0.5]))
    torch.testing.assert_close(plan.actions[0, 0], torch.tensor([0.02, -0.01]))
    path.write_text("kind = 'joint_line'\ngoal = [1.0]\nspeed = [1.0, 1.0]")
    with pytest.raises(ConfigError, match="goal"):
        load_planner(path, arm.spec)


def test_the_page_of_the_guard_names_every_kind_state_and_time():
    page = (Path(__file__).parents[3] / "docs" / "guard.md").read_text()
    times = [field.name for field in fields(GuardSettings) if field.name != "use_estop"]
    names = [*KINDS, *times, "limit_shares", "filter_budget_s", "rate_hz"]
    states = [state for state in State if state is not State.UNCONFIGURED]
    assert [name for name in names if f"`{name}`" not in page] == []
    assert [state for state in states if state not in page] == []
