"""Paths that fail: reinjection, stale subflows, death, break before make (RFC 8684 §3.3.6)."""

from __future__ import annotations

import pytest

from mptcp.errors import ConnectionEnd
from mptcp.events import Closed, SubflowClosed
from mptcp.meta_socket import MetaSocket
from mptcp.sim.network import Simulation
from mptcp.wire.mptcp_options import RST_UNACCEPTABLE_PERFORMANCE, MpTcprst
from mptcp.wire.tcp import ACK, RST
from tests.peer import Peer, Seen, Wire, ms, seconds
from tests.transfers import exchange, network, open_programs, payload

SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}


def two_flows(wire: Wire) -> tuple[MetaSocket, Peer, Peer]:
    """A connection with a slow first subflow (50 ms) and a fast second one (10 ms)."""
    wire.stack.listen(5000)
    first = Peer(wire, port=40000, local_port=5000)
    connection = first.handshake(active=False, mptcp=True, rtt=ms(50))
    second = first.beside(port=40001, local_port=5000, **SECOND_PATH)
    second.join()
    second.subflow().snd.rtt.sample(ms(10), 0)
    first.drain()
    second.drain()
    return connection, first, second


def spans(seen: list[Seen]) -> list[tuple[int, int]]:
    """DSN ranges of the data segments."""
    found = []
    for segment in seen:
        if segment.data and segment.dss is not None and segment.dss.dsn is not None:
            start = segment.dss.dsn + segment.seq - segment.dss.ssn
            found.append((start, start + len(segment.data)))
    return found


@pytest.mark.row("D15")
def test_reinjection_at_rto() -> None:
    """§3.3.6: at the RTO what the subflow has not delivered goes on the other, mapped anew; the
    first subflow MUST still retransmit it (D15)."""
    wire = Wire(addresses=("10.0.0.1/24", "10.0.1.1/24"), nodelay=True, retransmission="rto")
    connection, first, second = two_flows(wire)
    connection.send(b"x" * 1000)
    assert spans(second.drain()) == [(1, 1001)]
    assert spans(first.drain()) == []
    wire.advance(wire.time + ms(600))
    again = first.drain()
    assert spans(again) == [(1, 1001)]
    assert again[0].dss is not None
    assert again[0].dss.ssn == again[0].seq
    own = second.drain()
    assert spans(own)[:1] == [(1, 1001)]
    assert own[0].seq == 1
    # The other path delivers it: the connection is content, the dead subflow still repeats.
    first.send(ACK)
    assert connection.tx.used == 0
    wire.advance(wire.time + seconds(3))
    assert spans(second.drain())[:1] == [(1, 1001)]
    assert spans(first.drain()) == []


@pytest.mark.parametrize("policy", ["probe", "rto"])
def test_what_was_only_sacked_goes_again_too(policy: str) -> None:
    """§3.3.6: SACKed data waits at the receiver for what its subflow lost before it, and is not
    DATA_ACKed. When the path is gone, so is that."""
    wire = Wire(addresses=("10.0.0.1/24", "10.0.1.1/24"), nodelay=True, retransmission=policy)
    connection, first, second = two_flows(wire)
    connection.send(b"x" * 4000)
    sent = second.drain()
    assert spans(sent)[0][0] == 1
    middle = spans(sent)[0][1]
    size = middle - 1
    second.send(
        ACK, ack=1, options=[second.sacked((1 + size, 1 + 2 * size)), second.dss(data_ack=1)]
    )
    first.drain()
    wire.advance(wire.time + ms(900))  # not a word more
    again = spans(first.drain())
    covered = {dsn for start, end in again for dsn in range(start, end)}
    assert covered == set(range(1, 4001))


def test_stale_subflow_gets_no_new_data(wire: Wire) -> None:
    """Issue 2, item 4: after an RTO a subflow gets no new data until it answers."""
    connection, first, second = two_flows(wire)
    connection.send(b"x" * 1000)
    second.drain()
    wire.advance(wire.time + ms(600))
    first.drain()
    first.send(ACK)
    second.drain()
    connection.send(b"y" * 1000)
    assert spans(first.drain()) == [(1001, 2001)]
    assert spans(second.drain()) == []
    first.send(ACK)
    second.send(ACK)  # it answers
    connection.send(b"z" * 1000)
    assert spans(second.drain()) == [(2001, 3001)]


@pytest.mark.row("F3")
@pytest.mark.mib("MPTcpExtMPTCPRetrans", "MPTcpExtMPRstRx")
def test_reset_subflow(wire: Wire) -> None:
    """§3.6: a RST ends the subflow only; its data goes over the other at once."""
    connection, first, second = two_flows(wire)
    connection.send(b"x" * 1000)
    assert spans(second.drain()) == [(1, 1001)]
    second.send(RST, options=[MpTcprst(RST_UNACCEPTABLE_PERFORMANCE)])
    assert spans(first.drain()) == [(1, 1001)]
    (event,) = [e for e in wire.take_events() if isinstance(e, SubflowClosed)]
    assert (event.end, event.reason) == (ConnectionEnd.RESET, RST_UNACCEPTABLE_PERFORMANCE)
    first.send(ACK)
    assert connection.tx.used == 0


def test_subflow_is_given_up_sooner_when_another_works() -> None:
    """`Config.subflow_retries`: a dead subflow does not hold resources for fifteen minutes."""
    wire = Wire(addresses=("10.0.0.1/24", "10.0.1.1/24"), nodelay=True, subflow_retries=3)
    connection, first, _ = two_flows(wire)
    connection.send(b"x" * 1000)
    for _ in range(60):
        wire.advance(wire.time + ms(100))
        first.send(ACK)
    assert [s.remote for s in connection.subflows] == [first.address]
    assert connection.ended is None


@pytest.mark.row("F10")
def test_last_subflow_reset_waits_for_another(wire: Wire) -> None:
    """App. D, §3.3.3: all subflows gone: the connection is kept for a while."""
    connection, first, second = two_flows(wire)
    first.send(RST)
    second.send(RST)
    wire.take_events()
    connection.send(b"kept")
    wire.advance(wire.time + seconds(30))
    assert connection.ended is None
    third = first.beside(port=40002, local_port=5000, isn=7, **SECOND_PATH)
    third.join()
    assert spans(third.drain()) == [(1, 5)]
    third.send(ACK, data=b"back")
    assert connection.recv() == b"back"


@pytest.mark.row("F10")
def test_no_subflow_for_too_long(wire: Wire) -> None:
    """...and not for ever."""
    connection, first, second = two_flows(wire)
    first.send(RST)
    second.send(RST)
    wire.advance(wire.time + seconds(61))
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.NO_SUBFLOW)
    assert wire.stack.tokens == {}
    third = first.beside(port=40002, local_port=5000, isn=7, **SECOND_PATH)
    with pytest.raises(AssertionError):
        third.join()


# -- in the simulator -----------------------------------------------------------------------------


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("cut", [0, 1])
def test_a_path_cut_for_three_seconds(cut: int, offload: bool) -> None:
    """Two paths, one cut in the middle: the bytes are equal, no stall of a second, and the path
    carries data again after it returns."""
    sim, a, b, paths = network(
        7, paths=2, rate_bps=8_000_000, delay_us=15_000, queue_bytes=60_000, offload=offload
    )
    up, down = payload(12_000_000, 1), payload(100_000, 2)
    client, server = open_programs(a, b, up, down)
    sim.run(3_000_000)
    assert server.connection is not None
    assert len(server.connection.subflows) == 2
    sim.set_down(paths[cut], True)
    stall = watch(sim, 3_000_000, lambda: len(server.incoming))
    assert stall < 1_000_000
    sim.set_down(paths[cut], False)
    before = paths[cut][0].link.stats.bytes
    sim.run(3_000_000)
    assert paths[cut][0].link.stats.bytes > before + 100_000
    exchange(sim, client, server, up, down)


def test_join_after_the_peer_has_said_its_end() -> None:
    """§3.3.3: a DATA_FIN closes one direction; the other may still want its second path."""
    sim, a, b, paths = network(19, paths=2, rate_bps=8_000_000, delay_us=10_000)
    up = payload(3_000_000, 3)
    client, server = open_programs(a, b, up, b"", early_end=True)
    exchange(sim, client, server, up, b"")
    assert min(path[0].link.stats.bytes for path in paths) > 500_000


def watch(sim: Simulation, duration: int, progress: object) -> int:
    """Run for a while; the longest time without progress."""
    assert callable(progress)
    last, seen, longest = sim.now, progress(), 0
    end = sim.now + duration
    while sim.now < end:
        sim.run(10_000)
        if progress() != seen:
            seen, last = progress(), sim.now
        longest = max(longest, sim.now - last)
    return longest


@pytest.mark.row("F10")
@pytest.mark.parametrize("seed", range(3))
def test_break_before_make(seed: int) -> None:
    """The client's only interface goes and comes back: the transfer goes on where it was."""
    sim, a, b, paths = network(seed, paths=1, rate_bps=8_000_000, delay_us=10_000)
    up, down = payload(2_000_000, seed), payload(500_000, seed + 1)
    client, server = open_programs(a, b, up, down)
    sim.run(800_000)
    interface = a.stack.book.interfaces[1]
    a.stack.interface_down(sim.now, 1)
    sim.run(2_000_000)
    assert client.connection is not None
    assert client.connection.subflows == []
    a.stack.interface_up(sim.now, interface)
    exchange(sim, client, server, up, down)
    assert paths


def test_both_paths_cut_for_a_while() -> None:
    """All paths dead for 20 s: nothing is lost, and it goes on within the back-off."""
    sim, a, b, paths = network(11, paths=2, rate_bps=8_000_000, delay_us=10_000)
    up = payload(5_000_000, 3)
    client, server = open_programs(a, b, up, b"")
    sim.run(1_500_000)
    for path in paths:
        sim.set_down(path, True)
    sim.run(20_000_000)
    for path in paths:
        sim.set_down(path, False)
    exchange(sim, client, server, up, b"")


@pytest.mark.parametrize("side", ["a", "b"])
def test_interface_lost_in_mid_transfer(side: str) -> None:
    """One of two interfaces is removed on either side: its subflow ends, the bytes arrive."""
    sim, a, b, _ = network(13, paths=2, rate_bps=8_000_000, delay_us=10_000)
    up, down = payload(3_000_000, 3), payload(300_000, 4)
    client, server = open_programs(a, b, up, down)
    sim.run(1_000_000)
    host = a if side == "a" else b
    host.stack.interface_down(sim.now, 1)
    exchange(sim, client, server, up, down)


def test_first_subflow_dies_second_carries_on() -> None:
    """The subflow of MP_CAPABLE is nothing special once there are others."""
    sim, a, b, paths = network(17, paths=2, rate_bps=8_000_000, delay_us=10_000)
    up, down = payload(3_000_000, 5), payload(3_000_000, 6)
    client, server = open_programs(a, b, up, down)
    sim.run(1_000_000)
    sim.set_down(paths[0], True)
    exchange(sim, client, server, up, down, limit_us=300_000_000)
