"""The noise of a diffusion process and the steps that remove it.

One formula covers the stochastic sampler of DDPM and the deterministic one of DDIM, with all steps
or a few (J. Song, C. Meng, S. Ermon, "Denoising diffusion implicit models", ICLR 2021, eq. 12 and
16): from step t to s < t,

    sigma^2 = eta^2 (1 - a_s) / (1 - a_t) (1 - a_t / a_s),
    x_s = sqrt(a_s) x_0 + sqrt(1 - a_s - sigma^2) (x_t - sqrt(a_t) x_0) / sqrt(1 - a_t) + sigma n,

where a is the share of the signal's variance that is kept. With eta = 1 and s = t - 1 it is the
posterior of DDPM.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import RangeError

_OFFSET = 0.008
_LARGEST_BETA = 0.999


class Step(NamedTuple):
    """From diffusion index `at` to `after`, -1 for the finished plan.

    The proposal is `from_clean` x_0 + `from_noisy` x_t + `noise` n with n standard normal, and
    `variance` is that of the posterior: `noise`^2 for eta = 1, the same for every other eta.
    """

    at: int
    after: int
    from_clean: float
    from_noisy: float
    noise: float
    variance: float


FINISHED = Step(-1, -1, 1.0, 0.0, 0.0, 0.0)
"""From a finished plan to another: what the network predicts of it at index 0, without noise."""


def cosine_schedule(steps: int) -> Float[Tensor, " steps"]:
    """Return the share of variance that is kept at each index, float64, falling.

    a(x) = cos^2((x / (T + 1) + s) / (1 + s) pi / 2) at T + 1 points, as released with Diffuser;
    beta is clipped to 0.999.

    Raises:
        RangeError: If there is no step.
    """
    if steps < 1:
        raise RangeError("steps", value=steps, expected="at least 1")
    x = torch.linspace(0.0, steps + 1.0, steps + 1, dtype=torch.float64)
    kept = torch.cos((x / (steps + 1) + _OFFSET) / (1.0 + _OFFSET) * math.pi / 2.0) ** 2
    beta = (1.0 - kept[1:] / kept[:-1]).clamp(0.0, _LARGEST_BETA)
    return torch.cumprod(1.0 - beta, 0)


def sampling_steps(
    kept: Float[Tensor, " steps"], count: int | None = None, *, eta: float = 1.0, extra: int = 0
) -> tuple[Step, ...]:
    """Return the steps of a sampler, most noisy first; that with index 0 has no noise.

    Args:
        kept: From `cosine_schedule`.
        count: How many steps, evenly spaced; all without.
        eta: Share of the noise of DDPM, in [0, 1]; 0 is the deterministic DDIM.
        extra: Further steps at the finished plan, in which a filter that leaves obstacles slowly
            (a gain below one) goes on; SafeDiffuser's text has 50, its code none.

    Raises:
        RangeError: If the count is not 1 to T, eta not in [0, 1], or `extra` negative.
    """
    total = len(kept)
    count = total if count is None else count
    if not 1 <= count <= total:
        raise RangeError("steps of the sampler", value=count, expected=f"1 to {total}")
    if not 0.0 <= eta <= 1.0:
        raise RangeError("eta", value=eta, expected="a number in [0, 1]")
    if extra < 0:
        raise RangeError("extra steps", value=extra, expected="0 or more")
    places = torch.linspace(total - 1.0, 0.0, count, dtype=torch.float64).round().tolist()
    indices = [*map(int, places), -1]
    share = [*kept.tolist(), 1.0]  # index -1 is the finished plan
    steps = (_step(share, index, after, eta) for index, after in pairwise(indices))
    return (*steps, *[FINISHED] * extra)


def _step(kept: list[float], index: int, after: int, eta: float) -> Step:
    now, then = kept[index], kept[after]
    posterior = (1.0 - then) / (1.0 - now) * (1.0 - now / then)
    variance = eta**2 * posterior
    from_noisy = math.sqrt(max(1.0 - then - variance, 0.0) / (1.0 - now))
    from_clean = math.sqrt(then) - from_noisy * math.sqrt(now)
    return Step(index, after, from_clean, from_noisy, math.sqrt(variance), posterior)
