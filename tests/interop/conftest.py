"""Fixtures of the interop tests: without namespaces they are skipped, with the reason."""

from __future__ import annotations

import functools

import pytest

from mptcp.tun.netns import require_namespaces


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
