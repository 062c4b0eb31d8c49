"""Rules of the ROS layer that no other tool checks."""

import re
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[3] / "launch").rglob("*.py"))
FORBIDDEN = {
    "MultiThreadedExecutor": "it loses seconds under traffic",
    "EventsExecutor": "it hangs",
    r"spin_until_future_complete\(": "it adds callbacks without end; use RosThread.call",
    r"\btime\.time\(\)": "it jumps; watchdogs use the steady clock",
    r"except:": "it hides what went wrong",
}


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_no_source_holds_what_is_forbidden(pattern):
    found = [str(path) for path in SOURCES if re.search(pattern, path.read_text())]
    assert len(SOURCES) > 20
    assert found == [], FORBIDDEN[pattern]
