"""What befalls packets on a link: bursts, lists, twins, detours, damage, jitter, size."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mptcp.tun.linkem import Damaged, Link, LinkChange, LinkStats

US = 1_000
MS = 1_000_000
SECOND = 1_000_000_000


def numbered(count: int, size: int = 100) -> list[bytes]:
    """Packets that tell their number, from 1."""
    return [number.to_bytes(4) + bytes(size - 4) for number in range(1, count + 1)]


def number(packet: bytes) -> int:
    return int.from_bytes(packet[:4])


def arrivals(
    link: Link, count: int, gap: int = MS, then: int = 10 * SECOND
) -> list[tuple[int, bytes]]:
    """(time, packet) of what comes of `count` packets sent every `gap` ns; deadlines followed."""
    arrived: list[tuple[int, bytes]] = []

    def follow(until: int) -> None:
        while (deadline := link.next_deadline()) is not None and deadline <= until:
            arrived.extend((deadline, packet) for packet in link.dequeue(deadline))

    for place, packet in enumerate(numbered(count)):
        follow(place * gap)
        link.enqueue(place * gap, packet)
    follow(count * gap + then)
    assert link.next_deadline() is None
    return arrived


def test_a_loss_list_names_the_packets() -> None:
    link = Link(LinkChange(loss_list=(1, 3, 4)))
    assert [number(packet) for _, packet in arrivals(link, 6)] == [2, 5, 6]
    assert link.stats.drops_loss == 3
    link.change(20 * SECOND, LinkChange(loss_list=(2,)))  # counted anew
    for packet in numbered(3):
        link.enqueue(20 * SECOND, packet)
    assert [number(packet) for packet in link.dequeue(20 * SECOND)] == [1, 3]


def test_a_list_does_not_count_what_the_queue_refused() -> None:
    link = Link(LinkChange(rate_bps=800_000, queue_packets=1, loss_list=(2,)))
    for packet in numbered(4):
        link.enqueue(0, packet)  # 2 to 4 find the queue full
    link.enqueue(2 * MS, numbered(5)[4])
    assert [number(packet) for packet in link.dequeue(SECOND)] == [1]
    assert (link.stats.drops_queue, link.stats.drops_loss) == (3, 1)


def test_bursts_have_the_length_and_the_share_of_the_model() -> None:
    """Gilbert: bursts of 1/r packets, and p / (p + r) of all packets are lost."""
    p, r = 0.01, 0.25
    count = 100_000
    got = {number(x) for _, x in arrivals(Link(LinkChange(burst_loss=(p, r)), seed=3), count, US)}
    lost = [n for n in range(1, count + 1) if n not in got]
    bursts = sum(n - 1 in got for n in lost)
    assert len(lost) / count == pytest.approx(p / (p + r), rel=0.15)
    assert len(lost) / bursts == pytest.approx(1 / r, rel=0.1)


def test_elliotts_two_loss_rates() -> None:
    link = Link(LinkChange(burst_loss=(0.5, 0.5, 0.4, 0.1)), seed=1)
    lost = 20_000 - len(arrivals(link, 20_000, US))
    assert lost / 20_000 == pytest.approx(0.25, rel=0.05)
    link.change(SECOND, LinkChange(burst_loss=()))
    assert link.stats.drops_loss == lost
    assert len(numbered(50)) == sum(link.enqueue(SECOND, packet) for packet in numbered(50))
    assert len(link.dequeue(SECOND)) == 50


def test_a_duplicate_arrives_with_its_twin() -> None:
    link = Link(LinkChange(duplicate=1.0, delay_us=1000))
    assert [number(packet) for _, packet in arrivals(link, 3)] == [1, 1, 2, 2, 3, 3]
    assert link.stats == LinkStats(packets=6, bytes=600, duplicated=3)


def test_a_packet_held_back_is_overtaken() -> None:
    """Of packets 1 ms apart, one held back for 3 ms more comes after the next three."""
    link = Link(LinkChange(delay_us=5000, reorder=0.1, reorder_us=3000), seed=2)
    arrived = arrivals(link, 1000)
    assert sorted(number(packet) for _, packet in arrived) == list(range(1, 1001))
    late = [n for when, packet in arrived if when == ((n := number(packet)) + 7) * MS]
    assert all(
        when in ((number(packet) + 4) * MS, (number(packet) + 7) * MS) for when, packet in arrived
    )
    assert len(late) == link.stats.reordered
    assert link.stats.reordered / 1000 == pytest.approx(0.1, abs=0.04)
    order = [number(packet) for _, packet in arrived]
    first = late[0]
    # The one that is due at the same moment and is in order goes first.
    assert order.index(first) == order.index(first + 3) + 1


def test_a_damaged_packet_differs_in_one_bit_and_says_so() -> None:
    link = Link(LinkChange(corrupt=0.5), seed=4)
    sent = numbered(400)
    for packet in sent:
        link.enqueue(0, packet)
    got = link.dequeue(0)
    damaged = 0
    for before, after in zip(sent, got, strict=True):
        differing = sum((x ^ y).bit_count() for x, y in zip(before, after, strict=True))
        assert differing == (type(after) is Damaged)
        damaged += differing
    assert damaged == link.stats.corrupted
    assert 150 < damaged < 250


def test_jitter_keeps_the_order_unless_told() -> None:
    link = Link(LinkChange(delay_us=10_000, jitter_us=5000), seed=5)
    ordered = arrivals(link, 500)
    assert [number(packet) for _, packet in ordered] == list(range(1, 501))
    extra = [when - (number(packet) - 1) * MS - 10 * MS for when, packet in ordered]
    assert min(extra) >= 0
    assert max(extra) <= 5 * MS
    assert len(set(extra)) > 400

    link = Link(LinkChange(delay_us=10_000, jitter_us=5000, jitter_reorders=True), seed=5)
    free = arrivals(link, 500)
    order = [number(packet) for _, packet in free]
    assert order != sorted(order) == list(range(1, 501))
    extra = [when - (number(packet) - 1) * MS - 10 * MS for when, packet in free]
    assert 0 <= min(extra) < MS
    assert 4 * MS < max(extra) <= 5 * MS
    assert sum(extra) / 500 == pytest.approx(2.5 * MS, rel=0.1)


def test_a_packet_larger_than_the_mtu_is_swallowed() -> None:
    link = Link(LinkChange(mtu=1400))
    assert link.enqueue(0, bytes(1400))
    assert not link.enqueue(0, bytes(1401))
    assert link.stats.drops_mtu == 1
    link.change(0, LinkChange(mtu=0))
    assert link.enqueue(0, bytes(1401))


def test_cutting_the_link_loses_what_is_held_back() -> None:
    link = Link(LinkChange(reorder=1.0, reorder_us=1000))
    link.enqueue(0, b"late")
    link.change(500 * US, LinkChange(down=True))
    assert link.next_deadline() is None
    assert link.stats.drops_down == 1


def test_what_is_turned_off_is_off() -> None:
    link = Link(LinkChange(loss=1.0, corrupt=1.0, duplicate=1.0, reorder=1.0, jitter_us=9))
    off = LinkChange(loss=0.0, corrupt=0.0, duplicate=0.0, reorder=0.0, jitter_us=0)
    link.change(0, off)
    assert arrivals(link, 3) == [((n - 1) * MS, packet) for n, packet in enumerate(numbered(3), 1)]


MISHAPS: dict[str, Any] = {
    "loss": st.sampled_from([None, 0.0, 0.3]),
    "burst_loss": st.sampled_from([None, (), (0.1, 0.3)]),
    "loss_list": st.sampled_from([None, (), (1, 2, 7)]),
    "duplicate": st.sampled_from([None, 0.0, 0.3]),
    "corrupt": st.sampled_from([None, 0.0, 0.3]),
    "reorder": st.sampled_from([None, 0.0, 0.3]),
    "reorder_us": st.sampled_from([None, 0, 700]),
    "jitter_us": st.sampled_from([None, 0, 900]),
    "jitter_reorders": st.sampled_from([None, False, True]),
    "delay_us": st.sampled_from([None, 0, 2000]),
    "queue_bytes": st.sampled_from([None, 5000]),
    "mtu": st.sampled_from([None, 0, 500]),
    "down": st.sampled_from([None, True, False]),
    "aqm": st.sampled_from([None, "droptail", "codel"]),
}
PACES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"rate_bps": 0},
        {"rate_bps": 1_000_000},
        {"rate_trace": ((0, 500_000), (3000, 0), (5000, 9_000_000), (6000, 0))},
        {"delivery_trace": (0, 1000, 1000, 4000)},
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_packet_is_accounted_for(data: st.DataObject) -> None:
    """Whatever is set when: delivered = sent - dropped + doubled, and looking often or once is
    the same."""
    often, once = Link(seed=9), Link(seed=9)
    got_often: list[bytes] = []
    got_once: list[bytes] = []
    now = sent = 0
    for _ in range(data.draw(st.integers(1, 12), "steps")):
        pause = data.draw(st.integers(0, 5 * MS), "pause")
        for moment in range(now, now + pause, MS):
            got_often += often.dequeue(moment)
        now += pause
        if data.draw(st.booleans(), "change?"):
            pace = data.draw(PACES, "pace")
            change = data.draw(st.builds(LinkChange, **MISHAPS), "change").merged(
                LinkChange(**pace)
            )
            got_often += often.dequeue(now)
            got_once += once.dequeue(now)
            often.change(now, change)
            once.change(now, change)
        for _ in range(data.draw(st.integers(0, 15), "burst")):
            packet = sent.to_bytes(4) + bytes(sent * 37 % 1000)
            sent += 1
            assert often.enqueue(now, packet) == once.enqueue(now, packet)
    for link, got in ((often, got_often), (once, got_once)):
        for deadline in _deadlines(link):
            got += link.dequeue(deadline)
    assert got_often == got_once
    assert often.stats == once.stats
    stats = often.snapshot(now + 3600 * SECOND)
    assert stats.queued == 0
    dropped = stats.drops_queue + stats.drops_loss + stats.drops_down + stats.drops_aqm
    assert len(got_often) == stats.packets == sent - dropped - stats.drops_mtu + stats.duplicated


def _deadlines(link: Link) -> Any:
    for _ in itertools.count():
        deadline = link.next_deadline()
        if deadline is None:
            return
        yield deadline


@pytest.mark.parametrize(
    "bad",
    [
        {"duplicate": 2},
        {"reorder": -1},
        {"corrupt": "x"},
        {"jitter_us": -1},
        {"mtu": -1},
        {"burst_loss": (0.5,)},
        {"burst_loss": (0.5, 1.5)},
        {"loss_list": (0,)},
        {"aqm": "fq"},
        {"rate_trace": ((0, 5),)},
        {"rate_trace": ((1, 5), (2, 5))},
        {"rate_trace": ((0, 5), (0, 5))},
        {"rate_trace": ((0, -5), (3, 5))},
        {"delivery_trace": ()},
        {"delivery_trace": (5, 4)},
        {"delivery_trace": (0, 0)},
        {"rate_bps": 5, "rate_trace": ((0, 5), (3, 5))},
    ],
)
def test_bad_values_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=list(bad)[-1]):
        LinkChange(**bad)
