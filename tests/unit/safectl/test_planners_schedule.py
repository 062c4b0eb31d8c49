"""The noise schedule against published numbers, and the unified sampler step."""

import pytest
import torch

from safectl.errors import RangeError
from safectl.planners import cosine_schedule, sampling_steps

POSTERIOR_OF_256 = (0.0105, 0.0139, 0.0164, 0.0186, 0.0205, 0.0222, 0.0238, 0.0253, 0.0268, 0.0281)


def test_the_last_ten_posterior_deviations_are_the_published_ones():
    kept = cosine_schedule(256)
    assert float(1.0 - kept[0]) == pytest.approx(1.89e-4, rel=5e-3)
    steps = sampling_steps(kept)[::-1]
    found = [step.noise for step in steps[1:11]]
    assert found == pytest.approx(POSTERIOR_OF_256, abs=5e-5)
    assert (steps[0].from_clean, steps[0].from_noisy, steps[0].noise) == (1.0, 0.0, 0.0)


def test_all_steps_with_full_noise_are_the_posterior_of_ddpm():
    kept = cosine_schedule(40)
    for step in sampling_steps(kept)[:-1]:
        now, then = float(kept[step.at]), float(kept[step.at - 1])
        beta = 1.0 - now / then
        assert step.from_clean == pytest.approx(beta * then**0.5 / (1.0 - now))
        assert step.from_noisy == pytest.approx((1.0 - then) * (1.0 - beta) ** 0.5 / (1.0 - now))
        assert step.noise**2 == pytest.approx(beta * (1.0 - then) / (1.0 - now))
        assert step.variance == pytest.approx(step.noise**2)


def test_the_posterior_variance_does_not_depend_on_the_noise_of_the_sampler():
    kept = cosine_schedule(40)
    without, with_noise = sampling_steps(kept, 9, eta=0.0), sampling_steps(kept, 9, eta=1.0)
    assert [step.variance for step in without] == [step.variance for step in with_noise]
    assert without[0].variance > 0.0


@pytest.mark.parametrize("count", [1, 2, 10, 64])
def test_any_number_of_steps_ends_at_the_finished_plan(count):
    steps = sampling_steps(cosine_schedule(64), count, eta=0.0)
    assert len(steps) == count
    assert steps[0].at == 63
    assert steps[-1].after == -1
    assert all(step.noise == 0.0 for step in steps)


def test_further_steps_stay_at_the_finished_plan():
    steps = sampling_steps(cosine_schedule(64), 5, extra=3)
    assert [step.at for step in steps[-4:]] == [0, -1, -1, -1]
    assert all((s.from_clean, s.from_noisy, s.noise) == (1.0, 0.0, 0.0) for s in steps[-4:])
    with pytest.raises(RangeError, match="extra"):
        sampling_steps(cosine_schedule(64), extra=-1)


def test_a_plan_that_is_known_is_found_without_noise():
    kept = cosine_schedule(64)
    clean, plan = torch.tensor(0.3), torch.tensor(2.0)
    for step in sampling_steps(kept, 7, eta=0.0):
        plan = step.from_clean * clean + step.from_noisy * plan
    torch.testing.assert_close(plan, clean)


@pytest.mark.parametrize(("count", "eta"), [(0, 1.0), (65, 1.0), (8, 1.5)])
def test_a_sampler_that_cannot_be_is_refused(count, eta):
    with pytest.raises(RangeError):
        sampling_steps(cosine_schedule(64), count, eta=eta)
