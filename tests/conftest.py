"""Fixtures shared by all tests: namespaces that vanish with the test, or a reason to skip."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from mptcp.compiled import is_compiled
from mptcp.tun.netns import Namespace, require_namespaces
from tests.virtual import STACKS

settings.register_profile("mptcp", deadline=None)
settings.load_profile("mptcp")  # what a machine takes that does something else says nothing

COUNTED = ("wire", "tcp", "conformance")
"""Folders whose tests are to reach every branch of wire/ and tcp/."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test` runs under coverage: short and in virtual time, it is slower there."""
    here = Path(__file__).parent
    for item in items:
        apart = any(item.get_closest_marker(name) for name in ("netns", "realtime", "slow"))
        if not apart and item.path.relative_to(here).parts[0] in COUNTED:
            item.add_marker(pytest.mark.counted)


@functools.cache
def _reason() -> str | None:
    return require_namespaces()


@pytest.fixture(autouse=True)
def _skip_without_namespaces(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("netns") is not None:
        reason = _reason()
        if reason is not None:
            pytest.skip(reason)


@pytest.fixture(autouse=True)
def _skip_when_compiled(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("interpreted") is not None and is_compiled():
        pytest.skip("for the sources: set MPTCP_COMPILED=0")


@pytest.fixture(autouse=True)
def _counters_that_are_raised(
    request: pytest.FixtureRequest, _skip_when_compiled: None
) -> Iterator[None]:
    """`@pytest.mark.mib(NAME, …)`: a stack of the test has counted that (docs/counters.md)."""
    STACKS.clear()
    yield
    for mark in request.node.iter_markers("mib"):
        for name in mark.args:
            assert any(stack.mib()[name] for stack in STACKS), f"{name} was not raised"
    STACKS.clear()


@pytest.fixture
def left() -> Iterator[Namespace]:
    with Namespace.create("left") as namespace:
        yield namespace


@pytest.fixture
def right() -> Iterator[Namespace]:
    with Namespace.create("right") as namespace:
        yield namespace
