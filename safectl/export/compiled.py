"""A safeguard compiled for single rows; what the compiled code does not certify, torch decides."""

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from safectl.errors import UnsupportedLayer, VerificationError
from safectl.export.guard import filter_program
from safectl.export.native import Native
from safectl.export.program import action_limits
from safectl.safeguards.evidence import decide_row
from safectl.seed import torch_generator
from safectl.spec import Spec
from safectl.types import Decision, Safeguard, Status

AGREEMENT = 1e-5
"""Largest deviation from the reference, relative to 1 + the range of an action or to 1 + the
margin: float32 operations in another order."""
DIFFER_SHARE = 0.02
"""Share of random rows where rounding may decide whether a touched constraint holds."""
PROBES = 512
_SPREAD = 2.0  # of signals without limits, in their units


class CompiledFilter:
    """Decides single rows in microseconds instead of milliseconds.

    The compiled program recomputes its margin from the very action that it returns. A decision is
    taken from it only where that certifies the action; NaN, infinity, batches, other dtypes and
    whatever else is not certified go to the reference, which also names the fallback. The reference
    keeps what the compiled code decides; that is asked for on random rows at construction. A
    correction keeps up to nx times the room that the reference leaves for rounding.

    Args:
        reference: The safeguard in torch, without memory and with a risk of zero.
        spec: Signals of the robot, with the action limits.

    Raises:
        UnsupportedLayer: If the safeguard cannot be exported.
        MissingTool: If there is no C compiler.
        VerificationError: If the compiled code does not agree with the reference on random rows.
    """

    def __init__(self, reference: Safeguard, spec: Spec) -> None:
        self.reference = reference
        self._shapes = ((1, spec.nx), (1, spec.nu))
        low, high = action_limits(spec)
        self._limits = low.astype(np.float32), high.astype(np.float32)
        program = filter_program("filter", spec, reference)
        if program.states:
            raise UnsupportedLayer(
                "a safeguard with memory",
                supported=("safeguards without memory",),
                advice="Keep it in torch, which remembers what was decided in the end.",
            )
        self._native = Native(program)
        self._row = np.zeros(spec.nx + spec.nu, np.float32)
        self._compare(spec)

    @property
    def claim(self) -> str:
        """The claim of the reference."""
        return self.reference.claim

    def filter(
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."], /
    ) -> Decision:
        """Return the nearest certified action, or the reference's decision.

        Raises:
            ShapeError, RangeError: As the reference.
        """
        decision = self._decide(observation, action)
        return self.reference.filter(observation, action) if decision is None else decision

    def _decide(self, observation: Tensor, action: Tensor) -> Decision | None:
        if (observation.shape, action.shape) != self._shapes:
            return None
        if not observation.dtype == action.dtype == torch.float32:
            return None
        proposal = action.numpy()[0]
        self._row[: observation.shape[1]] = observation.numpy()[0]
        self._row[observation.shape[1] :] = proposal
        step = self._native.step(self._row)
        if step.status is Status.FALLBACK:
            return None
        return decide_row(proposal, step.action, step.margin, self._limits)

    def _compare(self, spec: Spec) -> None:
        """Ask for what the reference thinks of the decisions on random rows."""
        observation, proposal = _draw(spec)
        decisions = [
            self._decide(observation[row : row + 1], proposal[row : row + 1])
            for row in range(PROBES)
        ]
        certified = torch.tensor([decision is not None for decision in decisions])
        found = [decision for decision in decisions if decision is not None]
        status = self.reference.filter(observation, proposal).certificate.status
        differ = certified != (status != Status.FALLBACK.value)
        if found:
            action = torch.cat([decision.action for decision in found])
            margin = torch.cat([decision.certificate.margin for decision in found])
            again = self.reference.filter(observation[certified], action)
            scale = AGREEMENT * (1.0 + float((self._limits[1] - self._limits[0]).max()))
            bad = (again.action - action).abs().amax(-1) > scale
            bad |= (again.certificate.margin - margin).abs() > AGREEMENT * (1.0 + margin.abs())
            bad |= again.certificate.risk != 0.0
            differ[certified] |= bad
        if float(differ.float().mean()) > DIFFER_SHARE:
            raise VerificationError(
                f"the compiled filter differs from {type(self.reference).__name__} in "
                f"{int(differ.sum())} of {PROBES} rows"
            )


def _draw(spec: Spec) -> tuple[Tensor, Tensor]:
    """Draw observations and proposals, a third of them beyond the limits."""
    generator = torch_generator(0, "compiled filter")
    rows = []
    for signals in (spec.observation, spec.action):
        low, high = (
            torch.tensor([getattr(signal, name) for signal in signals]) for name in ("low", "high")
        )
        is_limited = low.isfinite() & high.isfinite()
        low, high = torch.where(is_limited, low, -_SPREAD), torch.where(is_limited, high, _SPREAD)
        share = torch.rand(PROBES, len(signals), generator=generator)
        rows.append((low + high) / 2.0 + 0.75 * (2.0 * share - 1.0) * (high - low))
    return rows[0], rows[1]
