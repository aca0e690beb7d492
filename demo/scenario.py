"""The run from end to end: build, transfer, cut, restore, take down, judge.

Everything started here is ended here, in reverse order, whatever happens; what even that would miss
(SIGKILL) the kernel ends, because namespaces, devices and programs die with this process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import selectors
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from demo import hosts
from demo.capture import payload_per_packet
from demo.hosts import DemoError, Program, TransferError
from demo.interrupts import Interrupts
from demo.judgement import Delivery, Finding, PathUse, Run, judge
from demo.network import MTU, PATHS, Network, network, stack_address
from demo.show import Display

_TICK_US: Final = 200_000  # between two looks at the emulator's counters
_BLOCK: Final = 1 << 20
_LIMIT_US: Final = 150_000_000
_OUTAGE_US: Final = 3_000_000
_FILE: Final = "file.bin"
_CUT: Final = 0  # index of the path that is cut


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    kernel_peer: bool
    size: int  # bytes
    output: Path

    @property
    def outage_us(self) -> int:
        """Three seconds; shorter for a file so small that it would be over before."""
        return min(_OUTAGE_US, self.size // 20)


def take_priority() -> bool:
    """Run this program, and what it starts, ahead of other load; False without the right to.

    A host that waits 10 ms for a processor sends what it has in one burst, and a queue of one
    bandwidth-delay product drops it: other programs would be measured as a bad network.
    """
    try:
        os.sched_setscheduler(
            0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR))
        )
    except OSError:
        return False
    return True


def now_us() -> int:
    """The clock that the download reports by, too."""
    return time.monotonic_ns() // 1000


def make_file(path: Path, size: int, interrupts: Interrupts) -> str:
    """Write `size` random bytes; their SHA-256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        while size > 0:
            interrupts.check()
            block = os.urandom(min(size, _BLOCK))
            file.write(block)
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(slots=True)
class Transfer:
    """The download, watched: its samples, the paths' counters, and the cut in its middle."""

    network: Network
    program: Program
    display: Display
    options: Options
    interrupts: Interrupts
    delivery: Delivery = field(default_factory=Delivery)
    paths: list[PathUse] = field(default_factory=lambda: [PathUse() for _ in PATHS])
    up: list[bool] = field(default_factory=lambda: [True for _ in PATHS])
    cut: int = 0
    restored: int = 0

    def run(self) -> None:
        """Watch until the download ends. Raises TransferError, DemoError."""
        output: IO[bytes] | None = self.program.process.stdout
        assert output is not None
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            selector.register(self.interrupts, selectors.EVENT_READ)
            tick = limit = now_us()
            limit += _LIMIT_US
            pending = b""
            while True:
                wait = max(0, self._next(tick) - now_us()) / 1e6
                for key, _ in selector.select(wait):
                    if key.fileobj is not output:
                        continue
                    received = os.read(output.fileno(), _BLOCK)
                    if not received:
                        self._ended()
                        return
                    *lines, pending = (pending + received).split(b"\n")
                    for line in lines:
                        self._report(json.loads(line))
                self.interrupts.check()
                self._steer()
                if now_us() >= tick:
                    self._sample()
                    tick = now_us() + _TICK_US
                if tick > limit:
                    raise TransferError(
                        f"the download is not through after {_LIMIT_US // 1000000} s"
                    )

    def _next(self, tick: int) -> int:
        if self.cut and not self.restored:
            return min(tick, self.cut + self.options.outage_us)
        return tick

    def _report(self, report: dict[str, int]) -> None:
        """A line of fetch.py."""
        if "gap" in report:
            self.delivery.gaps.append((report["t"] - report["gap"], report["t"]))
        elif "done" in report:
            self.delivery.done = True
        else:
            self.delivery.add(report["t"], report["bytes"])

    def _steer(self) -> None:
        """Cut the path in the middle of the file, and give it back."""
        path = PATHS[_CUT]
        if not self.cut and 2 * self.delivery.total >= self.options.size:
            self._sample()
            self.network.cut(path, True)
            self.cut = now_us()
            self.up[_CUT] = False
            self.display.say(f"       {path.name} goes down: packets on it are lost silently")
        elif self.cut and not self.restored and now_us() >= self.cut + self.options.outage_us:
            self._sample()
            self.network.cut(path, False)
            self.restored = now_us()
            self.up[_CUT] = True
            self.display.say(f"       {path.name} is back")

    def _sample(self) -> None:
        totals = self.network.delivered()
        now = now_us()
        for use, total in zip(self.paths, totals, strict=True):
            use.add(now, total)
        start = self.delivery.times[0] if self.delivery.times else now
        rates = [path.rate() for path in self.paths]
        self.display.progress(now - start, self.delivery.total, rates, self.up)

    def _ended(self) -> None:
        self._sample()
        self.program.process.wait()
        if self.program.process.returncode or not self.delivery.done:
            raise TransferError(f"the download failed: {self.program.last_words()}")
        if not self.restored:
            raise DemoError("the download was over before the path came back: use a larger --size")


def run(options: Options, interrupts: Interrupts) -> bool:
    """The whole demonstration; whether every promise was kept.

    Raises TransferError when the file did not arrive; DemoError, EmulatorError or OSError
    (DeviceError among them) when it cannot run; Interrupted.
    """
    _prepare(options.output)
    display = Display(PATHS, options.size)
    if not take_priority():
        display.say("no right to real-time priority: other load here will act like a bad network")
    with tempfile.TemporaryDirectory(prefix="mptcp-demo-") as folder:
        transfer, captures, digests = _transfer(options, interrupts, display, Path(folder))
        interrupts.check()
        findings = _judge(options, transfer, captures[0], digests)
    display.say("")
    display.result(findings)
    display.result([Finding("captures", "  ".join(str(capture) for capture in captures))])
    return all(finding.kept is not False for finding in findings)


def _prepare(folder: Path) -> None:
    """Make the folder for the results. Raises DemoError when nothing could be written there."""
    mend = "choose another folder with --output"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"{error}: {mend}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DemoError(f"{folder} is not writable: {mend}")


def _transfer(
    options: Options, interrupts: Interrupts, display: Display, work: Path
) -> tuple[Transfer, list[Path], tuple[str, str]]:
    served, fetched = work / "served", work / "fetched"
    served.mkdir()
    with contextlib.ExitStack() as stack:
        peer = "the kernel's MPTCP" if options.kernel_peer else "mptcpd"
        display.say(f"host a: mptcpd; host b: {peer}. Two network namespaces, two paths:")
        for path in PATHS:
            queue = f"queue {path.queue_bytes // 1000} kB (one bandwidth-delay product)"
            display.say(f"  {path.name}: {path.description}, {queue}")
        net = stack.enter_context(network(kernel_peer=options.kernel_peer))
        interrupts.check()
        sent_digest = make_file(served / _FILE, options.size, interrupts)
        captures = []
        if options.kernel_peer:
            congestion_control = stack.enter_context(
                hosts.kernel_http_server(net.b, served, options.output, interrupts)
            )
            display.say(f"  the kernel's congestion control: {congestion_control}")
        else:
            stack.enter_context(hosts.http_server(net.b, served, options.output, interrupts))
            captures.append(
                stack.enter_context(hosts.mptcpd(net.b, "b", work, options.output, interrupts))
            )
        captures.insert(
            0, stack.enter_context(hosts.mptcpd(net.a, "a", work, options.output, interrupts))
        )
        display.say(f"fetching {options.size / 1e6:.0f} MB over HTTP, by a program that knows TCP")
        program = hosts.start_download(net.a, _FILE, fetched, options.output)
        stack.callback(program.stop)
        transfer = Transfer(net, program, display, options, interrupts)
        with display.transfer():
            transfer.run()
    return transfer, captures, (sent_digest, digest_of(fetched))


def _judge(
    options: Options, transfer: Transfer, capture: Path, digests: tuple[str, str]
) -> list[Finding]:
    source = socket.inet_aton(stack_address("b", 1))[:2]
    sizes = payload_per_packet(capture, source, MTU)
    if sizes is None:
        raise DemoError(f"the capture {capture} has no data from host b")
    return judge(
        Run(
            delivery=transfer.delivery,
            paths=transfer.paths,
            path_names=[path.name for path in PATHS],
            path_rates=[path.rate_bps for path in PATHS],
            cut=transfer.cut,
            restored=transfer.restored,
            cut_path=_CUT,
            sent_digest=digests[0],
            received_digest=digests[1],
            payload=sizes[0],
            packet=sizes[1],
            judge_stall=not options.kernel_peer,
        )
    )
