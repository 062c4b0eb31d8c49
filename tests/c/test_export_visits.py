"""Policy, occupancy heads and veto of a forward-backward model as one program."""

from functools import partial

import numpy as np
import pytest
import torch

from safectl.errors import RangeError
from safectl.export import interpret, verify
from safectl.export.assemble import limit_constants, start_program
from safectl.export.nearest import nearest_admissible
from safectl.export.ops import Op
from safectl.export.program import ACTION, LIMITED, MARGIN, OBSERVATION, STATUS
from safectl.export.selection import UNKNOWN
from safectl.export.visits import task_policy_program, visit_limit_program
from safectl.models import ForwardBackward, Sizes, VisitCritic, VisitTable
from safectl.safeguards import VisitLimit
from safectl.seed import torch_generator
from safectl.types import Status, Task
from safectl_hardware.verify import verify_on_board
from tests.fb_run import SPEC

TOLERANCE = 1e-5
"""Of actions: tanh of the program has an error of 5e-7, the rest is rounding."""


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
    guard = VisitLimit(
        partial(critic.bound, table),
        spec=SPEC,
        limit=0.1,
        candidates=6,
        order=critic.order,
    )
    points = guard.unit_points.tolist()
    return guard, visit_limit_program("fb", SPEC, critic, table.threshold(0.1), points)


def test_the_veto_decides_as_in_torch(critic, rows):
    guard, program = limited(critic, rows)
    with torch.no_grad():
        decision = guard.filter(rows, critic.model.act(rows, critic.task))
    steps, status = interpret(program, rows.numpy()), decision.certificate.status.numpy()
    assert {*status} == {0, 1, 2}
    assert (steps.status == status).mean() > 0.99, "where a threshold is touched, rounding decides"
    same = np.abs(steps.action - decision.action.numpy()).max(1) < TOLERANCE
    assert same[status != Status.FALLBACK].mean() > 0.99
    assert same[status == Status.FALLBACK].mean() > 0.95, "heads that are impossible"
    certified = steps.status != Status.FALLBACK
    assert steps.margin[certified].min() >= 0.0
    assert steps.margin[~certified].max() < 0.0


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
        visit_limit_program("fb", SPEC, critic, -np.inf, [[0.5, 0.5]])


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
