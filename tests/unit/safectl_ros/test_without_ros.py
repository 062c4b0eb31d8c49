"""Where ROS is not installed: one clear error for each way in, and what works without it."""

import os
import subprocess
import sys

import pytest

HIDDEN = """
import sys

class Hidden:
    packages = {"rclpy", "rosbags", "rcl_interfaces", "builtin_interfaces", "std_srvs"}

    def find_spec(self, name, path=None, target=None):
        package = name.split(".")[0]
        if package in self.packages or package.endswith("_msgs"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""

SAFECTL = "import sys; from safectl_agents.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return what runs `safectl` or a module in a process that finds nothing of ROS."""
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "sitecustomize.py").write_text(HIDDEN)
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def start(*words):
        line = [sys.executable, "-c", SAFECTL] if words[0] == "safectl" else [sys.executable, "-m"]
        line += words[1:] if words[0] == "safectl" else words
        return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)

    return start


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "safectl launch sim.launch.xml",
        "safectl replay bag --safeguard clip.toml --robot base.toml",
        "safectl bag bag",
        "safectl bench ros.lockstep_rate",
        "safectl_ros.nodes.guard",
        "safectl_ros.cli topics",
    ],
)
def test_the_missing_extra_is_named_in_the_last_line(run, words):
    answer = run(*words.split())
    assert answer.returncode == 1
    last = answer.stderr.splitlines()[-1]
    assert "is not installed; it belongs to the extra" in last
    assert "Traceback" not in answer.stderr


@pytest.mark.slow
def test_launch_files_can_be_read_without_ros(run):
    answer = run("safectl", "launch", "sim.launch.xml", "--print")
    assert answer.returncode == 0
    assert "guard_node --ros-args" in answer.stdout
