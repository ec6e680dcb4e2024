"""Ports for the servers of tests."""

from __future__ import annotations

from hub.ops.embedded_kafka import ports


def free_port() -> int:
    """A port that nobody has, and that the system gives to no outgoing connection while the server there is down."""
    return ports.any_free([])
