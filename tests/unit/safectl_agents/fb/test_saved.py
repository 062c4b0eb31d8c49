"""Policies and limits of visits from the folder of a training."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from safectl.errors import FileFormatError, RangeError, ShapeError, UnknownNameError
from safectl.files import write_json
from safectl.models import VisitCritic, VisitTable
from safectl.safeguards import VisitLimit
from safectl.spec import Signal, Spec
from safectl.types import Status, Task
from safectl_agents.fb import VISITS
from safectl_agents.fb.collect import CollectConfig, collect
from safectl_agents.fb.episodes import load_transitions
from safectl_agents.fb.evaluate import infer_tasks, make_labels
from safectl_agents.fb.export import FBExportSettings, fb_program
from safectl_agents.fb.saved import load_task_policy, load_visit_limit
from tests.fb_run import PUSH, SEEN, SMALL, SPEC, TABLE, keep_visits, write_run


def test_a_policy_is_that_of_the_named_task_or_goal(tmp_path):
    model = write_run(tmp_path)
    seen = torch.rand(5, 4)
    by_name = load_task_policy(tmp_path, SPEC, task="reach_top_left", data=None)
    goal = (-0.15, 0.15, 0.0, 0.0)
    by_goal = load_task_policy(tmp_path, SPEC, goal=goal, data=None)
    expected = model.act(seen, model.infer_goal(torch.tensor(goal)))
    assert torch.equal(by_name.act(seen), expected)
    assert torch.equal(by_goal.act(seen), expected)


def test_without_a_task_the_policy_is_that_of_the_measured_visits(tmp_path):
    model, seen, task = write_run(tmp_path), torch.rand(5, 4), Task(torch.rand(8))
    with pytest.raises(UnknownNameError, match="reach_top_left"):
        load_task_policy(tmp_path, SPEC, data=None)
    keep_visits(tmp_path, task, torch.zeros(8), TABLE)
    found = load_task_policy(tmp_path, SPEC, data=None)
    assert torch.equal(found.act(seen), model.act(seen, task))


def test_a_task_that_is_not_there_is_refused(tmp_path):
    write_run(tmp_path)
    with pytest.raises(UnknownNameError, match="reach_top_left"):
        load_task_policy(tmp_path, SPEC, task="fly", data=None)


@pytest.mark.slow
def test_a_task_without_a_goal_is_inferred_from_the_rewards_of_the_data(tmp_path):
    seen = tuple(Signal(f"seen_{index}", "?", -10.0, 10.0) for index in range(24))
    push = tuple(Signal(f"push_{index}", "1", -1.0, 1.0) for index in range(6))
    spec, config = Spec(seen, push, 0.025), replace(SMALL, domain="walker", labels=200)
    model = write_run(tmp_path / "run", config, spec)
    with pytest.raises(RangeError, match="to infer stand from rewards"):
        load_task_policy(tmp_path / "run", spec, task="stand", data=None)
    settings = CollectConfig(domain="walker", collector="random", episodes=1)
    data = collect(settings, tmp_path / "data")
    policy = load_task_policy(tmp_path / "run", spec, task="stand", data=data)
    rows = load_transitions(data, count=config.transitions, subset=config.subset)
    expected = infer_tasks(model, "walker", make_labels("walker", rows, 200, seed=0))["stand"]
    assert torch.equal(policy.task.vector, expected.vector)


def test_a_limit_of_visits_decides_as_before_it_was_saved(tmp_path):
    model = write_run(tmp_path)
    task, unsafe = model.infer_goal(torch.zeros(4)), torch.rand(8)
    critic = VisitCritic(model, task, unsafe, discount=SMALL.gamma)
    seen, proposed = torch.rand(20, 4), 2.0 * torch.rand(20, 2) - 1.0
    middle = critic.cost(seen, proposed).median()
    table = VisitTable(middle.reshape(1), TABLE.probability, TABLE.upper, 0.5)
    keep_visits(tmp_path, task, unsafe, table)
    saved = VisitLimit(
        lambda s, a: table.bound(critic.cost(s, a)[:, 0]), spec=SPEC, limit=0.1, steps=7
    )
    loaded = load_visit_limit(tmp_path, SPEC, SPEC, limit=0.1, candidates=64)
    found, expected = (guard.filter(seen, proposed) for guard in (loaded, saved))
    assert torch.equal(found.action, expected.action)
    assert 0 < (found.certificate.status == Status.KEPT).sum() < 20


@pytest.mark.parametrize("change", ["later step", "other weights", "unsaid"])
def test_visits_of_another_checkpoint_are_one_clear_error(tmp_path, change):
    write_run(tmp_path)
    keep_visits(tmp_path, Task(torch.zeros(8)), torch.zeros(8))
    state = tmp_path / "checkpoints" / "step-0000000001"
    if change == "later step":
        state.rename(tmp_path / "checkpoints" / "step-0000000002")
        write_json(tmp_path / "checkpoints" / "step-0000000002" / "state.json", {"step": 2})
    elif change == "other weights":
        tensors = load_file(state / "state.safetensors")
        name = next(name for name in tensors if name.startswith("model"))
        save_file(tensors | {name: tensors[name] + 1.0}, state / "state.safetensors")
    else:
        save_file(load_file(tmp_path / VISITS), tmp_path / VISITS)
    with pytest.raises(FileFormatError, match=r"checkpoint.*last one here.*safectl visits"):
        load_visit_limit(tmp_path, SPEC, SPEC, limit=0.1, candidates=64)
    with pytest.raises(FileFormatError, match="safectl visits"):
        load_task_policy(tmp_path, SPEC, data=None)
    with pytest.raises(FileFormatError, match="safectl visits"):
        fb_program(tmp_path, "fb", FBExportSettings())


@pytest.mark.parametrize("name", ["task", "upper", "unsafe"])
def test_damaged_numbers_are_one_clear_error(tmp_path, name):
    write_run(tmp_path)
    with pytest.raises(FileFormatError, match=VISITS):
        load_visit_limit(tmp_path, SPEC, SPEC, limit=0.1, candidates=64)
    keep_visits(tmp_path, Task(torch.zeros(8)), torch.zeros(8), TABLE)
    tensors = load_file(tmp_path / VISITS)
    save_file(tensors | {name: torch.zeros(5)}, tmp_path / VISITS)
    with pytest.raises(FileFormatError, match=VISITS):
        load_visit_limit(tmp_path, SPEC, SPEC, limit=0.1, candidates=64)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("edges", [[0.9, 0.5]]),
        ("upper", [[-0.1, 0.5, 0.9], [0.1, 0.5, 1.1], [0.5, 0.1, 0.9], [0.1, torch.nan, 1.0]]),
        ("probability", [[0.0, 0.1, 2.0]]),
        ("alarm", [torch.nan]),
        ("low", [[2.0] * 4, [torch.nan] * 4]),
        ("disc", [[0.0, 0.0, -1.0], [torch.nan, 0.0, 1.0]]),
        ("steps", [0]),
    ],
)
def test_numbers_that_are_no_table_are_one_clear_error(tmp_path, name, values):
    write_run(tmp_path)
    shares = torch.tensor([0.0, 0.1, 0.9])
    table = VisitTable(torch.tensor([0.5, 0.9]), shares, shares, 0.5)
    keep_visits(tmp_path, Task(torch.zeros(8)), torch.zeros(8), table)
    load_visit_limit(tmp_path, SPEC, SPEC, limit=0.1, candidates=64)
    tensors = load_file(tmp_path / VISITS)
    with safe_open(tmp_path / VISITS, framework="pt") as file:
        metadata = file.metadata()
    for value in values:
        damaged = tensors | {name: torch.tensor(value)}
        save_file(damaged, tmp_path / VISITS, metadata=metadata)
        with pytest.raises(FileFormatError, match=rf"{VISITS}.*safectl visits"):
            load_visit_limit(tmp_path, SPEC, SPEC, limit=0.1, candidates=64)


def test_a_robot_of_another_kind_is_refused(tmp_path):
    write_run(tmp_path)
    with pytest.raises(ShapeError, match="signals of the robot"):
        load_task_policy(tmp_path, Spec(SEEN[:3], PUSH, 0.02), goal=(0.0,) * 4, data=None)
    strong = tuple(replace(signal, high=2.0) for signal in PUSH)
    with pytest.raises(RangeError, match="as in the training"):
        load_task_policy(tmp_path, Spec(SEEN, strong, 0.02), goal=(0.0,) * 4, data=None)
