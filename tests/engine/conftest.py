"""Fixtures of the engine tests: both event loops, engines joined in memory, namespaces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.engine.memory import Pair
from tests.loops import LOOPS


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test of this folder runs on asyncio's loop and on uvloop."""
    return LOOPS


@pytest.fixture
def pair() -> Pair:
    return Pair()
