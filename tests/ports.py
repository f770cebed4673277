"""Ports for servers of tests."""

import random
import socket

#: Below the ports that systems take for outgoing connections (from 32768 on Linux): one of those may be in use by the
#: time a server listens, or when a killed one is started again on its port.
_PORTS = range(12_000, 32_000)


def free_port() -> int:
    """A port on loopback that nobody listens on, chosen at random so that parallel tests choose different ones."""
    while True:
        port = random.choice(_PORTS)  # noqa: S311
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
