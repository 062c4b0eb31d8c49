"""Serial ports: bytes out, bytes in, and one kind of error."""

import logging
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import serial

from safectl.errors import BridgeError

BAUD = 115_200
_WRITE_TIMEOUT_S = 1.0  # the longest frame takes a tenth of it
_LOG = logging.getLogger(__name__)


@runtime_checkable
class Port(Protocol):
    """An open line. Every failure is a `BridgeError`, but closing never raises."""

    def receive(self, timeout_s: float) -> bytes:
        """Return what has arrived; wait for the first byte up to `timeout_s`."""
        ...

    def send(self, data: bytes) -> None:
        """Send bytes."""
        ...

    def close(self) -> None:
        """Close the line."""
        ...


class SerialPort:
    """A serial port of this machine, for this program alone.

    Raises:
        BridgeError: If it does not open.
    """

    def __init__(self, name: str, *, baud: int = BAUD) -> None:
        self._name = name
        try:
            self._serial = serial.Serial(
                name, baud, timeout=0.0, write_timeout=_WRITE_TIMEOUT_S, exclusive=True
            )
        except (OSError, ValueError) as error:
            raise BridgeError(
                f"the serial port {name} does not open ({error}); check its name, the cable and "
                "that no other program uses it"
            ) from error

    def receive(self, timeout_s: float) -> bytes:
        """Return what has arrived."""
        try:
            self._serial.timeout = max(0.0, timeout_s)
            return bytes(self._serial.read(max(1, self._serial.in_waiting)))
        except (OSError, TypeError) as error:  # pyserial meets its own None after a close
            raise self._gone(error) from error

    def send(self, data: bytes) -> None:
        """Send bytes."""
        try:
            self._serial.write(data)
        except OSError as error:
            raise self._gone(error) from error

    def close(self) -> None:
        """Close the port."""
        try:
            self._serial.close()
        except OSError:
            _LOG.warning("the serial port %s did not close cleanly", self._name, exc_info=True)

    def _gone(self, error: Exception) -> BridgeError:
        return BridgeError(
            f"the serial port {self._name} is gone ({error}); check cable and power, connect again"
        )


def serial_port(name: str, *, baud: int = BAUD) -> Callable[[], SerialPort]:
    """Return what opens a serial port, again after every close."""
    return lambda: SerialPort(name, baud=baud)


def now_us() -> int:
    """Return the monotonic time modulo 2^32 [microseconds]."""
    return int(time.monotonic() * 1e6) % 2**32
