"""Fixtures of the daemon's tests: both event loops, a running daemon on a fake engine."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.daemon.fake import Harness
from tests.loops import LOOPS

_ports = itertools.count(20_000)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every asynchronous test of this folder runs on asyncio's loop and on uvloop."""
    return LOOPS


@pytest.fixture
def port() -> Callable[[], int]:
    """Ports nobody else uses: ascending, on this process's own loopback address."""
    return lambda: next(_ports)


@pytest.fixture
def host() -> str:
    """A loopback address of this process's own, so that suites side by side never meet."""
    pid = os.getpid()
    return f"127.{100 + (pid >> 16) % 100}.{pid >> 8 & 255}.{pid & 255 or 1}"


@pytest.fixture
async def harness(tmp_path: Path, host: str, port: Callable[[], int]) -> AsyncIterator[Harness]:
    async with Harness(tmp_path, host, port) as running:
        yield running
