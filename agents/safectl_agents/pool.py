"""Trainings side by side, each in a process of its own, with a bar per training."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from safectl.errors import SafectlError

_REFRESH_S = 2.0


class TrainingLost(SafectlError):
    """The process of a training ended without a word, as when the system runs out of memory."""

    def __init__(self) -> None:
        super().__init__(
            "a process was killed; run the command again, with fewer processes (--jobs) if memory "
            "ran out: what is finished stays, the rest goes on from its last checkpoints"
        )


@dataclass(frozen=True, slots=True)
class Work:
    """One training.

    Attributes:
        label: Its name on the bar.
        total: Its steps.
        run: Does it; pickled for the process.
        standing: Returns the steps that are done, and figures to show.
    """

    label: str
    total: int
    run: Callable[[], Any]
    standing: Callable[[], tuple[int, str]]


def run_side_by_side(works: Sequence[Work], *, jobs: int, console: Console) -> None:
    """Do them, `jobs` at a time.

    Raises:
        SafectlError: The first error of one; what runs beside it is finished, nothing is begun.
        TrainingLost: If a process was killed; those beside it are ended as well.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    with (
        Progress(*columns, console=console) as progress,
        ProcessPoolExecutor(
            jobs, mp_context=get_context("spawn"), initializer=end_with_parent
        ) as pool,
    ):
        try:
            bars = {
                pool.submit(work.run): (
                    work,
                    progress.add_task(work.label, total=work.total, status=""),
                )
                for work in works
            }
            pending: set[Future[Any]] = set(bars)
            while pending:
                done, pending = wait(pending, _REFRESH_S, return_when=FIRST_COMPLETED)
                for work, bar in bars.values():
                    step, status = work.standing()
                    progress.update(bar, completed=step, status=status)
                for future in done:
                    future.result()
        except BrokenProcessPool as error:
            raise TrainingLost from error
        finally:
            pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """End this process when the one that started it is killed, so that a seed has one writer."""
    parent = parent_process()
    assert parent is not None, "this runs in a pool"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
