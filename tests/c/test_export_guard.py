import numpy as np
import torch
from torch import nn

from safectl.export import Network, guarded_policy_program, interpret, signal_of
from safectl.safeguards import AffineSignalModel, Calibration, SafetyLayer
from safectl.spec import Signal, Spec
from safectl.types import Status

SPEC = Spec(
    observation=tuple(Signal(f"x{index}", "m", -9.0, 9.0) for index in range(4)),
    action=tuple(Signal(f"u{index}", "m/s", -1.0, 1.0) for index in range(2)),
    period=0.1,
)
ACTION_TOLERANCE = 1e-3
"""Float32 signals of size ten, divided by a gain of one tenth."""


def test_a_program_clips_a_large_proposal_as_the_safety_layer_does() -> None:
    generator = torch.Generator().manual_seed(0)
    model = AffineSignalModel(4, 2, 1, hidden=(16,), generator=generator)
    observations = torch.randn(1000, 4, generator=generator)
    model.set_statistics(observations, 3.0 * torch.randn(1000, 1, generator=generator))
    calibration = Calibration(torch.tensor([0.1]), 0.05, 100, torch.tensor([0.1]))
    layer = SafetyLayer(model, calibration, spec=SPEC, limit=[0.3])
    policy = nn.Linear(4, 2)
    with torch.no_grad():
        policy.weight.copy_(3.0 * torch.randn(2, 4, generator=generator))
        policy.bias.zero_()
        proposals = policy(observations)
        raw = layer.filter(observations, proposals)
        limited = layer.filter(observations, proposals.clamp(-1.0, 1.0))
    program = guarded_policy_program("p", SPEC, Network(nn.Sequential(policy)), signal_of(layer))
    steps = interpret(program, observations.numpy())
    assert {*steps.status} == {0, 1, 2}
    assert np.array_equal(steps.status, limited.certificate.status.numpy())
    clipped = (proposals.abs() > 1.0).any(-1).numpy()
    kept = steps.status == Status.KEPT
    assert (kept & clipped).any()
    expected = np.where(kept & clipped, Status.CORRECTED, steps.status)
    assert np.array_equal(raw.certificate.status.numpy(), expected)
    difference = np.abs(steps.action - raw.action.numpy()).max(-1)
    assert np.quantile(difference, 0.99) < ACTION_TOLERANCE
