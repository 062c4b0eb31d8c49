"""Hardware in the loop: an environment, a noisy serial line and an emulated board."""

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import gymnasium
import numpy as np
from torch import nn

from safectl.errors import BridgeError, VerificationError
from safectl.export import Network, Program, interpret, policy_program
from safectl.seed import torch_generator
from safectl_agents.bench.benchmark import Measurement
from safectl_envs.signals import spec_of
from safectl_hardware.board import load_board
from safectl_hardware.controller import SerialController
from safectl_hardware.firmware import build_firmware
from safectl_hardware.line import BoardFault, FaultCode, fault_of
from safectl_hardware.noisy import NoisyPort
from safectl_hardware.port import serial_port
from safectl_hardware.virtual import VirtualBoard

ENVIRONMENT = "safectl_envs:safectl/DoubleIntegrator-v0"
SILENCE_PERIODS = 2.0
"""Within so many periods a board must stop when it hears nothing."""

_SILENCE_WAIT_S = 60.0  # emulated time runs slower than ours
_HARM_PROBABILITY = 0.01


@dataclass(frozen=True, slots=True)
class HardwareLoop:
    """What happened in a closed loop over a noisy line.

    Attributes:
        seed: Of the environment, of the network and of the harm.
        board: Name of the board.
        steps: Observations that were answered.
        wrong: Accepted actions that differ from the interpreter in one bit or more.
        repetitions: Observations that were sent again.
        restarts: Handshakes after a fault of the board within the run.
        refused: Damaged frames that the host received.
        corrupted: Frames with flipped bits, both directions.
        dropped: Frames that were lost.
        duplicated: Frames that came twice.
        replayed: Old frames that came again.
        silence_periods: After how much silence the board stopped, on its own clock.
    """

    seed: int
    board: str
    steps: int
    wrong: int
    repetitions: int
    restarts: int
    refused: int
    corrupted: int
    dropped: int
    duplicated: int
    replayed: int
    silence_periods: float


def hil_wrong_actions() -> Measurement:
    """Count the wrong actions in 10,000 steps with 1 % of each kind of harm."""
    run = hardware_loop(10_000)
    if run.silence_periods > SILENCE_PERIODS:
        raise VerificationError(
            f"the board stopped after {run.silence_periods:.2f} periods of silence, at most "
            f"{SILENCE_PERIODS:g} are allowed"
        )
    return Measurement(float(run.wrong), details=asdict(run))


def hardware_loop(steps: int, *, board: str = "mps2-an386", seed: int = 0) -> HardwareLoop:
    """Drive an environment by an emulated board over a line that harms frames.

    Args:
        steps: Steps of the environment; episodes that end start anew.
        board: An emulated board with a serial line.
        seed: Of the environment, of the network and of the harm.

    Raises:
        BridgeError: If the board does not answer any more.
    """
    env = gymnasium.make(ENVIRONMENT)
    profile = load_board(board)
    program = _program(env, seed)
    with tempfile.TemporaryDirectory(prefix="safectl-loop-") as name:
        firmware = build_firmware(program, Path(name) / "firmware", board=profile)
        with VirtualBoard(profile, firmware.path) as virtual:
            noise = np.random.default_rng(seed)
            ports: list[NoisyPort] = []

            def open_port() -> NoisyPort:
                ports.append(NoisyPort(serial_port(virtual.port)(), _HARM_PROBABILITY, noise))
                return ports[-1]

            controller = SerialController(open_port, program, patience_s=30.0)
            wrong, restarts = _drive(env, controller, program, steps, seed=seed)
            for port in ports:
                port.probability = 0.0  # the board says once that it stopped
            silence_s = _silence(controller)
            controller.line.close()
    env.close()
    return HardwareLoop(
        seed=seed,
        board=board,
        steps=steps,
        wrong=wrong,
        repetitions=controller.repetitions,
        restarts=restarts,
        refused=controller.line.refused,
        silence_periods=silence_s / program.spec.period,
        **{name: sum(port.harms[name] for port in ports) for name in ports[0].harms},
    )


def _program(env: gymnasium.Env[np.ndarray, np.ndarray], seed: int) -> Program:
    spec = spec_of(env)
    generator = torch_generator(seed, "hardware loop")
    layers = [nn.Linear(spec.nx, 16), nn.Tanh(), nn.Linear(16, spec.nu)]
    for layer in layers:
        for values in layer.parameters():
            nn.init.normal_(values, std=0.3, generator=generator)
    return policy_program("loop", spec, Network(nn.Sequential(*layers)))


def _drive(
    env: gymnasium.Env[np.ndarray, np.ndarray],
    controller: SerialController,
    program: Program,
    steps: int,
    *,
    seed: int,
) -> tuple[int, int]:
    """Return the number of wrong actions and of restarts."""
    wrong = restarts = 0
    controller.line.connect()
    observation, _ = env.reset(seed=seed)
    for _ in range(steps):
        row = np.asarray(observation, np.float32)
        try:
            answer = controller.step(row)
        except BoardFault:  # the machine was so busy that two periods of emulated time passed
            restarts += 1
            controller.line.connect()
            answer = controller.step(row)
        expected = interpret(program, row[None])
        same = answer.action.tobytes() == expected.action[0].tobytes()
        wrong += not (same and answer.status == expected.status[0])
        observation, _, terminated, truncated, _ = env.step(answer.action)
        if terminated or truncated:
            observation, _ = env.reset()
    return wrong, restarts


def _silence(controller: SerialController) -> float:
    """Send nothing and return after how much silence the board says that it stopped [s]."""
    deadline = time.monotonic() + _SILENCE_WAIT_S
    while (frame := controller.line.receive(deadline)) is not None:
        if frame.payload[:1] == bytes([FaultCode.SILENCE]):
            return fault_of(frame).age_us / 1e6
    raise BridgeError("the board did not say that it stopped")
