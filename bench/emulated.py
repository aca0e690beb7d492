"""Plain TCP over emulated paths in real time: ours beside the kernel's, several paths at once.

    host a                                             host b
    kernel's 10.0.1.1 ---- link [ emulator ] link ---- 10.0.1.2 kernel: receives, whoever sends
    ours 10.1.n.2 - mpn [kernel routes] -+

Each trial has namespaces and an emulator process of its own; a sender of ours is a process of its
own on a TUN device in host a, one routed hop more than the kernel's. It runs at the niceness of the
emulator, because there, in the process that delivers the packets, the kernel's TCP does its work:
what else the machine does is to delay neither. All sockets of the kernel, of
every trial, are served by one loop in this process, so that what receives is the same for all.

How late the emulator delivers is measured from outside: on a second path of the same process, with
a fixed delay, a datagram is sent every 20 ms; when it leaves is known here, when it arrives the
kernel stamps.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mptcp.tun.emulator import LinkEmulator, PathEnd, PathSpec
from mptcp.tun.netns import Namespace

from .nodes import Node
from .paths import Cell, forward_change
from .pool import interrupts_held
from .registry import BenchError

PORT: Final = 5001
SAMPLE_S: Final = 0.5
"""Distance of the samples of each flow's total."""
PROBE_S: Final = 0.02
PROBE_DELAY_US: Final = 5_000
LATE_US: Final = 1_000
"""A probe that takes so much longer than its path's delay is late."""
SETTINGS: Final = {
    # The kernel's limits of one connection, large enough for any path here.
    "net.ipv4.tcp_rmem": "4096 131072 33554432",
    "net.ipv4.tcp_wmem": "4096 131072 33554432",
    # What one connection learned is not to start the next one.
    "net.ipv4.tcp_no_metrics_save": "1",
}
_BLOCK: Final = memoryview(bytes(1 << 20))
_GRACE_S: Final = 20.0
_SO_TIMESTAMPNS: Final = 35
_TCP_INFO: Final = struct.Struct("8B24I")
"""linux/tcp.h, the first part of struct tcp_info."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Who sends, with which congestion control ("reno" and "newreno" are each one's own name)."""

    ours: bool
    control: str

    @property
    def label(self) -> str:
        """What people read."""
        return f"{'ours' if self.ours else 'kernel'} {self.control}"


@dataclass(frozen=True, slots=True)
class Trial:
    """Flows that start together over one path."""

    cell: Cell
    flows: tuple[Flow, ...]
    seed: int


@dataclass(slots=True)
class Outcome:
    """What came of a trial."""

    samples: list[list[tuple[float, int]]]
    """For each flow (seconds since the start, bytes the receiving application has got)."""
    senders: list[dict[str, Any]]
    """What each sender told of itself."""
    emulator_cpu: float
    """Share of one CPU that the emulator's process used."""
    lateness_us: dict[str, float]
    """Of the probes: median, 99 %, largest, and the share that was late."""
    link: dict[str, int]
    """The emulator's counters of the data's direction."""

    def goodput(self, flow: int, begin: float, end: float) -> float:
        """Mbit/s of a flow between two times, s since the start. Raises BenchError for none."""
        inside = [sample for sample in self.samples[flow] if begin <= sample[0] <= end + SAMPLE_S]
        if len(inside) < 2:
            raise BenchError("the measurement is shorter than two samples")
        (first, before), (last, after) = inside[0], inside[-1]
        if after == before:
            raise BenchError(f"nothing arrived between {first:.0f} s and {last:.0f} s")
        return (after - before) * 8 / (last - first) / 1e6


@dataclass(slots=True)
class _Stream:
    """The kernel's ends of one flow."""

    listener: socket.socket
    sender: socket.socket | None
    receiver: socket.socket | None = None
    received: int = 0
    samples: list[tuple[float, int]] = field(default_factory=list)


class _Road:
    """The network, the processes and the sockets of one trial."""

    def __init__(self, trial: Trial, tag: str, profile: Path | None) -> None:
        self.trial = trial
        self.streams: list[_Stream] = []
        self.nodes: list[Node | None] = []
        self.lateness: list[float] = []
        self._stack = ExitStack()
        try:
            self._build(tag, profile)
        except BaseException:
            self._stack.close()
            raise

    def _build(self, tag: str, profile: Path | None) -> None:
        enter = self._stack.enter_context
        cell = self.trial.cell
        self.a = enter(Namespace.create("a"))
        self.b = enter(Namespace.create("b"))
        for host in (self.a, self.b):
            for name, value in SETTINGS.items():
                host.sysctl(name, value)
        self.a.enable_forwarding()
        paths = [
            PathSpec(
                name=name,
                a=PathEnd(device=name, addresses=(f"10.0.{number}.1/30",), namespace=self.a),
                b=PathEnd(device=name, addresses=(f"10.0.{number}.2/30",), namespace=self.b),
                rate_bps=rate,
                delay_us=delay,
                queue_bytes=queue,
                mtu=cell.mtu,
                seed=self.trial.seed,
                forward=change,
            )
            for number, name, rate, delay, queue, change in (
                (
                    1,
                    "link",
                    cell.rate_bps,
                    cell.rtt_us // 2,
                    cell.queue_bytes,
                    forward_change(cell),
                ),
                (2, "probe", 0, PROBE_DELAY_US, 0, None),
            )
        ]
        self.emulator = enter(LinkEmulator.start(paths))
        self.b.add_route("10.1.0.0/16", device="link")
        self.probe_out = enter(self.a.socket(kind=socket.SOCK_DGRAM))
        self.probe_in = enter(self.b.socket(kind=socket.SOCK_DGRAM))
        self.probe_in.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.probe_in.bind(("10.0.2.2", PORT))
        self.probe_in.setblocking(False)
        self.probe_out.connect(("10.0.2.2", PORT))
        for number, flow in enumerate(self.trial.flows):
            self._add(number, flow, tag, profile)

    def _add(self, number: int, flow: Flow, tag: str, profile: Path | None) -> None:
        listener = self._stack.enter_context(self.b.socket())
        listener.setblocking(False)
        listener.bind(("10.0.1.2", PORT + number))
        listener.listen(1)
        if not flow.ours:
            sender = self._stack.enter_context(self.a.socket())
            sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, flow.control.encode())
            sender.setblocking(False)
            self.streams.append(_Stream(listener, sender))
            self.nodes.append(None)
            return
        options = ["--number", str(number + 1), "--control", flow.control]
        options += ["--peer", "10.0.1.2", "--port", str(PORT + number)]
        if profile is not None:
            options += ["--profile", str(profile / f"{tag}-{number + 1}.pstats")]
        node = Node(self.a, "tcp-send", options, module="tcp_sender", stdin=True)
        self._stack.callback(node.close)
        self.streams.append(_Stream(listener, None))
        self.nodes.append(node)

    def start(self) -> None:
        """Let every sender connect."""
        for number, (stream, node) in enumerate(zip(self.streams, self.nodes, strict=True)):
            if node is not None:
                node.tell(b"go\n")
            elif stream.sender is not None:
                stream.sender.connect_ex(("10.0.1.2", PORT + number))

    def probe(self) -> None:
        """Send one."""
        self.probe_out.send(struct.pack("!q", time.time_ns()))

    def take_probes(self) -> None:
        """Note how late those are that have arrived."""
        while True:
            try:
                data, ancillary, _, _ = self.probe_in.recvmsg(64, 64)
            except BlockingIOError:
                return
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2][:16])
            (sent,) = struct.unpack("!q", data)
            took = (seconds * 1_000_000_000 + nanoseconds - sent) / 1000
            self.lateness.append(took - PROBE_DELAY_US)

    def cpu_seconds(self) -> float:
        """CPU time of the emulator so far."""
        fields = Path(f"/proc/{self.emulator.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def counters(self) -> dict[str, int]:
        """The kernel's TCP counters in host a that are not 0."""
        return {name: n for name, n in self.a.counters().items() if n and name.startswith("Tcp")}

    def outcome(self, cpu: float) -> Outcome:
        """End the senders and collect what everybody knows."""
        told: list[dict[str, Any]] = []
        for stream, node in zip(self.streams, self.nodes, strict=True):
            if stream.sender is not None:
                told.append({**_tcp_info(stream.sender), "counters": self.counters()})
            elif node is not None:
                node.end_input()
                told.append(node.line(_GRACE_S))
                node.close(_GRACE_S)
                if "error" in told[-1]:
                    raise BenchError(told[-1]["error"])
        link = self.emulator.stats()["link"]["forward"]
        late = sorted(self.lateness) or [0.0]
        return Outcome(
            [stream.samples for stream in self.streams],
            told,
            cpu,
            {
                "median": late[len(late) // 2],
                "p99": late[len(late) * 99 // 100],
                "max": late[-1],
                "late_share": sum(value > LATE_US for value in late) / len(late),
                "probes": len(self.lateness),
            },
            {"packets": link.packets, "lost": link.drops_loss, "dropped": link.drops_queue},
        )

    def close(self) -> None:
        """Take it all down."""
        for stream in self.streams:
            if stream.receiver is not None:
                stream.receiver.close()
        self._stack.close()


def _tcp_info(sock: socket.socket) -> dict[str, Any]:
    """What the kernel says of its sender, by the names of struct tcp_info."""
    held = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    _, _, _, _, _, _, _, _, *words = _TCP_INFO.unpack(raw)
    return {
        "congestion_control": held.rstrip(b"\0").decode(),
        "rto": words[0],
        "srtt": words[15],
        "ssthresh": words[17],
        "cwnd": words[18],
        "reordering": words[20],
        "total_retrans": words[23],
    }


class _Loop:
    """Serves the kernel's sockets of all roads."""

    def __init__(self, roads: Sequence[_Road]) -> None:
        self.roads = roads
        self._buffer = bytearray(1 << 20)
        self._poll = selectors.DefaultSelector()
        for road in roads:
            self._poll.register(road.probe_in, selectors.EVENT_READ, road.take_probes)
            for stream in road.streams:
                self._poll.register(stream.listener, selectors.EVENT_READ, self._accepter(stream))

    def close(self) -> None:
        self._poll.close()

    def run(self, seconds: float, tick: Callable[[float], None]) -> None:
        """Start all flows and serve them for that long."""
        for road in self.roads:
            road.start()
            for stream in road.streams:
                if stream.sender is not None:
                    self._poll.register(
                        stream.sender, selectors.EVENT_WRITE, self._writer(stream.sender)
                    )
        began = time.monotonic()
        sample = probe = began
        while True:
            now = time.monotonic()
            if now >= probe:
                probe = max(probe + PROBE_S, now)
                for road in self.roads:
                    road.probe()
            if now >= sample:
                self._sample(now - began)
                if now - began >= seconds:
                    return
                sample += SAMPLE_S
                tick(now - began)
            for key, _ in self._poll.select(max(0.0, min(probe, sample) - now)):
                key.data()

    def _sample(self, elapsed: float) -> None:
        for road in self.roads:
            for stream in road.streams:
                stream.samples.append((elapsed, stream.received))

    def _accepter(self, stream: _Stream) -> Callable[[], None]:
        def accept() -> None:
            stream.receiver, _ = stream.listener.accept()
            stream.receiver.setblocking(False)
            self._poll.unregister(stream.listener)
            self._poll.register(
                stream.receiver, selectors.EVENT_READ, self._reader(stream, stream.receiver)
            )

        return accept

    def _reader(self, stream: _Stream, receiver: socket.socket) -> Callable[[], None]:
        buffer = self._buffer

        def read() -> None:
            size = receiver.recv_into(buffer)
            if not size:
                raise BenchError("a sender ended before the measurement did")
            stream.received += size

        return read

    def _writer(self, sender: socket.socket) -> Callable[[], None]:
        def write() -> None:
            try:
                while True:
                    sender.send(_BLOCK)
            except BlockingIOError:
                return

        return write


@contextmanager
def _built(
    trials: Sequence[Trial], tag: str, profile: Path | None
) -> Iterator[tuple[list[_Road], _Loop]]:
    with ExitStack() as stack:
        roads = []
        for place, trial in enumerate(trials):
            with interrupts_held():
                road = _Road(trial, f"{tag}-{place + 1}", profile)
                stack.callback(road.close)
            roads.append(road)
        for road in roads:
            for node in road.nodes:
                if node is not None:
                    node.line(_GRACE_S)
        loop = _Loop(roads)
        stack.callback(loop.close)
        yield roads, loop


def measure(
    trials: Sequence[Trial],
    seconds: float,
    *,
    tag: str = "trial",
    profile: Path | None = None,
    tick: Callable[[float], None] = lambda elapsed: None,
) -> list[Outcome]:
    """Run the trials at once, for `seconds` from the common start; their outcomes in order.

    `tick` is told every half second how much of the time is over. Raises BenchError when a sender
    fails, DeviceError or EmulatorError when the network cannot be made.
    """
    with _built(trials, tag, profile) as (roads, loop):
        before = [road.cpu_seconds() for road in roads]
        began = time.monotonic()
        try:
            loop.run(seconds, tick)
        except OSError as error:
            raise BenchError(f"{error}; {_complaints(roads)}") from error
        except BenchError as error:
            raise BenchError(f"{error}; {_complaints(roads)}") from error
        elapsed = time.monotonic() - began
        used = [
            (road.cpu_seconds() - then) / elapsed for road, then in zip(roads, before, strict=True)
        ]
        return [road.outcome(cpu) for road, cpu in zip(roads, used, strict=True)]


def _complaints(roads: Sequence[_Road]) -> str:
    nodes = [node for road in roads for node in road.nodes if node is not None]
    return "; ".join(filter(None, (node.complaint() for node in nodes))) or "no sender complains"
