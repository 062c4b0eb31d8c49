"""The guarded policy as C on an emulated board, in closed loop with its environment."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from safectl.export import Native, Program, emit_c, save_program
from safectl_agents.evaluate import Env
from safectl_hardware.emulator import Emulator
from safectl_hardware.image import build_image


@dataclass(frozen=True, slots=True)
class BoardEpisode:
    """One episode driven by the emulated board.

    Attributes:
        board: Name of the board.
        steps: Length of the episode.
        equal: Steps on which action, status and margin equalled the host's C bit for bit.
        total_return: Sum of rewards.
        cost: Sum of costs.
        corrected: Steps on which the guard on the board corrected the action.
        fallback: Steps on which it used its fallback.
        instructions_mean: Instructions per step.
        instructions_max: Largest of the episode.
        flash_bytes: Code and constants of the controller.
        ram_bytes: Its state and static data.
        stack_bytes: Deepest path of the call graph.
        observations: What the board saw, shape (steps, nx).
        torch_difference: Largest difference of the actions from torch; None before the comparison.
    """

    board: str
    steps: int
    equal: int
    total_return: float
    cost: float
    corrected: int
    fallback: int
    instructions_mean: float
    instructions_max: float
    flash_bytes: int
    ram_bytes: int
    stack_bytes: int
    observations: Float32[np.ndarray, "steps nx"]
    torch_difference: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file, without the observations."""
        return {name: value for name, value in asdict(self).items() if name != "observations"}


def drive(program: Program, env: Env, folder: Path, *, seed: int) -> BoardEpisode:
    """Export a program, flash it into the emulator and let it drive one episode.

    The host runs the same C beside it on the same observations; the environment gets the actions
    of the board.

    Args:
        program: The guarded policy.
        env: The bare environment; the guard is on the board.
        folder: Folder to make: `program/`, `c/` and the image in `image/`.
        seed: What the environment is reset with.

    Raises:
        MissingTool: If a compiler or the emulator is not installed.
        VerificationError: If the code does not build, or the board stops.
    """
    save_program(program, folder / "program")
    emit_c(program, folder / "c")
    image = build_image(program, folder / "image")
    host = Native(program)
    rewards, costs, statuses, counts, rows = [], [], [], [], []
    equal = 0
    with Emulator(image) as board:
        observation, _ = env.reset(seed=seed)
        done = False
        while not done:
            row = np.array(observation, dtype=np.float32)
            rows.append(row)
            step, twin = board.step(row), host.step(row)
            same_action = step.action.tobytes() == twin.action.tobytes()
            same_margin = np.float32(step.margin).tobytes() == np.float32(twin.margin).tobytes()
            equal += same_action and same_margin and step.status == twin.status
            observation, reward, terminated, truncated, info = env.step(step.action)
            done = bool(terminated or truncated)
            rewards.append(float(reward))
            costs.append(float(info.get("cost", 0.0)))
            statuses.append(int(step.status))
            counts.append(step.instructions)
        state_bytes = board.state_bytes
    return BoardEpisode(
        board=image.board.name,
        steps=len(rewards),
        equal=equal,
        total_return=sum(rewards),
        cost=sum(costs),
        corrected=statuses.count(1),
        fallback=statuses.count(2),
        instructions_mean=float(np.mean(counts)),
        instructions_max=max(counts),
        flash_bytes=image.flash_bytes,
        ram_bytes=image.ram_bytes + state_bytes,
        stack_bytes=image.stack_bytes,
        observations=np.stack(rows),
    )
