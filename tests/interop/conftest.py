"""Fixtures of the interop tests: without namespaces they are skipped, with the reason."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mptcp.tun.netns import require_namespaces
from tests.interop.lab import Lab, witnesses
from tests.interop.witness import TCPDUMP, TSHARK, capture, complaints


@functools.cache
def _reason() -> str | None:
    reason = require_namespaces()
    if reason is None:
        try:
            with open("/proc/sys/net/mptcp/enabled", encoding="ascii"):
                pass
        except OSError:
            reason = "this kernel has no MPTCP"
    return reason


@pytest.fixture(autouse=True)
def _skip_without_namespaces(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("netns") is not None:
        reason = _reason()
        if reason is not None:
            pytest.skip(reason)


@pytest.fixture
def witnessed(tmp_path: Path) -> Iterator[list[Path]]:
    """Every lab of the test is captured, and tshark finds no fault with any of it.

    Yields the captures, which may be asked once their lab is closed. Without the programs the test
    runs unwitnessed: its own assertions hold all the same.
    """
    captures: list[Path] = []

    def watch(network: Lab) -> AbstractContextManager[None]:
        captures.append(tmp_path / f"lab{len(captures)}.pcap")
        return capture(network.far, captures[-1])

    if TSHARK is None or TCPDUMP is None:
        yield captures
        return
    witnesses.append(watch)
    try:
        yield captures
    finally:
        witnesses.remove(watch)
    assert captures
    assert sum((complaints(file) for file in captures), Counter()) == Counter()
