"""A program compiled for this machine and called in-process: microseconds per step."""

import ctypes
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from safectl.errors import ShapeError
from safectl.export.emit_c import C_FLAGS, emit_c, sources
from safectl.export.emit_ops import emit_ops
from safectl.export.program import Array, Program
from safectl.export.toolchain import COMPILE_TIMEOUT_S, find_tool, run_tool
from safectl.types import Status


class NativeStep(NamedTuple):
    """Action (nu,) in the units of the specification, its status and its margin."""

    action: Float32[np.ndarray, " nu"]
    status: Status
    margin: float


class _Certificate(ctypes.Structure):
    _fields_ = (("status", ctypes.c_int), ("margin", ctypes.c_float))


class Native:
    """Calls the generated C of a program through a shared library.

    The result equals the interpreter's bit for bit. One object is one controller: it is not
    thread-safe, and two objects share nothing.

    Raises:
        MissingTool: If there is no C compiler.
        VerificationError: If the generated code does not compile.
    """

    def __init__(self, program: Program) -> None:
        self._nx = program.spec.nx
        with tempfile.TemporaryDirectory(prefix="safectl-native-") as name:
            folder = Path(name) / "c"
            emit_c(program, folder)
            library = ctypes.CDLL(str(_compile(program, folder)))  # stays mapped without its file
        floats = ctypes.POINTER(ctypes.c_float)
        self._state = (ctypes.c_uint32 * (emit_ops(program).state_bytes // 4))()
        self._observation: Array = np.zeros(self._nx, np.float32)
        self._action: Array = np.zeros(program.spec.nu, np.float32)
        self._certificate = _Certificate()
        self._step = library[f"sf_{program.name}_step"]
        self._step.argtypes = (ctypes.c_void_p, floats, floats, ctypes.c_void_p)
        self._step.restype = ctypes.c_int
        self._reset = library[f"sf_{program.name}_reset"]
        self._reset.argtypes = (ctypes.c_void_p,)
        self._arguments = (
            ctypes.addressof(self._state),
            self._observation.ctypes.data_as(floats),
            self._action.ctypes.data_as(floats),
            ctypes.addressof(self._certificate),
        )
        self.reset()

    def reset(self) -> None:
        """Forget what earlier steps left, for a new episode."""
        self._reset(self._arguments[0])

    def step(self, observation: Float32[np.ndarray, " nx"]) -> NativeStep:
        """Compute one action; a few microseconds, for any observation.

        Raises:
            ShapeError: If the observation does not fit the specification.
        """
        if observation.shape != (self._nx,):
            raise ShapeError("observation", expected=(self._nx,), got=observation.shape)
        self._observation[:] = observation
        status = self._step(*self._arguments)
        return NativeStep(self._action.copy(), Status(status), self._certificate.margin)


def _compile(program: Program, folder: Path) -> Path:
    library = folder / "controller.so"
    command = [find_tool("gcc", "gcc"), *C_FLAGS, "-O2", "-shared", "-fPIC"]
    inputs = [folder / source for source in sources(program)]
    run_tool(
        [*command, "-I", folder, *inputs, "-o", library],
        purpose=f"compiling controller {program.name}",
        timeout_s=COMPILE_TIMEOUT_S,
    )
    return library
