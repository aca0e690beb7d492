"""Our end of an emulated path: a plain TCP sender on a TUN device, a process of its own.

`python -m bench.tcp_sender --number N --control NAME …` prints `{"ready": true}` when its engine
stands, connects when a line comes on stdin, sends until stdin ends, and prints what it knows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mptcp

from .meter import CpuClock
from .nodes import say
from .ours import BulkSender
from .priority import NICENESS
from .virtual import BUFFER


def _stdin(loop: asyncio.AbstractEventLoop) -> tuple[asyncio.Future[None], asyncio.Future[None]]:
    """Done when the first line has come, and when there will be no more."""
    go, over = loop.create_future(), loop.create_future()

    def read() -> None:
        if os.read(0, 4096):
            if not go.done():
                go.set_result(None)
            return
        loop.remove_reader(0)
        for future in (go, over):
            if not future.done():
                future.set_result(None)

    loop.add_reader(0, read)
    return go, over


async def _send(args: argparse.Namespace) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    go, over = _stdin(loop)
    own = f"10.1.{args.number}.2"
    interface = mptcp.Interface(f"mp{args.number}", f"{own}/24", routes=[f"{args.peer}/32"])
    config = mptcp.Config(mptcp=False, congestion_control=args.control, send_buffer=BUFFER)
    async with mptcp.Engine([interface], config) as engine:
        say({"ready": True})
        await go
        if over.done():
            return {}
        lost: asyncio.Future[None] = loop.create_future()
        transport, _ = await engine.create_connection(
            lambda: BulkSender(lost), args.peer, args.port, local_addr=own
        )
        cpu = CpuClock()
        await asyncio.wait([over, lost], return_when=asyncio.FIRST_COMPLETED)
        info = transport.get_extra_info("mptcp_info")
        told: dict[str, Any] = {
            **(info.to_dict()["subflows"][0] if info.subflows else {}),
            **cpu.shares(),
            "counters": dict(engine.stack.counters),
        }
        if lost.done():
            told["error"] = "the connection ended before the measurement did"
        transport.abort()
        return told


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 1 and one line on stderr when it fails."""
    parser = argparse.ArgumentParser(prog="bench.tcp_sender")
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--control", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--profile", type=Path)
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us, in order
    with contextlib.suppress(OSError):  # only with the right to
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    with cProfile.Profile() if args.profile else contextlib.nullcontext() as profiler:
        try:
            told = mptcp.run(_send(args))
        except (OSError, ValueError) as error:
            sys.stderr.write(f"tcp_sender: {error}\n")
            return 1
    if profiler is not None:
        profiler.dump_stats(args.profile)
    say(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
