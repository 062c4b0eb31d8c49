"""A controller that runs on a board: observations go over the line, actions come back."""

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from safectl.errors import BridgeError, NonFiniteError, ShapeError
from safectl.export.program import Program
from safectl.types import Status
from safectl_hardware.frames import Frame, Kind
from safectl_hardware.line import Identity, Role, SerialLine, fault_of
from safectl_hardware.port import Port

_TAIL = struct.Struct("<fB")  # margin and status after the action


@dataclass(frozen=True, slots=True)
class BoardAction:
    """What the board decided.

    Attributes:
        action: Shape (nu,), units of the specification.
        status: What became of the proposal.
        margin: Constraint value at the action.
    """

    action: Float32[np.ndarray, " nu"]
    status: Status
    margin: float


class SerialController:
    """A program on a board, as a `Policy`; a context manager.

    A lost observation or answer is asked for again with the same number, and the board answers the
    same number with the same bytes: no observation is computed twice, and an answer to another
    observation is never taken.

    Args:
        open_port: Opens the serial port.
        program: The program that the board must run.
        patience_s: How long one step may take with all repetitions [s].
        ask_again_s: After how long without an answer the observation is sent again [s].

    Raises:
        BridgeError: On entry or in a step, if the board does not answer, stopped or is another one.
        SpecMismatch: On entry, if the board was built for another specification.
    """

    def __init__(
        self,
        open_port: Callable[[], Port],
        program: Program,
        *,
        patience_s: float = 2.0,
        ask_again_s: float = 0.1,
    ) -> None:
        self._spec = program.spec
        self._patience_s, self._ask_again_s = patience_s, ask_again_s
        self.line = SerialLine(
            open_port, program.spec, role=Role.CONTROLLER, program_digest=program.digest()
        )
        self.identity: Identity | None = None
        self.repetitions = 0

    def __enter__(self) -> "SerialController":
        """Connect; the first observation starts the board."""
        self.identity = self.line.connect()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the board and close the port."""
        try:
            self.line.send(Kind.STOP)
        except BridgeError:
            pass  # the port is gone, and the board stops by itself
        finally:
            self.line.close()

    def act(self, observation: Float[Tensor, "batch nx"], /) -> Float[Tensor, "batch nu"]:
        """Return the board's action for a batch of one."""
        if observation.shape != (1, self._spec.nx):
            raise ShapeError("observation", expected=(1, self._spec.nx), got=observation.shape)
        row = observation[0].detach().cpu().numpy().astype(np.float32)
        return torch.from_numpy(self.step(row).action).unsqueeze(0).to(observation)

    def step(self, observation: Float32[np.ndarray, " nx"]) -> BoardAction:
        """Send one observation and wait for the action that answers it; any value is allowed."""
        if observation.shape != (self._spec.nx,):
            raise ShapeError("observation", expected=(self._spec.nx,), got=observation.shape)
        payload = np.ascontiguousarray(observation, "<f4").tobytes()
        deadline = time.monotonic() + self._patience_s
        number = self.line.send(Kind.STATE, payload)
        while True:
            until = min(deadline, time.monotonic() + self._ask_again_s)
            while (frame := self.line.receive(until)) is not None:
                if frame.kind == Kind.FAULT:
                    raise fault_of(frame)
                if frame.kind == Kind.COMMAND and frame.sequence == number:
                    return self._unpack(frame)
            if time.monotonic() >= deadline:
                raise BridgeError(
                    f"the board did not answer within {self._patience_s:g} s; check the line, and "
                    "that a step takes less"
                )
            self.repetitions += 1
            self.line.send(Kind.STATE, payload, sequence=number)

    def _unpack(self, frame: Frame) -> BoardAction:
        nu = self._spec.nu
        if len(frame.payload) != 4 * nu + _TAIL.size:
            raise ShapeError("command payload", expected=(4 * nu + 5,), got=(len(frame.payload),))
        action = np.frombuffer(frame.payload, "<f4", count=nu).astype(np.float32)
        margin, status = _TAIL.unpack_from(frame.payload, 4 * nu)
        if not np.isfinite(action).all():
            advice = "flash the firmware again"
            count = int((~np.isfinite(action)).sum())
            raise NonFiniteError("action of the board", count=count, size=nu, advice=advice)
        try:
            return BoardAction(action, Status(status), margin)
        except ValueError as error:
            raise BridgeError(f"the board sent the status {status}; flash it again") from error
