"""Waiting for what cannot notify: a peer that is discovered, a board that has read its line."""

import threading
import time

LIMIT_S = 15.0


def wait_until(holds, timeout_s=LIMIT_S, poll_s=0.005):
    """Return once something holds; fails after a limit that only a broken peer reaches."""
    pause = threading.Event()
    limit = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < limit, f"not within {timeout_s} s"
        pause.wait(poll_s)
