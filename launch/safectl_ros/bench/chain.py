"""From observation to safe command through three processes, while others load the machine.

Simulator, policy and guard run in real time; this process sees each observation and the safe
command that carries its stamp.
"""

import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from safectl.errors import BridgeError
from safectl_agents.bench.benchmark import Measurement
from safectl_ros.adapters.vector import label_stamp
from safectl_ros.bench.graph import hurry, loopback_graph, node_process
from safectl_ros.process import Message, RosThread
from safectl_ros.qos import COMMAND, STATE

ENV_ID = "safectl/PointHazard-v0"
COMMANDS = 500
LOADS = 2
"""Processes that only count, at the usual priority: one per core of the machine that CI has."""

_WARM_UP = 50
_START_S = 120.0


def p99() -> Measurement:
    """Return the 99th percentile of the way from observation to safe command [ms]."""
    with tempfile.TemporaryDirectory(prefix="safectl-chain-") as folder, ExitStack() as stack:
        stack.enter_context(loopback_graph())
        safeguard, policy = Path(folder) / "world.toml", Path(folder) / "random.toml"
        safeguard.write_text("kind = 'world'\n", encoding="utf-8")
        policy.write_text("kind = 'random'\n", encoding="utf-8")
        common = {"robot": ENV_ID, "use_sim_time": "true"}
        guard = {"safeguard": safeguard, "sees_state": "true", "use_estop": "false"}
        processes = [
            stack.enter_context(process)
            for process in (
                node_process("safectl_ros.nodes.sim", env_id=ENV_ID),
                node_process("safectl_ros.nodes.guard", **common, **guard, filter_budget_s=0.02),
                node_process("safectl_ros.nodes.policy", policy=policy, **common),
            )
        ]
        hurry(0, *[process.pid for process in processes])
        thread = stack.enter_context(RosThread(lambda context: Node("watch", context=context)))
        watch = _Watch(thread.node)
        watch.wait_for(_WARM_UP)
        for _ in range(LOADS):
            stack.callback(_load().kill)
        watch.forget()
        watch.wait_for(COMMANDS)
    latencies = np.array(watch.latencies)
    quantiles = {"median": 0.5, "p99": 0.99, "max": 1.0}
    details = {
        f"{name}_ms": round(1e3 * float(np.quantile(latencies, share)), 2)
        for name, share in quantiles.items()
    }
    details |= {"seed": 0, "commands": len(latencies), "observations": watch.seen, "loads": LOADS}
    return Measurement(1e3 * float(np.quantile(latencies, 0.99)), details=details)


class _Watch:
    """Notes when an observation and the safe command of its stamp arrive."""

    def __init__(self, node: Node) -> None:
        self.latencies: list[float] = []
        self.seen = 0
        self._observed: dict[int, float] = {}
        self._changed = threading.Condition()
        node.create_subscription(Float64MultiArray, "observation", self._on_observation, STATE)
        node.create_subscription(Float64MultiArray, "action_safe", self._on_command, COMMAND)

    def wait_for(self, count: int) -> None:
        """Wait for so many answers."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.latencies) >= count, _START_S):
                raise BridgeError(f"{len(self.latencies)} of {count} commands came through")

    def forget(self) -> None:
        """Begin again."""
        with self._changed:
            self.latencies, self.seen = [], 0
            self._observed.clear()

    def _on_observation(self, message: Message) -> None:
        stamp = label_stamp(message)
        with self._changed:
            if stamp is not None and stamp not in self._observed:
                self._observed[stamp] = time.monotonic()
                self.seen += 1

    def _on_command(self, message: Message) -> None:
        stamp = label_stamp(message)
        with self._changed:
            started = self._observed.pop(stamp, None) if stamp is not None else None
            if started is not None:
                self.latencies.append(time.monotonic() - started)
                self._changed.notify_all()


def _load() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
