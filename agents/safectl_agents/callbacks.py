"""What happens at every step of a training run: progress bar, safety curves, a clean ctrl-C."""

import logging
import signal
import threading
import time
from collections import deque
from types import FrameType

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from stable_baselines3.common.callbacks import BaseCallback

_LOG = logging.getLogger(__name__)
_REFRESH_S = 0.2
_WINDOW = 20


class ProgressBar(BaseCallback):
    """Shows steps, mean return and cost of the last 20 episodes, and steps per second.

    Use it as a context manager and pass it in `callbacks`; the terminal is restored on exit.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        super().__init__()
        self._progress = Progress(
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            BarColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("train", total=total, status="")
        self._returns: deque[float] = deque(maxlen=_WINDOW)
        self._costs: deque[float] = deque(maxlen=_WINDOW)
        self._began: tuple[float, int] | None = None
        self._shown = 0.0

    def __enter__(self) -> "ProgressBar":
        """Start to draw."""
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Draw the last state and give the terminal back."""
        self._show()
        self._progress.stop()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self._returns.append(info["episode"]["r"])
                self._costs.append(info["episode"]["cost"])
        now = time.monotonic()
        if self._began is None:
            self._began = (now, self.num_timesteps)
        if now - self._shown >= _REFRESH_S:
            self._shown = now
            self._show()
        return True

    def _show(self) -> None:
        if self._began is None:
            return
        began, first = self._began
        elapsed_s = max(time.monotonic() - began, _REFRESH_S)
        status = f"{(self.num_timesteps - first) / elapsed_s:,.0f} steps/s"
        if self._returns:
            status = (
                f"return {np.mean(self._returns):.1f}  cost {np.mean(self._costs):.2f}  {status}"
            )
        self._progress.update(self._task, completed=self.num_timesteps, status=status)


class SafetyCurves(BaseCallback):
    """Records cost, corrections and violations of finished episodes beside the library's curves."""

    def __init__(self, violations: int) -> None:
        super().__init__()
        self._violations = violations

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            self._violations += info.get("cost", 0.0) > 0.0
            if "episode" in info:
                episode = info["episode"]
                self.logger.record_mean("safety/episode_cost", episode["cost"])
                self.logger.record_mean(
                    "safety/corrected_share", episode["corrected"] / episode["l"]
                )
                self.logger.record_mean("safety/fallback_share", episode["fallback"] / episode["l"])
        self.logger.record("safety/violations_total", self._violations)
        return True


class StopOnInterrupt(BaseCallback):
    """Turns the first ctrl-C into a stop after the current step; a second one raises at once.

    Use it as a context manager in the main thread; elsewhere Python delivers no signals and it does
    nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requested = False
        self._is_main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "StopOnInterrupt":
        """Take over SIGINT."""
        if self._is_main:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        """Give SIGINT back."""
        if self._is_main:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        _LOG.warning("stopping after this step and saving a checkpoint; ctrl-C again to stop now")

    def _on_step(self) -> bool:
        return not self.requested
