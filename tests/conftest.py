"""Fixtures shared by all tests: namespaces that vanish with the test, or a reason to skip."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from mptcp.tun.netns import Namespace, require_namespaces


@functools.cache
def _reason() -> str | None:
    return require_namespaces()


@pytest.fixture(autouse=True)
def _skip_without_namespaces(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("netns") is not None:
        reason = _reason()
        if reason is not None:
            pytest.skip(reason)


@pytest.fixture
def left() -> Iterator[Namespace]:
    with Namespace.create("left") as namespace:
        yield namespace


@pytest.fixture
def right() -> Iterator[Namespace]:
    with Namespace.create("right") as namespace:
        yield namespace
