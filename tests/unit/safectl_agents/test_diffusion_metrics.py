"""Figures of plans by hand: traps, circles, accelerations, scores."""

import pytest
import torch

from safectl.errors import UnknownNameError
from safectl_agents.diffusion.metrics import (
    acceleration,
    curvature,
    jumps,
    normalised_score,
    trap_rates,
)


def line(*gaps):
    """One plan along the first axis with these distances between its states."""
    along = torch.tensor([0.0, *gaps]).cumsum(0)
    return torch.stack([along, torch.zeros_like(along)], 1).unsqueeze(0)


def test_a_jump_is_a_step_beyond_a_fifth():
    assert jumps(line(0.1, 0.1999, 0.1)).tolist() == [0]
    assert jumps(line(0.1, 0.2001, 0.1)).tolist() == [1]
    assert jumps(line(0.3, 0.1, 0.9)).tolist() == [2]


def test_trap_rates_count_plans_with_one_and_with_two_jumps():
    plans = torch.cat([line(0.1, 0.1), line(0.1, 0.3), line(0.3, 0.3), line(0.0, 0.0)])
    assert trap_rates(plans) == (0.5, 0.25)


def test_a_diagonal_step_counts_with_its_length():
    step = 0.15  # along both axes: 0.2121
    assert jumps(torch.tensor([[[0.0, 0.0], [step, step]]])).tolist() == [1]


def test_the_curvature_of_a_circle_is_one_over_its_radius():
    angle = torch.linspace(0.0, 3.0, 50, dtype=torch.float64)
    circle = 0.4 * torch.stack([angle.cos(), angle.sin()], 1).unsqueeze(0)
    assert float(curvature(circle)) == pytest.approx(2.5, rel=1e-9)
    assert float(curvature(line(0.1, 0.2, 0.1))) == 0.0
    assert float(curvature(line(0.0, 0.0))) == 0.0  # standing still


def test_the_acceleration_of_a_parabola_is_constant():
    time = torch.arange(20, dtype=torch.float64) * 0.01
    parabola = torch.stack([1.5 * time**2, 2.0 * time**2], 1).unsqueeze(0)
    assert float(acceleration(parabola, 0.01)) == pytest.approx(5.0, rel=1e-9)


def test_scores_are_ratios():
    score = normalised_score(torch.tensor([6.7, 273.99]), "Maze2dLarge")
    torch.testing.assert_close(score, torch.tensor([0.0, 1.0]))
    score = normalised_score(torch.tensor([300.0]), "Maze2dUmaze")
    torch.testing.assert_close(score, torch.tensor([2.00094]), rtol=1e-4, atol=0.0)
    with pytest.raises(UnknownNameError, match="Maze2dUmaze"):
        normalised_score(torch.zeros(1), "Maze2dUmaz")
