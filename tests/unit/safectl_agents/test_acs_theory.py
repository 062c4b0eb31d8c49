import pytest
import torch
from torch import Tensor

from safectl_agents.bench.acs_theory import (
    Course,
    admissible,
    count_feasible,
    count_invariance,
    count_one_step,
    count_robustness,
    drive,
    oracle,
    random_processes,
    solve,
)

STATED = 1e-6
"""The oracle's numbers are stated to six digits."""

TOLERANCES = (0.05, 0.1, 0.3, 0.5, 0.8)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def near(left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, atol=STATED, rtol=0.0)


def follow(eps: float) -> Course:
    """Greedy where it is admissible, else careful."""
    process = oracle()
    tables = solve(process, 10)
    greedy = admissible(tables, tolerance=eps, recovery_rate=0.8)[..., 1]
    return drive(process, tables, greedy.long())


@pytest.mark.parametrize(
    ("time", "safety", "after"),
    [
        (
            0,
            (0.953405, 0.885804, 0.868322),
            ((0.957088, 0.920251), (0.913456, 0.636936), (0.924470, 0.362993)),
        ),
        (
            5,
            (0.978862, 0.909823, 0.891968),
            ((0.982617, 0.945071), (0.938199, 0.654436), (0.949633, 0.372981)),
        ),
        (
            8,
            (0.993888, 0.932064, 0.916040),
            ((0.997080, 0.965160), (0.960560, 0.675600), (0.975000, 0.385400)),
        ),
        (9, (0.998, 0.952, 0.940), ((1.0, 0.98), (0.98, 0.70), (1.0, 0.40))),
    ],
)
def test_the_tables_are_those_of_the_oracle(
    time: int, safety: tuple[float, ...], after: tuple[tuple[float, float], ...]
) -> None:
    tables = solve(oracle(), 10)
    assert near(tables.safety[time], numbers(*safety))
    assert near(tables.after[time], torch.tensor(after, dtype=torch.float64))


def test_policies_without_a_constraint_give_the_reference_values() -> None:
    process = oracle()
    tables = solve(process, 10)
    assert near(tables.safety[0, 0], torch.tensor(0.953405).double())
    for action, expected in ((0, 0.994735), (1, 0.264599)):
        course = drive(process, tables, torch.full((10, 3), action))
        assert course.episode_safety[0].item() == pytest.approx(expected, abs=STATED)


def test_a_fifth_of_tolerance_admits_greed_only_in_the_nominal_state() -> None:
    tables = solve(oracle(), 10)
    bound = 0.2 * tables.safety[0] + 0.8 * 0.8
    assert near(bound, numbers(0.830681, 0.817161, 0.813664))
    greedy = admissible(tables, tolerance=0.2, recovery_rate=0.8)[..., 1]
    assert torch.equal(greedy, torch.tensor([True, False, False]).expand(10, 3))
    course = follow(0.2)
    expected = (0.953405, 0.937710, 0.940493, 0.945259, 0.950260, 0.955349, 0.960587, 0.966200)
    assert near(course.mean_safety[:-1, 0], numbers(*expected, 0.972831, 0.982331))
    assert near(course.violation[:2, 0], numbers(0.02, 0.0196))
    assert near(course.violation[2:, 0], torch.full((8,), 0.019608).double())
    assert course.episode_safety[0].item() == pytest.approx(0.817073, abs=STATED)


def test_a_bound_per_step_is_not_one_per_episode() -> None:
    course = follow(0.4)
    assert near(course.violation[7:, 0], numbers(0.108061, 0.116906, 0.124513))
    assert (course.violation[:, 0] <= 0.4).all()
    assert course.episode_safety[0].item() == pytest.approx(0.580066, abs=STATED)
    assert course.episode_safety[0].item() < 1.0 - 0.4


@pytest.mark.parametrize("eps", TOLERANCES)
def test_the_statements_hold_for_random_processes(eps: float) -> None:
    process = random_processes(240, generator=torch.Generator().manual_seed(1))
    tables = solve(process, 30)
    one_step = count_one_step(process, tables, tolerance=eps, rate=0.8)
    feasible = count_feasible(tables, tolerance=eps, rate=0.8)
    invariance, recovery = count_invariance(process, tables, tolerance=eps, rate=0.8)
    for count in (one_step, feasible, invariance, recovery):
        assert count.failures == 0
    assert one_step.cases > 10_000
    assert feasible.cases > 10_000
    assert invariance.cases > 200
    assert recovery.cases > 10 or eps == 0.8


def test_the_constraint_excludes_actions_that_contradict_the_statements() -> None:
    process = random_processes(50, generator=torch.Generator().manual_seed(2))
    tables = solve(process, 30)
    excluded = ~admissible(tables, tolerance=0.05, recovery_rate=0.8)
    inside = (tables.safety[:-1] >= 1.0 - 0.05).unsqueeze(-1)
    next_unsafe = (process.transition * process.unsafe[:, None, None]).sum(-1)
    assert (excluded & inside & (next_unsafe > 0.05)).any()


@pytest.mark.parametrize(
    ("safety_error", "advantage_error"), [(0.05, 0.0), (0.0, 0.05), (0.1, 0.02)]
)
def test_errors_of_the_critic_widen_the_tolerance_as_stated(
    safety_error: float, advantage_error: float
) -> None:
    generator = torch.Generator().manual_seed(3)
    tables = solve(random_processes(100, generator=generator), 30)
    count = count_robustness(
        tables,
        tolerance=0.1,
        rate=0.8,
        safety_error=safety_error,
        advantage_error=advantage_error,
        generator=generator,
    )
    assert count.cases > 10_000
    assert count.failures == 0
