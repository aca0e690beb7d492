"""Runs the kernel's scripts at the same time: they mostly wait.

The first kernel test of a session starts all that were selected, `WORKERS` at a time, each in a
thread with a namespace of its own; the tests then report one by one. Under pytest-xdist, where a
worker does not know which tests it will get, each runs when its turn comes.

A script that fails is run again with more patience: another program may have had the CPU. The last
failure counts, the others are printed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.conformance.kernel import KernelNet

WORKERS = 8
ATTEMPTS = 3


def is_kernel(item: pytest.Item) -> bool:
    """Whether a test is the kernel's run of a script."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("net") == "kernel"


def script_params(item: pytest.Function) -> dict[str, Any]:
    """The arguments of a script besides `net`."""
    return {k: v for k, v in item.callspec.params.items() if k != "net"}


class Runner:
    """The kernel runs of one session."""

    def __init__(self, session: pytest.Session) -> None:
        self._pool = ThreadPoolExecutor(WORKERS, "conformance")
        self._futures: dict[str, Future[tuple[int, list[str]]]] = {}
        if "PYTEST_XDIST_WORKER" not in os.environ:
            for item in session.items:
                if isinstance(item, pytest.Function) and is_kernel(item):
                    self._submit(item)

    def _submit(self, item: pytest.Function) -> Future[tuple[int, list[str]]]:
        future = self._pool.submit(_run, item.obj, script_params(item))
        self._futures[item.nodeid] = future
        return future

    def result(self, item: pytest.Function) -> int:
        """Wait for the script of `item`: its number of expectations. Raises what it raised."""
        future = self._futures.pop(item.nodeid, None) or self._submit(item)
        count, complaints = future.result()
        for complaint in complaints:
            print(complaint)
        return count

    def close(self) -> None:
        """The session is over, perhaps early."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _run(script: Callable[..., None], params: dict[str, Any]) -> tuple[int, list[str]]:
    complaints: list[str] = []
    for attempt in range(1, ATTEMPTS + 1):
        net = KernelNet(patience=attempt)
        with contextlib.closing(net):
            try:
                script(net=net, **params)
                return net.expectations, complaints
            except AssertionError as error:
                if attempt == ATTEMPTS:
                    raise
                complaints.append(f"attempt {attempt}: {str(error).splitlines()[0]}")
    raise AssertionError("unreachable")
