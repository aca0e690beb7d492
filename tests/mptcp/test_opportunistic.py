"""Opportunistic retransmission and penalisation: Raiciu et al., NSDI 2012, §4.2. A subflow that may
not send, because others are late with what fills the window, sends that again (RFC 8684 §3.3.6
leaves it to the sender), and the late one's window is halved."""

from __future__ import annotations

import pytest

from mptcp.meta_socket import MetaSocket
from mptcp.tcp.congestion import INFINITE_SSTHRESH, NewReno
from mptcp.tcp.cubic import Cubic
from mptcp.wire.tcp import ACK
from tests.mptcp.test_failover import SECOND_PATH, spans
from tests.mptcp.test_retransmission import MSS, set_rtt
from tests.peer import Peer, Wire, ms
from tests.transfers import exchange, network, open_programs, payload

WINDOW = 10 * MSS


def blocked(
    fast: int = 10, slow: int = 50, sacked: bool = False, **changes: object
) -> tuple[Wire, MetaSocket, Peer, Peer]:
    """The slow first subflow has carried three segments from the second on, the fast one the rest
    of the window, and more is waiting; RTTs in ms. `sacked`: of the three the middle one is."""
    wire = Wire(
        addresses=("10.0.0.1/24", "10.0.1.1/24"),
        **{"nodelay": True, "pacing": False, **changes},  # type: ignore[arg-type]
    )
    wire.stack.listen(5000)
    first = Peer(wire, port=40000, local_port=5000)
    first.window = WINDOW
    connection = first.handshake(active=False, mptcp=True, mss=1400, rtt=ms(slow))
    second = first.beside(port=40001, local_port=5000, **SECOND_PATH)
    second.window = WINDOW
    second.join()
    set_rtt(second, ms(fast))
    set_rtt(first, ms(slow))
    cc = second.subflow().cc
    cc.cwnd = MSS
    connection.send(bytes(4 * MSS))
    assert spans(second.drain()) == [(1, 1 + MSS)]
    assert spans(first.drain())[-1][1] == 1 + 4 * MSS
    if sacked:
        first.send(
            ACK, ack=1, options=[first.sacked((1 + MSS, 1 + 2 * MSS)), first.dss(data_ack=1)],
            window=WINDOW,
        )  # fmt: skip
    cc.cwnd = 20 * MSS
    connection.send(bytes(20 * MSS))
    return wire, connection, first, second


def segments(*numbers: int) -> list[tuple[int, int]]:
    """DSN ranges of full segments, counted from 0."""
    return [(1 + number * MSS, 1 + (number + 1) * MSS) for number in numbers]


@pytest.mark.mib("MPTcpExtOpportunisticRetrans")
def test_what_is_late_goes_again() -> None:
    """NSDI 2012, §4.2: the window is full: what the slow one carries goes on the fast one too,
    once, beginning with the oldest. It is less than half of the slow one's window, which stays."""
    wire, connection, _, second = blocked()
    assert spans(second.drain()) == segments(4, 5, 6, 7, 8, 9, 1, 2, 3)
    assert connection.subflows[0].cc.cwnd == 10 * MSS
    wire.advance(wire.time + ms(8))
    second.send(ACK)
    assert connection.tx.una - connection.local_idsn == 1 + 10 * MSS
    assert wire.stack.counters["MPTcpExtOpportunisticRetrans"] == 3
    assert wire.stack.counters["MPTcpExtPenalised"] == 0
    assert spans(second.drain())[0] == segments(10)[0]


@pytest.mark.parametrize(("window", "left"), [(7, 7), (6, 3), (4, 2)])
@pytest.mark.mib("MPTcpExtOpportunisticRetrans")
def test_who_is_late_with_most_of_its_window_is_slowed_down(window: int, left: int) -> None:
    """NSDI 2012, §4.2, but for how much is late: three segments had to go again, and the slow
    one's window is halved, once, if that is half of it or more."""
    wire, connection, first, second = blocked()
    first.subflow().cc.cwnd = window * MSS
    assert spans(second.drain()) == segments(4, 5, 6, 7, 8, 9, 1, 2, 3)
    assert connection.subflows[0].cc.cwnd == left * MSS
    assert wire.stack.counters["MPTcpExtPenalised"] == (left < window)


@pytest.mark.parametrize(("apart", "left"), [(20, 3), (60, 6)])
def test_what_goes_again_is_counted_for_one_round_trip(apart: int, left: int) -> None:
    """NSDI 2012, §4.2: a penalty is for what one round trip of the slow one's (50 ms) brought late:
    two of its six segments and one more are half of its window only if they fall in the same."""
    wire, connection, _, _ = blocked()
    slow = connection.subflows[0]
    slow.cc.cwnd = 6 * MSS
    cloning = connection.dispatcher.cloning
    began = wire.time
    cloning._penalise(slow, 2 * MSS, began)
    cloning._penalise(slow, MSS, began + ms(apart))
    assert slow.cc.cwnd == left * MSS


def test_what_is_sacked_is_not_late() -> None:
    """NSDI 2012, §4.2 repeats what the receiver does not have; what is SACKed (RFC 2018 §3) waits
    there for the hole before it, which the path repairs."""
    _, _, _, second = blocked(sacked=True)
    assert spans(second.drain()) == segments(4, 5, 6, 7, 8, 9, 1, 3)


def test_what_was_repeated_is_not_looked_at_again() -> None:
    """What others see to is passed over when the window blocks next (§4.2 repeats once); of a
    subflow that answers after all, all is looked at anew."""
    _, connection, _, second = blocked()
    slow = connection.subflows[0]
    assert slow.cloned_to == 0
    second.drain()
    assert slow.cloned_to == slow.snd.board.chunks[-1].seq
    connection.dispatcher.cloning.on_answer(slow)
    assert slow.cloned_to == 0
    assert not any(chunk.cloned for chunk in slow.snd.board.chunks)


def test_switched_off() -> None:
    """`opportunistic_retransmission` and `penalisation` False: the window stays full."""
    _, connection, _, second = blocked(opportunistic_retransmission=False, penalisation=False)
    assert spans(second.drain()) == segments(4, 5, 6, 7, 8, 9)
    assert connection.subflows[0].cc.cwnd == 10 * MSS


@pytest.mark.mib("MPTcpExtPenalised")
def test_penalised_once_in_a_round_trip() -> None:
    """NSDI 2012, §4.2: at most once in the slow one's RTT."""
    wire, connection, first, second = blocked(opportunistic_retransmission=False)
    fast, slow = connection.subflows[1], connection.subflows[0]
    second.drain()
    assert slow.cc.cwnd == 5 * MSS
    wire.advance(wire.time + ms(9))
    second.send(ACK, ack=1 + MSS, options=[second.dss(data_ack=1 + MSS)], window=WINDOW - MSS)
    assert fast.snd.congestion_room() > MSS
    assert slow.cc.cwnd == 5 * MSS
    assert wire.stack.counters["MPTcpExtPenalised"] == 1
    wire.advance(wire.time + ms(42))
    set_rtt(first, ms(200))
    second.send(ACK, ack=1 + 2 * MSS, options=[second.dss(data_ack=1 + MSS)], window=WINDOW - MSS)
    assert wire.stack.counters["MPTcpExtPenalised"] == 2
    assert slow.cc.cwnd == 5 * MSS // 2


def test_paths_that_are_alike_do_not_repeat() -> None:
    """What is on its way and would not come sooner by another way is left alone."""
    wire, connection, _, second = blocked(fast=40, slow=50)
    assert spans(second.drain()) == segments(4, 5, 6, 7, 8, 9)
    assert connection.subflows[0].cc.cwnd == 10 * MSS
    assert wire.stack.counters["MPTcpExtOpportunisticRetrans"] == 0


def test_a_full_send_buffer_is_a_full_window() -> None:
    """The sender keeps what is not DATA_ACKed (RFC 8684 §3.3.5): a send buffer below the receive
    window blocks in the same way, when the application has more."""
    wire, connection, _, second = blocked(send_buffer=8 * MSS)
    assert spans(second.drain()) == segments(4, 5, 6, 7, 1, 2, 3)
    assert connection.tx.queued == 0
    assert connection.writable_wanted
    assert wire.stack.counters["MPTcpExtOpportunisticRetrans"] == 3


@pytest.mark.parametrize(("slow", "again"), [(50, (1, 2, 3)), (19, ())])
def test_the_end_of_what_there_is_to_send(slow: int, again: tuple[int, ...]) -> None:
    """With nothing left to send and room in its window the fast one (10 ms) repeats what the slow
    one has yet to deliver, if that saves a round trip; nobody is slowed down for it."""
    wire = Wire(
        addresses=("10.0.0.1/24", "10.0.1.1/24"), nodelay=True, pacing=False, repeat_tail=True
    )
    wire.stack.listen(5000)
    first = Peer(wire, port=40000, local_port=5000)
    connection = first.handshake(active=False, mptcp=True, mss=1400, rtt=ms(50))
    second = first.beside(port=40001, local_port=5000, **SECOND_PATH)
    second.join()
    set_rtt(first, ms(slow))
    set_rtt(second, ms(10))
    second.subflow().cc.cwnd = MSS
    connection.send(bytes(4 * MSS))
    assert spans(second.drain()) == segments(0)
    assert spans(first.drain()) == segments(1, 2, 3)
    second.subflow().cc.cwnd = 20 * MSS
    second.subflow().ack_now()
    assert spans(second.drain()) == segments(*again)
    assert wire.stack.counters["MPTcpExtPenalised"] == 0


@pytest.mark.parametrize("kind", [NewReno, Cubic])
def test_a_penalty_halves(kind: type[NewReno | Cubic]) -> None:
    """NSDI 2012, §4.2: cwnd and ssthresh are halved; not below one and two segments."""
    control = kind(1000, 10_000, [])
    control.now = control.srtt = 10_000
    assert control.ssthresh == INFINITE_SSTHRESH
    control.on_penalised()
    assert (control.cwnd, control.ssthresh) == (5000, 5000)
    for _ in range(5):
        control.on_penalised()
    assert (control.cwnd, control.ssthresh) == (1000, 2000)
    control.on_ack(1000)
    assert control.cwnd == 2000


@pytest.mark.parametrize("buffer", [65536])
def test_two_paths_are_no_slower_than_one(buffer: int) -> None:
    """Goal of RFC 6356 §2 and of NSDI 2012: with a small buffer a slow second path (200 ms) beside
    a fast one (4 ms) costs no more than a few per cent of the fast one's goodput."""
    up = payload(3_000_000, 7)
    took: list[int] = []
    for paths in (1, 2):
        buffers: dict[str, object] = {"send_buffer": buffer, "receive_buffer": buffer}
        sim, a, b, _ = network(
            3, rate_bps=20_000_000, delay_us=2_000, queue_bytes=30_000, a=buffers, b=buffers
        )
        if paths == 2:
            sim.connect(
                a, "10.1.0.1/24", b, "10.1.0.2/24", rate_bps=2_000_000, delay_us=100_000
            )  # fmt: skip
        client, server = open_programs(a, b, up, b"")
        assert sim.run(60_000_000, until=lambda: len(server.incoming) > 2_800_000)  # noqa: B023
        took.append(sim.now)
        exchange(sim, client, server, up, b"")
    assert took[1] <= 1.05 * took[0]


def test_a_path_that_is_late_at_times_keeps_its_window() -> None:
    """Goal 1 of RFC 6356 §2: a second path as fast, of 100 ms beside 10, with 256 KiB of buffer,
    brings a third more at least, though it blocks the window now and then."""
    buffers: dict[str, object] = {"send_buffer": 1 << 18, "receive_buffer": 1 << 18}
    sim, a, b, _ = network(
        3, rate_bps=20_000_000, delay_us=5_000, queue_bytes=48_000, a=buffers, b=buffers
    )
    sim.connect(
        a, "10.1.0.1/24", b, "10.1.0.2/24", rate_bps=20_000_000, delay_us=50_000,
        queue_bytes=250_000,
    )  # fmt: skip
    up = payload(12_000_000, 7)
    client, server = open_programs(a, b, up, b"")
    sim.run(1_000_000)
    before = len(server.incoming)
    sim.run(2_500_000)
    assert (len(server.incoming) - before) * 8 / 2.5e6 > 26.0
    exchange(sim, client, server, up, b"")
