"""Fixtures of the engine tests: both event loops, engines joined in memory, namespaces."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator

import pytest
import uvloop

from mptcp.tun.netns import Namespace, require_namespaces
from tests.engine.memory import Pair

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test of this folder runs on asyncio's loop and on uvloop."""
    return LOOPS


@pytest.fixture
def pair() -> Pair:
    return Pair()


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
