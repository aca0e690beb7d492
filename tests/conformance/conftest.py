"""The fixture `net`: every script runs on ours and on the kernel. Counts what was expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import cast

import pytest

from tests.conformance.ours import OurNet
from tests.conformance.runner import Runner, is_kernel, script_params
from tests.conformance.vocabulary import Net

_RUNNER = pytest.StashKey[Runner]()
_PROPERTY = "expectations"


@pytest.fixture(
    params=["ours", pytest.param("kernel", marks=[pytest.mark.netns, pytest.mark.realtime])]
)
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    """The system under test. The kernel's is made by the runner, in a thread of its own."""
    if request.param == "kernel":
        yield cast("Net", None)
        return
    ours = OurNet()
    yield ours
    ours.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a script: the kernel's in the runner's threads. Its report tells the expectations."""
    if "net" not in pyfuncitem.fixturenames:
        return None
    if is_kernel(pyfuncitem):
        stash = pyfuncitem.session.stash
        if _RUNNER not in stash:
            stash[_RUNNER] = Runner(pyfuncitem.session)
        count = ("kernel", stash[_RUNNER].result(pyfuncitem))
    else:
        ours = cast("Net", pyfuncitem.funcargs["net"])
        pyfuncitem.obj(net=ours, **script_params(pyfuncitem))
        count = ("ours", ours.expectations)
    pyfuncitem.user_properties.append((_PROPERTY, count))
    return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The kernel's runs come after ours: nothing else is to have the CPU while they run."""
    places = [n for n, item in enumerate(items) if "net" in getattr(item, "fixturenames", ())]
    ordered = sorted((items[n] for n in places), key=is_kernel)
    for n, item in zip(places, ordered, strict=True):
        items[n] = item


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Scripts that nobody waits for any more are dropped."""
    if _RUNNER in session.stash:
        session.stash[_RUNNER].close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many expectations were checked on each system."""
    totals: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == _PROPERTY:
                totals[value[0]] += value[1]
    if totals:
        counts = ", ".join(f"{name} {totals[name]}" for name in ("ours", "kernel"))
        terminalreporter.write_line(f"conformance expectations that hold: {counts}")
