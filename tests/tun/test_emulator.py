"""The link emulator under kernel TCP: what it promises of rate, delay and being cut.

    namespace left -- TUN [ emulator ] TUN -- namespace right

Kernel congestion control is set to cubic, for the kernel's default differs from system to system.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from mptcp.tun.emulator import EmulatorError, LinkEmulator, PathEnd, PathSpec
from mptcp.tun.linkem import LinkChange, LinkStats
from mptcp.tun.netns import Namespace
from tests.realtime import measured

pytestmark = pytest.mark.netns

MBIT = 1_000_000
CHUNK = 1 << 18


def spec(
    left: Namespace,
    right: Namespace,
    number: int = 1,
    *,
    rate_bps: int = 0,
    delay_us: int = 0,
    queue_bytes: int | None = None,
) -> PathSpec:
    """Path `number` between the namespaces, 10.number.0.1 left and .2 right."""

    def end(namespace: Namespace, host: int) -> PathEnd:
        return PathEnd(
            device=f"path{number}",
            addresses=(f"10.{number}.0.{host}/24", f"fd0{number}::{host}/64"),
            namespace=namespace,
        )

    return PathSpec(
        name=f"path{number}",
        a=end(left, 1),
        b=end(right, 2),
        rate_bps=rate_bps,
        delay_us=delay_us,
        queue_bytes=queue_bytes,
    )


@dataclass
class Transfer:
    """Kernel TCP from left to right over one path, as fast as it goes, until the block ends."""

    received: int = 0


@contextlib.contextmanager
def transfer(left: Namespace, right: Namespace, number: int = 1) -> Iterator[Transfer]:
    state = Transfer()
    with right.socket() as server, left.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        server.bind((f"10.{number}.0.2", 5000))
        server.listen()
        client.settimeout(10)
        client.connect((f"10.{number}.0.2", 5000))
        accepted, _ = server.accept()
        accepted.settimeout(10)

        def send() -> None:
            with contextlib.suppress(OSError):  # the end of the block shuts the socket down
                while True:
                    client.sendall(bytes(CHUNK))

        def receive() -> None:
            buffer = bytearray(CHUNK)
            with contextlib.suppress(OSError):
                while count := accepted.recv_into(buffer):
                    state.received += count

        threads = [threading.Thread(target=send), threading.Thread(target=receive)]
        with accepted:
            for thread in threads:
                thread.start()
            try:
                yield state
            finally:
                for end in (client, accepted):
                    end.shutdown(socket.SHUT_RDWR)
                for thread in threads:
                    thread.join()


def wait(seconds: float, until: Callable[[], bool] = lambda: False) -> float:
    """Let time pass, until the condition holds at the latest check; returns the seconds it took."""
    start = time.monotonic()
    never, writer = socket.socketpair()
    with never, writer:
        while (gone := time.monotonic() - start) < seconds and not until():
            select.select([never], [], [], min(0.02, seconds - gone))
    return time.monotonic() - start


def rates(emulator: LinkEmulator, seconds: float) -> dict[str, float]:
    """Bit/s of each path's forward direction over that time, by the emulator's own counters."""
    before, start = emulator.stats(), time.monotonic()
    wait(seconds)
    after, took = emulator.stats(), time.monotonic() - start
    return {
        name: (after[name]["forward"].bytes - before[name]["forward"].bytes) * 8 / took
        for name in after
    }


@contextlib.contextmanager
def echo(right: Namespace, number: int = 1) -> Iterator[None]:
    """A UDP echo server at the right end of the path."""
    with right.socket(kind=socket.SOCK_DGRAM) as server:
        server.bind((f"10.{number}.0.2", 7))

        def answer() -> None:
            while (received := server.recvfrom(2000))[0]:
                server.sendto(*received)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            with right.socket(kind=socket.SOCK_DGRAM) as end:
                end.sendto(b"", (f"10.{number}.0.2", 7))
            thread.join()


def round_trips(left: Namespace, count: int, number: int = 1) -> list[float]:
    """Seconds of `count` UDP round trips; the lost ones (after half a second) are left out."""
    times = []
    with left.socket(kind=socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        client.connect((f"10.{number}.0.2", 7))
        for _ in range(count):
            start = time.perf_counter()
            client.send(b"ping")
            with contextlib.suppress(TimeoutError):
                client.recv(100)
                times.append(time.perf_counter() - start)
    return times


@pytest.mark.parametrize(
    ("rate", "delay_us"), [(10 * MBIT, 5_000), (100 * MBIT, 10_000), (50 * MBIT, 0)]
)
@measured
def test_the_rate_is_kept(left: Namespace, right: Namespace, rate: int, delay_us: int) -> None:
    path = spec(left, right, rate_bps=rate, delay_us=delay_us)
    with LinkEmulator.start([path]) as emulator, transfer(left, right) as tcp:
        wait(0.8)
        before, start = tcp.received, time.monotonic()
        measured = rates(emulator, 1.5)["path1"]
        goodput = (tcp.received - before) * 8 / (time.monotonic() - start)
        print(
            f"\n{rate / MBIT:g} Mbit/s, {delay_us / 1000:g} ms: "
            f"link {measured / MBIT:.2f}, goodput {goodput / MBIT:.2f} Mbit/s (cubic)"
        )
    assert measured == pytest.approx(rate, rel=0.03)
    # 1448 of 1500 bytes are the application's; some of the rest is resent or still on its way.
    assert goodput == pytest.approx(rate * 1448 / 1500, rel=0.1)


@measured
def test_two_paths_at_100_mbit_at_the_same_time(left: Namespace, right: Namespace) -> None:
    paths = [spec(left, right, n, rate_bps=100 * MBIT, delay_us=10_000) for n in (1, 2)]
    with (
        LinkEmulator.start(paths) as emulator,
        transfer(left, right, 1),
        transfer(left, right, 2),
    ):
        wait(1.0)
        ticks = cpu_ticks(emulator.pid)
        measured = rates(emulator, 2.0)
        busy = (cpu_ticks(emulator.pid) - ticks) / os.sysconf("SC_CLK_TCK") / 2.0
    shown = ", ".join(f"{rate / MBIT:.2f}" for rate in measured.values())
    print(f"\n2 x 100 Mbit/s: {shown} Mbit/s; the emulator uses {busy:.0%} of a core")
    for rate in measured.values():
        assert rate == pytest.approx(100 * MBIT, rel=0.03)


def cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])  # utime, stime


@pytest.mark.parametrize("delay_us", [0, 3_000, 10_000])
@measured
def test_the_delay_is_kept(left: Namespace, right: Namespace, delay_us: int) -> None:
    path = spec(left, right, rate_bps=100 * MBIT, delay_us=delay_us)
    with LinkEmulator.start([path]), echo(right):
        times = round_trips(left, 41)
    added = statistics.median(times) - 2 * delay_us / 1e6
    print(f"\n{delay_us / 1000:g} ms one way: median round trip {added * 1e6:+.0f} µs")
    assert 0 <= added < 0.001


def test_ipv6_crosses_the_link(left: Namespace, right: Namespace) -> None:
    with (
        LinkEmulator.start([spec(left, right)]),
        right.socket(socket.AF_INET6) as server,
        left.socket(socket.AF_INET6) as client,
    ):
        server.bind(("fd01::2", 5000))
        server.listen()
        client.settimeout(5)
        client.connect(("fd01::2", 5000))


@measured
def test_rate_and_delay_change_while_it_runs(left: Namespace, right: Namespace) -> None:
    path = spec(left, right, rate_bps=50 * MBIT, delay_us=2_000, queue_bytes=100_000)
    lines: list[str] = []
    with LinkEmulator.start([path], log=lines.append) as emulator:
        with transfer(left, right):
            wait(0.5)
            emulator.set("path1", rate=20 * MBIT, direction="forward")
            wait(0.3)
            slower = rates(emulator, 1.0)["path1"]
        with echo(right):
            emulator.set("path1", delay=8_000, rate=0)
            trip = statistics.median(round_trips(left, 15))
    print(f"\n50 -> 20 Mbit/s: {slower / MBIT:.2f}; 2 -> 8 ms: round trip {trip * 1000:.2f} ms")
    assert slower == pytest.approx(20 * MBIT, rel=0.03)
    assert 0.016 <= trip < 0.017
    assert lines == [
        "path path1 forward: rate_bps=20000000",
        "path path1 both: rate_bps=0 delay_us=8000",
    ]


def test_a_cut_link_is_silent_and_comes_back(left: Namespace, right: Namespace) -> None:
    with LinkEmulator.start([spec(left, right, delay_us=1_000)]) as emulator, echo(right):
        assert len(round_trips(left, 2)) == 2
        emulator.set("path1", down=True)
        assert round_trips(left, 1) == []
        assert emulator.stats()["path1"]["forward"].drops_down == 1
        emulator.set("path1", down=False, direction="forward")
        assert round_trips(left, 1) == []  # the way back is still cut
        emulator.set("path1", down=False)
        assert len(round_trips(left, 2)) == 2


def test_tcp_goes_on_after_the_link_was_cut(left: Namespace, right: Namespace) -> None:
    path = spec(left, right, rate_bps=20 * MBIT, delay_us=2_000)
    with LinkEmulator.start([path]) as emulator, transfer(left, right) as tcp:
        wait(5, lambda: tcp.received > 500_000)
        emulator.set("path1", down=True)
        wait(0.1)
        stalled = tcp.received
        wait(0.3)
        assert tcp.received == stalled
        emulator.set("path1", down=False)
        wait(5, lambda: tcp.received > stalled + 500_000)
        assert tcp.received > stalled + 500_000


def test_losses_and_full_queues_are_counted(left: Namespace, right: Namespace) -> None:
    path = spec(left, right, rate_bps=10 * MBIT, queue_bytes=20_000)
    with LinkEmulator.start([path]) as emulator, left.socket(kind=socket.SOCK_DGRAM) as client:
        for _ in range(100):
            client.sendto(bytes(1000), ("10.1.0.2", 9))
        wait(5, lambda: settled(emulator.stats()["path1"]["forward"], 100))
        forward = emulator.stats()["path1"]["forward"]
        assert forward.drops_queue > 50
        assert forward.bytes == forward.packets * 1028
        emulator.set("path1", loss=1.0, queue=0)
        client.sendto(b"lost", ("10.1.0.2", 9))
        wait(5, lambda: emulator.stats()["path1"]["forward"].drops_loss == 1)
        assert emulator.stats()["path1"]["forward"].drops_loss == 1


def received_datagrams(server: socket.socket) -> list[bytes]:
    """What comes until nothing has come for 0.2 s."""
    got = []
    server.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while True:
            got.append(server.recv(2000))
    return got


def test_mishaps_happen_in_real_time_too(left: Namespace, right: Namespace) -> None:
    """What the link model can do is reached through the emulator, each direction by itself."""
    path = spec(left, right, delay_us=1000)
    path = replace(path, forward=LinkChange(duplicate=1.0))
    with (
        LinkEmulator.start([path]) as emulator,
        right.socket(kind=socket.SOCK_DGRAM) as server,
        left.socket(kind=socket.SOCK_DGRAM) as client,
    ):
        server.bind(("10.1.0.2", 5000))

        def send(count: int) -> list[bytes]:
            for number in range(count):
                client.sendto(bytes([number]) * 100, ("10.1.0.2", 5000))
            return [packet[:1] for packet in received_datagrams(server)]

        assert send(2) == [b"\0", b"\0", b"\1", b"\1"]
        off = LinkChange(duplicate=0.0, loss_list=(2,), reorder=1.0, reorder_us=30_000)
        emulator.set("path1", change=off, direction="forward")
        emulator.set("path1", change=LinkChange(reorder=0.0), delay=20_000)
        assert send(3) == [b"\0", b"\2"]
        emulator.set("path1", change=LinkChange(corrupt=1.0), direction="forward")
        assert send(8) == []  # IPv4's or UDP's checksum is wrong
        stats = emulator.stats()["path1"]
        assert (stats["forward"].corrupted, stats["forward"].duplicated) == (8, 2)
        assert stats["backward"].corrupted == 0


def settled(stats: LinkStats, sent: int) -> bool:
    return stats.packets + stats.drops_queue == sent


def test_bad_requests_are_refused_and_change_nothing(left: Namespace, right: Namespace) -> None:
    with LinkEmulator.start([spec(left, right)]) as emulator:
        with pytest.raises(EmulatorError, match="there is no path 'nowhere'"):
            emulator.set("nowhere", down=True)
        with pytest.raises(ValueError, match="loss"):
            emulator.set("path1", loss=2.0)
        with pytest.raises(ValueError, match="direction"):
            emulator.set("path1", down=True, direction="up")  # type: ignore[arg-type]
        assert emulator.stats()["path1"]["forward"].drops_down == 0
    with pytest.raises(ValueError, match="same name"):
        LinkEmulator.start([spec(left, right), spec(left, right)])


def test_stopping_takes_the_devices_away(left: Namespace, right: Namespace) -> None:
    emulator = LinkEmulator.start([spec(left, right)])
    assert "path1" in left.output(["ip", "link"])
    emulator.close()
    emulator.close()
    for namespace in (left, right):
        assert "path1" not in namespace.output(["ip", "link"])
    with pytest.raises(EmulatorError):
        emulator.stats()


def test_a_dead_emulator_is_reported(left: Namespace, right: Namespace) -> None:
    with LinkEmulator.start([spec(left, right)]) as emulator:
        os.kill(emulator.pid, signal.SIGKILL)
        with pytest.raises(EmulatorError, match="link emulator"):
            emulator.stats()


def test_the_emulator_ends_with_a_killed_parent() -> None:
    """The emulator inherits its parent's stderr, a pipe that ends when both have gone."""
    source = """
import os, signal
from mptcp.tun.emulator import LinkEmulator, PathEnd, PathSpec
from mptcp.tun.netns import Namespace
namespace = Namespace.create()
ends = [PathEnd(device=name, namespace=namespace) for name in ("a", "b")]
LinkEmulator.start([PathSpec(name="p", a=ends[0], b=ends[1])])
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", source], stderr=subprocess.PIPE, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, b"")


def test_a_failed_start_leaves_nothing(left: Namespace, right: Namespace) -> None:
    with right.tun("path1"), pytest.raises(OSError, match="in use by another program"):
        LinkEmulator.start([spec(left, right)])
    assert "path1" not in left.output(["ip", "link"])


def test_a_deleted_device_does_not_stop_the_others(left: Namespace, right: Namespace) -> None:
    paths = [spec(left, right, 1), spec(left, right, 2)]
    with LinkEmulator.start(paths) as emulator, echo(right, 2):
        left.delete_link("path1")
        assert len(round_trips(left, 3, 2)) == 3
        ticks = cpu_ticks(emulator.pid)
        wait(0.3)
        assert cpu_ticks(emulator.pid) - ticks < 10  # of 30: it does not spin


def test_the_default_queue_is_one_round_trip_of_the_rate() -> None:
    def queue(rate_bps: int, delay_us: int, **given: int) -> int:
        a, b = PathEnd(device="a"), PathEnd(device="b")
        path = PathSpec(name="p", a=a, b=b, rate_bps=rate_bps, delay_us=delay_us)
        return replace(path, **given).queue_limit()  # type: ignore[arg-type]

    assert queue(100 * MBIT, 10_000) == 250_000
    assert queue(100 * MBIT, 10_000, rtt_us=40_000) == 500_000
    assert queue(100 * MBIT, 0) == 150_000
    assert queue(MBIT, 1000) == 15_000  # 10 packets: one product would be 250 bytes
    assert queue(MBIT, 1000, queue_bytes=7) == 7
