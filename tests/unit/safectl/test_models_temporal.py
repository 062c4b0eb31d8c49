"""Temporal networks: published sizes, shapes, refusals."""

import pytest
import torch

from safectl.errors import RangeError, ShapeError
from safectl.models import TemporalUnet, TemporalValue


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("width", "multipliers", "expected"),
    [
        (6, (1, 4, 8), 3_682_118),
        (14, (1, 2, 4, 8), 3_956_302),
        (23, (1, 2, 4, 8), 3_958_327),
    ],
    ids=["maze2d", "hopper", "walker2d"],
)
def test_parameter_counts_are_those_of_diffuser(width, multipliers, expected):
    assert count(TemporalUnet(width, multipliers=multipliers)) == expected


@pytest.mark.parametrize("horizon", [128, 256, 384])
def test_the_prediction_has_the_shape_of_the_plan(horizon):
    network = TemporalUnet(6, channels=16, multipliers=(1, 2, 4))
    plan = torch.randn(2, horizon, 6)
    assert network(plan, torch.tensor([0, 3])).shape == plan.shape


def test_a_horizon_that_cannot_be_halved_is_refused():
    with pytest.raises(ShapeError, match="a multiple of 4"):
        TemporalUnet(6)(torch.zeros(1, 30, 6), torch.zeros(1, dtype=torch.long))


def test_channels_that_cannot_be_grouped_are_refused():
    with pytest.raises(RangeError, match="multiple of 8"):
        TemporalUnet(6, channels=20)


@pytest.mark.parametrize("horizon", [4, 32])
def test_a_value_is_one_number_per_plan_with_a_gradient(horizon):
    network = TemporalValue(14, horizon, channels=16)
    plan = torch.randn(3, horizon, 14, requires_grad=True)
    value = network(plan, torch.zeros(3, dtype=torch.long))
    assert value.shape == (3,)
    (slope,) = torch.autograd.grad(value.sum(), plan)
    assert float(slope.abs().sum()) > 0.0
