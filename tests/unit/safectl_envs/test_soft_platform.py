import pytest
import torch

from safectl.seed import torch_generator
from safectl_envs.soft_platform import HASEL, TENDON, SoftPlatform


def actions(platform: SoftPlatform, rows: int) -> torch.Tensor:
    generator = torch_generator(0, "platform actions")
    drawn = torch.rand(rows, platform.inputs, generator=generator, dtype=torch.float64)
    return platform.low + (platform.high - platform.low) * drawn


@pytest.mark.parametrize("platform", [TENDON, HASEL])
def test_a_held_input_leads_to_its_target_and_the_start_input_to_rest(platform):
    action = actions(platform, 3)
    action[0] = platform.start
    state = platform.rest(3)
    for _ in range(500):
        state = platform.step(state, action)
    torch.testing.assert_close(state[:, :3], platform.target(action), atol=1e-6, rtol=0.0)
    assert state[0].abs().max() == 0.0


@pytest.mark.parametrize("platform", [TENDON, HASEL])
def test_rows_of_a_batch_move_alone_and_signals_stay_in_their_range(platform):
    action, state = actions(platform, 5), platform.rest(5)
    for _ in range(20):
        state = platform.step(state, action)
    alone = platform.rest(1)
    for _ in range(20):
        alone = platform.step(alone, action[2:3])
    torch.testing.assert_close(alone[0], state[2])
    signals = platform.signals(state)
    assert signals.shape == (5, platform.sensors)
    assert signals.abs().max() < 0.5


@pytest.mark.parametrize(("platform", "reach_mm"), [(TENDON, 25.0), (HASEL, 5.0)])
def test_the_plate_reaches_the_published_paths(platform, reach_mm):
    pose = platform.target(actions(platform, 4000)) * platform.unit_m * 1e3
    assert (pose[:, 1:].amax(0) > reach_mm).all()
    assert (pose[:, 1:].amin(0) < -reach_mm).all()
