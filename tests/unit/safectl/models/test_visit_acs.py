"""Predicted visits as the cost of an adaptive chance constraint."""

import pytest
import torch
from torch.nn.functional import softplus

from safectl.models import ForwardBackward, Sizes, VisitCritic
from safectl.safeguards import ACS, ACSOptions, Brake, ChanceBound, CorrectionOptions, CostCritic
from safectl.seed import torch_generator
from safectl.spec import Signal, Spec
from safectl.types import Status, Task

SPEC = Spec(
    tuple(Signal(name, "m", -9.0, 9.0) for name in "xyz"),
    tuple(Signal(name, "1", -1.0, 1.0) for name in "uv"),
    0.1,
)
ROWS = torch.randn(200, 3, generator=torch_generator(0, "rows"))


class Leads(torch.nn.Module):
    """A model in which pushes lead to about one unsafe step, more or fewer: F_1 = softplus(.)."""

    def forward(self, observation, action, task):
        del task
        steps = softplus(observation[:, 0] + action[:, 0] - 0.5 * action[:, 1])
        return torch.stack([0.9 * steps, steps])[..., None] * torch.tensor([1.0, 0.0])


@pytest.fixture(scope="module")
def critic():
    model = ForwardBackward(Sizes(3, 2, 2, hidden=8, embedding=8, backward_hidden=8), seed=0)
    task = Task(model.backward(ROWS[:1])[0].detach())
    model.forward = Leads()
    return VisitCritic(model, task, torch.tensor([1.0, 5.0]), discount=0.9)


def test_actions_are_corrected_until_the_predicted_occupancy_is_within_the_bound(critic):
    assert isinstance(critic, CostCritic)
    bound = ChanceBound(tolerance=0.6, recovery_rate=0.2)
    options = ACSOptions(bound=bound, correction=CorrectionOptions(iterations=20))
    guard = ACS(critic, fallback=Brake(SPEC), options=options)
    proposed = 2.0 * torch.rand(200, 2, generator=torch_generator(0, "actions")) - 1.0
    decision = guard.filter(ROWS, proposed)
    status = decision.certificate.status
    with torch.no_grad():
        before, after = (critic.cost(ROWS, a)[:, 0] for a in (proposed, decision.action))
        threshold = bound.threshold(critic.value(ROWS))[:, 0]
    certified = status != Status.FALLBACK.value
    assert bool((after <= threshold + 1e-6)[certified].all())
    moved = status == Status.CORRECTED.value
    assert int(moved.sum()) > 20
    assert bool((before > threshold)[moved].all())
    assert bool((after < before)[moved].all())
    assert bool((after <= before + 1e-6)[~certified].all())
    assert bool((decision.certificate.risk[certified] <= 1.0).all())
    assert bool((before > threshold)[~certified].all())
