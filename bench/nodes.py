"""The programs at the ends of a measurement, each a process of its own in its namespace.

`python -m bench.nodes ROLE …` with the roles of `ROLES`. A receiver prints `{"ready": true}` when
it can be reached, and every role prints one JSON line with its result before it ends; a receiver
ends when its measurement is complete, and by that its sender ends too. `Node` is the parent's side.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from mptcp.tun.netns import Namespace

from .meter import CpuClock, Meter
from .priority import NICENESS
from .registry import BenchError
from .topology import PATHS, PORT, Side, address

IPPROTO_MPTCP: Final = 262
CHUNK: Final = 1 << 20

Arguments = argparse.Namespace


def say(values: dict[str, Any]) -> None:
    """One JSON line to the parent."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def _congestion_control(sock: socket.socket, name: str) -> str:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    held = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return held.rstrip(b"\0").decode()


def kernel_send(args: Arguments) -> None:
    """A kernel MPTCP socket that sends until the peer has had enough."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as sock:
        used = _congestion_control(sock, args.cc)
        sock.bind((address(Side.A, 1), 0))
        sock.connect((address(Side.B, 1), PORT))
        block = memoryview(bytes(CHUNK))
        started, cpu = time.perf_counter(), CpuClock()
        sent = 0
        try:
            while True:
                sent += sock.send(block)
        except (ConnectionError, TimeoutError):
            elapsed = time.perf_counter() - started
        say({"bytes": sent, "cc": used, "seconds": elapsed, **cpu.shares()})


def kernel_recv(args: Arguments) -> None:
    """A kernel MPTCP listener whose first connection is measured."""
    meter = Meter(args.warmup, args.seconds)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as listener:
        used = _congestion_control(listener, args.cc)
        listener.bind(("0.0.0.0", PORT))
        listener.listen(1)
        say({"ready": True})
        connection, _ = listener.accept()
        buffer = bytearray(CHUNK)
        with connection:
            while not meter.done:
                size = connection.recv_into(buffer)
                if not size:
                    raise BenchError("the sender ended before the measurement did")
                meter.add(size)
            # With something unread close() is heard at once (RFC 8684 §3.5); else the sender would
            # go on until nothing fits any more, and wait.
            connection.recv(1, socket.MSG_PEEK)
    say({**meter.result, "cc": used})


def _ours_send(args: Arguments) -> None:
    from .ours import send

    send(args)


def _ours_recv(args: Arguments) -> None:
    from .ours import receive

    receive(args)


def _bare_send(args: Arguments) -> None:
    from .bare import send

    send(args)


def _bare_recv(args: Arguments) -> None:
    from .bare import receive

    receive(args)


ROLES: Final[dict[str, Callable[[Arguments], None]]] = {
    "kernel-send": kernel_send,
    "kernel-recv": kernel_recv,
    "ours-send": _ours_send,
    "ours-recv": _ours_recv,
    "bare-send": _bare_send,
    "bare-recv": _bare_recv,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one role; 1 and one line on stderr when it fails."""
    parser = argparse.ArgumentParser(prog="bench.nodes")
    parser.add_argument("role", choices=list(ROLES))
    parser.add_argument("--cc", default="cubic")
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--paths", type=int, default=PATHS)
    parser.add_argument("--control", help="congestion control of our ends (default: the stack's)")
    parser.add_argument("--buffer", type=int, help="bytes of our send and receive buffers")
    parser.add_argument("--urgent", action="store_true", help="our ends run at high priority")
    parser.add_argument("--profile", type=Path)
    args = parser.parse_args(arguments)
    # Ctrl-C reaches the whole group: the parent ends us, in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if args.urgent and args.role.startswith("ours"):
        with contextlib.suppress(OSError):  # only with the right to
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    role = ROLES[args.role]
    profiler = cProfile.Profile() if args.profile is not None else None
    try:
        if profiler is not None:
            profiler.runcall(role, args)
        else:
            role(args)
    except (OSError, BenchError) as error:
        sys.stderr.write(f"{args.role}: {error}\n")
        return 1
    finally:
        if profiler is not None:
            profiler.dump_stats(args.profile)
    return 0


class Node:
    """A role that runs in a namespace, as its parent sees it."""

    def __init__(
        self,
        namespace: Namespace,
        role: str,
        options: Sequence[str] = (),
        *,
        module: str = "nodes",
        stdin: bool = False,
    ) -> None:
        """Start it; `options` are those of `main`.

        With another `module` of this package, `role` is only what the node is called. `stdin`: it
        is told something, by `tell` and `end_input`.
        """
        command = [] if module != "nodes" else [role]
        self.role = role
        self._buffer = b""
        self._words = ""
        self._process: subprocess.Popen[bytes] = namespace.run(
            [sys.executable, "-m", f"{__package__}.{module}", *command, *options],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def line(self, timeout: float) -> dict[str, Any]:
        """The next JSON line. Raises BenchError when none comes within `timeout` seconds."""
        pipe = self._process.stdout
        assert pipe is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([pipe], [], [], max(0.0, left))
            if not ready:
                raise BenchError(f"{self.role} said nothing for {timeout:.0f} s")
            data = pipe.read1(65536)  # type: ignore[attr-defined]
            if not data:
                raise BenchError(self._last_words())
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\n")
        values: dict[str, Any] = json.loads(text)
        return values

    def resident(self) -> int:
        """Its resident memory now, bytes. Raises BenchError when it has ended."""
        try:
            with open(f"/proc/{self._process.pid}/statm", encoding="ascii") as pages:
                return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            raise BenchError(self._last_words()) from None

    def tell(self, line: bytes) -> None:
        """Write to its stdin. Raises BenchError when it has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BenchError(self._last_words()) from None

    def end_input(self) -> None:
        """It is told no more."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _last_words(self) -> str:
        """Why it ended: the last line it wrote on stderr."""
        if not self._words:
            assert self._process.stderr is not None
            lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
            self._words = lines[-1] if lines else f"{self.role} ended without a word"
        return self._words

    def complaint(self) -> str:
        """Why it failed; empty when it has not."""
        return self._last_words() if self._process.poll() else ""

    def close(self, patience: float = 0.0) -> None:
        """Give it `patience` seconds to end by itself, then end it. May be called twice."""
        if self._process.stdout is None or self._process.stdout.closed:
            return
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


if __name__ == "__main__":
    sys.exit(main())
