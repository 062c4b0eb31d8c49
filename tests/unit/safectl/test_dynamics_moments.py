from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from safectl.dynamics import (
    Bicycle,
    Propagates,
    Uncertain,
    Unicycle,
    double_integrator,
    propagate_plan,
)
from safectl.errors import RangeError
from safectl.types import Gaussian
from tests.finite_differences import jacobian

PERIOD = 0.1
SAMPLES = 100_000
MODELS: dict[str, tuple[Propagates, list[float], list[float]]] = {
    "unicycle": (Unicycle(PERIOD, noise=[0.01, 0.01, 0.03]), [0.0, 0.0, 0.5], [1.0, 0.8]),
    "bicycle": (
        Bicycle(PERIOD, wheelbase=0.5, noise=[0.0, 0.0, 0.02, 0.05]),
        [0.0, 0.0, -0.4, 1.0],
        [0.5, 0.3],
    ),
    "double integrator": (
        double_integrator(PERIOD, axes=2, noise=[0.0, 0.0, 0.1, 0.1]),
        [0.0, 0.0, 1.0, -0.5],
        [0.3, 0.4],
    ),
}


def start(nx: int, mean: list[float]) -> Gaussian:
    """A correlated belief: 5 cm, 0.1 rad, 0.1 m/s."""
    root = 0.05 * torch.eye(nx, dtype=torch.float64)
    root[2:, 2:] *= 2.0
    root += 0.02 * torch.ones(nx, nx, dtype=torch.float64).tril(-1)
    return Gaussian(torch.tensor([mean], dtype=torch.float64), (root @ root.T).unsqueeze(0))


def sample(model: Propagates, belief: Gaussian, action: Tensor, steps: int) -> Tensor:
    """Simulate the model itself from drawn states with drawn noise."""
    generator = torch.Generator().manual_seed(7)

    def draw() -> Tensor:
        return torch.randn(SAMPLES, model.nx, generator=generator, dtype=torch.float64)

    root = torch.linalg.cholesky(belief.covariance[0])
    state = belief.mean + draw() @ root.T
    for _ in range(steps):
        mean, covariance = model.predict(state, action.expand(SAMPLES, -1))
        state = mean + draw() * covariance[0].diagonal().sqrt()
    return state


@pytest.mark.parametrize("name", MODELS)
def test_one_step_has_the_moments_of_the_samples(name: str) -> None:
    model, mean, command = MODELS[name]
    belief, action = start(model.nx, mean), torch.tensor([command], dtype=torch.float64)
    after = model.propagate(belief, action)
    states = sample(model, belief, action, 1)
    deviation = after.covariance[0].diagonal().sqrt()
    error = (states.mean(0) - after.mean[0]) / deviation
    assert error.abs().max() < 5.0 / SAMPLES**0.5
    scale = deviation.unsqueeze(0) * deviation.unsqueeze(1)
    assert ((states.T.cov() - after.covariance[0]) / scale).abs().max() < 8.0 / SAMPLES**0.5


@pytest.mark.parametrize("name", MODELS)
def test_quantiles_cover_after_several_steps(name: str) -> None:
    model, mean, command = MODELS[name]
    belief, action = start(model.nx, mean), torch.tensor([command], dtype=torch.float64)
    after = propagate_plan(model, belief, action.expand(10, -1).unsqueeze(0))[-1]
    states = sample(model, belief, action, 10)
    for angle in torch.arange(8, dtype=torch.float64) * torch.pi / 4.0:
        normal = torch.stack([angle.cos(), angle.sin()])
        spread = (normal @ after.covariance[0, :2, :2] @ normal).sqrt()
        along = (states[:, :2] - after.mean[0, :2]) @ normal
        for delta in (0.01, 0.05, 0.1):
            bound = NormalDist().inv_cdf(1.0 - delta) * spread
            assert (along < -bound).double().mean().item() == pytest.approx(delta, abs=0.01)


@pytest.mark.parametrize("name", MODELS)
def test_a_certain_state_travels_as_predicted(name: str) -> None:
    model, mean, command = MODELS[name]
    belief, action = start(model.nx, mean), torch.tensor([command], dtype=torch.float64)
    certain = Gaussian(belief.mean, torch.zeros_like(belief.covariance))
    predicted, propagated = model.predict(belief.mean, action), model.propagate(certain, action)
    torch.testing.assert_close(propagated.mean, predicted.mean)
    torch.testing.assert_close(propagated.covariance, predicted.covariance)
    measured = Uncertain(model, belief.covariance[0]).predict(belief.mean, action)
    torch.testing.assert_close(measured.covariance, model.propagate(belief, action).covariance)


def test_a_step_of_the_bicycle_follows_its_affine_form() -> None:
    model = Bicycle(1e-6, wheelbase=0.5)
    generator = torch.Generator().manual_seed(1)
    state = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    action = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    rate = model.drift(state) + (model.gain(state) @ action.unsqueeze(-1)).squeeze(-1)
    change = (model.predict(state, action).mean - state) / 1e-6
    torch.testing.assert_close(change, rate, atol=1e-8, rtol=0.0)
    numeric = jacobian(lambda u: model.predict(state, u).mean, action) / 1e-6
    torch.testing.assert_close(numeric, model.gain(state), atol=1e-3, rtol=0.0)


def test_a_bicycle_needs_a_wheelbase() -> None:
    with pytest.raises(RangeError, match="wheelbase"):
        Bicycle(0.1, wheelbase=0.0)
