"""A long run of simulator, guard and recorder at 50 Hz: memory, gaps, files that are left."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.context import Context
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from safectl_agents.bench.benchmark import Measurement
from safectl_ros.adapters.vector import numbers_to_message
from safectl_ros.bench.domain import own_domain
from safectl_ros.launchlite import Launched, launched
from safectl_ros.process import Message, RosThread
from safectl_ros.qos import COMMAND

RATE_HZ = 50.0
GROWTH_MB = 5.0
GAP_S = 0.1
_SECONDS = 1800.0
_WARM_UP_SHARE = 0.1
_SAMPLES = 200
_START_S = 60.0
_END_S = 60.0  # for each of the three signals: a bag of half an hour has an index to write
_SHARED_MEMORY = Path("/dev/shm")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class SoakResult:
    """What a run found.

    Attributes:
        seconds: How long it was watched [s].
        outputs: Safe commands that arrived.
        longest_gap_s: Between two of them [s].
        growth_mb: Growth of resident memory after the warm-up by process [MB].
        leftovers: files of shared memory that the nodes left.
        violations: Steps with a cost, by the simulator's account.
        exit_code: Of the launch file.
    """

    seconds: float
    outputs: int
    longest_gap_s: float
    growth_mb: dict[str, float]
    leftovers: tuple[str, ...]
    violations: int
    exit_code: int

    @property
    def broken(self) -> int:
        """How many promises are broken: growth, gap, leftovers, violations, end."""
        return sum(
            (
                max(self.growth_mb.values()) > GROWTH_MB,
                self.longest_gap_s > GAP_S,
                bool(self.leftovers),
                self.violations > 0,
                self.exit_code != 0,
            )
        )


def soak() -> Measurement:
    """Run for 30 minutes."""
    result = run(_SECONDS)
    details = asdict(result) | {
        "seed": "none: the simulator starts where the system's randomness puts it",
        "load_average_15_min": os.getloadavg()[2],
        "scheduling": scheduling(),
    }
    return Measurement(float(result.broken), details=details)


def scheduling() -> str:
    """Return the name of the scheduling policy of this process, which its nodes inherit."""
    policy = os.sched_getscheduler(0)
    names = ("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_IDLE")
    return next((name for name in names if getattr(os, name) == policy), str(policy))


def run(seconds: float) -> SoakResult:
    """Run `sim.launch.xml` with a driver that goes straight ahead, and watch it.

    Args:
        seconds: After a warm-up of a tenth of it [s].

    Raises:
        TimeoutError: If the nodes do not start.
    """
    with (
        tempfile.TemporaryDirectory(prefix="safectl-soak-") as folder,
        own_domain() as domain,
        _environment(folder, domain),
        RosThread(_Driver) as thread,
    ):
        driver, before = thread.node, _segments()  # with what belongs to this process
        assert isinstance(driver, _Driver)
        with launched("sim.launch.xml", record=True, bag=Path(folder) / "bag") as running:
            running.supervisor.grace_s = _END_S
            driver.await_output(_START_S)
            _pause(_WARM_UP_SHARE * seconds)
            driver.restart()
            memory = _watch(running, seconds)
            arrivals, violations = list(driver.arrivals), driver.violations
            exit_code = running.stop()
        leftovers = tuple(sorted(_segments() - before))
    gaps = np.diff(arrivals)
    return SoakResult(
        seconds=seconds,
        outputs=len(arrivals),
        longest_gap_s=float(gaps.max()),
        growth_mb={name: _growth(samples) for name, samples in memory.items()},
        leftovers=leftovers,
        violations=violations,
        exit_code=exit_code,
    )


class _Driver(Node):
    """Publishes a proposal at the rate of the guard and notes when its outputs arrive."""

    def __init__(self, context: Context) -> None:
        super().__init__("driver", context=context)
        self.arrivals: list[float] = []
        self.violations = 0
        self._arrived = threading.Event()
        self._out = self.create_publisher(Float64MultiArray, "action", COMMAND)
        self.create_subscription(Float64MultiArray, "action_safe", self._on_output, COMMAND)
        self.create_subscription(Float64MultiArray, "sim/violation", self._on_violation, 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._proposal = numbers_to_message(np.array([1.0, 0.0]), 0)
        self._proposal.layout.dim[0].label = ""  # no stamp: a person does not know the robot's time
        self.create_timer(1.0 / RATE_HZ, lambda: self._out.publish(self._proposal), clock=steady)

    def await_output(self, timeout_s: float) -> None:
        """Wait for the first output."""
        if not self._arrived.wait(timeout_s):
            raise TimeoutError(f"no safe command within {timeout_s:g} s")

    def restart(self) -> None:
        """Forget the outputs so far."""
        self.arrivals.clear()

    def _on_output(self, _: Message) -> None:
        self.arrivals.append(time.monotonic())
        self._arrived.set()

    def _on_violation(self, message: Message) -> None:
        self.violations = int(message.data[1])


def _watch(running: Launched, seconds: float) -> dict[str, list[float]]:
    """Sample the resident memory of every node [MB]."""
    memory: dict[str, list[float]] = {}
    for _ in range(_SAMPLES):
        for name in ("sim", "guard", "recorder"):
            pages = int(Path(f"/proc/{running.pid(name)}/statm").read_text().split()[1])
            memory.setdefault(name, []).append(pages * _PAGE / 1e6)
        _pause(seconds / _SAMPLES)
    return memory


def _growth(samples: list[float]) -> float:
    """Return the difference of the medians of the last and the first tenth [MB]."""
    tenth = max(1, len(samples) // 10)
    return float(np.median(samples[-tenth:]) - np.median(samples[:tenth]))


def _segments() -> set[str]:
    return {path.name for path in _SHARED_MEMORY.glob("*fast*")}


@contextmanager
def _environment(log_folder: str, domain: int) -> Iterator[None]:
    """Use shared memory, as `ros2` does by default, on this computer and in a domain of its own."""
    before = dict(os.environ)
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        os.environ.pop(name, None)
    os.environ |= {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    os.environ["ROS_LOG_DIR"] = log_folder
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)
