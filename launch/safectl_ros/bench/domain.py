"""A DDS domain that no other run on this machine uses."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from safectl.errors import BridgeError

DOMAINS = range(1, 102)
"""Those whose ports lie below the ephemeral ports of Linux; 0 is everyone's."""


@contextmanager
def own_domain() -> Iterator[int]:
    """Reserve a DDS domain while the block runs.

    The reservation is a socket in the abstract namespace: it reaches exactly as far as the loopback
    device does, and it ends with the process, however that ends.

    Raises:
        BridgeError: If every domain is taken.
    """
    for domain in DOMAINS:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reservation:
            try:
                reservation.bind(f"\0safectl-dds-domain-{domain}")
            except OSError:
                continue
            yield domain
            return
    raise BridgeError(f"all {len(DOMAINS)} DDS domains are taken; end other runs on this machine")
