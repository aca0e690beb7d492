"""ADD_ADDR, REMOVE_ADDR, MP_PRIO and who opens what: RFC 8684 §3.3.8, §3.4, and the built-in PM."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mptcp import keys
from mptcp.addressing import parse_address
from mptcp.errors import ConnectionEnd
from mptcp.meta_socket import MetaSocket
from mptcp.wire.mptcp_options import AddAddr, MpJoinSyn, MpPrio, RemoveAddr
from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.options import has
from tests.peer import PEER_KEY, Peer, Wire, ms, seconds

TWO = ("10.0.0.1/24", "10.0.1.1/24")
OTHER = bytes([10, 0, 1, 2])
SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}


def announcement(
    connection: MetaSocket,
    address_id: int,
    address: bytes = OTHER,
    port: int | None = None,
    key: bytes = PEER_KEY,
) -> AddAddr:
    """The peer's ADD_ADDR with its HMAC."""
    mac = keys.add_addr_hmac(key, connection.local_key, address_id, address, port)
    return AddAddr(address_id, address, port, mac)


def announce(peer: Peer, option: AddAddr) -> None:
    """Send it on a pure ACK."""
    peer.send(ACK, options=[peer.dss(data_ack=peer.data.data_ack), option])


def server(**changes: object) -> tuple[Wire, Peer, MetaSocket]:
    """Our listener on two addresses, and a client of it."""
    wire = Wire(addresses=TWO, **changes)  # type: ignore[arg-type]
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    return wire, caller, caller.handshake(active=False, mptcp=True)


# -- announcing -----------------------------------------------------------------------------------


@pytest.mark.row("A2")
@pytest.mark.mib("MPTcpExtAddAddrTx")
def test_server_announces_its_other_address() -> None:
    """§3.4.1: ADD_ADDR on a pure ACK, with the rightmost 64 bits of the HMAC; never the first
    address again."""
    _, caller, connection = server()
    (option,) = [o for seen in caller.drain() for o in seen.options if isinstance(o, AddAddr)]
    address = parse_address("10.0.1.1")
    mac = keys.add_addr_hmac(connection.local_key, PEER_KEY, option.address_id, address, None)
    assert option == AddAddr(option.address_id, address, None, mac)
    assert option.address_id != 0


@pytest.mark.row("A2")
def test_known_answer() -> None:
    """Checklist §2.6: ADD_ADDR from A, id 2, 192.0.2.33, no port."""
    key_a, key_b = bytes.fromhex("0102030405060708"), bytes.fromhex("1112131415161718")
    assert keys.add_addr_hmac(key_a, key_b, 2, bytes([192, 0, 2, 33]), None).hex() == (
        "22405bc9f152e4b7"
    )


@pytest.mark.row("A4")
def test_announcement_is_repeated_until_echoed() -> None:
    """§3.4.1: retransmitted by local policy: doubling, a few times, until the echo."""
    wire, caller, _ = server(add_addr_retries=3, add_addr_timeout_us=seconds(1))
    times = [0]
    first = caller.expect(ACK, options=has(AddAddr)).option(AddAddr)
    for _ in range(3):
        seen = caller.expect(ACK, options=has(first), within=seconds(10))
        times.append(seen.sent_at)
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps == [seconds(1), seconds(2), seconds(4)]
    caller.expect_nothing(until=wire.time + seconds(100))


@pytest.mark.row("A4")
@pytest.mark.mib("MPTcpExtEchoAdd")
def test_echo_ends_the_repetition() -> None:
    """§3.4.1: the echo has E=1, the same id and address, no HMAC."""
    wire, caller, _ = server()
    option = caller.expect(ACK, options=has(AddAddr)).option(AddAddr)
    announce(caller, AddAddr(option.address_id, option.address, option.port, None, True))
    caller.expect_nothing(until=wire.time + seconds(100))


def test_announcement_can_be_turned_off() -> None:
    """`Config.announce_addresses`."""
    wire, caller, _ = server(announce_addresses=False)
    wire.advance(seconds(10))
    assert not any(has(AddAddr)(seen.options) for seen in caller.drain())


def test_client_announces_nothing(wire: Wire, peer: Peer) -> None:
    """The client joins from its addresses instead (thesis §4.3.2)."""
    peer.handshake(mptcp=True)
    wire.advance(seconds(10))
    assert not any(has(AddAddr)(seen.options) for seen in peer.drain())


def test_new_interface_is_announced() -> None:
    """An interface that comes up during the connection is announced too."""
    wire = Wire(addresses=TWO)
    wire.stack.interface_down(wire.now, 2)
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    caller.handshake(active=False, mptcp=True)
    wire.advance(seconds(1))
    assert not any(has(AddAddr)(seen.options) for seen in caller.drain())
    wire.stack.interface_up(wire.now, wire.interfaces[1])
    option = caller.expect(ACK, options=has(AddAddr)).option(AddAddr)
    assert option.address == parse_address("10.0.1.1")


@pytest.mark.row("A8")
@pytest.mark.mib("MPTcpExtRmAddrTx")
def test_lost_interface_is_withdrawn() -> None:
    """§3.4.2: REMOVE_ADDR with the id that was announced."""
    wire, caller, _ = server()
    option = caller.expect(ACK, options=has(AddAddr)).option(AddAddr)
    announce(caller, AddAddr(option.address_id, option.address, None, None, True))
    wire.stack.interface_down(wire.now, 2)
    seen = caller.expect(ACK, options=has(RemoveAddr))
    assert seen.option(RemoveAddr) == RemoveAddr((option.address_id,))


# -- hearing --------------------------------------------------------------------------------------


@pytest.mark.row("A4", "A5")
@pytest.mark.parametrize("port", [None, 8080])
@pytest.mark.mib("MPTcpExtAddAddr", "MPTcpExtEchoAddTx")
def test_announced_address_is_echoed_and_joined(wire: Wire, peer: Peer, port: int | None) -> None:
    """§3.4.1: echo (E=1, no HMAC); join the address, at the first subflow's port if none given."""
    connection = peer.handshake(mptcp=True)
    flow = peer.beside(**{**SECOND_PATH, "port": port or 80})
    announce(peer, announcement(connection, 5, port=port))
    peer.expect(ACK, options=has(AddAddr(5, OTHER, port, None, True)))
    flow.accept_join(address_id=5)
    assert flow.subflow().remote_id == 5
    assert len(connection.subflows) == 2


@pytest.mark.row("A3")
@pytest.mark.parametrize("what", ["hmac", "key", "port"])
@pytest.mark.mib("MPTcpExtAddAddrHMacFailure")
def test_wrong_hmac_is_ignored(wire: Wire, peer: Peer, what: str) -> None:
    """§3.4.1: silently: no echo, no join."""
    connection = peer.handshake(mptcp=True)
    option = announcement(connection, 5, key=b"\0" * 8 if what == "key" else PEER_KEY)
    if what == "hmac":
        option = AddAddr(5, OTHER, None, b"\x01" * 8)
    if what == "port":
        option = AddAddr(5, OTHER, 9999, option.hmac)
    flow = peer.beside(port=80, **SECOND_PATH)
    announce(peer, option)
    assert not any(has(AddAddr)(seen.options) for seen in peer.drain())
    wire.advance(ms(10))
    flow.expect_nothing()
    assert wire.stack.counters["MPTcpExtAddAddrHMacFailure"] == 1


@pytest.mark.row("A4", "A7")
def test_repeated_announcement_is_echoed_again(wire: Wire, peer: Peer) -> None:
    """Our echo was lost: the same ADD_ADDR again gets an echo again, and no second subflow."""
    connection = peer.handshake(mptcp=True)
    flow = peer.beside(port=80, **SECOND_PATH)
    for _ in range(3):
        announce(peer, announcement(connection, 5))
        peer.expect(ACK, options=has(AddAddr(5, OTHER, None, None, True)), within=seconds(1))
    flow.accept_join()
    wire.advance(wire.time + seconds(5))
    assert len(connection.subflows) == 2


@pytest.mark.row("A1")
def test_an_identifier_keeps_its_address(wire: Wire, peer: Peer) -> None:
    """§3.4.1 (A1): the same id with another address is not taken before a REMOVE_ADDR."""
    connection = peer.handshake(mptcp=True)
    flow = peer.beside(port=80, **SECOND_PATH)
    announce(peer, announcement(connection, 5))
    flow.accept_join()
    strange = peer.beside(address="10.0.1.77", port=80, local="10.0.1.1", interface=2)
    announce(peer, announcement(connection, 5, bytes([10, 0, 1, 77])))
    wire.advance(wire.time + seconds(5))
    strange.expect_nothing()


def test_remembered_addresses_are_bounded() -> None:
    """What a peer can make us store and try is limited."""
    wire = Wire(addresses=TWO, max_addresses=4, max_subflows=64)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True)
    for number in range(1, 100):
        announce(peer, announcement(connection, number, bytes([10, 0, 1, 100 + number])))
        peer.drain()
    wire.advance(seconds(1))
    assert len(wire.stack.connections) <= 1 + 4 + 1


def test_subflow_limit() -> None:
    """`Config.max_subflows` holds for joins of ours too."""
    wire = Wire(addresses=TWO, max_subflows=3, path_manager="fullmesh")
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True)
    for number in range(3, 8):
        announce(peer, announcement(connection, number, bytes([10, 0, 1, number])))
    wire.advance(seconds(1))
    assert len(connection.subflows) == 3


@pytest.mark.mib("MPTcpExtMPJoinPortSynAckRx", "MPTcpExtPortAdd", "MPTcpExtRmAddr")
def test_remove_addr_closes_its_subflow(wire: Wire, peer: Peer) -> None:
    """§3.4.2: the subflows of the id are closed; the others go on; the id may be used anew."""
    connection = peer.handshake(mptcp=True)
    flow = peer.beside(port=80, **SECOND_PATH)
    announce(peer, announcement(connection, 5))
    flow.accept_join()
    peer.drain()
    flow.drain()
    peer.send(ACK, options=[peer.dss(data_ack=1), RemoveAddr((5,))])
    wire.advance(wire.time + seconds(1))
    assert any(seen.flags & (RST | FIN) for seen in flow.drain())
    assert OTHER not in {subflow.remote for subflow in connection.subflows}
    wire.advance(wire.time + seconds(60))
    assert not any(seen.flags & SYN for seen in flow.drain())
    again = peer.beside(port=81, isn=99, **SECOND_PATH)
    announce(peer, announcement(connection, 5, port=81))
    again.accept_join()


@pytest.mark.row("A8")
def test_remove_of_an_unknown_address(wire: Wire, peer: Peer) -> None:
    """§3.4.2: an id that is not known is ignored."""
    connection = peer.handshake(mptcp=True)
    peer.send(ACK, options=[peer.dss(data_ack=1), RemoveAddr((9, 200))])
    wire.advance(wire.time + seconds(1))
    assert peer.subflow() in connection.subflows
    peer.send(ACK, data=b"still")
    assert connection.recv() == b"still"


@pytest.mark.row("A8")
def test_remove_of_the_only_address_in_use(wire: Wire, peer: Peer) -> None:
    """§3.4.2: an address whose path still answers SHOULD NOT be removed: this ACK came by it."""
    connection = peer.handshake(mptcp=True)
    peer.send(ACK, options=[peer.dss(data_ack=1), RemoveAddr((0,))])
    assert peer.subflow() in connection.subflows
    peer.send(ACK, data=b"still")
    assert connection.recv() == b"still"


def test_lost_subflow_is_joined_again_with_growing_delay(wire: Wire, peer: Peer) -> None:
    """`Config.rejoin_delay_us`: a path that worked is tried again, the delay doubling."""
    connection = peer.handshake(mptcp=True)
    flow = peer.beside(port=80, **SECOND_PATH)
    announce(peer, announcement(connection, 5))
    flow.accept_join()
    flow.drain()
    delays = []
    for number in range(4):
        flow.subflow().terminate(ConnectionEnd.TIMED_OUT, wire.now)
        lost = wire.time
        wire.peers.remove(flow)
        flow = peer.beside(port=80, isn=(number + 7) << 20, **SECOND_PATH)
        syn = flow.expect(SYN, options=has(MpJoinSyn), within=seconds(60))
        delays.append(syn.sent_at - lost)
    assert delays == [ms(500), ms(1000), ms(2000), ms(4000)]
    flow.queue.append(syn)
    flow.accept_join()
    assert len(connection.subflows) == 2


# -- priorities -----------------------------------------------------------------------------------


def with_backup(caller: Peer, backup: bool) -> Peer:
    """A second subflow of the peer's making."""
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join(backup=backup)
    caller.drain()
    flow.drain()
    return flow


@pytest.mark.row("D17")
def test_backup_is_idle_while_the_regular_path_works(caller: Peer) -> None:
    """§3.3.8: B=1 in MP_JOIN: data on it only when no regular subflow is usable."""
    connection = caller.handshake(active=False, mptcp=True, rtt=ms(50))
    flow = with_backup(caller, True)
    connection.send(bytes(500_000))
    for _ in range(5):
        assert not any(seen.data for seen in flow.drain())
        caller.drain()
        caller.send(ACK)


@pytest.mark.row("D17")
@pytest.mark.mib("MPTcpExtMPJoinSynBackupRx")
def test_backup_takes_over(wire: Wire, caller: Peer) -> None:
    """§3.3.8: the regular path fails: the backup carries the data."""
    connection = caller.handshake(active=False, mptcp=True, rtt=ms(50))
    flow = with_backup(caller, True)
    connection.send(bytes(5_000))
    caller.drain()
    wire.advance(wire.time + ms(500))
    assert any(seen.data for seen in flow.drain())


@pytest.mark.row("D17")
@pytest.mark.mib("MPTcpExtMPPrioRx")
def test_mp_prio_changes_the_priority(wire: Wire, caller: Peer) -> None:
    """§3.3.8: MP_PRIO on a subflow makes it backup, and regular again."""
    connection = caller.handshake(active=False, mptcp=True, rtt=ms(50))
    flow = with_backup(caller, False)
    flow.send(ACK, options=[flow.dss(data_ack=1), MpPrio(True)])
    connection.send(b"x" * 1000)
    assert any(seen.data for seen in caller.drain())
    assert not any(seen.data for seen in flow.drain())
    caller.send(ACK)
    flow.send(ACK, options=[flow.dss(data_ack=1001), MpPrio(False)])
    connection.send(b"x" * 1000)
    assert any(seen.data for seen in flow.drain())


@pytest.mark.row("D17")
def test_only_backups(wire: Wire, caller: Peer) -> None:
    """§3.3.8: with nothing but backup subflows they are used."""
    connection = caller.handshake(active=False, mptcp=True, rtt=ms(50))
    caller.send(ACK, options=[caller.dss(data_ack=1), MpPrio(True)])
    connection.send(b"x" * 1000)
    assert any(seen.data for seen in caller.drain())
