"""An `ACS` safeguard over learned critics as the constraint of a program."""

import copy
import math

import numpy as np
import torch
from torch import nn

from safectl.errors import UnsupportedLayer
from safectl.export.assemble import Network
from safectl.export.chance import ChanceConstraint
from safectl.export.normaliser import Normaliser
from safectl.models import LearnedCost, LearnedSafety, ScoreNetwork
from safectl.safeguards import ACS
from safectl.safeguards.correction import BACKOFF_ULPS

SUPPORTED = (
    "LearnedSafety, or LearnedCost whose costs are its scores",
    "one cost",
    "one member",
    "the modes 'newton' and 'gradient'",
    "no candidates",
    "recover=True",
)


def chance_constraint_of(acs: ACS) -> ChanceConstraint:
    """Take critic, bound, mode and iterations of a safeguard.

    A program built from it decides as `ACS.filter` does, with K steps at most; its margin is
    delta - Q_c too. An input or a critic that is not finite gives the program's fail-safe action.

    Raises:
        UnsupportedLayer: If the safeguard or its critic is not as in `SUPPORTED`. The logits of a
            probability are among the unsupported: a program has no logarithm for its bound.
    """
    options, critic = acs.options.correction, acs.critic
    plain = acs.options.recover and options.candidates == 0 and options.mode != "bfgs"
    bound = acs.options.bound
    kept = bound.gamma_correction * (1.0 - bound.recovery_rate)
    constant = bound.gamma_correction * bound.recovery_rate * bound.tolerance
    match critic:
        case LearnedSafety() if plain and _is_single(critic.safety, critic.advantage):
            # A >= V - (kept V + constant) with V = 1 - Psi
            layers = nn.Sequential(*critic.safety.members[0].children(), nn.Sigmoid())
            gain, shift, network = kept - 1.0, 1.0 - kept - constant, critic.advantage
            ascending, value = network.members[0], critic.safety
        case LearnedCost(is_probability=False) if plain and _is_single(
            critic.value_network, critic.cost_network
        ):
            layers = nn.Sequential(*critic.value_network.members[0].children())
            gain, shift, network = -kept, -constant, critic.cost_network
            ascending, value = _negated(network.members[0]), critic.value_network
        case _:
            raise UnsupportedLayer(
                f"this ACS over {type(critic).__name__}",
                supported=SUPPORTED,
                advice="Learn a safety value and a safety advantage, or keep it on the host.",
            )
    newton = options.mode == "newton"
    return ChanceConstraint(
        nn.Sequential(*ascending.children()),
        Network(layers, _normaliser(value), gain=[gain], shift=[shift]),
        _normaliser(network),
        newton=newton,
        step=options.damping if newton else options.step,
        iterations=options.iterations,
        aim=4.0 * BACKOFF_ULPS * torch.finfo(torch.float32).eps,
    )


def _is_single(*networks: ScoreNetwork) -> bool:
    return all(network.m == 1 and len(network.members) == 1 for network in networks)


def _negated(network: nn.Module) -> nn.Module:
    """Return a copy whose output has the other sign."""
    negated = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in list(negated.children())[-1].parameters():
            parameter.neg_()
    return negated


def _normaliser(network: ScoreNetwork) -> Normaliser:
    mean = network.mean.cpu().numpy().astype(np.float64)
    variance = network.deviation.cpu().numpy().astype(np.float64) ** 2
    return Normaliser(mean, variance, epsilon=0.0, clip=math.inf)
