"""What a chance constraint on exact tables implies: the statements P1 to P4, to be counted.

Tables are those of a finite decision process in which entering an unsafe state costs 1. With c the
cost, for an episode of T steps under a base policy pi (equations 2 and 3):

    Q_t(s, a) = E[(1 - c) Psi_{t+1}(s')],    Psi_t(s) = E_{a ~ pi} Q_t(s, a),    Psi_T = 1.

All arrays are float64 and may have any number of leading axes, one entry per process.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ROUNDING = 1e-9
"""How far a sum over 12 states and 30 steps may miss an inequality, in probability."""


class Process(NamedTuple):
    """A decision process with its base policy.

    Attributes:
        transition: P(s' | s, a), shape (..., S, A, S).
        unsafe: Whether entering a state costs 1, shape (..., S).
        policy: pi(a | s), shape (..., S, A).
    """

    transition: Float[Tensor, "*processes S A S"]
    unsafe: Bool[Tensor, "*processes S"]
    policy: Float[Tensor, "*processes S A"]


class Tables(NamedTuple):
    """Psi_t(s), shape (T + 1, ..., S), and Q_t(s, a), shape (T, ..., S, A)."""

    safety: Float[Tensor, "steps *processes S"]
    after: Float[Tensor, "steps_before_last *processes S A"]


class Course(NamedTuple):
    """What happens under a choice of actions, one entry per starting state on the last axis.

    Attributes:
        mean_safety: m_t = E[Psi_t(s_t)], shape (T + 1, ..., S).
        violation: P(c_{t+1} = 1), shape (T, ..., S).
        episode_safety: P(no violation in the episode), shape (..., S).
        reached: Whether P(s_t = s) > 0, shape (T + 1, ..., S, S).
    """

    mean_safety: Float[Tensor, "steps *processes S"]
    violation: Float[Tensor, "steps_before_last *processes S"]
    episode_safety: Float[Tensor, "*processes S"]
    reached: Bool[Tensor, "steps *processes S S"]


def solve(process: Process, steps: int) -> Tables:
    """Return the tables by dynamic programming."""
    safety, after = [torch.ones_like(process.policy[..., 0])], []
    safe = (~process.unsafe).to(process.policy)
    for _ in range(steps):
        after.append((process.transition @ (safe * safety[-1])[..., None, :, None]).squeeze(-1))
        safety.append((process.policy * after[-1]).sum(-1))
    return Tables(torch.stack(safety[::-1]), torch.stack(after[::-1]))


def admissible(
    tables: Tables, *, tolerance: float, recovery_rate: float
) -> Bool[Tensor, "steps *processes S A"]:
    """Return which actions meet Q_t(s, a) >= (1 - alpha) Psi_t(s) + alpha (1 - eps), exactly."""
    kept = (1.0 - recovery_rate) * tables.safety[:-1]
    return tables.after >= (kept + recovery_rate * (1.0 - tolerance)).unsqueeze(-1)


def drive(
    process: Process, tables: Tables, chosen: Int[Tensor, "steps_before_last *processes S"]
) -> Course:
    """Return what happens if action `chosen[t, ..., s]` is taken in state s at time t."""
    identity = torch.eye(chosen.shape[-1], dtype=process.transition.dtype)
    occupied = unscathed = identity.expand(*process.transition.shape[:-2], -1)
    unsafe = process.unsafe.to(identity)
    all_occupied, violation = [occupied], []
    for choice in chosen:
        index = choice[..., None, None].expand(*choice.shape, 1, choice.shape[-1])
        step = process.transition.gather(-2, index).squeeze(-2)
        occupied, unscathed = occupied @ step, unscathed @ (step * (1.0 - unsafe).unsqueeze(-2))
        violation.append((occupied * unsafe.unsqueeze(-2)).sum(-1))
        all_occupied.append(occupied)
    stacked = torch.stack(all_occupied)
    mean = (stacked @ tables.safety.unsqueeze(-1)).squeeze(-1)
    return Course(mean, torch.stack(violation), unscathed.sum(-1), stacked > 0.0)


def oracle() -> Process:
    """Return the process with the states nominal, edge, unsafe and the actions careful, greedy."""
    rows = [
        [[0.98, 0.02, 0.0], [0.70, 0.28, 0.02]],
        [[0.60, 0.38, 0.02], [0.20, 0.50, 0.30]],
        [[0.50, 0.50, 0.0], [0.10, 0.30, 0.60]],
    ]
    policy = torch.tensor([[0.9, 0.1]], dtype=torch.float64).expand(3, 2)
    unsafe = torch.tensor([False, False, True])
    return Process(torch.tensor(rows, dtype=torch.float64), unsafe, policy)


def random_processes(
    count: int, *, states: int = 12, actions: int = 6, generator: torch.Generator
) -> Process:
    """Draw processes in which a quarter of the states is unsafe and more or less hard to enter."""

    def weights(*shape: int) -> Tensor:
        drawn = torch.rand(*shape, generator=generator, dtype=torch.float64)
        return -drawn.log()

    transition = weights(count, states, actions, states)
    unsafe = torch.arange(states) < states // 4
    danger = torch.rand(count, 1, 1, 1, generator=generator, dtype=torch.float64)
    care = torch.rand(count, states, actions, 1, generator=generator, dtype=torch.float64)
    ease = 10.0 ** (-3.0 * danger - 4.0 * care)
    transition = torch.where(unsafe, ease * transition, transition)
    transition = transition / transition.sum(-1, keepdim=True)
    policy = weights(count, states, actions)
    policy = policy / policy.sum(-1, keepdim=True)
    return Process(transition, unsafe.expand(count, states), policy)


class Count(NamedTuple):
    """Of how many cases that meet a statement's hypotheses how many contradict it."""

    cases: int
    failures: int


def count_one_step(process: Process, tables: Tables, *, tolerance: float, rate: float) -> Count:
    """P1: where Psi >= 1 - eps, an admissible action is unsafe next with probability <= eps."""
    allowed = admissible(tables, tolerance=tolerance, recovery_rate=rate)
    within = allowed & (tables.safety[:-1] >= 1.0 - tolerance).unsqueeze(-1)
    unsafe = process.unsafe.to(process.policy)
    next_unsafe = (process.transition @ unsafe[..., None, :, None]).squeeze(-1)
    bound = 1.0 - tables.after
    holds = (next_unsafe <= bound + ROUNDING) & (bound <= tolerance + ROUNDING)
    return Count(int(within.sum()), int((within & ~holds).sum()))


def count_feasible(tables: Tables, *, tolerance: float, rate: float) -> Count:
    """P2: where Psi >= 1 - eps, the best action is admissible, up to rounding."""
    inside = tables.safety[:-1] >= 1.0 - tolerance
    kept = (1.0 - rate) * tables.safety[:-1] + rate * (1.0 - tolerance)
    holds = tables.after.amax(-1) >= kept - ROUNDING
    return Count(int(inside.sum()), int((inside & ~holds).sum()))


def count_invariance(
    process: Process, tables: Tables, *, tolerance: float, rate: float
) -> tuple[Count, Count]:
    """P3: m_t stays above 1 - eps (i), or its deficit shrinks by 1 - alpha per step (ii).

    An adversary takes the least safe admissible action. Cases are starting states from which every
    state that is reached has one.
    """
    allowed = admissible(tables, tolerance=tolerance, recovery_rate=rate)
    worst = torch.where(allowed, tables.after, torch.inf).argmin(-1)
    some = allowed.any(-1)
    course = drive(process, tables, worst)
    stuck = (course.reached[:-1] & ~some.unsqueeze(-2)).any(-1).any(0)
    deficit = 1.0 - tolerance - course.mean_safety
    times = torch.arange(len(deficit), dtype=deficit.dtype).reshape(-1, *[1] * stuck.ndim)
    shrinks = (deficit <= (1.0 - rate) ** times * deficit[0] + ROUNDING).all(0)
    stays = (deficit <= ROUNDING).all(0)
    stays = stays & (course.violation <= tolerance + ROUNDING).all(0)
    inside, outside = ~stuck & (deficit[0] <= 0.0), ~stuck & (deficit[0] > 0.0)
    return (
        Count(int(inside.sum()), int((inside & ~stays).sum())),
        Count(int(outside.sum()), int((outside & ~shrinks).sum())),
    )


def count_robustness(
    tables: Tables,
    *,
    tolerance: float,
    rate: float,
    safety_error: float,
    advantage_error: float,
    generator: torch.Generator,
) -> Count:
    """P4: with errors up to xi_Psi and xi_A, the bound holds with eps + xi_Psi + xi_A / alpha."""

    def noise(like: Tensor) -> Tensor:
        return 2.0 * torch.rand(like.shape, generator=generator, dtype=like.dtype) - 1.0

    safety = tables.safety[:-1]
    advantage = tables.after - safety.unsqueeze(-1)
    seen_safety = safety + safety_error * noise(safety)
    seen_advantage = advantage + advantage_error * noise(advantage)
    allowed = seen_advantage >= (-rate * (seen_safety - (1.0 - tolerance))).unsqueeze(-1)
    wider = tolerance + safety_error + advantage_error / rate
    holds = advantage >= (-rate * (safety - (1.0 - wider))).unsqueeze(-1) - ROUNDING
    return Count(int(allowed.sum()), int((allowed & ~holds).sum()))
