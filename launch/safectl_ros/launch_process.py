"""Runs the processes of a launch plan: own process groups, one prefix per line, an orderly end."""

import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from safectl_ros.launch_file import LaunchPlan, Process

GRACE_S = 5.0
"""Time between SIGINT, SIGTERM and SIGKILL [s]."""

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_READ_BYTES = 65536
_NOT_STARTED = 127

Write = Callable[[str, str], None]
"""Receives the name of a process and one line of its output."""


@dataclass(slots=True)
class _Running:
    process: Process
    popen: "subprocess.Popen[bytes]"
    exited: int
    pending: bytes = b""

    @property
    def output(self) -> int:
        assert self.popen.stdout is not None
        return self.popen.stdout.fileno()


@dataclass(slots=True)
class Supervisor:
    """Starts every process of a plan and waits for their end, in one thread.

    On the first `stop`, or when a process ends that ends all, each process group gets SIGINT, after
    `grace_s` SIGTERM and after the same time again SIGKILL. Every further `stop` goes one step on
    at once. What an ended process leaves behind in its group is killed.

    Attributes:
        plan: What to start.
        write: Receives the output line by line.
        grace_s: Pause between the three signals [s].
    """

    plan: LaunchPlan
    write: Write
    grace_s: float = GRACE_S
    _running: list[_Running] = field(default_factory=list)
    _waiting: list[tuple[float, Process]] = field(default_factory=list)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _wake: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)
    _sent: int = 0
    _next_signal: float = float("inf")
    _exit_code: int = 0

    def run(self) -> int:
        """Start, supervise, end; return the first failing process's exit status, 0 if none fails.

        A process that is started again does not fail. 128 + n stands for the end by signal n.
        """
        self._selector.register(self._wake[0], selectors.EVENT_READ, self._on_stop)
        for message in self.plan.messages:
            self.write("launch", message)
        try:
            for process in self.plan.processes:
                self._start(process)
            while self._running or self._waiting:
                for key, _ in self._selector.select(self._timeout()):
                    key.data()
                self._on_time(time.monotonic())
        finally:
            for running in self._running:
                _signal_group(running, signal.SIGKILL)
            self._selector.close()
            for end in self._wake:
                end.close()
        return self._exit_code

    def stop(self) -> None:
        """Begin the end, or go one signal on; may be called from a signal handler or a thread."""
        with suppress(OSError):  # closed: everything has ended
            self._wake[1].send(b".")

    def pid(self, name: str) -> int:
        """Return the process id of a running process, which is also its group.

        Raises:
            KeyError: If no process of that name runs.
        """
        return {running.process.name: running.popen.pid for running in self._running}[name]

    def _start(self, process: Process) -> None:
        if self._sent:
            return
        try:
            popen = subprocess.Popen(
                process.command,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(process.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        except OSError as error:
            self.write(process.name, f"cannot be started: {error}")
            self._exit_code = self._exit_code or _NOT_STARTED
            self._send_next()
            return
        running = _Running(process, popen, os.pidfd_open(popen.pid))
        os.set_blocking(running.output, False)
        self._running.append(running)
        self._selector.register(
            running.output, selectors.EVENT_READ, lambda: self._on_output(running)
        )
        self._selector.register(
            running.exited, selectors.EVENT_READ, lambda: self._on_exit(running)
        )

    def _on_output(self, running: _Running) -> bool:
        """Pass whole lines on; return whether there may be more."""
        if running not in self._running:  # its end was seen in the same round
            return False
        try:
            data = os.read(running.output, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._selector.unregister(running.output)
            return False
        *lines, running.pending = (running.pending + data).split(b"\n")
        for line in lines:
            self.write(running.process.name, line.decode(errors="replace"))
        return True

    def _on_exit(self, running: _Running) -> None:
        _signal_group(running, signal.SIGKILL)  # its leader is not reaped yet: the group is ours
        status = running.popen.wait()
        if running.output in self._selector.get_map():
            while self._on_output(running):
                pass
        if running.output in self._selector.get_map():  # still open in a process outside the group
            self._selector.unregister(running.output)
        if running.pending:
            self.write(running.process.name, running.pending.decode(errors="replace"))
        self._selector.unregister(running.exited)
        os.close(running.exited)
        assert running.popen.stdout is not None
        running.popen.stdout.close()
        self._running.remove(running)
        self._after(running.process, status if status >= 0 else 128 - status)

    def _after(self, process: Process, status: int) -> None:
        self.write("launch", f"{process.name} ended with status {status}")
        if process.respawn_delay_s is not None and not self._sent:
            self._waiting.append((time.monotonic() + process.respawn_delay_s, process))
            return
        self._exit_code = self._exit_code or status
        if process.ends_all and not self._sent:
            self._send_next()

    def _on_stop(self) -> None:
        for _ in self._wake[0].recv(_READ_BYTES):
            self._send_next()

    def _send_next(self) -> None:
        """Send the next of the three signals to every group that still runs."""
        step = min(self._sent, len(_ENDING) - 1)
        self._sent, self._waiting = step + 1, []
        self._next_signal = time.monotonic() + self.grace_s
        for running in self._running:
            _signal_group(running, _ENDING[step])

    def _timeout(self) -> float | None:
        """Return the time until something is due, None where nothing is [s]."""
        due = min([self._next_signal, *(instant for instant, _ in self._waiting)])
        return None if due == float("inf") else max(0.0, due - time.monotonic())

    def _on_time(self, now: float) -> None:
        if now >= self._next_signal:
            self._send_next()
        ready = [process for instant, process in self._waiting if now >= instant]
        self._waiting = [item for item in self._waiting if now < item[0]]
        for process in ready:
            self._start(process)


def _signal_group(running: _Running, number: signal.Signals) -> None:
    try:
        os.killpg(running.popen.pid, number)
    except ProcessLookupError:
        return
