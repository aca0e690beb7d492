"""Fixtures of the TCP tests: a plain TCP stack and its scripted peer, in virtual time."""

from __future__ import annotations

import pytest

from tests.peer import Peer, Wire


@pytest.fixture
def wire() -> Wire:
    """A stack without MPTCP and without Nagle's delay, one interface, 10.0.0.1/24."""
    return Wire(mptcp=False, nodelay=True)


@pytest.fixture
def peer(wire: Wire) -> Peer:
    """10.0.0.2:80."""
    return Peer(wire)
