"""Backup subflows that we ask for: RFC 8684 §3.2 (the B flag), §3.3.8 (MP_PRIO)."""

from __future__ import annotations

import pytest

from mptcp import keys
from mptcp.addressing import parse_address
from mptcp.wire.mptcp_options import AddAddr, MpJoinSyn, MpJoinSynAck, MpPrio, RemoveAddr
from mptcp.wire.tcp import ACK, SYN
from tests.mptcp.test_addresses import SECOND_PATH, TWO, announce, announcement, server
from tests.options import Mss, SackPermitted, has
from tests.peer import Peer, Seen, Wire, ms, seconds


def priorities(peer: Peer) -> list[MpPrio]:
    """The MP_PRIO options that have come on a flow."""
    return [o for seen in peer.drain() for o in seen.options if isinstance(o, MpPrio)]


def join_of(wire: Wire, peer: Peer) -> tuple[Peer, Seen]:
    """The stack's MP_JOIN from its second address, answered."""
    (connection,) = wire.stack.metas
    flow = peer.beside(port=80, **SECOND_PATH)
    announce(peer, announcement(connection, 5))
    return flow, flow.accept_join()


@pytest.mark.row("D17")
@pytest.mark.parametrize("backup", [False, True])
def test_join_of_a_backup_interface(backup: bool) -> None:
    """§3.2: B of the MP_JOIN asks the peer to use the subflow as a backup."""
    wire = Wire(addresses=TWO)
    wire.interfaces[1].backup = backup
    peer = Peer(wire)
    peer.handshake(mptcp=True)
    flow, syn = join_of(wire, peer)
    assert syn.option(MpJoinSyn).backup is backup
    assert priorities(peer) + priorities(flow) == []


@pytest.mark.row("D17")
def test_answer_to_a_join_at_a_backup_interface() -> None:
    """§3.2: B of the SYN/ACK's MP_JOIN is the server's wish."""
    wire, caller, _ = server()
    wire.interfaces[1].backup = True
    flow = caller.beside(port=41000, local_port=5000, **SECOND_PATH)
    level = flow.data
    join = MpJoinSyn(False, 1, keys.token(level.stack_key), flow.local_nonce)
    flow.send(SYN, options=[Mss(1400), SackPermitted(), join])
    assert flow.expect(SYN | ACK).option(MpJoinSynAck).backup


@pytest.mark.row("D17")
@pytest.mark.mib("MPTcpExtMPPrioTx")
def test_mp_prio_goes_on_its_own_subflow() -> None:
    """§3.3.8: MP_PRIO concerns the subflow that carries it; once for each change."""
    wire = Wire(addresses=TWO)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True)
    flow, syn = join_of(wire, peer)
    assert not syn.option(MpJoinSyn).backup
    peer.drain()
    flow.drain()
    connection.options.backup("10.0.1.1")
    connection.options.backup(parse_address("10.0.1.1"))
    wire.advance(wire.time + ms(10))
    assert priorities(flow) == [MpPrio(True)]
    assert priorities(peer) == []
    connection.options.backup("10.0.1.1", False)
    wire.advance(wire.time + ms(10))
    assert priorities(flow) == [MpPrio(False)]
    assert wire.stack.counters["MPTcpExtMPPrioTx"] == 2


@pytest.mark.row("D17")
def test_what_is_asked_before_the_subflow_is_in_its_join() -> None:
    """§3.2: a wish of the application holds for subflows to come, against the interface's."""
    wire = Wire(addresses=TWO)
    wire.interfaces[1].backup = True
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True)
    connection.options.backup("10.0.1.1", False)
    _, syn = join_of(wire, peer)
    assert not syn.option(MpJoinSyn).backup


@pytest.mark.row("D17")
def test_the_first_subflow_can_be_a_backup() -> None:
    """§3.3.8: MP_CAPABLE has no B flag; MP_PRIO says it when the connection is confirmed."""
    wire = Wire()
    wire.interfaces[0].backup = True
    peer = Peer(wire)
    peer.handshake(mptcp=True)
    assert priorities(peer) == [MpPrio(True)]


def test_what_we_ask_does_not_bind_us() -> None:
    """§3.3.8: the request is for the direction towards its sender only."""
    wire = Wire(addresses=TWO, nodelay=True)
    wire.interfaces[1].backup = True
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, rtt=ms(50))
    flow, _ = join_of(wire, peer)
    connection.send(b"x" * 40_000)
    assert any(seen.data for seen in flow.drain())


def test_no_address_is_refused() -> None:
    """In the user's words."""
    wire = Wire()
    connection = Peer(wire).handshake(mptcp=True)
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        connection.options.backup("nonsense")
    with pytest.raises(ValueError, match="4 or 16 bytes"):
        connection.options.backup(b"abc")


@pytest.mark.row("A8")
def test_an_address_that_a_join_has_told_is_withdrawn() -> None:
    """§3.4.2: MP_JOIN has announced the address with its identifier, as an ADD_ADDR would have."""
    wire = Wire(addresses=TWO)
    peer = Peer(wire)
    peer.handshake(mptcp=True)
    _, syn = join_of(wire, peer)
    peer.drain()
    identifier = syn.option(MpJoinSyn).address_id
    assert identifier != 0
    wire.stack.interface_down(wire.now, 2)
    (gone,) = [o for seen in peer.drain() for o in seen.options if isinstance(o, RemoveAddr)]
    assert gone == RemoveAddr((identifier,))


def test_an_address_that_nobody_was_told_of_is_not_withdrawn() -> None:
    """§3.4.2: REMOVE_ADDR is for what was announced."""
    wire = Wire(addresses=TWO)
    peer = Peer(wire)
    peer.handshake(mptcp=True)
    wire.stack.interface_down(wire.now, 2)
    wire.advance(seconds(1))
    assert not any(has(RemoveAddr)(seen.options) for seen in peer.drain())


@pytest.mark.row("A2", "A5")
@pytest.mark.parametrize("ipv6", [False, True])
def test_announced_port(ipv6: bool) -> None:
    """§3.4.1: the port is in the option and in its HMAC; a join to it needs no listener there."""
    other = "fd00::1/64" if ipv6 else "10.0.1.1/24"
    wire = Wire(addresses=("10.0.0.1/24", other), announce_port=7000)
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    connection = caller.handshake(active=False, mptcp=True, timestamps=True)
    option = caller.expect(ACK, options=has(AddAddr)).option(AddAddr)
    assert option.port == 7000
    local = other.partition("/")[0]
    far = "fd00::2" if ipv6 else "10.0.1.2"
    flow = caller.beside(
        address=far, port=41000, local=local, local_port=7000, interface=2, isn=0x4000_0000
    )
    flow.join()
    assert len(connection.subflows) == 2
