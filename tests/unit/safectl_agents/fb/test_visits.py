"""Measured visits of a policy: from a run and a disc to a safeguard."""

import json
import math
from dataclasses import replace

import pytest
import torch

from safectl.barriers import Discs
from safectl.errors import FileFormatError, RangeError, UnknownNameError, UnsafeSetUnseen
from safectl.export import interpret, load_program
from safectl.models import VisitCritic
from safectl.spec import Signal
from safectl.types import Status, Task
from safectl_agents.cli import main
from safectl_agents.fb import VISITS, chosen_task, visits
from safectl_agents.fb.chosen_task import ChosenTask
from safectl_agents.fb.collect import CollectConfig, collect
from safectl_agents.fb.episodes import load_transitions
from safectl_agents.fb.guarded import compare_guarded
from safectl_agents.fb.maze_batch import MazeBatch
from safectl_agents.fb.saved import TaskPolicy, load_visits
from safectl_agents.fb.visit_rollouts import MAZE_SPEC, Driver, roll_out
from safectl_agents.fb.visits import VisitsConfig, draw_rollouts, measure_visits, parts_of
from safectl_envs.guard import VectorGuard
from tests.fb_run import SMALL, TABLE, keep_visits, write_run

QUICK = VisitsConfig(disc=(-0.25, -0.05, 0.15), steps=5, calibration=200, held_out=50)


class Straight:
    """Pushes every copy the same way."""

    def __init__(self, push):
        self.push = torch.tensor(push)

    def act(self, observation):
        return self.push.expand(len(observation), 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return collect(CollectConfig(collector="wander", episodes=3), folder)


def test_rollouts_count_visits_of_the_disc_and_of_the_goal():
    start = torch.tensor([[-0.2, 0.1, 0.1, 0.0], [-0.2, 0.2, 0.0, 0.0], [-0.1, 0.2, 0.0, 0.0]])
    disc = Discs(torch.tensor([[-0.15, 0.1]]), 0.02)
    found = roll_out(MazeBatch(3), Straight([1.0, 0.0]), disc, steps=40, start=start)
    assert found.visited.tolist() == [True, False, False]
    assert found.states.shape == (41, 3, 4)
    assert found.reached("reach_top_left").tolist() == [False, False, False]
    near = roll_out(MazeBatch(3), Straight([1.0, -1.0]), disc, steps=60, start=start)
    assert near.reached("reach_top_left").tolist() == [False, True, False]
    first = torch.tensor([[-1.0, 0.0]]).expand(3, 2)
    moved = roll_out(MazeBatch(3), Straight([1.0, 0.0]), disc, steps=2, start=start, first=first)
    assert bool((moved.states[1, 1:, 2] < 0.0).all())


def test_a_driver_ends_in_the_nearest_disc():
    start = torch.tensor([[-0.2, 0.1, 0.0, 0.0], [0.2, 0.2, 0.0, 0.0], [0.25, 0.1, 0.0, 0.0]])
    discs = Discs(torch.tensor([[-0.1, 0.1], [0.2, 0.1]]), 0.02)
    found = roll_out(MazeBatch(3), Driver(discs), discs, steps=80, start=start)
    assert found.visited.tolist() == [True] * 3
    at_centre = torch.tensor([[0.2, 0.1, 0.0, 0.0]])
    assert Driver(discs).act(at_centre).abs().max() <= 1.0


def test_visits_are_measured_saved_and_guard_the_policy_they_are_about(tmp_path, data):
    model = write_run(tmp_path)
    told = list[int]()
    measured = measure_visits(QUICK, tmp_path, data=data, progress=told.append)
    assert told == [1, 2, 3, 4, 5]
    assert measured.scores.rollouts == 50
    assert 0.0 <= measured.scores.ece <= 1.0
    entered = torch.from_numpy(load_transitions(data).next_observation)
    mean = model.backward(entered).mean(0).detach()
    total = VisitCritic(model, measured.critic.task, mean, discount=SMALL.gamma)
    push = torch.zeros(len(entered), 2)
    by_hand = float(0.01 * total.heads(entered, push).detach().mean())
    assert measured.mass == pytest.approx(by_hand, rel=0.3)
    visits = load_visits(tmp_path, MAZE_SPEC)
    goal = torch.tensor((0.15, 0.15, 0.0, 0.0))
    assert torch.equal(visits.critic.task.vector, model.infer_goal(goal).vector)
    assert torch.equal(visits.table.upper, measured.table.upper)
    assert visits.facts["disc"] == [-0.25, -0.05, 0.15]
    assert visits.facts["ece"] == measured.scores.ece
    again = measure_visits(QUICK, tmp_path, data=data)
    assert again.scores == measured.scores
    guard = visits.limit(MAZE_SPEC, limit=0.5, candidates=2)
    assert "visited within 5 steps" in guard.claim
    far = torch.tensor([[0.5, 0.5, 0, 0], [5, -5, 0, 0], [0.1, 0.1, 3, 3], [-0.25, -0.05, 0, 0]])
    refused = guard.filter(far.float(), torch.full((4, 2), 0.9))
    assert refused.certificate.status.tolist() == [Status.FALLBACK] * 4
    assert refused.action[:3].tolist() == [[0.0, 0.0]] * 3
    assert float(visits.scope.high[:2].max()) < 0.4
    env = VectorGuard(MazeBatch(5), guard)
    run = roll_out(env, visits.policy, QUICK.unsafe, steps=3)
    assert 0.0 <= run.fallbacks <= run.corrected <= 1.0


def test_a_share_of_the_starts_lies_near_the_disc(tmp_path, data):
    model = write_run(tmp_path)
    policy = TaskPolicy(model, Task(torch.ones(8)))
    config = replace(QUICK, disc=(0.0, 0.0, 0.05), steps=1, near=0.5)
    rows = torch.cat([torch.full((999, 4), 0.2), torch.full((1, 4), 0.06)])
    for near, low, high in ((0.5, 0.4, 0.6), (0.0, 0.0, 0.02)):
        start = draw_rollouts(replace(config, near=near), policy, rows).start
        share = float((start[:, 0] == 0.06).float().mean())
        assert low <= share <= high
    with pytest.raises(RangeError, match="--near 0"):
        draw_rollouts(config, policy, rows[:999])
    measured = measure_visits(QUICK, tmp_path, data=data)
    assert load_visits(tmp_path, MAZE_SPEC).facts["started_near"] == measured.started_near
    assert 0.2 < measured.started_near <= 1.0


def test_a_task_is_bent_to_a_budget(tmp_path, data):
    model = write_run(tmp_path)
    measured = measure_visits(replace(QUICK, budget=0.0), tmp_path, data=data)
    bent = measured.constrained
    assert bent is not None
    asked = model.infer_goal(torch.tensor((0.15, 0.15, 0.0, 0.0))).vector
    assert not torch.equal(measured.critic.task.vector, asked)
    assert bent.occupancy <= max(bent.asked_occupancy, 0.0)
    free = measure_visits(replace(QUICK, budget=math.inf), tmp_path, data=data)
    assert torch.equal(free.critic.task.vector, asked)


def test_a_task_may_be_chosen_by_rollouts(tmp_path, data, monkeypatch):
    monkeypatch.setattr(chosen_task, "STARTS", 3)
    monkeypatch.setattr(chosen_task, "STEPS", 2)
    write_run(tmp_path)
    told, config = list[int](), replace(QUICK, candidates=2)
    measured = measure_visits(config, tmp_path, data=data, progress=told.append)
    assert told == list(range(1, parts_of(config) + 1))
    assert measured.chosen is not None
    assert torch.equal(measured.chosen.task.vector, measured.critic.task.vector)
    assert load_visits(tmp_path, MAZE_SPEC).facts["chosen"]["tried"] == 3
    other = ChosenTask(Task(measured.chosen.task.vector.flip(0)), 0.5, 0.0, 3)
    monkeypatch.setattr(visits, "choose_task", lambda *_, **__: other)
    assert measure_visits(config, tmp_path, data=data).critic.task is other.task
    assert torch.equal(load_visits(tmp_path, MAZE_SPEC).critic.task.vector, other.task.vector)


def test_a_disc_that_the_data_do_not_show_is_refused_and_nothing_is_written(tmp_path, data):
    write_run(tmp_path)
    with pytest.raises(UnsafeSetUnseen):
        measure_visits(replace(QUICK, disc=(3.0, 3.0, 0.1)), tmp_path, data=data)
    assert not (tmp_path / VISITS).exists()


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"disc": (math.nan, 0.2, 0.1)}, "centres"),
        ({"disc": (0.0, 0.2, -0.1)}, "radius"),
        ({"disc": (0.0, 0.2, math.nan)}, "radius"),
        ({"steps": 0}, "steps"),
        ({"calibration": 99}, "calibration"),
        ({"delta": 1.0}, "delta"),
        ({"seed": -3}, "seed"),
        ({"near": 1.0}, "near"),
        ({"near": -0.1}, "near"),
        ({"candidates": -1}, "candidates"),
        ({"budget": math.nan}, "budget"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong, problem):
    with pytest.raises(RangeError, match=problem):
        replace(QUICK, **wrong)


def test_runs_that_cannot_be_measured_are_refused(tmp_path, data):
    with pytest.raises(FileFormatError, match=r"config\.json"):
        measure_visits(QUICK, tmp_path / "absent", data=data)
    write_run(tmp_path / "run")
    with pytest.raises(FileFormatError, match="--data"):
        measure_visits(QUICK, tmp_path / "run")
    with pytest.raises(UnknownNameError, match="reach_top_left"):
        measure_visits(replace(QUICK, task="fly"), tmp_path / "run", data=data)
    penalised = replace(SMALL, update=replace(SMALL.update, method="vc-fb"))
    write_run(tmp_path / "penalised", penalised)
    with pytest.raises(RangeError, match="hides visits"):
        measure_visits(QUICK, tmp_path / "penalised", data=data)
    wide = replace(MAZE_SPEC, observation=(*MAZE_SPEC.observation, Signal("w", "m", 0.0, 1.0)))
    write_run(tmp_path / "wide", spec=wide)
    with pytest.raises(FileFormatError, match="does not fit"):
        measure_visits(QUICK, tmp_path / "wide", data=data)


def test_the_commands_measure_and_compare(tmp_path, data, capsys):
    write_run(tmp_path)
    words = ["--disc", "-0.25", "-0.05", "0.15", "--steps", "5", "--calibration", "200"]
    assert main(["visits", str(tmp_path), "--data", str(data), *words, "--held-out", "50"]) == 0
    assert "calibration error" in capsys.readouterr().out
    words = ["--guard", "visits", "--limit", "0.5", "--starts", "4", "--steps", "3", "--json"]
    assert main(["evaluate", "fb", str(tmp_path), *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"plain", "shaped", "guarded"}
    assert (tmp_path / "visits.png").stat().st_size > 10_000


def test_a_run_is_exported_alone_and_behind_its_limit(tmp_path, capsys):
    model = write_run(tmp_path)
    task = model.infer_goal(torch.tensor((0.15, 0.15, 0.0, 0.0)))
    assert main(["export", str(tmp_path)]) == 1
    assert "--fb.task" in capsys.readouterr().err
    out = tmp_path / "alone"
    words = ["--fb.task", "reach_top_right", "--output", str(out)]
    assert main(["export", str(tmp_path), *words]) == 0
    rows = torch.rand(50, 4) - 0.5
    alone = interpret(load_program(out / "program"), rows.numpy())
    torch.testing.assert_close(torch.tensor(alone.action), model.act(rows, task), atol=1e-5, rtol=0)
    keep_visits(tmp_path, task, 0.1 * torch.rand(8), replace(TABLE, edges=torch.tensor([0.05])))
    assert main(["export", str(tmp_path)]) == 0
    program = load_program(tmp_path / "export" / "program")
    assert [op.kind for op in program.ops][-1] == "nearest_admissible"
    guard = load_visits(tmp_path, MAZE_SPEC).limit(MAZE_SPEC, limit=0.1, candidates=3)
    decision = guard.filter(rows, model.act(rows, task))
    status = interpret(program, rows.numpy()).status
    assert (torch.tensor(status) == decision.certificate.status).float().mean() > 0.95
    assert (
        main(["export", str(tmp_path), "--output", str(tmp_path / "x"), "--fb.limit", "0.01"]) == 1
    )
    assert "smallest bound" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["limit", "candidates", "starts", "steps", "seed"])
def test_options_of_the_guard_are_refused_without_it(tmp_path, capsys, option):
    write_run(tmp_path)
    value = "0.5" if option == "limit" else "3"
    assert main(["evaluate", "fb", str(tmp_path), f"--{option}", value]) == 1
    assert f"--{option}: counts only with --guard visits" in capsys.readouterr().err


def test_an_export_refuses_what_does_not_count_for_it(tmp_path, capsys):
    model = write_run(tmp_path)
    words = ["export", str(tmp_path), "--output", str(tmp_path / "out"), "--fb.task"]
    words.append("reach_top_right")
    for option, value in (("--fb.limit", "0.5"), ("--fb.candidates", "5")):
        assert main([*words, option, value]) == 1
        assert f"{option}: does not count: {tmp_path} holds no {VISITS}" in capsys.readouterr().err
    keep_visits(tmp_path, model.infer_goal(torch.zeros(4)), torch.rand(8), TABLE)
    assert main(words) == 1
    assert f"--fb.task: does not count: {tmp_path} holds {VISITS}" in capsys.readouterr().err
    assert main([*words[:-2], "--fb.data", "x"]) == 1
    assert "--fb.data: does not count" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "config.json").write_text("{}")
    assert main(words) == 1
    assert "--fb: belongs to a run of: safectl train fb" in capsys.readouterr().err


def test_visits_without_their_facts_are_not_compared(tmp_path):
    model = write_run(tmp_path)
    keep_visits(tmp_path, model.infer_goal(torch.zeros(4)), torch.rand(8), TABLE)
    with pytest.raises(FileFormatError, match="which disc"):
        compare_guarded(tmp_path, episodes=2, steps=2)
