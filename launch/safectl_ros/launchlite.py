"""Runs a launch file where `ros2 launch` is not installed: `python -m safectl_ros.launchlite FILE`.

The files are XML in a documented subset (`launch/README.md`); `ros2 launch` reads them too.
"""

import importlib.util
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from safectl.errors import ConfigError, MissingExtra, SafectlError
from safectl_ros.launch_file import LaunchPlan, read_launch_file
from safectl_ros.launch_process import Supervisor
from safectl_ros.launch_text import package_share

USAGE = "usage: python -m safectl_ros.launchlite FILE [key:=value ...] [--print] [--show-args]\n"
_MARGIN_S = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a launch file and return the exit status, 1 on an error and 2 on a wrong call."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = {word for word in words if word.startswith("--")}
    names = [word for word in words if not word.startswith("--")]
    if not names or not options <= {"--print", "--show-args"}:
        sys.stderr.write(USAGE)
        return 2
    try:
        plan = read_launch_file(find_launch_file(names[0]), assignments(names[1:]))
        if "--show-args" in options:
            sys.stdout.write(show_arguments(plan))
            return 0
        if "--print" in options:
            sys.stdout.write(show_commands(plan))
            return 0
        return run_plan(plan)
    except SafectlError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def run_plan(plan: LaunchPlan) -> int:
    """Run a plan in the foreground until it ends or a signal ends it; return the exit status.

    Raises:
        MissingExtra: If ROS is not installed.
    """
    if importlib.util.find_spec("rclpy") is None:
        raise MissingExtra("rclpy", "ros")
    supervisor = Supervisor(plan, _to_stdout)
    before = {
        number: signal.signal(number, lambda *_: supervisor.stop())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        return supervisor.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class Launched:
    """A launch file that runs in the background.

    Attributes:
        supervisor: Runs the processes.
        lines: Name and text of every line of output so far.
        thread: The supervisor's thread.
        exit_code: Set when everything has ended.
    """

    supervisor: Supervisor
    lines: list[tuple[str, str]]
    thread: threading.Thread
    exit_code: int | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def pid(self, name: str) -> int:
        """Return the process id of a running process.

        Raises:
            KeyError: If no process of that name runs.
        """
        return self.supervisor.pid(name)

    def output(self, name: str | None = None) -> str:
        """Return what one process, or all of them, have printed so far."""
        chosen = [item for item in list(self.lines) if name in (None, item[0])]
        return "".join(f"[{source}] {text}\n" for source, text in chosen)

    def wait_for_output(self, name: str, text: str, *, timeout_s: float) -> None:
        """Return once a process has printed a line that holds a text.

        Raises:
            TimeoutError: With the output so far.
        """
        self.wait_until(lambda: text in self.output(name), timeout_s=timeout_s)

    def wait_until(self, holds: Callable[[], bool], *, timeout_s: float) -> None:
        """Return once something holds, which is looked at after every line of output.

        Raises:
            TimeoutError: With the output so far; at once where everything has ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: holds() or self.exit_code is not None, timeout_s)
            if not holds():
                raise TimeoutError(f"nothing came within {timeout_s} s:\n{self.output()}")

    def stop(self) -> int:
        """End everything and return the exit status.

        Raises:
            TimeoutError: If something survives, which no process should after SIGKILL.
        """
        if self.thread.is_alive():
            self.supervisor.stop()
        return self.wait(timeout_s=3.0 * self.supervisor.grace_s + _MARGIN_S)

    def wait(self, *, timeout_s: float) -> int:
        """Wait for the end and return the exit status.

        Raises:
            TimeoutError: If it does not end in time.
        """
        self.thread.join(timeout_s)
        if self.exit_code is None:
            raise TimeoutError(f"still running after {timeout_s} s:\n{self.output()}")
        return self.exit_code

    def _add(self, name: str, text: str) -> None:
        with self._changed:
            self.lines.append((name, text))
            self._changed.notify_all()

    def _run(self) -> None:
        status = self.supervisor.run()
        with self._changed:
            self.exit_code = status
            self._changed.notify_all()


@contextmanager
def launched(file: Path | str, **arguments: object) -> Iterator[Launched]:
    """Run a launch file in the background and end it on exit.

    Args:
        file: Path, or the name of a file of this package.
        arguments: Values of its arguments; `True` becomes "true".

    Raises:
        ConfigError: If the file cannot be used.
    """
    texts = {name: _text(value) for name, value in arguments.items()}
    plan = read_launch_file(find_launch_file(file), texts)
    thread = threading.Thread(target=lambda: here._run(), daemon=True)
    here = Launched(Supervisor(plan, lambda name, text: here._add(name, text)), [], thread)
    thread.start()
    try:
        yield here
    finally:
        here.stop()


def find_launch_file(file: Path | str) -> Path:
    """Return a launch file by its path, or by its name in this package's share folder.

    Raises:
        ConfigError: If there is none.
    """
    path = Path(file)
    if path.is_file():
        return path.resolve()
    if len(path.parts) == 1:
        share = package_share("safectl_ros", os.environ, str(file))
        if (share / "launch" / path).is_file():
            return share / "launch" / path
        known = sorted(path.name for path in share.glob("launch/*.launch.xml"))
        raise ConfigError(str(file), f"no such launch file; this package has {', '.join(known)}")
    raise ConfigError(str(file), "no such launch file")


def assignments(words: Sequence[str]) -> dict[str, str]:
    """Read words of the form key:=value.

    Raises:
        ConfigError: On any other word.
    """
    values = {}
    for word in words:
        name, separator, value = word.partition(":=")
        if not separator or not name:
            raise ConfigError(word, "is no argument; write key:=value")
        values[name] = value
    return values


def show_commands(plan: LaunchPlan) -> str:
    """Return the command line of every process, with the variables it adds, as a shell reads it."""
    return "".join(
        " ".join(
            [
                f"[{process.name}]",
                *(f"{name}={shlex.quote(text)}" for name, text in process.environment.items()),
                shlex.join(process.command),
            ]
        )
        + "\n"
        for process in plan.processes
    )


def show_arguments(plan: LaunchPlan) -> str:
    """Return the arguments of a file, their defaults and descriptions, one per line."""
    return "".join(
        f"{argument.name}:={'' if argument.default is None else argument.default}"
        f"  {argument.description}\n"
        for argument in plan.arguments
    )


def _to_stdout(name: str, text: str) -> None:
    sys.stdout.write(f"[{name}] {text}\n")
    sys.stdout.flush()


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main())
