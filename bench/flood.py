"""The programs of the `synflood` scenario, each a process of its own in its namespace.

`python -m bench.flood ROLE …`: `server` is ours, the others use the kernel's sockets. Each prints
`{"ready": true}` when it can begin, answers a line on stdin with a line of JSON, and prints its
result when stdin ends.

The flood's packets are made before it begins: SYNs as Linux sends them, MP_CAPABLE included, each
from a source and port of its own out of 198.18.0.0/15 (RFC 2544's range for benchmarks, which the
router swallows).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Final

import mptcp
from mptcp.addressing import parse_address
from mptcp.wire.mptcp_options import MpCapable
from mptcp.wire.tcp import SACK_PERMITTED, SYN, HeaderTemplate, mss_option, timestamps_option

from .meter import CpuClock
from .nodes import IPPROTO_MPTCP, say
from .ours import BLOCK

PORT: Final = 5001
SERVER: Final = "10.1.1.2"
SOURCES: Final = "198.18.0.0/15"
BULK: Final = b"B"
"""First byte of a request for data without end; any other byte is answered with itself."""
MAX_BURST: Final = 64
"""SYNs sent at once: what the flooder lags behind beyond this it does not make up for."""
PREPARED: Final = 1 << 16
_BUFFER: Final = 1 << 20
_PATIENCE_S: Final = 10.0


def syn_packets(count: int, seed: int = 1) -> list[bytes]:
    """`count` whole SYN packets to the server, each from somebody else."""
    draw = random.Random(seed).getrandbits
    server = parse_address(SERVER)
    packets = []
    for _ in range(count):
        source = (0xC612_0000 + draw(17)).to_bytes(4, "big")
        template = HeaderTemplate(source, server, 1024 + draw(15), PORT)
        clock = timestamps_option(draw(32), 0)[2:]
        options = mss_option(1460) + SACK_PERMITTED + clock + b"\x01\x03\x03\x07"
        header = template.build(draw(32), 0, SYN, 64240, options + MpCapable().emit(), 0)
        template.finish_checksum(header, [])
        packets.append(bytes(header))
    return packets


def flooder(args: argparse.Namespace) -> None:
    """Sends SYNs at `args.rate` a second until stdin ends."""
    packets = syn_packets(PREPARED)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        sock.connect((SERVER, 0))
        send = sock.send
        say({"ready": True})
        _await_line()
        started = time.perf_counter()
        cpu = CpuClock()
        sent = due = 0
        while not select.select([0], [], [], 0)[0]:
            now = int((time.perf_counter() - started) * args.rate)
            burst = min(now - due, MAX_BURST)
            due = now
            if burst < 8:
                due = now - burst  # later, together
                time.sleep(0.0002)
                continue
            for number in range(sent, sent + burst):
                send(packets[number % PREPARED])
            sent += burst
        elapsed = time.perf_counter() - started
    say({"sent": sent, "seconds": elapsed, "per_s": sent / elapsed, **cpu.shares()})


def _await_line() -> None:
    if not sys.stdin.readline():
        raise OSError("the measurement is over before it began")


def bulk(args: argparse.Namespace) -> None:
    """A kernel client that takes data without end; each line on stdin asks how much there was."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as sock:
        sock.connect((SERVER, PORT))
        sock.sendall(BULK)
        buffer = bytearray(_BUFFER)
        total = 0
        say({"ready": True})
        while True:
            stream = sock.fileno()
            ready, _, _ = select.select([stream, 0], [], [], _PATIENCE_S)
            if stream in ready:
                size = sock.recv_into(buffer)
                if not size:
                    raise OSError("the server ended the transfer")
                total += size
            if 0 in ready:
                if not os.read(0, 4096):
                    break
                say({"bytes": total, "at": time.perf_counter()})
            if not ready:
                raise OSError(f"nothing has come for {_PATIENCE_S:.0f} s")
    say({"bytes": total})


def connects(args: argparse.Namespace) -> None:
    """Kernel clients one after the other, `args.count` for each line on stdin.

    The answer: milliseconds until each was connected, and until it had its answer; `failed` counts
    those that did not get one in ten seconds.
    """
    say({"ready": True})
    while sys.stdin.readline():
        opened: list[float] = []
        served: list[float] = []
        failed = 0
        for number in range(args.count):
            started = time.perf_counter()
            try:
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as sock:
                    sock.settimeout(_PATIENCE_S)
                    sock.connect((SERVER, PORT))
                    opened.append((time.perf_counter() - started) * 1000)
                    word = bytes((number % 64,))
                    sock.sendall(word)
                    if sock.recv(16) != word:
                        raise ConnectionError("a wrong answer")
                    served.append((time.perf_counter() - started) * 1000)
            except OSError:
                failed += 1
            time.sleep(args.pause)
        say({"opened_ms": opened, "served_ms": served, "failed": failed})
    say({})


class _Server(asyncio.Protocol):
    """Bulk or an answer, as the first byte says."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._bulk = False
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if data[:1] != BULK:
            self._transport.write(data)
            return
        self._bulk = True
        self._fill()

    def _fill(self) -> None:
        transport = self._transport
        assert transport is not None
        while self._bulk and not self._paused and not transport.is_closing():
            transport.write(BLOCK)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._fill()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    async with mptcp.Engine([mptcp.Interface("t1", f"{SERVER}/24")]) as engine:
        await engine.create_server(_Server, None, PORT)
        cpu = CpuClock()

        def told() -> None:
            if os.read(0, 4096):
                say({"counters": dict(engine.stack.counters), **cpu.shares()})
                return
            loop.remove_reader(0)
            over.set_result(None)

        loop.add_reader(0, told)
        say({"ready": True})
        await over


def server(args: argparse.Namespace) -> None:
    """Ours, with the default configuration."""
    mptcp.run(_serve())
    say({})


ROLES: Final = {"server": server, "flooder": flooder, "bulk": bulk, "connects": connects}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one role; 1 and one line on stderr when it fails."""
    parser = argparse.ArgumentParser(prog="bench.flood")
    parser.add_argument("role", choices=list(ROLES))
    parser.add_argument("--rate", type=float, default=25_000.0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.02)
    parser.add_argument("--profile")
    args = parser.parse_args(arguments)
    # Ctrl-C reaches the whole group: the parent ends us, in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if args.profile:
            import cProfile

            profiler = cProfile.Profile()
            profiler.runcall(ROLES[args.role], args)
            profiler.dump_stats(args.profile)
        else:
            ROLES[args.role](args)
    except OSError as error:
        sys.stderr.write(f"{args.role}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
