"""Pacing: the rates are Linux's (`tcp_update_pacing_rate`), the quantum design rule 2's.

Where an RFC is cited it is for what pacing must leave alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from mptcp.config import Config
from mptcp.events import Accepted, Connected, Event, Readable, Writable
from mptcp.sim.network import SimHost, Simulation
from mptcp.subflow import Subflow
from mptcp.tcp.state import NEVER
from mptcp.wire.ip import parse_ip
from mptcp.wire.tcp import ACK, FIN
from tests.peer import Peer, Seen, Wire, ms, seconds

MSS = 1000


def paced(**changes: int) -> tuple[Wire, Peer]:
    """A paced stack, its window halfway to nowhere: slow start."""
    wire = Wire(mptcp=False, nodelay=True, timestamps=False, pacing=True, **changes)  # type: ignore[arg-type]
    return wire, Peer(wire)


def take_until(peer: Peer, until: int) -> list[Seen]:
    """What leaves up to a time."""
    peer.wire.advance(until)
    return peer.drain()


def bursts(sent: list[Seen]) -> list[tuple[int, int]]:
    """(time, bytes) of what left at one instant."""
    found: dict[int, int] = {}
    for seen in sent:
        found[seen.sent_at] = found.get(seen.sent_at, 0) + len(seen.data)
    return sorted(found.items())


def test_initial_window_goes_at_once() -> None:
    """RFC 6928 §2: ten segments at once; only what follows is spread."""
    _, peer = paced()
    connection = peer.handshake(mss=MSS, wscale=7, rtt=ms(100))
    connection.send(bytes(100 * MSS))
    assert bursts(peer.drain()) == [(0, 10 * MSS)]


def test_twice_the_rate_in_slow_start() -> None:
    """2 x cwnd / SRTT: a window of 19 segments and 100 ms make two segments each 5.26 ms.

    The first gap is half as long: idle time counts for half a quantum, as in Linux.
    """
    _, peer = paced()
    connection = peer.handshake(mss=MSS, wscale=7, rtt=ms(100))
    connection.send(bytes(100 * MSS))
    peer.drain()
    peer.send(ACK, ack=9 * MSS + 1, at=ms(100))
    assert peer.subflow().cwnd == 19 * MSS
    sent = bursts(take_until(peer, ms(190)))
    assert {size for _, size in sent} == {2 * MSS}
    gap = 2 * MSS * ms(100) / (2 * 19 * MSS)
    times = [0.0, *(gap / 2 + number * gap for number in range(8))]
    assert [at - ms(100) for at, _ in sent] == pytest.approx(times, abs=len(times))


def test_a_fifth_more_than_the_rate_afterwards() -> None:
    """1.2 x cwnd / SRTT once cwnd has reached half of ssthresh; what the gap before it is made up
    for is an initial window (RFC 9002 §7.7)."""
    _, peer = paced()
    connection = peer.handshake(mss=MSS, wscale=7, rtt=ms(120))
    connection.send(bytes(100 * MSS))
    peer.drain()
    peer.subflow().cc.ssthresh = 10 * MSS
    peer.subflow().cc.cwnd = 30 * MSS
    peer.send(ACK, ack=9 * MSS + 1, at=ms(120))
    cwnd = peer.subflow().cwnd
    sent = bursts(take_until(peer, ms(230)))
    assert sent[0][1] == 10 * MSS
    assert {size for _, size in sent[1:-1]} == {2 * MSS}
    gap = round(2 * MSS * ms(120) / (1.2 * cwnd))
    for number, (at, _) in enumerate(sent):
        paid = number * gap
        assert at == pytest.approx(ms(120) + paid, abs=len(sent))
    assert sum(size for _, size in sent) == cwnd // MSS * MSS - MSS  # one was in flight


def test_quantum_is_a_millisecond_of_the_rate() -> None:
    """Above two segments per millisecond the burst grows, not the number of timers."""
    _, peer = paced(send_buffer=1 << 22)
    connection = peer.handshake(mss=MSS, wscale=10, rtt=ms(10))
    connection.send(bytes(2000 * MSS))
    peer.drain()
    peer.window = 4000
    subflow = peer.subflow()
    subflow.cc.cwnd = 400 * MSS
    peer.send(ACK, at=ms(10))
    rate = 2 * subflow.cwnd / subflow.srtt
    sent = bursts(take_until(peer, ms(13)))
    assert len(sent) in (3, 4)
    for _, size in sent:
        assert 0.95 * rate * 1000 - MSS <= size <= rate * 1000


def test_no_timer_when_the_window_fits_a_millisecond() -> None:
    """On a LAN the ACK clock is finer than any timer: nothing is held back."""
    wire, peer = paced()
    connection = peer.handshake(mss=MSS, wscale=7, rtt=800)
    connection.send(bytes(200 * MSS))
    at = 0
    for _ in range(5):
        at += 800
        subflow = peer.subflow()
        peer.drain()
        peer.send(ACK, at=at)
        assert subflow.pace_deadline == NEVER
        assert subflow.room < MSS or connection.tx.queued == 0
    assert wire.stack.counters["TcpRetransSegs"] == 0


def test_after_idle_time_the_initial_window_goes_at_once() -> None:
    """RFC 5681 §4.1: with nothing in flight a restart window may be sent; the rest is spread."""
    _, peer = paced()
    connection = peer.handshake(mss=MSS, wscale=7, rtt=ms(100))
    connection.send(bytes(10 * MSS))
    peer.drain()
    peer.send(ACK, at=ms(100))
    connection.send(bytes(14 * MSS))
    sent = bursts(take_until(peer, ms(190)))
    # Ten segments take 25 ms at this rate; 2.5 ms were free.
    assert sent == [(ms(100), 10 * MSS), (ms(122.5), 2 * MSS), (ms(127.5), 2 * MSS)]


def test_what_is_not_held() -> None:
    """RFC 9293 §3.8.6.3: an ACK goes when it is due, whatever the data waits for; so does RST."""
    _, peer = paced()
    connection = peer.handshake(mss=MSS, wscale=7, rtt=ms(100))
    connection.send(bytes(100 * MSS))
    peer.drain()
    peer.send(ACK, ack=9 * MSS + 1, at=ms(100))
    assert len(peer.drain()) == 2
    peer.send(ACK, data=b"x" * 10, ack=9 * MSS + 1, at=ms(101))
    peer.send(ACK, data=b"x" * 10, ack=9 * MSS + 1)
    assert [(seen.ack, len(seen.data)) for seen in peer.drain()][-1] == (21, 0)
    connection.abort()
    assert len(peer.drain()) == 1


def test_a_fin_alone_is_not_held() -> None:
    """RFC 9293 §3.10.4: with nothing queued the FIN goes at once, though a burst is unpaid."""
    _, peer = paced()
    connection = peer.handshake(mss=MSS, wscale=7, rtt=ms(100))
    connection.send(bytes(10 * MSS))
    peer.drain()
    peer.send(ACK, at=ms(100))
    connection.send(bytes(2 * MSS))
    assert bursts(peer.drain()) == [(ms(100), 2 * MSS)]
    connection.shutdown()
    peer.expect(ACK | FIN, at=ms(100))


def test_a_late_timer_is_made_up_for() -> None:
    """A loop that wakes 1.5 ms late each time still reaches the rate."""
    wire, peer = paced()
    connection = peer.handshake(mss=MSS, wscale=7, rtt=ms(100))
    connection.send(bytes(300 * MSS))
    peer.drain()
    peer.send(ACK, ack=9 * MSS + 1, at=ms(100))
    peer.subflow().cc.cwnd = 40 * MSS
    total = sum(len(seen.data) for seen in peer.drain())
    start = wire.now
    while total < 30 * MSS:
        due = wire.stack.poll_timeout()
        assert due is not None
        wire.now = due + 1500
        wire.stack.handle_timeout(wire.now)
        total += sum(len(seen.data) for seen in peer.drain())
    rate = 2 * 40 * MSS / ms(100)
    assert wire.now - start <= total / rate + 3000


def test_off() -> None:
    """`pacing=False`: the window goes in one burst, as it always did."""
    wire = Wire(mptcp=False, nodelay=True, timestamps=False, pacing=False)
    peer = Peer(wire)
    connection = peer.handshake(mss=MSS, wscale=7, rtt=ms(100))
    connection.send(bytes(100 * MSS))
    peer.drain()
    peer.send(ACK, at=ms(100))
    assert bursts(peer.drain()) == [(ms(100), 20 * MSS)]


# -- in the network ------------------------------------------------------------------------


@dataclass
class Transfer:
    """A bulk sender and a sink, and what goes over the first link."""

    sim: Simulation
    sender: SimHost
    receiver: SimHost
    rate_bps: int
    received: int = 0
    peak: int = 0
    """Longest queue in front of the link, bytes."""
    worst: float = 0.0
    """The largest burst, relative to the quantum that was allowed then."""
    _queue: float = 0.0
    _at: int = 0
    _burst: dict[tuple[int, bytes], int] = field(default_factory=dict)

    def start(self, total: int = 1 << 40) -> None:
        self.receiver.on_event = self._receive
        self.sender.on_event = self._send
        self.sim.tap = self._tap
        self.receiver.stack.listen(80)
        self.left = total
        self.connection = self.sender.stack.connect("10.0.0.2", 80)

    def _send(self, event: Event) -> None:
        if isinstance(event, Connected | Writable):
            while self.left:
                taken = self.connection.send(bytes(min(self.left, 1 << 16)))
                if not taken:
                    break
                self.left -= taken

    def _receive(self, event: Event) -> None:
        if isinstance(event, Accepted | Readable):
            self.received += len(event.connection.recv())

    def _tap(self, now: int, host: SimHost, packet: bytes) -> bool:
        if host is not self.sender:
            return True
        drained = (now - self._at) * self.rate_bps / 8e6
        self._queue = max(0.0, self._queue - drained) + len(packet)
        self._at = now
        self.peak = max(self.peak, round(self._queue))
        ip = parse_ip(memoryview(packet))
        size = ip.end - ip.offset - (packet[ip.offset + 12] >> 4) * 4
        for subflow in self.connection.subflows:
            if size and subflow.local == ip.src:
                self._count(now, subflow, size)
        return True

    def _count(self, now: int, subflow: Subflow, size: int) -> None:
        snd = subflow.snd
        if snd.bytes_sent <= subflow.initial_window(snd.mss) + 2 * snd.mss:
            return
        self._burst = {key: sent for key, sent in self._burst.items() if key[0] == now}
        burst = self._burst.get((now, subflow.local), 0) + size
        self._burst[now, subflow.local] = burst
        quantum = max(2 * snd.mss, 2 * max(subflow.cwnd, subflow.in_flight) * 1000 // subflow.srtt)
        if subflow.in_flight <= burst:  # nothing was in flight before: as at the start
            quantum = max(quantum, subflow.initial_window(snd.mss))
        self.worst = max(self.worst, burst / quantum)


def transfer(
    rate_bps: int, delay_us: int, *, pacing: bool, control: str = "newreno", **link: int
) -> Transfer:
    """Two hosts on one link with a queue of one BDP unless `link` says otherwise."""
    sim = Simulation(seed=1)
    config = Config(mptcp=False, pacing=pacing, congestion_control=control)
    a, b = sim.host("a", config), sim.host("b", config)
    queue = link.pop("queue_bytes", rate_bps * 2 * delay_us // 8_000_000)
    sim.connect(
        a,
        "10.0.0.1/24",
        b,
        "10.0.0.2/24",
        rate_bps=rate_bps,
        delay_us=delay_us,
        queue_bytes=queue,
        **link,  # type: ignore[arg-type]
    )
    return Transfer(sim, a, b, rate_bps)


@pytest.mark.slow
@pytest.mark.parametrize("offload", [False, True])
def test_bursts_never_exceed_the_quantum(offload: bool) -> None:
    """Through slow start, loss and recovery, retransmissions included."""
    run = transfer(20_000_000, 20_000, pacing=True, offload=offload)
    run.start()
    run.sim.run(seconds(6))
    assert run.sender.stack.counters["TcpRetransSegs"] > 0
    assert 0.5 < run.worst <= 1.0
    without = transfer(20_000_000, 20_000, pacing=False, offload=offload)
    without.start()
    without.sim.run(seconds(2))
    assert without.worst > 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("control", "rate_bps", "delay_us", "duration"),
    [
        ("newreno", 10_000_000, 20_000, 15),
        ("cubic", 10_000_000, 10_000, 15),
        ("cubic", 100_000_000, 5_000, 3),
    ],
)
def test_throughput_is_unaffected(
    control: str, rate_bps: int, delay_us: int, duration: int
) -> None:
    """At least 99 % of what bursts achieve.

    The window is half a quantum less full in the mean. Where half of the window just fills the
    path (NewReno, a queue of one BDP) that shows: 98.9 % when the BDP is 16 segments.
    """
    got = []
    for pacing in (False, True):
        run = transfer(rate_bps, delay_us, pacing=pacing, control=control, offload=True)
        run.start()
        run.sim.run(seconds(duration))
        got.append(run.received)
    assert got[1] >= 0.99 * got[0]


def test_queue_stays_short() -> None:
    """A large window and an application that writes 300 KB now and then: no burst at the router."""
    peaks = []
    for pacing in (False, True):
        run = transfer(100_000_000, 20_000, pacing=pacing, queue_bytes=2_000_000)
        run.start(600_000)
        run.sim.run(seconds(1))
        run.peak = 0
        subflow = run.connection.subflows[0]
        subflow.cc.cwnd = subflow.cc.ssthresh = 400_000
        run.connection.send(bytes(300_000))
        run.sim.run(seconds(1))
        assert run.received == 900_000
        peaks.append(run.peak)
    assert peaks[1] < peaks[0] / 4


def test_two_paced_subflows_do_not_wait_for_each_other() -> None:
    """Whom the scheduler prefers may have to wait a moment; the others neither spin nor starve."""
    sim = Simulation(seed=3)
    config = Config(pacing=True)
    a, b = sim.host("a", config), sim.host("b", config)
    sim.connect(a, "10.0.0.1/24", b, "10.0.0.2/24", rate_bps=20_000_000, delay_us=5_000)
    sim.connect(a, "10.0.1.1/24", b, "10.0.1.2/24", rate_bps=20_000_000, delay_us=30_000)
    run = Transfer(sim, a, b, 20_000_000)
    run.start(4_000_000)
    assert sim.run(seconds(3), until=lambda: run.received == 4_000_000)
    first, second = run.connection.subflows
    assert min(first.snd.bytes_sent, second.snd.bytes_sent) > 500_000
    assert run.worst <= 1.0
