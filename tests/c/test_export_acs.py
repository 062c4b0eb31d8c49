"""ACS in torch, its program in the interpreter, and the program in C decide alike."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from safectl.errors import UnsupportedLayer
from safectl.export import Network, guarded_program, interpret, verify
from safectl.models import LearnedCost, LearnedSafety, ScoreNetwork
from safectl.safeguards import ACS, ACSOptions, Brake, ChanceBound, CorrectionOptions
from safectl.spec import Signal, Spec
from safectl.types import Status

MARGIN_TOLERANCE = 1e-4
ACTION_TOLERANCE = {"ensemble": 1e-3, "probability": 5e-3, "two costs": 5e-3}
"""2e-4 for the others. The two aims inside the bound differ by 1e-5, between logits by 1e-4; an
action differs by that over the norm of the gradient, which is shallow for a mean and along an
active limit."""
SHARE = {"two costs": 0.95}
"""Of the rows that are compared, 0.99 for one cost; with two a Newton step differs in some rows."""
SPEC = Spec(
    tuple(Signal(f"x{index}", "1", -2.0, 2.0) for index in range(4)),
    tuple(Signal(f"u{index}", "1", -1.0, 1.0) for index in range(3)),
    0.1,
)


def network(nu: int, seed: int, *, offset: float = 0.0, **options: Any) -> ScoreNetwork:
    net = ScoreNetwork(
        4, nu, hidden=(16, 16), generator=torch.Generator().manual_seed(seed), **options
    )
    net.mean.fill_(0.1)
    net.deviation.fill_(1.3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
        net.members[0][-1].bias.add_(offset)
    return net.requires_grad_(False)


def policy() -> Network:
    return Network(network(0, 9, m=3).members[0])


CRITICS = {
    "safety form": LearnedSafety(network(0, 1), network(3, 2)),
    "cost form": LearnedCost(network(0, 1), network(3, 4, offset=1.0), is_probability=False),
    "probability": LearnedCost(network(0, 1), network(3, 4)),
    "two costs": LearnedCost(network(0, 1, m=2), network(3, 4, m=2, members=2)),
    "ensemble": LearnedSafety(network(0, 1, members=2), network(3, 2, members=3)),
}


def observations(count: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 4.0 * torch.rand(count, 4, generator=generator) - 2.0


def guard(name: str, correction: CorrectionOptions, *, gamma: float = 1.0) -> ACS:
    """A safeguard whose bound about a third of the proposals miss."""
    critic, rows = CRITICS[name], observations(500, seed=5)
    cost = critic.cost(rows, policy().layers(rows).clamp(-1.0, 1.0))
    needed = (cost / gamma - 0.2 * critic.value(rows)).amax(-1)
    tolerance = needed.quantile(0.65).item() / 0.8
    bound = ChanceBound(tolerance, 0.8, gamma)
    return ACS(critic, fallback=Brake(SPEC), options=ACSOptions(bound, correction))


def margins(acs: ACS, observation: Tensor) -> np.ndarray:
    """Those of the safeguard, between logits where the critic predicts probabilities."""
    found = acs.explain(observation, policy().layers(observation).clamp(-1.0, 1.0))
    if isinstance(acs.critic, LearnedCost):
        scale = acs.critic.scale
        return (scale(found.threshold) - scale(found.cost)).amin(-1).numpy()
    return found.decision.certificate.margin.numpy()


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize(
    ("correction", "gamma"),
    [
        (CorrectionOptions(iterations=5), 1.0),
        (CorrectionOptions(iterations=8, damping=0.7), 0.95),
        (CorrectionOptions("gradient"), 1.0),
    ],
)
def test_the_program_decides_as_the_safeguard(
    name: str, correction: CorrectionOptions, gamma: float
) -> None:
    acs = guard(name, correction, gamma=gamma)
    program = guarded_program("p", SPEC, policy(), acs)
    observation = observations(600, seed=0)
    ours = interpret(program, observation.numpy())
    decision = acs.filter(observation, policy().layers(observation).clamp(-1.0, 1.0))
    counts = np.bincount(ours.status, minlength=3)
    assert (counts > 20)[: Status.FALLBACK].all()
    same = ours.status == decision.certificate.status.numpy()
    assert same.mean() > 0.995  # a step more or less where a value meets its bound in rounding
    difference, share = np.abs(ours.action - decision.action.numpy()).max(1), SHARE.get(name, 0.99)
    assert np.quantile(difference[same], share) < ACTION_TOLERANCE.get(name, 2e-4)
    margin = np.abs(ours.margin - margins(acs, observation))[same]
    assert np.quantile(margin, share) < MARGIN_TOLERANCE


@pytest.mark.parametrize("name", CRITICS)
def test_the_program_in_c_equals_the_interpreter(name: str) -> None:
    program = guarded_program("p", SPEC, policy(), guard(name, CorrectionOptions(iterations=5)))
    assert verify(program, observations=observations(300, seed=1).numpy()).corrected > 10


def test_what_a_program_cannot_hold_is_refused() -> None:
    single, probability = network(0, 1), LearnedCost(network(0, 1), network(3, 2))
    ensemble = LearnedSafety(single, network(3, 2, members=2, combination="max"))
    learned = LearnedSafety(single, network(3, 2))
    for critic, options in (
        (probability, ACSOptions(ChanceBound(1.5))),
        (ensemble, ACSOptions()),
        (learned, ACSOptions(recover=False)),
        (learned, ACSOptions(correction=CorrectionOptions("bfgs"))),
        (learned, ACSOptions(correction=CorrectionOptions(candidates=3))),
    ):
        acs = ACS(critic, fallback=Brake(SPEC), options=options, generator=torch.Generator())
        with pytest.raises(UnsupportedLayer, match="this ACS"):
            guarded_program("p", SPEC, policy(), acs)
