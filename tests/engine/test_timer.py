"""The engine's wake-up: exact where a deadline is near, never late by design."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from mptcp.engine_timer import WakeUp
from tests.loops import LOOPS


def now_us() -> int:
    return time.monotonic_ns() // 1000


@pytest.mark.parametrize("make_loop", LOOPS.values(), ids=LOOPS)
def test_near_and_far(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Pacing needs less than the millisecond of a loop's timers; the median shows the mechanism."""
    late: list[int] = []

    async def main() -> None:
        rung = asyncio.Event()
        wake_up = WakeUp(asyncio.get_running_loop(), rung.set)
        for _ in range(21):
            deadline = now_us() + 300
            wake_up.arm(deadline)
            await rung.wait()
            rung.clear()
            late.append(now_us() - deadline)
        far = now_us() + 10_000
        wake_up.arm(far)
        wake_up.arm(now_us() + 20_000)  # later: changes nothing
        await rung.wait()
        rung.clear()
        assert now_us() >= far - 1000
        wake_up.arm(now_us() + 5_000)
        wake_up.close()
        wake_up.close()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(rung.wait(), 0.02)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())
    assert min(late) >= 0
    assert sorted(late)[5] < 500, late
