"""One direction of a link, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mptcp.tun.linkem import Link, LinkChange, LinkStats

US = 1_000
MS = 1_000_000
SECOND = 1_000_000_000
PACKET = bytes(1500)


def run(link: Link, until: int) -> list[tuple[int, bytes]]:
    """Follow the deadlines up to `until`: (time, packet) of everything delivered."""
    delivered = []
    while (deadline := link.next_deadline()) is not None and deadline <= until:
        delivered += [(deadline, packet) for packet in link.dequeue(deadline)]
    return delivered


def test_an_unlimited_link_delivers_at_once() -> None:
    link = Link()
    assert link.next_deadline() is None
    assert link.enqueue(5, b"a")
    assert link.next_deadline() == 5
    assert link.dequeue(5) == [b"a"]
    assert link.dequeue(5) == []


def test_delay_alone() -> None:
    link = Link(LinkChange(delay_us=20_000))
    link.enqueue(0, b"a")
    link.enqueue(MS, b"b")
    assert link.dequeue(20 * MS - 1) == []
    assert run(link, SECOND) == [(20 * MS, b"a"), (21 * MS, b"b")]


def test_rate_and_delay_add_up() -> None:
    # 1500 bytes at 100 Mbit/s take 120 µs.
    link = Link(LinkChange(rate_bps=100_000_000, delay_us=1000))
    for _ in range(3):
        assert link.enqueue(0, PACKET)
    assert [when for when, _ in run(link, SECOND)] == [1120 * US, 1240 * US, 1360 * US]


@settings(deadline=None)
@given(
    st.integers(1_000, 10**10),
    st.lists(st.integers(20, 9000), min_size=1, max_size=50),
    st.integers(1, 10**9),
)
def test_packets_back_to_back_take_exactly_their_bits_by_the_rate(
    rate: int, sizes: list[int], step: int
) -> None:
    """However late and however often the link is looked at, the clock is exact."""
    link = Link(LinkChange(rate_bps=rate))
    for size in sizes:
        assert link.enqueue(0, bytes(size))
    exact = sum(sizes) * 8 * SECOND // rate
    now = 0
    got: list[bytes] = []
    while len(got) < len(sizes):
        now += max(step, exact // 100)
        got += link.dequeue(now)
    assert [len(packet) for packet in got] == sizes
    again = Link(LinkChange(rate_bps=rate))
    for size in sizes:
        again.enqueue(0, bytes(size))
    assert run(again, 2 * exact + 1)[-1][0] == exact


def test_a_saturated_link_carries_its_rate_despite_late_calls() -> None:
    """Offered 200 Mbit/s in bursts and read only every 7 ms, it carries 100 Mbit/s."""
    link = Link(LinkChange(rate_bps=100_000_000, queue_bytes=300_000))
    for tick in range(0, SECOND, 7 * MS):
        for _ in range(117):
            link.enqueue(tick, PACKET)
        link.dequeue(tick)
    link.dequeue(SECOND)
    assert link.stats.bytes * 8 == pytest.approx(100_000_000, rel=0.002)
    assert link.stats.drops_queue > 0


def test_the_queue_drops_the_newest() -> None:
    link = Link(LinkChange(rate_bps=8_000_000, queue_bytes=4000))  # 1500 bytes: 1.5 ms
    taken = [link.enqueue(0, bytes([number]) * 1500) for number in range(4)]
    assert taken == [True, True, False, False]
    assert link.snapshot(0).queued == 3000
    assert [packet[0] for _, packet in run(link, SECOND)] == [0, 1]
    assert link.stats == LinkStats(packets=2, bytes=3000, drops_queue=2, queued=3000)
    assert link.snapshot(SECOND).queued == 0


def test_a_queue_of_packets() -> None:
    link = Link(LinkChange(rate_bps=8_000_000, queue_packets=3))
    assert [link.enqueue(0, b"x") for _ in range(4)] == [True, True, True, False]


def test_room_comes_back_as_packets_leave_even_unobserved() -> None:
    link = Link(LinkChange(rate_bps=8_000_000, queue_bytes=3000))
    assert [link.enqueue(0, PACKET) for _ in range(3)] == [True, True, False]
    assert link.enqueue(1500 * US, PACKET)  # the first has left by then
    assert not link.enqueue(1500 * US, PACKET)


def test_an_idle_link_takes_a_packet_larger_than_its_queue() -> None:
    link = Link(LinkChange(rate_bps=8_000_000, queue_bytes=100))
    assert link.enqueue(0, PACKET)
    assert not link.enqueue(0, PACKET)


def losses(seed: int, count: int = 2000) -> list[int]:
    link = Link(LinkChange(loss=0.1), seed=seed)
    for number in range(count):
        link.enqueue(number, number.to_bytes(2))
    arrived = {int.from_bytes(packet) for packet in link.dequeue(count)}
    assert link.stats.drops_loss == count - len(arrived)
    return [number for number in range(count) if number not in arrived]


def test_losses_repeat_with_the_seed_and_match_the_probability() -> None:
    assert losses(1) == losses(1)
    assert losses(1) != losses(2)
    # 2000 draws at 0.1: five standard deviations (13.4) on either side.
    assert 133 <= len(losses(1)) <= 267


def test_a_lost_packet_has_used_the_link() -> None:
    link = Link(LinkChange(rate_bps=8_000_000, loss=1.0))
    link.enqueue(0, PACKET)
    link.change(0, LinkChange(loss=0.0))
    link.change(0, LinkChange(loss=1.0))
    link.enqueue(0, PACKET)
    link.dequeue(1500 * US)
    link.change(1500 * US, LinkChange(loss=0.0))
    assert [when for when, _ in run(link, SECOND)] == [3 * MS]
    assert link.stats.drops_loss == 1


def test_cutting_the_link_loses_what_waits_and_what_flies() -> None:
    link = Link(LinkChange(rate_bps=8_000_000, delay_us=10_000))
    for _ in range(4):
        link.enqueue(0, PACKET)
    link.change(3 * MS, LinkChange(down=True))  # two fly, two wait
    assert link.next_deadline() is None
    assert not link.enqueue(4 * MS, PACKET)
    assert link.stats == LinkStats(drops_down=5)
    link.change(5 * MS, LinkChange(down=False))
    assert link.enqueue(6 * MS, PACKET)
    assert run(link, SECOND) == [(6 * MS + 1500 * US + 10 * MS, PACKET)]


def test_a_new_rate_holds_for_the_rest_of_the_packet_being_sent() -> None:
    link = Link(LinkChange(rate_bps=8_000_000))
    link.enqueue(0, PACKET)
    link.enqueue(0, PACKET)
    link.change(500 * US, LinkChange(rate_bps=4_000_000))  # 1000 bytes remain: 2 ms
    assert [when for when, _ in run(link, SECOND)] == [2500 * US, 5500 * US]


def test_lifting_the_limit_lets_the_queue_go() -> None:
    link = Link(LinkChange(rate_bps=8_000_000, delay_us=1000))
    for _ in range(3):
        link.enqueue(0, PACKET)
    link.change(100, LinkChange(rate_bps=0))
    assert len(link.dequeue(MS + 100)) == 3
    assert link.snapshot(MS + 100).queued == 0


def test_a_shorter_delay_reorders_nothing() -> None:
    link = Link(LinkChange(delay_us=50_000))
    link.enqueue(0, b"first")
    link.change(MS, LinkChange(delay_us=1000))
    link.enqueue(MS, b"second")
    assert run(link, SECOND) == [(50 * MS, b"first"), (50 * MS, b"second")]


@settings(deadline=None)
@given(st.data())
def test_every_packet_is_delivered_or_counted_once_and_in_order(data: st.DataObject) -> None:
    """Whatever is done to a link, what went in comes out, waits, or is in one of the counters."""
    link, now, sent = Link(seed=7), 0, 0
    delivered: list[int] = []
    for _ in range(data.draw(st.integers(1, 40), "steps")):
        now += data.draw(st.integers(0, 5 * MS), "pause")
        match data.draw(st.sampled_from(["enqueue", "dequeue", "change"]), "step"):
            case "enqueue":
                for _ in range(data.draw(st.integers(1, 20), "burst")):
                    link.enqueue(now, sent.to_bytes(4) + bytes(sent % 1400))
                    sent += 1
            case "dequeue":
                delivered += [int.from_bytes(packet[:4]) for packet in link.dequeue(now)]
            case _:
                options = {
                    "rate_bps": st.sampled_from([None, 0, 1_000_000, 77_777_777]),
                    "delay_us": st.sampled_from([None, 0, 3000]),
                    "queue_bytes": st.sampled_from([None, 0, 5000]),
                    "loss": st.sampled_from([None, 0.0, 0.5]),
                    "down": st.sampled_from([None, True, False]),
                }
                link.change(now, data.draw(st.builds(LinkChange, **options), "change"))
        deadline = link.next_deadline()
        assert deadline is None or deadline >= 0
    now += 3600 * SECOND
    delivered += [int.from_bytes(packet[:4]) for packet in link.dequeue(now)]
    stats = link.snapshot(now)
    assert link.next_deadline() is None
    assert stats.queued == 0
    assert delivered == sorted(set(delivered))
    assert stats.packets == len(delivered)
    assert stats.packets + stats.drops_queue + stats.drops_loss + stats.drops_down == sent


@pytest.mark.parametrize(
    "bad", [{"rate_bps": -1}, {"delay_us": 1.5}, {"queue_bytes": -1}, {"loss": 1.1}, {"loss": -0.1}]
)
def test_bad_values_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        LinkChange(**bad)
