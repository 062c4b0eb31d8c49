"""What a safeguard would have done: a recorded command stream, filtered again without a robot.

Each proposal is filtered with the observation of its stamp, or with the newest one before it. The
robot's reaction is not simulated: a recorded state followed the command that was sent then.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from safectl.errors import RangeError
from safectl.types import Decision, Safeguard, Status
from safectl_ros.recording import Recording

SAME = 1e-6
"""Two commands are the same up to this: they are float32 in the guard, float64 on the wire."""


@dataclass(frozen=True, slots=True)
class Replay:
    """One row per proposal that had an observation; T rows.

    Attributes:
        time: Of arrival, from the first proposal on [s], shape (T,).
        proposed: Shape (T, nu).
        decided: By the safeguard now, shape (T, nu).
        recorded: What was sent then; NaN where nothing answered the proposal, shape (T, nu).
        status: `Status` of each decision, shape (T,).
        margin: Smallest constraint value of each decision, shape (T,).
        skipped: Proposals without an observation or with numbers that are not finite.
        refused: Messages that are not of this robot.
    """

    time: Float[np.ndarray, " T"]
    proposed: Float[np.ndarray, "T nu"]
    decided: Float[np.ndarray, "T nu"]
    recorded: Float[np.ndarray, "T nu"]
    status: Int[np.ndarray, " T"]
    margin: Float[np.ndarray, " T"]
    skipped: int
    refused: int

    @property
    def correction(self) -> Float[np.ndarray, " T"]:
        """Largest change of an entry of each command, in the units of the actions."""
        return np.abs(self.decided - self.proposed).max(axis=1)

    @property
    def difference(self) -> Float[np.ndarray, " T"]:
        """Largest difference of what was sent then from what is decided now; NaN for nothing."""
        return np.abs(self.recorded - self.decided).max(axis=1)

    def summary(self) -> dict[str, float | int]:
        """Return the figures of the whole, for tables and JSON."""
        answered = self.difference[np.isfinite(self.difference)]
        changed = self.correction[self.status == Status.CORRECTED]
        return {
            "proposals": len(self.time),
            "seconds": float(self.time[-1]),
            "kept": int((self.status == Status.KEPT).sum()),
            "corrected": int((self.status == Status.CORRECTED).sum()),
            "fallbacks": int((self.status == Status.FALLBACK).sum()),
            "mean_correction": float(changed.mean()) if len(changed) else 0.0,
            "largest_correction": float(self.correction.max()),
            "smallest_margin": float(self.margin.min()),
            "negative_margins": int((self.margin < 0.0).sum()),
            "answered_then": len(answered),
            "same_as_then": int((answered <= SAME).sum()),
            "largest_difference": float(answered.max()) if len(answered) else 0.0,
            "skipped": self.skipped,
            "refused": self.refused,
        }


def replay(recording: Recording, safeguard: Safeguard) -> Replay:
    """Filter the proposals of a recording, in the order in which they came.

    Args:
        recording: States and proposals; the safe commands are only compared with.
        safeguard: For a batch of one.

    Raises:
        RangeError: If no proposal has an observation.
    """
    proposals, rows, skipped = recording.proposals, list[tuple[int, Decision, int]](), 0
    with torch.no_grad():
        for index in range(len(proposals)):
            seen = _observation(recording, index)
            if seen < 0 or not np.isfinite(proposals.values[index]).all():
                skipped += 1
                continue
            observation = _row(recording.states.values[seen])
            decision = safeguard.filter(observation, _row(proposals.values[index]))
            stamp, arrival = int(proposals.stamp[index]), int(proposals.arrival[index])
            rows.append((index, decision, recording.safe.answer(stamp, arrival)))
    if not rows:
        raise RangeError("proposals", value=0, expected="one that follows an observation")
    chosen = [index for index, _, _ in rows]
    sent = np.vstack([recording.safe.values, np.full((1, proposals.values.shape[1]), np.nan)])
    return Replay(
        time=(proposals.arrival[chosen] - proposals.arrival[chosen[0]]) * 1e-9,
        proposed=proposals.values[chosen],
        decided=np.array([decision.action[0].tolist() for _, decision, _ in rows]),
        recorded=sent[[answer for _, _, answer in rows]],  # -1 is the last row, which is NaN
        status=np.array([int(decision.certificate.status[0]) for _, decision, _ in rows]),
        margin=np.array([float(decision.certificate.margin[0]) for _, decision, _ in rows]),
        skipped=skipped,
        refused=proposals.refused + recording.states.refused,
    )


def _observation(recording: Recording, index: int) -> int:
    """Return the index of the state that a proposal was filtered with, -1 where there is none."""
    proposals, states = recording.proposals, recording.states
    same = np.flatnonzero(states.stamp == proposals.stamp[index])
    if proposals.stamp[index] >= 0 and len(same):
        return int(same[0])
    return states.before(int(proposals.arrival[index]))


def _row(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).unsqueeze(0)
