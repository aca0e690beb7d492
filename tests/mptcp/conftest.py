"""Fixtures of the MPTCP tests: a stack on two interfaces and its scripted peer, in virtual time."""

from __future__ import annotations

import pytest

from tests.peer import Peer, Wire

TWO = ("10.0.0.1/24", "10.0.1.1/24")


@pytest.fixture
def wire() -> Wire:
    """A stack with 10.0.0.1/24 and 10.0.1.1/24, without Nagle's delay."""
    return Wire(addresses=TWO, nodelay=True)


@pytest.fixture
def peer(wire: Wire) -> Peer:
    """10.0.0.2:80, the server."""
    return Peer(wire)


@pytest.fixture
def caller(wire: Wire) -> Peer:
    """10.0.0.2:40000, a client of the stack's listener on port 5000."""
    wire.stack.listen(5000)
    return Peer(wire, port=40000, local_port=5000)
