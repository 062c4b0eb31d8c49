"""A safety layer that learns its model while it guards, for training from scratch.

Until enough transitions are seen there is no model: then only the action limits hold, and the
certificate says so with risk 1. Afterwards the model is refitted at fixed intervals, always on all
but the newest transitions; its margin is the error quantile on those newest ones, near the limit.
They are trained on at the next refit, when still newer ones measure the margin.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from safectl.errors import FileFormatError, RangeError, SafectlError, ShapeError
from safectl.safeguards.affine_signal import AffineSignalModel
from safectl.safeguards.clip import Clip
from safectl.safeguards.fit_signal import Calibration, Transitions, calibrate, train_step
from safectl.safeguards.online_options import OnlineOptions
from safectl.safeguards.safety_layer import SafetyLayer
from safectl.spec import Spec
from safectl.types import Decision

__all__ = ["OnlineOptions", "OnlineSafetyLayer"]


_ENOUGH = 5.0
"""Expected number of calibrating errors beyond the margin below which all of the newest transitions
are used, not only those near the limit."""


class OnlineSafetyLayer:
    """A `SafetyLayer` over one signal that is fitted to what `observe` is told.

    A transition that is not finite is left out and counted in `dropped`.

    Not promised: the claim of the layer for a policy that still changes, because its transitions
    are not drawn like those that measured the margin; count the violations from step 0 instead.

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
        self.dropped = 0
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
        action: Float[Tensor, "..."],
        signal_next: Float[Tensor, "..."],
    ) -> None:
        """Store transitions as they were executed; refit where it is time.

        Raises:
            ShapeError: If the numbers of rows differ.
        """
        for name, tensor, width in (
            ("observations", observation, self.spec.nx),
            ("actions", action, self.spec.nu),
            ("signal_next", signal_next, 1),
        ):
            if tensor.shape != (len(observation), width):
                raise ShapeError(name, expected=(len(observation), width), got=tensor.shape)
        new = Transitions(observation, action, signal_next)
        finite = torch.cat([*new], 1).isfinite().all(1)
        self.dropped += int((~finite).sum())
        new = new.rows(finite)
        count = len(new.observations)
        places = (self._seen + torch.arange(count)) % self.options.capacity
        for store, column in zip(self._data, new, strict=True):
            store[places] = column.to(store)
        self._seen += count
        due = self.options.interval if self._fitted_at else self.options.warm_up
        if self._seen - self._fitted_at >= due:
            self._refit()

    def state(self) -> dict[str, Tensor]:
        """Return everything `load_state` needs, as named tensors."""
        moments = {
            f"optimiser.{index}.{name}": torch.as_tensor(value)
            for index, values in self._optimiser.state_dict()["state"].items()
            for name, value in values.items()
        }
        filled = min(self._seen, self.options.capacity)
        served: dict[str, Tensor] = {}
        if self.layer is not None:
            calibration = self.layer.calibration
            served = {
                "margin": calibration.margin,
                "error": calibration.error,
                "samples": torch.tensor(calibration.samples),
                **_prefixed("served.", self.layer.model),
            }
        return {
            **_prefixed("model.", self._model),
            **{f"data.{index}": store[:filled].clone() for index, store in enumerate(self._data)},
            **moments,
            **served,
            "counts": torch.tensor([self._seen, self._fitted_at, self.dropped]),
            "promise": self._promise(),
            "generator": self._generator.get_state(),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state` was taken.

        Raises:
            FileFormatError: If the tensors belong to another layer; this one is then unusable.
        """
        try:
            self._load(state)
        except (KeyError, RuntimeError, ValueError, SafectlError) as error:
            raise FileFormatError(
                "state of the safety layer", f"does not fit ({error})", "train from the start"
            ) from error

    def _promise(self) -> Tensor:
        """Return what a calibrated margin depends on, besides the data."""
        options = self.options
        numbers = (options.delta, options.near, options.rate, options.interval, options.capacity)
        return torch.tensor((self.limit, *numbers), dtype=torch.float64)

    def _load(self, state: Mapping[str, Tensor]) -> None:
        promised, expected = state["promise"].tolist(), self._promise().tolist()
        if promised != expected:
            names = "limit, delta, near, rate, interval, capacity"
            raise RangeError(names, value=tuple(promised), expected=str(tuple(expected)))
        self._seen, self._fitted_at, self.dropped = state["counts"].tolist()
        filled = min(self._seen, self.options.capacity)
        for index, store in enumerate(self._data):
            saved = state[f"data.{index}"]
            if saved.shape != (filled, store.shape[1]):
                raise ShapeError("data", expected=(filled, store.shape[1]), got=saved.shape)
            store[:filled] = saved
        self._model.load_state_dict(_without_prefix("model.", state))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _without_prefix("optimiser.", state).items():
            index_text, name = key.split(".")
            moments.setdefault(int(index_text), {})[name] = value.clone()
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self._generator.set_state(state["generator"])
        self.layer = None
        if "margin" in state:
            served = copy.deepcopy(self._model)
            served.load_state_dict(_without_prefix("served.", state))
            delta, samples = self.options.delta, int(state["samples"])
            calibration = Calibration(state["margin"], delta, samples, state["error"])
            self.layer = self._make_layer(served, calibration)

    def _refit(self) -> None:
        """Train on all but the newest interval, calibrate on that, and serve a frozen copy."""
        capacity, interval = self.options.capacity, self.options.interval
        count = min(self._seen, capacity)
        newest_first = (self._seen - 1 - torch.arange(count)) % capacity
        held, older = (self._data.rows(newest_first[cut]) for cut in _cut(interval))
        if not self._fitted_at:
            self._model.set_statistics(older.observations, older.signal_next)
        for _ in range(self.options.steps if self._fitted_at else self.options.first_steps):
            train_step(
                self._model,
                older,
                self._optimiser,
                batch=self.options.batch,
                generator=self._generator,
            )
        self._fitted_at = self._seen
        near = held.signal_next[:, 0] > self.limit - self.options.near * abs(self.limit)
        chosen = held.rows(near) if int(near.sum()) * self.options.delta >= _ENOUGH else held
        calibration = calibrate(self._model, chosen, delta=self.options.delta)
        served = copy.deepcopy(self._model).eval().requires_grad_(requires_grad=False)
        self.layer = self._make_layer(served, calibration)

    def _make_layer(self, model: AffineSignalModel, calibration: Calibration) -> SafetyLayer:
        return SafetyLayer(
            model,
            calibration,
            spec=self.spec,
            limit=(self.limit,),
            rate=self.options.rate,
            signal=self.signal,
        )


def _cut(interval: int) -> tuple[slice, slice]:
    return slice(None, interval), slice(interval, None)


def _prefixed(prefix: str, model: AffineSignalModel) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value.clone() for name, value in model.state_dict().items()}


def _without_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
