"""Measurements in real time on machines that others use too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import pytest

P = ParamSpec("P")

ATTEMPTS = 4


def measured(test: Callable[P, None]) -> Callable[P, None]:
    """A test that measures a rate or a delay: repeated when another program had the CPU.

    A process that is kept waiting for 20 ms moves less than its link; what is asserted is that
    the figure is reached when it is let run. Each failure is printed; the last one counts. `make
    test` runs these tests by themselves (marker `realtime`).
    """

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                test(*args, **kwargs)
                return
            except AssertionError as error:
                if attempt == ATTEMPTS:
                    raise
                print(f"attempt {attempt}: {str(error).splitlines()[0]}")

    marked: Callable[P, None] = pytest.mark.realtime(run)
    return marked
