import pytest
import torch

from safectl.errors import NonFiniteError, RangeError, ShapeError, TaskNotInferable
from safectl.models import (
    ForwardBackward,
    Sizes,
    infer_from_function,
    infer_from_goal,
    sample_tasks,
    task_quality,
)
from safectl.seed import torch_generator
from safectl.types import Task

SIZES = Sizes(nx=3, nu=2, nz=4, hidden=8, embedding=8, backward_hidden=8)
MODEL = ForwardBackward(SIZES)
OBSERVATION = torch.randn(200, 3, generator=torch_generator(0, "observations"))


def test_tasks_lie_on_the_sphere_and_the_mask_says_which_come_from_the_data():
    backward = MODEL.backward(OBSERVATION)
    shuffle, from_data = torch.arange(200).flip(0), torch.arange(200) < 50
    tasks = sample_tasks(backward, torch.randn(200, 4), from_data, shuffle)
    assert torch.allclose(tasks.norm(dim=-1), torch.full((200,), 2.0))
    assert torch.equal(tasks[:50], backward.detach().flip(0)[:50])
    assert not tasks.requires_grad


def test_a_task_is_the_scaled_mean_of_reward_times_b_and_does_not_see_the_scale_of_the_reward():
    reward = OBSERVATION[:, 0]
    task = MODEL.infer(OBSERVATION, reward)
    mean = (reward[:, None] * MODEL.backward(OBSERVATION)).mean(0)
    assert torch.allclose(task.vector, 2.0 * mean / mean.norm(), atol=1e-5)
    assert torch.allclose(task.vector, MODEL.infer(OBSERVATION, 7.0 * reward).vector, atol=1e-5)


def test_a_goal_and_a_function_give_their_tasks():
    assert torch.equal(MODEL.infer_goal(OBSERVATION[0]).vector, MODEL.backward(OBSERVATION[:1])[0])
    task = infer_from_function(MODEL.backward, OBSERVATION, lambda rows: rows[:, 1])
    assert torch.equal(task.vector, MODEL.infer(OBSERVATION, OBSERVATION[:, 1]).vector)


def test_labels_that_cannot_serve_are_refused():
    with pytest.raises(ShapeError, match="reward"):
        infer_from_function(MODEL.backward, OBSERVATION, lambda rows: rows)
    with pytest.raises(ShapeError, match="reward"):
        infer_from_function(MODEL.backward, OBSERVATION, lambda rows: rows[:7, 0])
    with pytest.raises(ShapeError, match="reward"):
        infer_from_function(MODEL.backward, OBSERVATION, lambda _: 1.0)
    with pytest.raises(RangeError, match="one number per observation"):
        infer_from_function(MODEL.backward, OBSERVATION, lambda _: None)
    with pytest.raises(NonFiniteError, match="reward function"):
        infer_from_function(MODEL.backward, OBSERVATION, lambda rows: rows[:, 0] / 0.0)
    with pytest.raises(NonFiniteError, match="reward holds 1 non-finite"):
        MODEL.infer(OBSERVATION, torch.tensor([float("nan"), *[1.0] * 199]))
    with pytest.raises(TaskNotInferable, match="0 of 200"):
        MODEL.infer(OBSERVATION, torch.zeros(200))
    with pytest.raises(TaskNotInferable, match="0 of 0"):
        MODEL.infer(OBSERVATION[:0], torch.zeros(0))
    with pytest.raises(ShapeError, match="goal"):
        infer_from_goal(MODEL.backward, OBSERVATION)
    with pytest.raises(ShapeError, match="observation"):
        MODEL.infer(OBSERVATION[:, :2], OBSERVATION[:, 0])


def test_the_quality_tells_a_reward_that_b_can_express_from_noise():
    generator = torch_generator(0, "quality")
    visible = MODEL.backward(OBSERVATION).detach()[:, 0]
    noise = torch.randn(200, generator=generator)
    good = task_quality(MODEL.backward, OBSERVATION, visible, generator)
    poor = task_quality(MODEL.backward, OBSERVATION, noise, generator)
    sparse = task_quality(
        MODEL.backward, OBSERVATION, (visible > visible.median()).float(), generator
    )
    assert good.samples == 200
    assert good.r_squared > 0.99 > 0.2 > poor.r_squared
    assert good.spread > poor.spread
    assert sparse.nonzero == pytest.approx(0.5, abs=0.01)


def test_the_policy_stays_in_its_limits_and_the_value_is_the_smaller_head():
    task = Task(MODEL.backward(OBSERVATION[:1])[0].detach())
    action = MODEL.act(OBSERVATION, task)
    assert action.shape == (200, 2)
    assert float(action.abs().max()) < 1.0
    rows = task.vector.expand(200, -1)
    heads = (MODEL.forward(OBSERVATION, action, rows) * rows).sum(-1)
    assert torch.equal(MODEL.value(OBSERVATION, action, task), heads.amin(0))
    with pytest.raises(ShapeError, match="task"):
        MODEL.act(OBSERVATION, Task(torch.ones(3)))
