"""The checklist's rows about addresses that have no test elsewhere: RFC 8684 §3.3.8, §3.4, §3.9."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from mptcp.meta_socket import MetaSocket
from mptcp.wire.mptcp_options import (
    RST_MPTCP_SPECIFIC,
    AddAddr,
    MpCapable,
    MpJoinSyn,
    MpJoinSynAck,
    MpPrio,
    MpTcprst,
    RemoveAddr,
)
from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.mptcp.test_addresses import announce, announcement
from tests.options import Mss, has
from tests.peer import PEER_KEY, Peer, Seen, Wire, ms, seconds

TWO = ("10.0.0.1/24", "10.0.1.1/24")
SECOND = bytes([10, 0, 1, 2])
SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}


def joined(wire: Wire, peer: Peer) -> tuple[MetaSocket, Peer]:
    """A connection of ours with a second subflow, to the address 10.0.1.2 with identifier 5."""
    connection = peer.handshake(mptcp=True, rtt=ms(10))
    flow = peer.beside(port=80, **SECOND_PATH)
    announce(peer, announcement(connection, 5))
    flow.accept_join(address_id=5)
    peer.drain()
    flow.drain()
    wire.take_events()
    return connection, flow


def removed(peer: Peer, *ids: int) -> None:
    """The peer's REMOVE_ADDR."""
    peer.send(ACK, options=[peer.dss(data_ack=peer.data.data_ack), RemoveAddr(ids)])


def probes(seen: list[Seen], una: int = 1) -> list[Seen]:
    """Keep-alives: no payload, below SND.UNA."""
    return [s for s in seen if not s.data and s.seq == una - 1 and not s.flags & (RST | SYN)]


# -- REMOVE_ADDR (A8) -----------------------------------------------------------------------------


@pytest.mark.row("A8")
def test_a_removed_address_is_asked_first(wire: Wire, peer: Peer) -> None:
    """§3.4.2: a keep-alive on the path; it is answered, so the subflow stays and carries data.
    Once it has ended the address is not used again."""
    connection, flow = joined(wire, peer)
    removed(peer, 5)
    assert len(probes(flow.drain())) == 1
    flow.send(ACK)
    wire.advance(wire.time + seconds(30))
    assert not any(seen.flags & (RST | FIN) for seen in flow.drain())
    assert flow.subflow() in connection.subflows
    flow.send(ACK, data=b"still here")
    assert connection.recv() == b"still here"
    flow.send(RST)
    wire.advance(wire.time + seconds(60))
    assert not any(seen.flags & SYN for seen in flow.drain())


@pytest.mark.row("A8", "F3")
@pytest.mark.parametrize("last", [False, True], ids=["one of two", "the only one"])
def test_a_removed_address_that_is_silent(wire: Wire, peer: Peer, last: bool) -> None:
    """§3.4.2: two keep-alives without an answer: RST, whether or not there is another subflow."""
    connection, flow = joined(wire, peer)
    if last:
        peer.send(RST)
    removed(flow, 5)
    start = wire.time
    wire.advance(start + seconds(3))
    sent = flow.drain()
    assert len(probes(sent)) == 2
    (reset,) = [seen for seen in sent if seen.flags & RST]
    assert has(MpTcprst)(reset.options)
    assert SECOND not in {subflow.remote for subflow in connection.subflows}
    assert connection.ended is None


@pytest.mark.row("A8")
def test_a_removed_address_that_is_being_joined(wire: Wire, peer: Peer) -> None:
    """§3.4.2: a subflow that is not there yet is given up at once."""
    connection = peer.handshake(mptcp=True)
    flow = peer.beside(port=80, **SECOND_PATH)
    announce(peer, announcement(connection, 5))
    flow.expect(SYN, options=has(MpJoinSyn))
    removed(peer, 5)
    wire.advance(wire.time + seconds(20))
    assert not any(seen.flags & SYN for seen in flow.drain())


@pytest.mark.row("A8", "J2")
@pytest.mark.parametrize("number", [1, 2])
def test_our_lost_address_is_told(wire: Wire, peer: Peer, number: int) -> None:
    """§3.4.2: REMOVE_ADDR with the identifier the peer knows: 0 for the first subflow's address,
    that of MP_JOIN for another."""
    _, flow = joined(wire, peer)
    expected = 0 if number == 1 else flow.subflow().local_id
    other = flow if number == 1 else peer
    wire.stack.interface_down(wire.now, number)
    assert other.expect(ACK, options=has(RemoveAddr)).option(RemoveAddr).address_ids == (expected,)


@pytest.mark.row("A8")
def test_a_loss_that_nothing_could_tell(wire: Wire, peer: Peer) -> None:
    """§3.4.2: with no subflow left REMOVE_ADDR waits for the next one."""
    connection = peer.handshake(mptcp=True)
    wire.advance(wire.time + seconds(2))
    wire.stack.interface_down(wire.now, 2)
    wire.stack.interface_down(wire.now, 1)
    assert connection.subflows == []
    wire.stack.interface_up(wire.now, wire.interfaces[1])
    flow = peer.beside(port=80, local="10.0.1.1", interface=2, isn=99)
    syn = flow.expect(SYN, within=seconds(5)).option(MpJoinSyn)
    assert syn.address_id != 0
    flow.queue.clear()
    wire.advance(wire.time + seconds(2))
    flow.accept_join()
    assert any(has(RemoveAddr((0,)))(seen.options) for seen in flow.drain())


@pytest.mark.row("A8", "D12")
def test_a_working_subflow_is_closed_with_fin(wire: Wire, peer: Peer) -> None:
    """§3.4.2: REMOVE_ADDR and RST are for what does not work; the path manager's wish is a FIN."""
    connection, flow = joined(wire, peer)
    connection.paths.close_path(flow.subflow().path_index)
    seen = flow.expect(ACK | FIN)
    assert not seen.flags & RST
    connection.send(b"x" * 10)
    assert [s.data for s in peer.drain() if s.data] == [b"x" * 10]


# -- announcing and joining (A1, A5, A6, A7) ------------------------------------------------------


@pytest.mark.row("A5")
def test_without_a_port_it_is_that_of_the_subflow(wire: Wire, peer: Peer) -> None:
    """§3.4.1: ADD_ADDR came on a subflow to port 8080: the address is joined there."""
    connection = peer.handshake(mptcp=True)
    flow = peer.beside(address="10.0.1.2", port=8080, local="10.0.1.1", interface=2)
    announce(peer, announcement(connection, 5, port=8080))
    flow.accept_join(address_id=5)
    third = peer.beside(address="10.0.1.3", port=8080, interface=1, isn=5)
    announce(flow, announcement(connection, 6, bytes([10, 0, 1, 3])))
    third.expect(SYN, options=has(MpJoinSyn), within=seconds(1))


@pytest.mark.row("A1", "A5")
def test_another_port_of_the_same_address(wire: Wire, peer: Peer) -> None:
    """§3.4.1: the same identifier and address with a new port: a subflow to that port as well."""
    connection, flow = joined(wire, peer)
    again = peer.beside(port=8080, isn=7, **SECOND_PATH)
    announce(peer, announcement(connection, 5, port=8080))
    again.accept_join(address_id=5)
    assert [s.remote_port for s in connection.subflows] == [80, 80, 8080]
    flow.send(ACK, data=b"both work")
    assert connection.recv() == b"both work"


@pytest.mark.row("A6", "A7", "F3")
@pytest.mark.parametrize("transient", [False, True])
def test_a_refused_address_waits_for_a_fresh_announcement(
    wire: Wire, peer: Peer, transient: bool
) -> None:
    """§3.4.1, §3.6: T=0: never again by itself; T=1: later; a fresh ADD_ADDR: at once."""
    connection = peer.handshake(mptcp=True)
    flow = peer.beside(port=80, **SECOND_PATH)
    announce(peer, announcement(connection, 5))
    syn = flow.expect(SYN)
    reason = MpTcprst(RST_MPTCP_SPECIFIC, transient)
    flow.send(RST | ACK, seq=0, ack=syn.end, options=[reason])
    flow.local_port = 0
    start = wire.time
    wire.advance(start + seconds(60))
    later = [seen.sent_at for seen in flow.drain() if seen.flags & SYN]
    assert bool(later) is transient
    assert all(at - start >= ms(500) for at in later)
    flow.local_port = 0
    announce(peer, announcement(connection, 5))
    flow.expect(SYN, within=ms(1) if not transient else seconds(60))


@pytest.mark.row("A6")
def test_an_address_that_never_answers_is_given_up() -> None:
    """§3.4.1: what has never worked is tried three times at most, further and further apart."""
    wire = Wire(addresses=TWO, nodelay=True, syn_retries=1)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True)
    announce(peer, announcement(connection, 5))
    wire.advance(seconds(600))
    tries = wire.stack.counters["MPTcpExtMPJoinSynTx"]
    assert tries == 3
    assert connection.ended is None


@pytest.mark.row("I11")
def test_a_barred_address_is_not_rejoined() -> None:
    """§3.1: C=1 holds when the first subflow is lost as well: nothing goes there again."""
    wire = Wire(addresses=TWO, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, capable=MpCapable(PEER_KEY, no_join_initial=True))
    peer.send(RST)
    assert connection.subflows == []
    peer.local_port = 0
    wire.advance(seconds(50))
    assert not any(seen.flags & SYN for seen in peer.drain())
    assert "MPTcpExtMPJoinSynTx" not in wire.stack.counters


@pytest.mark.row("F12")
@pytest.mark.parametrize("taken", [False, True])
def test_a_join_uses_the_ports_of_the_first_subflow(wire: Wire, peer: Peer, taken: bool) -> None:
    """§3.9.1: both ports, so that firewalls know the flow; another local one if it is taken."""
    flow = peer.beside(port=80, **SECOND_PATH)
    if taken:
        flow.port = 81
        wire.stack.connect("10.0.1.2", 80, local_addr=("10.0.1.1", 40123))
        flow.port = 80
    peer.local_port = 40123
    connection = peer.handshake(mptcp=True)
    announce(peer, announcement(connection, 5))
    seen = [s for s in flow.drain() if has(MpJoinSyn)(s.options)]
    if taken:
        assert seen == []
        assert [s.local_port != 40123 for s in connection.subflows] == [False, True]
    else:
        assert len(seen) == 1
        assert [s.local_port for s in connection.subflows] == [40123, 40123]
    assert {s.remote_port for s in connection.subflows} == {80}


# -- backup (D17) ---------------------------------------------------------------------------------


@pytest.mark.row("D17")
@pytest.mark.parametrize("backup", [True, False])
def test_a_backup_interface_says_so_in_the_join(wire: Wire, peer: Peer, backup: bool) -> None:
    """§3.2: the B flag of our SYN asks the peer; what we send is not concerned (§3.3.8)."""
    wire.interfaces[1].backup = backup
    connection, flow = joined_as(wire, peer)
    assert flow.option(MpJoinSyn).backup is backup
    second = connection.subflows[1]
    assert (second.backup_request, second.backup) == (backup, False)


def joined_as(wire: Wire, peer: Peer) -> tuple[MetaSocket, Seen]:
    """As `joined`, with the SYN of the join."""
    connection = peer.handshake(mptcp=True)
    flow = peer.beside(port=80, **SECOND_PATH)
    announce(peer, announcement(connection, 5))
    return connection, flow.accept_join(address_id=5)


@pytest.mark.row("D17")
@pytest.mark.parametrize("cookies", ["auto", "always"])
def test_a_backup_interface_says_so_in_the_answer(cookies: str) -> None:
    """§3.2: the B flag of our SYN/ACK, kept or stateless."""
    wire = Wire(addresses=TWO, nodelay=True, syn_cookies=cookies)
    wire.interfaces[1].backup = True
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    caller.handshake(active=False, mptcp=True)
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    token = MpJoinSyn(False, 1, caller.subflow().meta.token, flow.local_nonce)
    flow.send(SYN, options=[Mss(1400), token])
    assert flow.expect(SYN | ACK).option(MpJoinSynAck).backup


@pytest.mark.row("D17")
def test_mp_prio_of_ours_asks_the_peer_only(wire: Wire, peer: Peer) -> None:
    """§3.3.8: MP_PRIO goes on the subflow it is about; we go on sending there."""
    connection, flow = joined(wire, peer)
    for backup in (True, False):
        connection.options.backup("10.0.1.1", backup)
        flow.expect(ACK, options=has(MpPrio(backup)), within=seconds(1))
        assert flow.subflow().backup_request is backup
        assert not flow.subflow().backup
    assert wire.stack.counters["MPTcpExtMPPrioTx"] == 2


# -- signals in a row (I2) ------------------------------------------------------------------------


def quiet(wire: Wire, peer: Peer) -> None:
    """Nothing happens but time."""


def data_arrives(wire: Wire, peer: Peer) -> None:
    """A segment with data between the two pairs."""
    peer.send(ACK, data=b"x")


@pytest.mark.row("I2")
@pytest.mark.parametrize("between", [quiet, data_arrives])
def test_no_more_than_two_signals_in_a_row(between: Callable[[Wire, Peer], None]) -> None:
    """§3, §4: more than two duplicate ACKs in a row look like a loss; the rest waits for data, or
    for a retransmission time-out, when nothing can be in flight any more."""
    wire = Wire(addresses=[f"10.0.{n}.1/24" for n in range(6)], nodelay=True)
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    caller.handshake(active=False, mptcp=True, rtt=ms(100))

    def told() -> list[int]:
        options = (o for seen in caller.drain() for o in seen.options)
        return [o.address_id for o in options if isinstance(o, AddAddr)]

    first = told()
    assert len(first) == 2
    wire.advance(ms(100))
    assert told() == []
    between(wire, caller)
    wire.advance(ms(200) if between is data_arrives else ms(350))
    second = told()
    assert len(second) == 2
    wire.advance(ms(900))
    assert len({*first, *second, *told()}) == 5


@pytest.mark.row("A4")
def test_each_address_is_told_in_time() -> None:
    """§3.4.1: with many addresses each gets through, and is repeated until it is echoed."""
    wire = Wire(addresses=[f"10.0.{n}.1/24" for n in range(5)], nodelay=True)
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    caller.handshake(active=False, mptcp=True, rtt=ms(10))
    times: dict[int, list[int]] = {}
    wire.advance(seconds(60))
    for seen in caller.drain():
        for option in seen.options:
            if isinstance(option, AddAddr):
                times.setdefault(option.address_id, []).append(seen.sent_at)
    assert len(times) == 4
    assert all(len(found) == 4 for found in times.values())
    assert all(b > a for found in times.values() for a, b in pairwise(found))
