"""An `ACS` safeguard over learned critics as the constraint of a program."""

import math

import numpy as np
import torch
from scipy.linalg import block_diag
from torch import Tensor, nn

from safectl.errors import UnsupportedLayer
from safectl.export.assemble import Network
from safectl.export.chance import ChanceConstraint
from safectl.export.normaliser import Normaliser
from safectl.models import LearnedCost, LearnedSafety, ScoreNetwork
from safectl.safeguards import ACS
from safectl.safeguards.correction import BACKOFF_ULPS
from safectl.safeguards.cost_critic import CostCritic

SUPPORTED = (
    "LearnedSafety or LearnedCost",
    "members whose mean counts",
    "the modes 'newton' and 'gradient'",
    "no candidates",
    "recover=True",
    "a tolerance below one",
)


def chance_constraint_of(acs: ACS) -> ChanceConstraint:
    """Take critic, bound, mode and iterations of a safeguard.

    A program built from it decides as `ACS.filter` does, with K steps at most; its margin is
    delta - Q_c too, for probabilities of a `LearnedCost` the difference of their logits. With
    several costs a Newton step of the program is that of the worst one, where the safeguard meets
    all of them linearised: some actions differ, what is certified does not. An input or a critic
    that is not finite gives the program's fail-safe action.

    Raises:
        UnsupportedLayer: If the safeguard or its critic is not as in `SUPPORTED`.
    """
    options, critic = acs.options.correction, acs.critic
    plain = acs.options.recover and options.candidates == 0 and options.mode != "bfgs"
    bound = acs.options.bound
    kept = bound.gamma_correction * (1.0 - bound.recovery_rate)
    constant = bound.gamma_correction * bound.recovery_rate * bound.tolerance
    match critic:
        case LearnedSafety() if plain and _is_mean(critic.safety, critic.advantage):
            # A >= V - (kept V + constant) with V = 1 - Psi
            layers = nn.Sequential(*_merged(critic.safety), nn.Sigmoid())
            gain, shift, network = kept - 1.0, 1.0 - kept - constant, critic.advantage
            ascending, value = _merged(network), critic.safety
        case LearnedCost() if plain and _is_mean(critic.value_network, critic.cost_network):
            layers = _merged(critic.value_network)
            gain, shift, network = -kept, -constant, critic.cost_network
            ascending, value = _negated(_merged(network)), critic.value_network
            if critic.is_probability and bound.tolerance < 1.0:
                layers.extend(_logit_of_bound(kept, constant, critic.cost_network.m))
                gain, shift = -1.0, 0.0
            elif critic.is_probability:
                raise _unsupported(critic)
        case _:
            raise _unsupported(critic)
    newton, costs = options.mode == "newton", network.m
    is_logit = isinstance(critic, LearnedCost) and critic.is_probability
    aim = 16.0 if is_logit else 4.0  # a probability moves by at most a quarter of its logit
    return ChanceConstraint(
        ascending,
        Network(layers, _normaliser(value), gain=[gain] * costs, shift=[shift] * costs),
        _normaliser(network),
        newton=newton,
        step=options.damping if newton else options.step,
        iterations=options.iterations,
        aim=aim * BACKOFF_ULPS * torch.finfo(torch.float32).eps,
    )


def _unsupported(critic: CostCritic) -> UnsupportedLayer:
    return UnsupportedLayer(
        f"this ACS over {type(critic).__name__}",
        supported=SUPPORTED,
        advice="Learn a safety value and a safety advantage, or keep it on the host.",
    )


def _is_mean(*networks: ScoreNetwork) -> bool:
    return all(len(network.members) == 1 or network.combination == "mean" for network in networks)


def _merged(network: ScoreNetwork) -> nn.Sequential:
    """Return the mean of the members as one perceptron: their layers side by side."""
    layers = list(zip(*(member.children() for member in network.members), strict=True))
    merged = nn.Sequential()
    for position, parts in enumerate(layers):
        if not isinstance(parts[0], nn.Linear):
            merged.append(parts[0])
            continue
        weights, biases = (
            [getattr(p, name).detach() for p in parts] for name in ("weight", "bias")
        )
        weight = torch.cat(weights)
        if position:
            weight = torch.from_numpy(block_diag(*(part.numpy() for part in weights)))
        bias = torch.cat(biases)
        if position == len(layers) - 1:
            each = (len(parts), network.m, -1)
            weight, bias = weight.reshape(each).mean(0), bias.reshape(each).mean(0).flatten()
        merged.append(_linear(weight, bias))
    return merged


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def _logit_of_bound(kept: float, constant: float, costs: int) -> nn.Sequential:
    """Return layers from the logit v of each V to the logit of delta = kept V + constant.

    With w = exp(-v), delta / (1 - delta) = (a + c w) / (b + d w) for a = kept + c, c = constant,
    b = 1 - a, d = 1 - c, all above zero; log(a + c w) = log a + softplus(log(c / a) - v).
    """
    a, c = kept + constant, constant
    b, d = 1.0 - a, 1.0 - c
    each = torch.eye(costs)
    shifts = torch.tensor([math.log(c / a), math.log(d / b)])
    inner = _linear(torch.kron(each, torch.full((2, 1), -1.0)), shifts.repeat(costs))
    difference = torch.kron(each, torch.tensor([[1.0, -1.0]]))
    outer = _linear(difference, torch.full((costs,), math.log(a / b)))
    return nn.Sequential(inner, nn.Softplus(), outer)


def _negated(network: nn.Sequential) -> nn.Sequential:
    """Return the network with the other sign of its output."""
    *before, last = network.children()
    assert isinstance(last, nn.Linear), "a perceptron ends in one"
    return nn.Sequential(*before, _linear(-last.weight.detach(), -last.bias.detach()))


def _normaliser(network: ScoreNetwork) -> Normaliser:
    mean = network.mean.cpu().numpy().astype(np.float64)
    variance = network.deviation.cpu().numpy().astype(np.float64) ** 2
    return Normaliser(mean, variance, epsilon=0.0, clip=math.inf)
