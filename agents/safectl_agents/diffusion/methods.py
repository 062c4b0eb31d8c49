"""One switch for how plans are made: plain Diffuser, the three invariances, and our remedy."""

import torch

from safectl.errors import UnknownNameError
from safectl.planners import (
    DiffusionPlanner,
    Guidance,
    Invariance,
    PlanFilter,
    PlanModel,
    RelaxedSafe,
    RobustSafe,
    Specification,
    TimeVaryingSafe,
    sampling_steps,
)

METHODS: dict[str, Invariance | None] = {
    "diffuser": None,
    "ros": RobustSafe(),
    "res": RelaxedSafe(),
    "tvs": TimeVaryingSafe(),
    "best": RelaxedSafe(margin=0.05),
    "res-released": RelaxedSafe(as_released=True),
    "tvs-released": TimeVaryingSafe(as_released=True),
}
"""What each method corrects with; the last two behave as the code that was released."""
CANDIDATES = 8
"""Plans from which the method "best" keeps one."""
TIGHTENINGS = 60
"""Of the finished plans of the method "best"."""


def make_planner(
    method: str,
    model: PlanModel,
    specification: Specification,
    goal: torch.Tensor | None,
    *,
    steps: int | None = None,
    eta: float = 0.0,
    seed: int = 0,
    device: str = "cpu",
    velocities: tuple[int, ...] = (2, 3),
    guidance: Guidance | None = None,
    candidates: int | None = None,
) -> DiffusionPlanner:
    """Return a planner.

    Args:
        method: A name of `METHODS`; "best" draws `CANDIDATES` plans per start, corrects them
            late and keeps a certified one without a jump; its velocities are the rates of its
            positions, so that it can be followed. Those of the others are as drawn.
        model: What was trained.
        specification: What plans have to meet.
        goal: Observation at the end, None for none.
        steps: Of the sampler; all without.
        eta: Share of the noise of DDPM, in [0, 1]; 0 is DDIM.
        seed: Of the noise.
        device: Of the noise.
        velocities: Entries of the observation that are the rates of the positions, zero in a plan
            that stays.
        guidance: Moves plans along a value function.
        candidates: Plans per start of which one is kept; those of the method without.

    Raises:
        UnknownNameError: If there is no such method.
        RangeError: If the steps do not fit the model.
    """
    if method not in METHODS:
        raise UnknownNameError("method", method, known=list(METHODS))
    invariance = METHODS[method]
    plan_filter = None
    if invariance is not None:
        tightenings = TIGHTENINGS if method == "best" else 0
        plan_filter = PlanFilter(
            invariance, specification, model.nu, model.period, tightenings=tightenings
        )
    own = CANDIDATES if method == "best" else 1
    return DiffusionPlanner(
        model,
        sampling_steps(model.kept, steps, eta=eta),
        specification,
        plan_filter,
        goal,
        guidance,
        candidates=own if candidates is None else candidates,
        velocities=velocities,
        derives=method == "best",
        generator=torch.Generator(device).manual_seed(seed),
    )
