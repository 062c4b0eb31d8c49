"""A serial port that damages, loses and repeats frames, for tests of this project and others."""

from collections import deque

import numpy as np

from safectl_hardware.port import Port

_KEPT_FRAMES = 8  # out of which an old one comes again


class NoisyPort:
    """Passes frames on, and harms some in both directions.

    An old frame that comes again may be one of the other direction: an echo.

    Args:
        port: The port behind it.
        probability: Of each harm, per frame; may be set anew at any time, 0 harms nothing.
        generator: Draws.
    """

    def __init__(self, port: Port, probability: float, generator: np.random.Generator) -> None:
        self._port, self.probability, self._generator = port, probability, generator
        self._partial = b""
        self._old: deque[bytes] = deque(maxlen=_KEPT_FRAMES)
        self.harms = {"corrupted": 0, "dropped": 0, "duplicated": 0, "replayed": 0}

    def receive(self, timeout_s: float) -> bytes:
        """Return the frames that are complete, after the harm."""
        *frames, self._partial = (self._partial + self._port.receive(timeout_s)).split(b"\0")
        return b"".join(self._harm(frame + b"\0") for frame in frames)

    def send(self, data: bytes) -> None:
        """Send whole frames after the harm."""
        *frames, _ = data.split(b"\0")
        self._port.send(b"".join(self._harm(frame + b"\0") for frame in frames))

    def close(self) -> None:
        """Close the port."""
        self._port.close()

    def _harm(self, frame: bytes) -> bytes:
        old = self._old[self._generator.integers(len(self._old))] if self._old else frame
        self._old.append(frame)
        harm = self._generator.random()
        if harm < self.probability:
            self.harms["corrupted"] += 1
            return self._corrupted(frame)
        if harm < 2 * self.probability:
            self.harms["dropped"] += 1
            return b""
        if harm < 3 * self.probability:
            self.harms["duplicated"] += 1
            return frame + frame
        if harm < 4 * self.probability:
            self.harms["replayed"] += 1
            return old + frame
        return frame

    def _corrupted(self, frame: bytes) -> bytes:
        damaged = bytearray(frame)
        for _ in range(self._generator.integers(1, 4)):
            damaged[self._generator.integers(len(damaged))] ^= int(self._generator.integers(1, 256))
        return bytes(damaged)
