"""Fitting the affine model of a signal to data, with a calibrated margin on its error.

The margin is a split-conformal quantile (Vovk, Gammerman and Shafer, "Algorithmic Learning in a
Random World", 2005); Dalal et al. (2018) have none.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import NonFiniteError, RangeError, ShapeError
from safectl.safeguards.affine_signal import AffineSignalModel


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How `fit_affine_signal` trains and calibrates."""

    hidden: tuple[int, ...] = (64, 64)
    """Width of each hidden layer."""
    steps: int = 2000
    """Steps of Adam."""
    batch: int = 256
    """Samples per step."""
    learning_rate: float = 1e-3
    """Step size of Adam."""
    held_out: float = 0.25
    """Share of the samples that only calibrate, in (0, 1)."""
    delta: float = 0.05
    """Probability, in (0, 1), with which a new error may exceed the margin."""
    report_every: int = 100
    """Steps between two calls of the progress callback."""

    def __post_init__(self) -> None:
        for name in ("held_out", "delta"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise RangeError(name, value=getattr(self, name), expected="a number in (0, 1)")
        for name in ("steps", "batch", "report_every", "learning_rate"):
            if not getattr(self, name) > 0:
                raise RangeError(name, value=getattr(self, name), expected="a positive number")


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far the signal may exceed its prediction.

    With probability at least 1 - delta over the held-out samples and one new transition, drawn like
    them, every signal stays below prediction + margin. Not promised: the same for other actions or
    states than those of the data, as when a guard changes which states are visited.

    Attributes:
        margin: One per signal, shape (m,), in the unit of the signal; may be negative.
        delta: Probability of a larger error.
        samples: Number of held-out samples.
        error: Root mean square error on them, shape (m,).
    """

    margin: Float[Tensor, " m"]
    delta: float
    samples: int
    error: Float[Tensor, " m"]


class Transitions(NamedTuple):
    """What happened: o[k] (samples, nx), u[k] as executed (samples, nu), y[k+1] (samples, m)."""

    observations: Float[Tensor, "samples nx"]
    actions: Float[Tensor, "samples nu"]
    signal_next: Float[Tensor, "samples m"]

    def rows(self, index: Tensor) -> "Transitions":
        """Return the transitions of an index or a mask."""
        return Transitions(*(column[index] for column in self))


class FittedSignal(NamedTuple):
    """A trained model and the calibration of its error."""

    model: AffineSignalModel
    calibration: Calibration


def fit_affine_signal(
    observations: Float[Tensor, "samples nx"],
    actions: Float[Tensor, "samples nu"],
    signal_next: Float[Tensor, "samples m"],
    *,
    generator: torch.Generator,
    options: FitOptions | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> FittedSignal:
    """Fit y[k+1] ~ c(o[k]) + g(o[k]) u[k] by least squares and calibrate its error.

    Args:
        observations: o[k], shape (samples, nx).
        actions: u[k] as they were executed, shape (samples, nu).
        signal_next: y[k+1], shape (samples, m).
        generator: Splits the samples, draws weights and minibatches.
        options: How to train.
        progress: Called with the step and the mean square error in normalised units.

    Returns:
        The model in evaluation mode and its calibration on samples that it was not trained on.

    Raises:
        ShapeError: If the numbers of samples differ.
        NonFiniteError: If the data hold NaN or infinity.
        RangeError: If there are too few samples for the quantile, or none left to train on.
    """
    options = options or FitOptions()
    _check(observations, actions, signal_next)
    data = Transitions(observations, actions, signal_next)
    order = torch.randperm(len(observations), generator=generator, device=generator.device)
    order = order.to(observations.device)
    held = math.ceil(options.held_out * len(order))
    if len(order) - held < 2:
        raise RangeError("samples", value=len(order), expected="at least 2 to train on")
    _rank(held, options.delta)  # refuse before the training, not after it
    test, train = data.rows(order[:held]), data.rows(order[held:])
    sizes = (observations.shape[1], actions.shape[1], signal_next.shape[1])
    model = AffineSignalModel(*sizes, hidden=options.hidden, generator=generator)
    model = model.to(observations)
    model.set_statistics(train.observations, train.signal_next)
    optimiser = torch.optim.Adam(model.parameters(), lr=options.learning_rate)
    for step in range(1, options.steps + 1):
        loss = train_step(model, train, optimiser, batch=options.batch, generator=generator)
        if progress is not None and step % options.report_every == 0:
            progress(step, loss)
    model.eval().requires_grad_(requires_grad=False)
    return FittedSignal(model, calibrate(model, test, delta=options.delta))


def train_step(
    model: AffineSignalModel,
    data: Transitions,
    optimiser: torch.optim.Optimizer,
    *,
    batch: int,
    generator: torch.Generator,
) -> float:
    """Take one step of the optimiser on a random minibatch; return its mean square error.

    The error is in units of the signal's standard deviation.
    """
    count = len(data.observations)
    draw = torch.randint(count, (batch,), generator=generator, device=generator.device)
    rows = data.rows(draw.to(data.observations.device))
    error = model.predict(rows.observations, rows.actions) - rows.signal_next
    loss = (error / model.signal_deviation).square().mean()
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    optimiser.step()
    return float(loss.detach())


@torch.no_grad()
def calibrate(model: AffineSignalModel, data: Transitions, *, delta: float) -> Calibration:
    """Measure a model's error on transitions that it was not trained on.

    The margin is a split-conformal quantile of the rows' largest scaled errors, the rank-th
    smallest with rank = ceil((samples + 1) (1 - delta)): one event for all signals. The scale is
    the model's, from its training: one that depends on these rows would promise too much.

    Raises:
        RangeError: If there are too few transitions for the quantile.
    """
    error = data.signal_next - model.predict(data.observations, data.actions)
    rank = _rank(len(error), delta)
    rms = error.square().mean(0).sqrt()
    scale = model.signal_deviation.to(error).clamp(min=torch.finfo(error.dtype).tiny)
    score = (error / scale).amax(-1).sort().values[rank - 1]
    return Calibration(score * scale, delta, len(error), rms)


def _rank(samples: int, delta: float) -> int:
    """Return which of the sorted errors is the conformal quantile."""
    rank = math.ceil((samples + 1) * (1.0 - delta))
    if rank > samples:
        expected = f"at least {math.ceil(1.0 / delta)} held out"
        raise RangeError("samples", value=samples, expected=expected)
    return rank


def _check(observations: Tensor, actions: Tensor, signal_next: Tensor) -> None:
    for name, data in (
        ("observations", observations),
        ("actions", actions),
        ("signal_next", signal_next),
    ):
        if len(data) != len(observations):
            raise ShapeError(name, expected=(len(observations), "n"), got=tuple(data.shape))
        broken = int((~data.isfinite()).sum())
        if broken:
            raise NonFiniteError(
                name, count=broken, size=data.numel(), advice="drop these transitions"
            )
