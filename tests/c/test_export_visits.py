"""Policy, occupancy heads and veto of a forward-backward model as one program."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from safectl.barriers import Discs
from safectl.errors import RangeError, ShapeError
from safectl.export import interpret, verify
from safectl.export.assemble import limit_constants, start_program
from safectl.export.nearest import nearest_admissible
from safectl.export.ops import Op
from safectl.export.program import ACTION, LIMITED, MARGIN, OBSERVATION, STATUS
from safectl.export.selection import UNKNOWN
from safectl.export.visits import task_policy_program, visit_limit_program
from safectl.models import ForwardBackward, Sizes, VisitCritic, VisitScope, VisitTable
from safectl.seed import torch_generator
from safectl.types import Status, Task
from safectl_agents.fb.saved import Visits
from safectl_hardware.verify import verify_on_board
from tests.fb_run import SPEC

TOLERANCE = 1e-5
"""Of actions: tanh of the program has an error of 5e-7, the rest is rounding."""
SCOPE = VisitScope(
    torch.full((4,), -5.0), torch.full((4,), 5.0), Discs(torch.tensor([[1.2, -0.8]]), 0.7), 9
)


@pytest.fixture(scope="module")
def critic():
    scale = (1.0, 0.5, 2.0, 1.0)
    widths = Sizes(4, 2, 8, hidden=16, embedding=8, backward_hidden=8, observation_scale=scale)
    model = ForwardBackward(widths, seed=1)
    with torch.no_grad():
        for parameter in model.networks.parameters():
            parameter.mul_(2.0)
    draw = torch_generator(0, "visits")
    task = Task(model.backward(torch.randn(1, 4, generator=draw))[0].detach())
    found = VisitCritic(model, task, torch.randn(8, generator=draw), discount=0.9)
    seen = 2.0 * torch.randn(800, 4, generator=draw)
    with torch.no_grad():  # most values become possible: above -0.5
        found.unsafe *= 0.5 / found.heads(seen, model.act(seen, task)).abs().quantile(0.98)
    return found


@pytest.fixture(scope="module")
def rows():
    return 2.0 * torch.randn(800, 4, generator=torch_generator(1, "rows"))


def test_the_policy_of_a_task_is_that_of_torch_and_equal_in_c(critic, rows):
    program = task_policy_program("fb", SPEC, critic.model, critic.task)
    expected = critic.model.act(rows, critic.task).numpy()
    assert np.abs(interpret(program, rows.numpy()).action - expected).max() < TOLERANCE
    verify(program, observations=rows[:200].numpy())


def limited(critic, rows):
    """Return a safeguard that vetoes about half of the proposals, and its program."""
    with torch.no_grad():
        found = critic.heads(rows, critic.model.act(rows, critic.task)).amax(0)
    edges = found.quantile(torch.tensor([0.3, 0.6, 0.9]))
    upper = torch.tensor([0.01, 0.05, 0.3, 0.9])
    table = VisitTable(edges, upper, upper, 0.0)
    guard = Visits(critic, table, SCOPE).limit(SPEC, limit=0.1, candidates=6)
    points, threshold = guard.unit_points.tolist(), table.threshold(0.1)
    return guard, visit_limit_program("fb", SPEC, critic, threshold, points, scope=SCOPE)


def test_the_veto_decides_as_in_torch(critic, rows):
    guard, program = limited(critic, rows)
    with torch.no_grad():
        decision = guard.filter(rows, critic.model.act(rows, critic.task))
    steps, status = interpret(program, rows.numpy()), decision.certificate.status.numpy()
    assert {*status} == {0, 1, 2}
    assert (steps.status == status).mean() > 0.99, "where a threshold is touched, rounding decides"
    same = np.abs(steps.action - decision.action.numpy()).max(1) < TOLERANCE
    assert same[status != Status.FALLBACK].mean() > 0.99
    assert same[status == Status.FALLBACK].mean() > 0.99
    certified = steps.status != Status.FALLBACK
    assert steps.margin[certified].min() >= 0.0
    assert steps.margin[~certified].max() < 0.0


def test_outside_the_box_and_in_the_unsafe_set_nothing_is_admissible(critic, rows):
    guard, program = limited(critic, rows)
    beyond = torch.cat([rows[:4], rows[:50]])
    beyond[:4] = 5.1 * torch.eye(4)
    beyond[4:, :2] = torch.tensor([1.0, -1.0]) + 0.4 * torch.rand(50, 2)
    decision = guard.filter(beyond, critic.model.act(beyond, critic.task))
    steps = interpret(program, beyond.numpy())
    assert decision.certificate.risk.tolist() == [1.0] * 54
    assert decision.certificate.status.tolist() == steps.status.tolist() == [Status.FALLBACK] * 54
    assert np.abs(steps.action - decision.action.numpy()).max() < TOLERANCE
    assert steps.action[:4].tolist() == [[0.0, 0.0]] * 4, "the middle where nothing is known"
    assert len({*steps.action[4:, 0].tolist()}) > 1, "and the least occupancy in the set"
    assert steps.margin.max() < -1e3


def test_a_model_that_is_wrong_everywhere_brakes_in_the_program_too(critic, rows):
    wrong = VisitCritic(critic.model, critic.task, -1e4 * critic.unsafe, discount=0.9)
    rows = rows[rows.abs().amax(1) < 5.0]
    guard, program = limited(wrong, rows)
    hopeless = guard.order(rows, critic.model.act(rows, critic.task)).isinf()
    decision = guard.filter(rows, critic.model.act(rows, critic.task))
    steps = interpret(program, rows.numpy())
    braked = (decision.action == 0.0).all(1)
    assert hopeless.float().mean() > 0.9
    assert braked.float().mean() > 0.1
    assert (steps.action[braked.numpy()] == 0.0).all(1).mean() > 0.99
    assert (steps.status[braked.numpy()] == Status.FALLBACK).all()


def test_the_veto_is_equal_in_c(critic, rows):
    _, program = limited(critic, rows)
    report = verify(program, observations=rows[:300].numpy())
    assert report.corrected > 10


@pytest.mark.slow
def test_the_veto_is_equal_on_an_emulated_cortex_m4(critic, rows):
    _, program = limited(critic, rows)
    report = verify_on_board(program, observations=rows[:20].numpy())
    assert report.stack_used_bytes <= report.stack_bound_bytes


def test_a_limit_below_every_bound_is_refused(critic):
    with pytest.raises(RangeError, match="threshold"):
        visit_limit_program("fb", SPEC, critic, -np.inf, [[0.5, 0.5]], scope=SCOPE)
    narrow = replace(SCOPE, low=SCOPE.low[:3], high=SCOPE.high[:3])
    with pytest.raises(ShapeError, match="box"):
        visit_limit_program("fb", SPEC, critic, 1.0, [[0.5, 0.5]], scope=narrow)


def test_the_nearest_admissible_action_is_taken():
    proposal = np.float32([[0.9, 0.0]]).repeat(4, 0)
    points = np.float32([[[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]]]).repeat(4, 0)
    room = np.float32(
        [
            [[0.1, 0.2], [0.1, 0.1], [0.0, 0.0], [0.0, 0.0]],
            [[-0.1, 0.2], [0.3, 0.1], [0.2, 0.1], [np.nan, 0.1]],
            [[-0.1, 0.2], [-0.3, 0.1], [-0.05, 0.1], [0.2, -np.inf]],
            [[np.nan, 0.2], [np.nan, 0.1], [np.inf, 0.1], [np.nan, 0.1]],
        ]
    )
    low, high = np.float32([-1.0, -1.0]), np.float32([1.0, 1.0])
    action, margin, status = nearest_admissible(proposal, points, room, low, high)
    assert np.array_equal(action[:, 0], np.float32([0.9, 0.5, 0.5, 0.0]))
    assert np.array_equal(margin, np.float32([0.1, 0.1, -0.05, UNKNOWN]))
    assert status.tolist() == [Status.KEPT, Status.CORRECTED, Status.FALLBACK, Status.FALLBACK]


def test_of_equal_fallbacks_the_first_point_is_taken_and_never_the_proposal():
    proposal, points = np.float32([[0.9]]).repeat(2, 0), np.float32([[[0.0], [1.0]]]).repeat(2, 0)
    room = np.float32([[[-1.0], [-1.0], [-1.0]], [[-1.0], [-2.0], [-2.0]]])
    low, high = np.float32([-1.0]), np.float32([1.0])
    action, _, status = nearest_admissible(proposal, points, room, low, high)
    assert action.tolist() == [[0.0], [np.float32(0.9)]]
    assert status.tolist() == [Status.FALLBACK] * 2


def test_what_is_beyond_the_limits_is_never_taken():
    proposal, low, high = np.float32([[0.9]]).repeat(2, 0), np.float32([-1.0]), np.float32([1.0])
    points = np.float32([[[50.0]], [[50.0]]])
    room = np.float32([[[-0.2], [0.3]], [[np.nan], [-0.1]]])
    action, margin, status = nearest_admissible(proposal, points, room, low, high)
    assert action.tolist() == [[1.0], [1.0]]
    assert margin.tolist() == [UNKNOWN, UNKNOWN]
    assert status.tolist() == [Status.FALLBACK] * 2


def test_beyond_the_limits_c_and_the_interpreter_agree(tmp_path):
    tracer = start_program("beyond", SPEC, None)
    limits = limit_constants(tracer)
    asked = tracer.slice(OBSERVATION, 0, 2, name="asked")
    limited = tracer.op(Op("clip", (asked,), (LIMITED,), limits))
    others = tracer.op(Op("clip", (limited,), ("same",), limits))
    others = tracer.affine(others, [0.0, 0.0], [50.0, -50.0], name="points")
    room = tracer.affine(limited, [-1.0, -1.0], [-9.0, -8.0], name="room")
    outputs = (ACTION, MARGIN, STATUS)
    tracer.op(Op("nearest_admissible", (limited, others, room), outputs, limits, rows=2))
    program = tracer.finish()
    rows = np.random.default_rng(0).standard_normal((50, SPEC.nx)).astype(np.float32)
    verify(program, observations=rows)
    steps = interpret(program, rows)
    assert (np.abs(steps.action) <= np.array(SPEC.action_high)).all()
    assert UNKNOWN in steps.margin
