from pathlib import Path

import numpy as np
import pytest
import torch

from safectl.errors import ShapeError
from safectl_agents.bench.acs_toy import learn, monte_carlo, starts
from safectl_agents.reliability import plot_reliability, reliability


def test_the_error_is_the_mean_distance_of_the_bins() -> None:
    predicted = np.array([0.05, 0.05, 0.95, 1.0])
    outcome = np.array([0.0, 1.0, 1.0, 1.0])
    found = reliability(predicted, outcome)
    assert found.states.tolist() == [2, 2]
    assert found.error == pytest.approx(0.5 * 0.45 + 0.5 * 0.025)


def test_what_happens_as_often_as_predicted_has_no_error() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.uniform(size=200_000)
    outcome = (rng.uniform(size=200_000) < predicted).astype(np.float64)
    assert reliability(predicted, outcome).error < 0.01
    assert reliability(predicted, 1.0 - outcome).error > 0.4


def test_other_shapes_are_refused() -> None:
    for outcome in (np.zeros(3), np.zeros((2, 1)), np.zeros(0)):
        with pytest.raises(ShapeError):
            reliability(np.zeros(2), outcome)


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    found = reliability(np.array([0.1, 0.8]), np.array([0.0, 1.0]))
    plot_reliability(found, tmp_path / "reliability.png")
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_learned_safety_value_is_calibrated() -> None:
    generator = torch.Generator().manual_seed(0)
    critic = learn(episodes=1000, updates=400, generator=generator)
    state = starts(1000, generator)
    truth = monte_carlo(state, repeats=100, generator=generator)
    with torch.no_grad():
        predicted = critic.safety(state).sigmoid()[:, 0]
    found = reliability(predicted.double().numpy(), truth.double().numpy())
    assert found.error < 0.05
    assert truth.std() > 0.2
