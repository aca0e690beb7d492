"""MP_JOIN: RFC 8684 §3.2, figures 7 and 8, both roles, and everything that refuses one."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mptcp import keys
from mptcp.events import SubflowClosed, SubflowEstablished
from mptcp.meta_socket import MetaSocket
from mptcp.wire.mptcp_options import (
    RST_ADMIN_PROHIBITED,
    RST_LACK_OF_RESOURCES,
    RST_MPTCP_SPECIFIC,
    AddAddr,
    MpCapable,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpTcprst,
)
from mptcp.wire.tcp import ACK, RST, SYN
from tests.options import Emits, Mss, SackPermitted, has
from tests.peer import PEER_KEY, Peer, Wire, ms, seconds

SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}


def second(caller: Peer, port: int = 40001, local_port: int = 5000) -> Peer:
    """Another flow of the client's connection, over the second path."""
    return caller.beside(port=port, local_port=local_port, **SECOND_PATH)


def connected(caller: Peer) -> MetaSocket:
    """A confirmed connection of the client to our listener."""
    connection = caller.handshake(active=False, mptcp=True)
    caller.drain()
    caller.wire.take_events()
    return connection


@pytest.mark.row("J1", "J2", "J4", "J5")
@pytest.mark.mib("MPTcpExtMPJoinSynRx", "MPTcpExtMPJoinAckRx")
def test_passive_join(wire: Wire, caller: Peer) -> None:
    """Figure 8: token and nonce; truncated HMAC and nonce; HMAC; ACK. (`Peer.join` checks them.)"""
    connection = connected(caller)
    flow = second(caller)
    flow.join(address_id=7)
    (event,) = [e for e in wire.take_events() if isinstance(e, SubflowEstablished)]
    assert event.connection is connection
    assert event.subflow.remote_id == 7
    assert event.subflow.local_id != 0
    flow.send(ACK, data=b"on the second path")
    assert connection.recv() == b"on the second path"
    assert connection.data_ack() & 0xFFFFFFFF == (connection.remote_idsn + 19) & 0xFFFFFFFF


@pytest.mark.row("J4")
def test_known_answer_hmacs() -> None:
    """Checklist §2.6: keys 01..08 and 11..18, nonces a1a2a3a4 and b1b2b3b4."""
    key_a, key_b = bytes.fromhex("0102030405060708"), bytes.fromhex("1112131415161718")
    nonce_a, nonce_b = bytes.fromhex("a1a2a3a4"), bytes.fromhex("b1b2b3b4")
    assert keys.synack_hmac(key_b, key_a, nonce_b, nonce_a).hex() == "864b40428762fd06"
    assert (
        keys.ack_hmac(key_a, key_b, nonce_a, nonce_b).hex()
        == "53037f2899475529844115fd07e665d23d3554fb"
    )


@pytest.mark.row("J6")
@pytest.mark.mib("MPTcpExtMPJoinNoTokenFound", "MPTcpExtMPRstTx")
def test_unknown_token(wire: Wire, caller: Peer) -> None:
    """§3.2: a token that does not exist: RST, with MP_TCPRST reason 1."""
    connected(caller)
    flow = second(caller)
    flow.send(SYN, options=[Mss(1400), MpJoinSyn(False, 1, 0xDEADBEEF, b"abcd")])
    flow.expect(RST | ACK, ack=1, options=has(MpTcprst(RST_MPTCP_SPECIFIC)))
    assert flow.wire.stack.counters["MPTcpExtMPJoinNoTokenFound"] == 1


@pytest.mark.row("J1")
@pytest.mark.mib("MPTcpExtMPJoinPortSynRx", "MPTcpExtMPJoinPortAckRx")
def test_token_comes_before_the_listener(wire: Wire, caller: Peer) -> None:
    """§3.2: the token demultiplexes: a port nobody listens on is fine, and makes no connection."""
    connection = connected(caller)
    flow = second(caller, local_port=6666)
    flow.join()
    assert len(connection.subflows) == 2
    assert len(wire.stack.metas) == 1


@pytest.mark.row("J1", "J6")
def test_unknown_token_at_a_listening_port_is_no_connection(wire: Wire, caller: Peer) -> None:
    """A bad MP_JOIN must not become a plain connection of the listener."""
    connected(caller)
    flow = second(caller)
    flow.send(SYN, options=[Mss(1400), MpJoinSyn(False, 1, 1, b"abcd")])
    assert flow.expect().flags & RST
    assert len(wire.stack.metas) == 1


def half_join(flow: Peer) -> bytes:
    """SYN and SYN/ACK of a join; returns the HMAC the third ACK is to carry."""
    level = flow.data
    syn = MpJoinSyn(False, 1, keys.token(level.stack_key), flow.local_nonce)
    flow.send(SYN, options=[Mss(1400), SackPermitted(), syn])
    answer = flow.expect(SYN | ACK, ack=1).option(MpJoinSynAck)
    return keys.ack_hmac(level.key, level.stack_key, flow.local_nonce, answer.nonce)


@pytest.mark.row("J7")
@pytest.mark.parametrize("kind", ["wrong", "missing"])
def test_bad_hmac_at_the_server(wire: Wire, caller: Peer, kind: str) -> None:
    """§3.2: HMAC wrong or missing in the third ACK: RST, reason 1; the connection lives."""
    connection = connected(caller)
    flow = second(caller)
    mac = bytearray(half_join(flow))
    mac[5] ^= 1
    flow.send(ACK, options=[MpJoinAck(bytes(mac))] if kind == "wrong" else [])
    answer = flow.expect(options=has(MpTcprst(RST_MPTCP_SPECIFIC)))
    assert answer.flags & RST
    assert len(connection.subflows) == 1
    assert not [e for e in wire.take_events() if isinstance(e, SubflowEstablished)]
    caller.send(ACK, data=b"still")
    assert connection.recv() == b"still"


@pytest.mark.row("J8")
def test_third_ack_repeated(wire: Wire, caller: Peer) -> None:
    """§3.2: the ACK with MP_JOIN again (our fourth ACK was lost) triggers an ACK again."""
    connected(caller)
    flow = second(caller)
    mac = half_join(flow)
    for _ in range(3):
        flow.send(ACK, options=[MpJoinAck(mac)])
        answers = flow.drain()
        assert 1 <= len(answers) <= 2
        assert {(seen.flags, seen.ack, len(seen.data)) for seen in answers} == {(ACK, 1, 0)}


@pytest.mark.row("J8")
def test_no_data_of_ours_before_the_third_ack(wire: Wire, caller: Peer) -> None:
    """§3.2: nothing is sent on the subflow before the HMAC was verified."""
    connection = connected(caller)
    flow = second(caller)
    mac = half_join(flow)
    connection.send(bytes(200_000))
    flow.expect_nothing(until=ms(100))
    flow.send(ACK, options=[MpJoinAck(mac)])
    flow.mptcp = True
    assert any(seen.data for seen in flow.drain())


@pytest.mark.row("I8")
def test_join_before_confirmation_is_refused(wire: Wire, caller: Peer) -> None:
    """§3.1: no additional subflow before a DSS has come on the path."""
    caller.handshake(active=False, mptcp=True, confirm=False)
    flow = second(caller)
    syn = MpJoinSyn(False, 1, keys.token(caller.data.stack_key), b"abcd")
    flow.send(SYN, options=[Mss(1400), syn])
    assert flow.expect().flags & RST


@pytest.mark.row("F6")
def test_join_after_fallback_is_refused(wire: Wire, caller: Peer) -> None:
    """§3.7: a connection that has fallen back is no MPTCP connection any more."""
    connection = caller.handshake(active=False, mptcp=True, confirm=False)
    caller.mptcp = False
    caller.send(ACK, data=b"plain")
    assert connection.fallback
    flow = second(caller)
    syn = MpJoinSyn(False, 1, keys.token(caller.data.stack_key), b"abcd")
    flow.send(SYN, options=[Mss(1400), syn])
    assert flow.expect(options=has(MpTcprst(RST_MPTCP_SPECIFIC))).flags & RST


@pytest.mark.row("J6")
@pytest.mark.mib("MPTcpExtMPJoinRejected")
def test_join_limit() -> None:
    """Too many subflows: RST with reason 2, lack of resources."""
    wire = Wire(addresses=("10.0.0.1/24", "10.0.1.1/24"), max_subflows=3)
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    connection = connected(caller)
    for port in (40001, 40002):
        second(caller, port).join()
    flow = second(caller, 40003)
    syn = MpJoinSyn(False, 1, keys.token(caller.data.stack_key), b"abcd")
    flow.send(SYN, options=[Mss(1400), syn])
    flow.expect(RST | ACK, options=has(MpTcprst(RST_LACK_OF_RESOURCES, True)))
    assert len(connection.subflows) == 3


@pytest.mark.row("J6")
def test_one_subflow_is_the_policy() -> None:
    """§3.6: where the administrator allows one subflow, a join is prohibited: reason 3, and no use
    to come again (T=0)."""
    wire = Wire(max_subflows=1)
    wire.stack.listen(80)
    caller = Peer(wire, port=40000, local_port=80)
    connection = connected(caller)
    flow = caller.beside(port=40001, local_port=80)
    syn = MpJoinSyn(False, 1, keys.token(caller.data.stack_key), b"abcd")
    flow.send(SYN, options=[Mss(1400), syn])
    flow.expect(RST | ACK, options=has(MpTcprst(RST_ADMIN_PROHIBITED)))
    assert len(connection.subflows) == 1


def test_both_joins_and_capable_in_one_syn(wire: Wire, caller: Peer) -> None:
    """A SYN with MP_CAPABLE and MP_JOIN is nothing sane: it joins nothing by accident."""
    connection = connected(caller)
    flow = second(caller)
    syn = MpJoinSyn(False, 1, 0x01020304, b"abcd")
    flow.send(SYN, options=[Mss(1400), MpCapable(), syn])
    flow.drain()
    assert len(connection.subflows) == 1


# -- our side joins -------------------------------------------------------------------------------


def joining(wire: Wire, peer: Peer) -> tuple[MetaSocket, Peer]:
    """A confirmed connection of ours; the peer announces its other address, to be joined."""
    connection = peer.handshake(mptcp=True)
    other = bytes([10, 0, 1, 2])
    mac = keys.add_addr_hmac(PEER_KEY, connection.local_key, 3, other, None)
    flow = peer.beside(port=80, **SECOND_PATH)
    peer.send(ACK, options=[peer.dss(data_ack=1), AddAddr(3, other, None, mac)])
    peer.drain()
    wire.take_events()
    return connection, flow


@pytest.mark.row("J2", "J4")
@pytest.mark.mib("MPTcpExtMPJoinSynTx", "MPTcpExtMPJoinSynAckRx")
def test_active_join(wire: Wire, peer: Peer) -> None:
    """The client joins from its other address; ids differ from 0, HMACs are right."""
    connection, flow = joining(wire, peer)
    syn = flow.accept_join()
    assert (syn.segment.src, syn.segment.dst) == (bytes([10, 0, 1, 1]), bytes([10, 0, 1, 2]))
    assert syn.option(MpJoinSyn).address_id != 0
    assert len(connection.subflows) == 2
    (event,) = [e for e in wire.take_events() if isinstance(e, SubflowEstablished)]
    assert event.subflow is flow.subflow()


@pytest.mark.row("I8")
def test_no_join_before_confirmation(wire: Wire, peer: Peer) -> None:
    """§3.1: not before a DSS has been received."""
    peer.handshake(mptcp=True, confirm=False)
    flow = peer.beside(address="10.0.0.2", local="10.0.1.1", interface=2)
    flow.expect_nothing(until=seconds(5))


def test_join_to_the_initial_address(wire: Wire, peer: Peer) -> None:
    """A peer with one address: our other address joins it after a short wait for ADD_ADDR."""
    peer.handshake(mptcp=True)
    flow = peer.beside(address="10.0.0.2", local="10.0.1.1", interface=2)
    flow.expect(SYN, options=has(MpJoinSyn), within=seconds(1))


@pytest.mark.row("I11")
def test_no_join_to_the_initial_address_with_c_flag() -> None:
    """§3.1: C=1: no subflow towards that source address and port."""
    wire = Wire(addresses=("10.0.0.1/24", "10.0.1.1/24"), path_manager="fullmesh")
    peer = Peer(wire)
    peer.handshake(mptcp=True, capable=MpCapable(PEER_KEY, no_join_initial=True))
    flow = peer.beside(address="10.0.0.2", local="10.0.1.1", interface=2)
    flow.expect_nothing(until=seconds(5))


@pytest.mark.row("J7")
@pytest.mark.parametrize("kind", ["wrong HMAC", "no MP_JOIN", "MP_CAPABLE"])
def test_bad_answer_at_the_client(wire: Wire, peer: Peer, kind: str) -> None:
    """§3.2: SYN/ACK with a wrong HMAC or without MP_JOIN: RST, reason 1; the connection lives."""
    connection, flow = joining(wire, peer)
    nonce = flow.expect(SYN).option(MpJoinSyn).nonce
    level = peer.data
    mac = bytearray(keys.synack_hmac(level.key, level.stack_key, b"abcd", nonce))
    mac[0] ^= 0x80
    wrong: list[Emits] = {  # type: ignore[assignment]
        "wrong HMAC": [MpJoinSynAck(False, 1, bytes(mac), b"abcd")],
        "no MP_JOIN": [],
        "MP_CAPABLE": [MpCapable(PEER_KEY)],
    }[kind]
    flow.send(SYN | ACK, options=[Mss(1400), *wrong])
    answer = flow.expect(options=has(MpTcprst(RST_MPTCP_SPECIFIC)))
    assert answer.flags & RST
    assert len(connection.subflows) == 1
    connection.send(b"x")
    peer.expect(ACK, data=b"x")


@pytest.mark.row("J8")
def test_no_data_before_the_fourth_ack(wire: Wire, peer: Peer) -> None:
    """§3.2: PRE_ESTABLISHED: no data until the ACK of the third packet has come."""
    connection, flow = joining(wire, peer)
    flow.accept_join(fourth=False)
    flow.drain()
    connection.send(bytes(200_000))
    assert any(seen.data for seen in peer.drain())
    wire.advance(wire.time + ms(100))
    assert not any(seen.data for seen in flow.drain())
    flow.send(ACK)
    assert any(seen.data for seen in flow.drain())


@pytest.mark.row("J8")
def test_third_ack_is_repeated_until_the_fourth(wire: Wire, peer: Peer) -> None:
    """§3.2: the ACK with MP_JOIN is sent again when the fourth does not come, backing off."""
    connection, flow = joining(wire, peer)
    flow.accept_join(fourth=False)
    flow.drain()
    began = wire.time
    repeated = has(MpJoinAck)
    times = [flow.expect(ACK, options=repeated, within=seconds(60)).sent_at for _ in range(4)]
    gaps = [b - a for a, b in pairwise([began, *times])]
    assert gaps[0] < seconds(1)  # the RTO of a path without delay: the minimum, 200 ms
    assert gaps == [gaps[0] << number for number in range(4)]
    flow.send(ACK)
    flow.expect_nothing(until=wire.time + seconds(20))
    assert len(connection.subflows) == 2


def test_join_without_a_fourth_ack_is_given_up(wire: Wire, peer: Peer) -> None:
    """The subflow ends with a RST in the end; the connection goes on."""
    connection, flow = joining(wire, peer)
    flow.accept_join(fourth=False)
    wire.advance(seconds(100))
    assert any(seen.flags & RST for seen in flow.drain())
    assert len(connection.subflows) >= 1
    assert connection.ended is None


@pytest.mark.row("A6")
def test_refused_join_is_not_repeated(wire: Wire, peer: Peer) -> None:
    """§3.4.1, §3.9.3: what was refused SHOULD NOT be tried again without fresh news."""
    connection, flow = joining(wire, peer)
    flow.expect(SYN)
    flow.send(RST | ACK, seq=0, ack=1, options=[MpTcprst(RST_LACK_OF_RESOURCES, True)])
    (event,) = [e for e in wire.take_events() if isinstance(e, SubflowClosed)]
    assert event.reason == RST_LACK_OF_RESOURCES
    flow.expect_nothing(until=seconds(120))
    assert connection.ended is None


def test_join_after_the_peer_has_said_its_end(wire: Wire, peer: Peer) -> None:
    """§3.3.3: its DATA_FIN closes one direction; ours still needs paths, a new one if all fail."""
    connection = peer.handshake(mptcp=True)
    connection.send(bytes(100_000))
    peer.drain()
    fin = peer.dss(data_ack=1, dsn=1, length=1, data_fin=True)
    peer.send(ACK, options=[fin])
    assert connection.eof
    peer.send(RST)
    wire.peers.remove(peer)
    again = peer.beside(address="10.0.0.2", port=80, isn=77)
    again.expect(SYN, options=has(MpJoinSyn), within=seconds(5))


def test_server_does_not_join(wire: Wire, caller: Peer) -> None:
    """Thesis §4.3.2: only the client opens subflows; the server announces its addresses."""
    connected(caller)
    before = len(wire.stack.connections)
    wire.advance(seconds(30))
    assert len(wire.stack.connections) == before
