"""Queue disciplines and traces: RED, CoDel (RFC 8289), ECN marks (RFC 3168), changing rates."""

from __future__ import annotations

import itertools

import pytest

from mptcp.tun.linkem import Link, LinkChange, lte_trace, parse_mahimahi
from mptcp.tun.linkem.ecn import mark_ce
from mptcp.wire.checksum import ones_sum
from mptcp.wire.ip import ip_header, parse_ip

MS = 1_000_000
SECOND = 1_000_000_000
V4 = (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
V6 = (bytes(15) + b"\1", bytes(15) + b"\2")


def packet(size: int = 1500, ecn: int = 0, addresses: tuple[bytes, bytes] = V4) -> bytes:
    header = ip_header(*addresses, 17, size - (20 if addresses is V4 else 40), tos=0xB8 | ecn)
    return header + bytes(size - len(header))


@pytest.mark.parametrize("addresses", [V4, V6])
def test_a_mark_touches_the_ecn_bits_only(addresses: tuple[bytes, bytes]) -> None:
    """RFC 3168 §5: ECT becomes CE, not-ECT may not be marked, and DSCP stays; §6.1.1.1."""
    assert mark_ce(packet(ecn=0, addresses=addresses)) is None
    already = packet(ecn=3, addresses=addresses)
    assert mark_ce(already) == already
    for ect in (1, 2):
        before = packet(ecn=ect, addresses=addresses)
        after = mark_ce(before)
        assert after == already  # whose header checksum was computed from the start
        assert parse_ip(memoryview(after)).tos == 0xB8 | 3
    assert mark_ce(b"\x00" * 40) is None


def test_a_mark_does_not_repair_a_checksum() -> None:
    broken = bytearray(packet(ecn=2))
    broken[10] ^= 0x40
    marked = mark_ce(bytes(broken))
    assert marked is not None
    assert ones_sum(marked[:20]) % 0xFFFF != 0


def overload(link: Link, *, seconds: int, gap: int, ecn: int = 0) -> dict[str, float]:
    """Offer a packet every `gap` ns; the share delivered, marked, and the delay in ms late on."""
    sent: list[int] = []
    delays: list[int] = []
    delivered = marked = 0
    for now in range(0, seconds * SECOND, gap):
        for arrived in link.dequeue(now):
            number = int.from_bytes(arrived[20:28])
            delivered += 1
            marked += arrived[1] & 3 == 3
            if now > seconds * SECOND // 2:
                delays.append(now - sent[number])
        head = packet(ecn=ecn)
        link.enqueue(now, head[:20] + len(sent).to_bytes(8) + head[28:])
        sent.append(now)
    mean = sum(delays) / len(delays) / MS
    return {"delivered": delivered / len(sent), "marked": marked / delivered, "delay": mean}


def test_codel_drops_more_and_more_often_while_the_queue_stands() -> None:
    """RFC 8289 §4.1, §5.3: nothing for an interval, then at interval / sqrt(count)."""
    # 1500 bytes each ms; a tenth too many come.
    link = Link(LinkChange(rate_bps=12_000_000, aqm="codel"))
    drops: list[int] = []
    for now in range(0, SECOND, 909_091):
        link.dequeue(now)
        while len(drops) < link.stats.drops_aqm:
            drops.append(now)
        link.enqueue(now, packet())
    # A queue of 5 ms stands after some 50; an interval later the first goes.
    assert 145 * MS < drops[0] < 170 * MS
    gaps = [b - a for a, b in itertools.pairwise(drops[:5])]
    for count, gap in enumerate(gaps, 1):
        assert gap == pytest.approx(100 * MS / count**0.5, abs=3 * MS)


def test_codel_keeps_the_delay_where_drop_tail_fills_the_queue() -> None:
    full = overload(Link(LinkChange(rate_bps=12_000_000, queue_bytes=300_000)), seconds=4, gap=MS)
    assert full["delay"] < 2
    tail = Link(LinkChange(rate_bps=12_000_000, queue_bytes=300_000))
    managed = Link(LinkChange(rate_bps=12_000_000, queue_bytes=300_000, aqm="codel"))
    # A twentieth too much, unresponsive: CoDel gets there slowly, drop-tail never.
    assert overload(tail, seconds=8, gap=950_000)["delay"] > 190
    assert overload(managed, seconds=8, gap=950_000)["delay"] < 30
    assert managed.stats.drops_queue < tail.stats.drops_queue / 10


@pytest.mark.parametrize("aqm", ["codel", "red"])
def test_ect_packets_are_marked_and_not_dropped(aqm: str) -> None:
    """RFC 3168 §5, §7: the mark stands for the drop; what is not ECT is dropped as before."""
    change = LinkChange(rate_bps=12_000_000, queue_bytes=3_000_000, ecn=True, aqm=aqm)  # type: ignore[arg-type]
    change = change.merged(LinkChange(red_min_bytes=20_000, red_max_bytes=100_000))
    link = Link(change)
    done = overload(link, seconds=2, gap=900_000, ecn=2)
    assert link.stats.drops_aqm == 0
    assert link.stats.marked > 20
    assert done["marked"] > 0
    link = Link(change)
    overload(link, seconds=2, gap=900_000, ecn=0)
    assert link.stats.drops_aqm > 20
    assert link.stats.marked == 0


def test_red_holds_the_average_queue_between_its_thresholds() -> None:
    """Floyd and Jacobson 1993: dropped at random, before the queue is full."""
    link = Link(
        LinkChange(
            rate_bps=12_000_000,
            queue_bytes=400_000,
            aqm="red",
            red_min_bytes=15_000,
            red_max_bytes=60_000,
        )
    )
    done = overload(link, seconds=8, gap=950_000)
    assert link.stats.drops_queue == 0
    assert done["delivered"] == pytest.approx(0.95, abs=0.01)
    assert 15_000 * 8 / 12_000 < done["delay"] < 60_000 * 8 / 12_000


def test_red_spares_a_short_burst_and_forgets_while_idle() -> None:
    link = Link(
        LinkChange(rate_bps=12_000_000, aqm="red", red_min_bytes=15_000, red_max_bytes=45_000)
    )
    for _ in range(60):  # twice the upper threshold at once
        assert link.enqueue(0, packet())
    assert len(link.dequeue(SECOND)) == 60
    for now in range(SECOND, 4 * SECOND, 900_000):
        link.enqueue(now, packet())
    assert link.stats.drops_aqm > 0
    link.dequeue(10 * SECOND)
    before = link.stats.drops_aqm
    for _ in range(30):
        assert link.enqueue(100 * SECOND, packet())
    assert link.stats.drops_aqm == before


def test_red_needs_thresholds() -> None:
    with pytest.raises(ValueError, match="red_min_bytes"):
        Link(LinkChange(rate_bps=1_000_000, aqm="red"))
    Link(LinkChange(rate_bps=1_000_000, aqm="red", queue_bytes=60_000))


def test_disciplines_change_while_packets_wait() -> None:
    link = Link(LinkChange(rate_bps=12_000_000, queue_bytes=150_000))
    for _ in range(50):
        link.enqueue(0, packet())
    link.change(10 * MS, LinkChange(aqm="codel", codel_target_us=1000, codel_interval_us=5000))
    assert len(link.dequeue(20 * MS)) == 20  # a drop takes no time
    link.change(30 * MS, LinkChange(aqm="droptail"))
    gone = link.stats.drops_aqm
    assert gone > 0
    link.dequeue(SECOND)
    assert link.stats.drops_aqm == gone
    assert link.stats.packets + gone == 50


# -- traces ------------------------------------------------------------------------------------


def test_a_rate_trace_is_followed_exactly_and_repeats() -> None:
    """12 Mbit/s for 10 ms, nothing for 5 ms, 24 Mbit/s for 5 ms, and again."""
    link = Link(
        LinkChange(rate_trace=((0, 12_000_000), (10_000, 0), (15_000, 24_000_000), (20_000, 0)))
    )
    for _ in range(100):
        link.enqueue(0, packet())
    when = []
    while (deadline := link.next_deadline()) is not None:
        when += [deadline for _ in link.dequeue(deadline)]
    # The stall costs less than a bit; the remainder of a packet is rounded to nanoseconds.
    assert when[:20] == [
        pytest.approx(at * MS, abs=2)
        for at in (*range(1, 11), *(15 + half / 2 for half in range(1, 11)))
    ]
    assert when[20:40] == [pytest.approx(at + 20 * MS, abs=200) for at in when[:20]]
    assert len(when) == 100


def test_a_trace_is_followed_over_an_idle_hour() -> None:
    link = Link(LinkChange(rate_trace=((0, 12_000_000), (10_000, 24_000_000), (30_000, 0))))
    link.enqueue(5 * MS, packet())
    assert link.next_deadline() == 6 * MS
    link.enqueue(3600 * SECOND + 9 * MS, packet())
    link.enqueue(3600 * SECOND + 9 * MS, packet())
    assert link.dequeue(3600 * SECOND + 10 * MS) == [packet()] * 2
    assert len(link.dequeue(3600 * SECOND + 10 * MS + MS // 2)) == 1


def test_a_rate_ends_a_trace() -> None:
    link = Link(LinkChange(rate_trace=((0, 12_000_000), (1000, 1_000_000), (9000, 0))))
    link.change(0, LinkChange(rate_bps=12_000_000))
    for _ in range(5):
        link.enqueue(0, packet())
    assert link.dequeue(5 * MS - 1) == [packet()] * 4
    assert len(link.dequeue(5 * MS)) == 1


def test_a_delivery_trace_gives_1500_bytes_at_each_mark() -> None:
    """A Mahimahi trace: an opportunity is used by what waits, or lost; a packet may need two."""
    marks = parse_mahimahi("1\n3\n3\n10\n")
    assert marks == (1000, 3000, 3000, 10_000)
    link = Link(LinkChange(delivery_trace=marks, delay_us=0))
    link.enqueue(2 * MS, packet(1000))  # the mark at 1 ms has passed unused
    link.enqueue(2 * MS, packet(1000))  # 500 bytes in the first of 3 ms, 500 in the second
    link.enqueue(2 * MS, packet(1000))
    link.enqueue(2 * MS, packet(1500))
    when = []
    while (deadline := link.next_deadline()) is not None:
        when += [(deadline // MS, len(got)) for got in link.dequeue(deadline)]
    assert when == [(3, 1000), (3, 1000), (3, 1000), (10, 1500)]
    link.enqueue(24 * MS, packet())
    assert link.next_deadline() == 30 * MS
    link.change(26 * MS, LinkChange(rate_bps=12_000_000))
    assert link.next_deadline() == 27 * MS


def test_the_rate_of_a_delivery_trace() -> None:
    link = Link(LinkChange(delivery_trace=tuple(range(500, 10_001, 500)), queue_bytes=30_000))
    for now in range(0, SECOND, 400_000):
        link.enqueue(now, packet())
        link.dequeue(now)
    assert link.stats.bytes * 8 == pytest.approx(24_000_000, rel=0.01)


def test_the_synthetic_lte_trace() -> None:
    """It repeats from its seed, wanders around its mean and has outages."""
    trace = lte_trace(3, seconds=300)
    assert trace == lte_trace(3, seconds=300)
    assert trace != lte_trace(4, seconds=300)
    rates = [rate for _, rate in trace[:-1]]
    assert sum(rates) / len(rates) == pytest.approx(10_000_000, rel=0.2)
    assert 0 in rates
    assert max(rates) > 20_000_000
    assert trace[-1][0] == 300_000_000
    LinkChange(rate_trace=trace)
