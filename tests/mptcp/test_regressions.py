"""Rules of the data level that were broken once: what is sent, resent and closed (RFC 8684 §3.3).

Each test holds a rule in the situation that broke it. Those of what is received are in
`test_regressions_receive.py`.
"""

from __future__ import annotations

import pytest

from mptcp.data_queues import DataSender
from mptcp.errors import ConnectionEnd
from mptcp.events import SubflowClosed
from mptcp.meta_socket import MetaSocket
from mptcp.retransmit_queue import DataChunk
from mptcp.subflow import Subflow
from mptcp.tcp import allowance
from mptcp.tcp.state import State
from mptcp.tcp.undo import Frto
from mptcp.wire.mptcp_options import RST_MPTCP_SPECIFIC, MpCapable, MpTcprst
from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.options import Emits
from tests.peer import Peer, Seen, Wire, ms, seconds
from tests.transfers import Program, network, payload

SEGMENT = 1376
"""Payload of a full segment on a joined subflow: its MSS of 1400 less the 24 octets of a DSS."""


def two_flows(*, rtt: int = ms(20)) -> tuple[Wire, MetaSocket, Peer, Peer]:
    """A confirmed connection: the first subflow measured `rtt`, the joined one is faster."""
    wire = Wire(nodelay=True, rack_tlp=False)
    wire.stack.listen(80)
    first = Peer(wire, port=4000, local_port=80)
    connection = first.handshake(active=False, mptcp=True, rtt=rtt)
    second = first.beside(port=4001, local_port=80)
    second.join()
    first.drain()
    second.drain()
    return wire, connection, first, second


def spans(seen: list[Seen]) -> list[tuple[int, int]]:
    """(SSN, length) of the data segments."""
    return [(segment.seq, len(segment.data)) for segment in seen if segment.data]


@pytest.mark.timeout(10)
def test_write_while_a_loss_does_not_fit() -> None:
    """RFC 6675 §4, NextSeg (1): losses go before new data. A subflow whose next lost segment does
    not fit cwnd - pipe takes no small write that would fit: it goes on the other, at once."""
    wire, connection, first, second = two_flows(rtt=ms(100))
    connection.send(bytes(9 * SEGMENT + 500))
    sent = second.drain()
    assert (len(sent), first.drain()) == (10, [])
    for last in sent[7:]:  # the first six are lost
        block = second.sacked((sent[6].seq, last.end))
        second.send(ACK, ack=1, options=[block, second.dss(data_ack=1)], at=wire.time + ms(1))
    second.drain()
    snd = second.subflow().snd
    assert snd.board.next_lost() is not None
    assert 100 < snd.congestion_room() < SEGMENT
    connection.send(bytes(100))
    assert spans(first.drain()) == [(1, 100)]
    assert spans(second.drain()) == []


@pytest.mark.timeout(10)
def test_write_while_a_subflow_is_in_last_ack() -> None:
    """RFC 9293 §3.10.2: after its FIN a subflow sends no new data, so none is kept for it: the
    other, heard again after an RTO, takes it."""
    wire, connection, first, second = two_flows(rtt=ms(100))
    connection.send(bytes(20_000))
    on_second, on_first = second.drain(), first.drain()
    second.send(FIN | ACK, ack=1, options=[second.dss(data_ack=1)])
    second.send(ACK, ack=on_second[1].end, options=[second.dss(data_ack=1)], at=ms(150))
    wire.advance(first.subflow().snd.rto_deadline - wire.zero)
    assert (first.subflow().snd.timeouts, second.subflow().snd.timeouts) == (1, 0)
    first.drain()
    second.drain()
    connection.send(b"y" * 100)
    for heard in (on_first[1], on_first[4]):
        first.send(ACK, ack=heard.end, options=[first.dss(data_ack=1)])
    assert b"y" * 100 in [segment.data for segment in first.drain()]
    assert spans(second.drain()) == []


@pytest.mark.timeout(10)
def test_write_while_frto_waits() -> None:
    """RFC 5682 §2.1 (2b): after two new segments a subflow that asks whether its time-out was
    needless sends nothing, so nothing is kept for it though its window is open."""
    wire, connection, first, second = two_flows(rtt=ms(100))
    snd, other = second.subflow().snd, first.subflow()
    connection.send(bytes(1000))
    wire.flush()
    connection.send(bytes(100))
    assert spans(second.drain()) == [(1, 1000), (1001, 100)]
    wire.advance(snd.rto_deadline - wire.zero)
    assert spans(second.drain()) == [(1, 1000), (1001, 100)]  # all of it is in flight again
    assert len(first.drain()) == 2
    window, other.cc.cwnd = other.cc.cwnd, 0
    connection.send(bytes(SEGMENT + 200))
    second.send(ACK, ack=1001)
    assert [length for _, length in spans(second.drain())] == [SEGMENT, 200]
    assert snd.undo.frto is Frto.PROBING
    assert snd.congestion_room() > 100
    other.cc.cwnd = window
    connection.send(bytes(100))
    assert spans(first.drain()) == [(1101, 100)]
    assert spans(second.drain()) == []
    assert wire.stack.counters["SchedulerChoiceSilent"] == 0


@pytest.mark.timeout(10)
@pytest.mark.interpreted
@pytest.mark.mib("SchedulerChoiceSilent")
def test_subflow_that_promises_what_it_does_not_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """Design rule 1: `poll_transmit` returns, and the data goes, even where `sendable` is wrong."""
    wire, connection, first, second = two_flows(rtt=ms(100))
    second.subflow().cc.cwnd = 0
    monkeypatch.setattr(allowance, "sendable", lambda conn, now: 100)
    connection.send(bytes(100))
    assert spans(first.drain()) == [(1, 100)]
    assert wire.stack.counters["SchedulerChoiceSilent"] == 1


@pytest.mark.row("D10")
def test_data_ack_is_watched_beside_a_dead_subflow() -> None:
    """§3.3.6: what is acknowledged by TCP but not by a DATA_ACK is sent again after a time-out,
    also while another subflow stands still with data of its own."""
    wire, connection, first, second = two_flows()
    connection.send(bytes(15_000))
    on_first, on_second = first.drain(), second.drain()
    assert on_second[0].dss is not None
    assert (on_second[0].dss.dsn, bool(on_first)) == (1, True)
    second.send(ACK, ack=on_second[-1].end, options=[second.dss(data_ack=1)])
    again: list[Seen] = []
    limit = wire.time + seconds(2)
    while not again and (due := wire.next_timer()) is not None and due <= limit:
        wire.advance(due)
        came = [*first.drain(), *second.drain()]
        again = [s for s in came if s.data and s.dss is not None and s.dss.dsn == 1]
        second.send(ACK, options=[second.dss(data_ack=1)])
    assert again, f"DSN 1 was not sent again by {wire.time} µs"


@pytest.mark.row("D11")
def test_data_fin_goes_on_a_live_subflow() -> None:
    """§3.3.3: a DATA_FIN may go on any subflow; a dead one, asked first, does not keep it."""
    wire, connection, first, second = two_flows(rtt=ms(1))
    second.subflow().snd.rtt.sample(ms(50), 0)
    connection.send(bytes(1000))
    assert spans(first.drain()) == [(1, 1000)]
    assert spans(second.drain()) == []
    wire.advance(wire.time + seconds(3))  # the first subflow is not heard of again
    assert first.subflow().snd.timeouts > 1
    second.send(ACK)
    assert connection.tx.used == 0
    first.drain()
    second.drain()
    connection.shutdown()
    fins = [s.dss.dsn for s in second.drain() if s.dss is not None and s.dss.data_fin]
    assert fins == [1001]


def test_close_sends_all_that_was_accepted() -> None:
    """RFC 9293 §3.10.4: CLOSE sends what is queued first, however long it takes; the wait for the
    peer's end (`Config.fin_wait_2_us`) begins after it."""
    data = payload(500_000)
    sender: dict[str, object] = {"fin_wait_2_us": seconds(3), "autotune": False}
    sim, a, b, _ = network(1, a=sender, rate_bps=500_000, queue_bytes=60_000)
    b.stack.listen(80)
    server = Program(b, b"", shuts_down=False)
    connection = a.stack.connect("10.0.0.2", 80)
    sim.run(until=lambda: connection.established)
    assert connection.send(data) == len(data)
    connection.close()
    start = sim.now
    sim.run(seconds(60), until=lambda: server.done and connection.ended is not None)
    assert sim.now - start > seconds(8)
    assert bytes(server.incoming) == data
    assert (connection.ended, server.end) == (ConnectionEnd.CLOSED, ConnectionEnd.CLOSED)


@pytest.mark.parametrize("acked_before", [False, True])
def test_join_after_close_does_not_end_the_wait(acked_before: bool) -> None:
    """RFC 9293 §3.10.4, as FIN-WAIT-2 at the data level (RFC 8684 §3.3.3): a peer that never says
    its end does not keep a closed connection, not even by another subflow."""
    wire = Wire()
    wire.stack.listen(80)
    first = Peer(wire, port=4000, local_port=80)
    connection = first.handshake(active=False, mptcp=True)
    connection.close()
    if acked_before:
        first.send(ACK, options=[first.dss(data_ack=2)])
        assert connection.data_fin_acked
    first.beside(port=4001, local_port=80).join()
    if not acked_before:
        first.send(ACK, options=[first.dss(data_ack=2)])
    assert connection.data_fin_acked
    wire.advance(wire.time + seconds(59))
    assert connection.ended is None
    wire.advance(wire.time + seconds(2))
    assert connection.ended is ConnectionEnd.TIMED_OUT
    assert len(wire.stack.tokens) == 0


@pytest.mark.row("F3", "F10")
@pytest.mark.parametrize(
    ("options", "ended"),
    [([], None), ([MpTcprst(RST_MPTCP_SPECIFIC)], ConnectionEnd.RESET)],
    ids=["bare", "MP_TCPRST"],
)
def test_refused_join_without_another_subflow(
    options: list[Emits], ended: ConnectionEnd | None
) -> None:
    """§3.2, §3.6: a RST with MP_TCPRST of the peer says that it does not know the token; a bare
    one may be a firewall's, and the connection waits for another subflow (App. D)."""
    wire = Wire(addresses=("10.0.0.1/24", "10.0.1.1/24"))
    first = Peer(wire)
    connection = first.handshake(mptcp=True)
    join = first.beside(local="10.0.1.1", interface=2)
    wire.advance(ms(200))
    join.expect(SYN)
    first.send(RST)
    assert (len(connection.subflows), connection.ended) == (1, None)
    join.send(RST | ACK, ack=1, options=options)
    assert connection.subflows == []
    assert connection.ended is ended


OTHER_A, OTHER_B = bytes([10, 0, 1, 1]), bytes([10, 0, 1, 2])


def test_join_without_a_free_port() -> None:
    """§3.2: a join is an attempt: no free local port for it costs the connection nothing."""
    sim, a, b, _ = network(1, paths=2, a={"ephemeral_ports": (40000, 40000)}, delay_us=1_000)
    b.stack.listen(80)
    joined = []
    for port in (5001, 5002):
        connection = a.stack.connect("10.0.0.2", 80, local_addr=("10.0.0.1", port))
        sim.run(ms(100))
        connection.send(b"x")
        sim.run(seconds(1))
        assert (connection.ended, connection.tx.used) == (None, 0)
        joined.append(len(connection.subflows))
        for taken in (5002, 40000):  # the first one's port, and the only other
            key = a.stack.flow_key(OTHER_A, taken, OTHER_B, 80)
            a.stack.connections[key] = connection.subflows[0]
    assert joined == [2, 1]
    assert not [event for event in a.events if isinstance(event, SubflowClosed)]


class Counted(int):
    """A number that counts how often numbers of its kind are compared."""

    comparisons = 0

    def __lt__(self, other: int) -> bool:
        Counted.comparisons += 1
        return int(self) < int(other)

    def __gt__(self, other: int) -> bool:
        Counted.comparisons += 1
        return int(self) > int(other)


class Carriers(list[Subflow]):
    """Carriers of a chunk that count how often they are asked."""

    asked = 0

    def __contains__(self, item: object) -> bool:
        Carriers.asked += 1
        return super().__contains__(item)


def test_offering_again_costs_little() -> None:
    """§3.3.6: a time-out offers all of a window again, interleaved with what waits already, and
    each packet asks for it: n chunks cost n log n comparisons, and one vain search."""
    _, _, first, second = two_flows()
    one, other = first.subflow(), second.subflow()
    count = 1024
    tx = DataSender(1 << 20)
    tx.start(0)
    chunks = [DataChunk(Counted(1 + i), 2 + i, [memoryview(b"x")], one) for i in range(count)]
    tx.chunks.extend(chunks)
    tx.nxt = 1 + count
    Counted.comparisons = 0
    for chunk in chunks:
        chunk.carriers = Carriers([one])
    queue = tx.retransmit
    for chunk in [*chunks[::2], *chunks[1::2]]:
        queue.offer(chunk)
    assert [item.dsn for item in queue.items] == list(range(1, 1 + count))
    assert Counted.comparisons <= 12 * count
    Carriers.asked = 0
    assert [queue.first_for(one) for _ in range(20)] == [None] * 20
    assert Carriers.asked <= count
    assert queue.first_for(other) is queue.items[0]


def test_an_ack_that_is_not_taken_says_nothing_of_the_handshake_timer() -> None:
    """RFC 8684 §3.1: without MP_CAPABLE the third ACK is not taken. RFC 6298 (5.5): the SYN/ACK's
    back-off lasts; with a sample from each such ACK all retries were gone in five seconds."""
    wire = Wire()
    wire.stack.listen(80)
    peer = Peer(wire, port=4000, local_port=80)
    options = [*peer.syn_options(1460, True, None, True), MpCapable()]
    peer.timestamps = True
    peer.send(SYN, options=options)
    peer.expect(SYN | ACK)
    peer.expect(SYN | ACK, at=seconds(1))
    peer.mptcp = True
    peer.send(ACK, ack=1, options=[peer.dss(data_ack=1)], at=seconds(1.1))
    peer.drain()
    peer.expect(SYN | ACK, at=seconds(3))
    peer.expect_nothing(until=seconds(6.9))
    peer.expect(SYN | ACK, at=seconds(7))


def test_the_rtt_of_an_ack_that_was_not_taken() -> None:
    """RFC 7323 §4.1: it tells the RTT all the same. The ACK that is taken may be a repetition whose
    echo is as old as the peer's time-out was long: the first RTO would be many times too long."""
    wire = Wire()
    wire.stack.listen(80)
    peer = Peer(wire, port=4000, local_port=80)
    options = [*peer.syn_options(1460, True, None, True), MpCapable()]
    peer.timestamps = True
    peer.send(SYN, options=options)
    answer = peer.expect(SYN | ACK)
    peer.data.stack_key = answer.option(MpCapable).sender_key
    peer.expect(SYN | ACK, at=seconds(1))
    peer.send(ACK, ack=1, options=[peer.dss(data_ack=1)], at=seconds(1.1))
    peer.drain()
    third = MpCapable(peer.data.key, peer.data.stack_key)
    peer.send(ACK, ack=1, options=[third], at=seconds(2.5))
    assert peer.subflow().state is State.ESTABLISHED
    assert ms(100) <= peer.subflow().srtt <= ms(101)
