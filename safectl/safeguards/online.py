"""A safety layer that learns its model while it guards, for training from scratch.

Until enough transitions are seen there is no model: then only the action limits hold, and the
certificate says so with risk 1. Afterwards the model is refitted at fixed intervals; its margin is
the error quantile on the newest transitions near the limit, measured before they are trained on.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import FileFormatError, RangeError, ShapeError
from safectl.safeguards.affine_signal import AffineSignalModel
from safectl.safeguards.clip import Clip
from safectl.safeguards.fit_signal import Calibration, Transitions, calibrate, train_step
from safectl.safeguards.safety_layer import SafetyLayer
from safectl.spec import Spec
from safectl.types import Decision


@dataclass(frozen=True, slots=True)
class OnlineOptions:
    """When and how an `OnlineSafetyLayer` learns."""

    hidden: tuple[int, ...] = (64, 64)
    """Width of each hidden layer of the model."""
    warm_up: int = 16_384
    """Transitions before the first fit; until then only the action limits are kept."""
    interval: int = 8_192
    """Transitions between two refits; as many of the newest ones calibrate the margin."""
    capacity: int = 200_000
    """Transitions kept; the oldest are overwritten."""
    first_steps: int = 600
    """Steps of Adam in the first fit."""
    steps: int = 150
    """Steps of Adam in each refit."""
    batch: int = 512
    """Transitions per step of Adam."""
    learning_rate: float = 1e-3
    """Step size of Adam."""
    delta: float = 0.01
    """Probability, in (0, 1), with which an error may exceed the margin."""
    near: float = 0.25
    """A transition calibrates if its signal is above this share of the limit, counted from the
    limit downwards: y > limit - near |limit|. All do where fewer than 500 are that near."""
    rate: float = 0.5
    """Share of the distance to the limit that one step may use, in (0, 1]."""

    def __post_init__(self) -> None:
        for name in ("delta", "near"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise RangeError(name, value=getattr(self, name), expected="a number in (0, 1)")
        if not 0.0 < self.rate <= 1.0:
            raise RangeError("rate", value=self.rate, expected="a number in (0, 1]")
        for name in ("interval", "first_steps", "steps", "batch"):
            if getattr(self, name) < 1:
                raise RangeError(name, value=getattr(self, name), expected="at least 1")
        if not self.interval < self.warm_up <= self.capacity:
            sizes = (self.interval, self.warm_up, self.capacity)
            expected = "interval < warm_up <= capacity: the first fit holds one interval back"
            raise RangeError("interval, warm_up, capacity", value=sizes, expected=expected)


_ENOUGH = 500
"""Calibrating transitions near the limit below which all of the newest are used."""


class OnlineSafetyLayer:
    """A `SafetyLayer` over one signal that is fitted to what `observe` is told.

    Not promised: the claim of the layer during training, when policy and model both change; count
    the violations from step 0 instead.

    Args:
        spec: Signals of the robot.
        limit: Largest allowed signal, in its unit.
        signal: Current signal (batch, 1) from observations (batch, nx).
        generator: Draws initial weights and minibatches.
        options: When and how to learn.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        limit: float,
        signal: Callable[[Tensor], Tensor],
        generator: torch.Generator,
        options: OnlineOptions | None = None,
    ) -> None:
        self.spec, self.limit, self.signal = spec, limit, signal
        self.options = options or OnlineOptions()
        self._generator = generator
        self._limits_only = Clip(spec)
        self._model = AffineSignalModel(
            spec.nx, spec.nu, 1, hidden=self.options.hidden, generator=generator
        )
        self._optimiser = torch.optim.Adam(self._model.parameters(), lr=self.options.learning_rate)
        size = self.options.capacity
        self._data = Transitions(
            torch.zeros(size, spec.nx), torch.zeros(size, spec.nu), torch.zeros(size, 1)
        )
        self._seen = 0
        self._fitted_at = 0
        self.layer: SafetyLayer | None = None

    @property
    def claim(self) -> str:
        """The claim of the fitted layer, or that there is none yet."""
        if self.layer is None:
            return f"none but the action limits, before {self.options.warm_up} transitions are seen"
        return self.layer.claim

    def filter(
        self, observation: Float[Tensor, "batch nx"], action: Float[Tensor, "batch nu"], /
    ) -> Decision:
        """Filter with the fitted layer; before there is one, limit the action, with risk 1."""
        if self.layer is not None:
            return self.layer.filter(observation, action)
        decision = self._limits_only.filter(observation, action)
        certificate = decision.certificate
        unknown = dataclasses.replace(certificate, risk=torch.ones_like(certificate.risk))
        return decision._replace(certificate=unknown)

    def observe(
        self,
        observation: Float[Tensor, "batch nx"],
        action: Float[Tensor, "_ nu"],
        signal_next: Float[Tensor, "_ 1"],
    ) -> None:
        """Store transitions as they were executed; refit where it is time.

        Raises:
            ShapeError: If the numbers of rows differ.
        """
        rows = len(observation)
        for name, tensor in (("action", action), ("signal_next", signal_next)):
            if len(tensor) != rows:
                raise ShapeError(name, expected=(rows, "n"), got=tensor.shape)
        places = (self._seen + torch.arange(rows)) % self.options.capacity
        for store, new in zip(self._data, (observation, action, signal_next), strict=True):
            store[places] = new.to(store)
        self._seen += rows
        due = self.options.interval if self._fitted_at else self.options.warm_up
        if self._seen - self._fitted_at >= due:
            self._refit()

    def state(self) -> dict[str, Tensor]:
        """Return everything `load_state` needs, as named tensors."""
        optimiser = self._optimiser.state_dict()["state"]
        moments = {
            f"optimiser.{index}.{name}": torch.as_tensor(value)
            for index, values in optimiser.items()
            for name, value in values.items()
        }
        margin, error = torch.zeros(1), torch.zeros(1)
        samples = 0
        if self.layer is not None:
            calibration = self.layer.calibration
            margin, error, samples = calibration.margin, calibration.error, calibration.samples
        counts = [self._seen, self._fitted_at, samples, self.layer is not None]
        filled = min(self._seen, self.options.capacity)
        return {
            **{f"model.{name}": value.clone() for name, value in self._model.state_dict().items()},
            **{f"data.{index}": store[:filled].clone() for index, store in enumerate(self._data)},
            **moments,
            "counts": torch.tensor(counts),
            "margin": margin,
            "error": error,
            "generator": self._generator.get_state(),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state` was taken.

        Raises:
            FileFormatError: If the tensors belong to another layer.
        """
        try:
            self._load(state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise FileFormatError(
                "state of the safety layer", f"does not fit ({error})", "train from the start"
            ) from error

    def _load(self, state: Mapping[str, Tensor]) -> None:
        prefix = "model."
        model = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        self._model.load_state_dict(model)
        seen, fitted_at, samples, has_layer = state["counts"].tolist()
        self._seen, self._fitted_at = seen, fitted_at
        for index, store in enumerate(self._data):
            store[: len(state[f"data.{index}"])] = state[f"data.{index}"]
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key.startswith("optimiser."):
                _, index_text, name = key.split(".")
                moments.setdefault(int(index_text), {})[name] = value.clone()
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self._generator.set_state(state["generator"])
        if has_layer:
            options = self.options
            calibration = Calibration(state["margin"], options.delta, samples, state["error"])
            self.layer = self._make_layer(calibration)

    def _refit(self) -> None:
        """Calibrate the current model on data it has not seen, then train it on."""
        data = Transitions(*(store[: self._seen] for store in self._data))
        first = not self._fitted_at
        if first:
            older = Transitions(*(store[: self._seen - self.options.interval] for store in data))
            self._model.set_statistics(older.observations, older.signal_next)
            self._train(older, self.options.first_steps)
        calibration = self._calibrate()
        if not first:
            self._train(data, self.options.steps)
        self._fitted_at = self._seen
        self.layer = self._make_layer(calibration)

    def _train(self, data: Transitions, steps: int) -> None:
        for _ in range(steps):
            train_step(
                self._model,
                data,
                self._optimiser,
                batch=self.options.batch,
                generator=self._generator,
            )

    def _calibrate(self) -> Calibration:
        count = min(self._seen, self.options.interval, self.options.capacity)
        newest = self._data.rows((self._seen - 1 - torch.arange(count)) % self.options.capacity)
        near = newest.signal_next[:, 0] > self.limit - self.options.near * abs(self.limit)
        chosen = newest.rows(near) if int(near.sum()) >= _ENOUGH else newest
        return calibrate(self._model, chosen, delta=self.options.delta)

    def _make_layer(self, calibration: Calibration) -> SafetyLayer:
        limit: Sequence[float] = (self.limit,)
        return SafetyLayer(
            self._model,
            calibration,
            spec=self.spec,
            limit=limit,
            rate=self.options.rate,
            signal=self.signal,
        )
