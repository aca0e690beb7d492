"""The checklist's rows about MP_JOIN that have no test elsewhere: RFC 8684 §3.2, §3.9.1."""

from __future__ import annotations

import pytest

from mptcp import keys
from mptcp.meta_socket import MetaSocket
from mptcp.wire.mptcp_options import (
    RST_LACK_OF_RESOURCES,
    RST_MPTCP_SPECIFIC,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpTcprst,
)
from mptcp.wire.tcp import ACK, RST, SYN
from tests.options import Mss, SackPermitted, has
from tests.peer import Peer, Wire

TWO = ("10.0.0.1/24", "10.0.1.1/24")
SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}


def served(**changes: object) -> tuple[Wire, Peer, MetaSocket]:
    """A confirmed connection of a client to our listener."""
    wire = Wire(addresses=TWO, nodelay=True, **changes)  # type: ignore[arg-type]
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    connection = caller.handshake(active=False, mptcp=True)
    caller.drain()
    return wire, caller, connection


def ask(flow: Peer, address_id: int = 1) -> bytes:
    """SYN and SYN/ACK of a join; the HMAC for the third ACK."""
    level = flow.data
    syn = MpJoinSyn(False, address_id, keys.token(level.stack_key), flow.local_nonce)
    flow.send(SYN, options=[Mss(1400), SackPermitted(), syn])
    answer = flow.expect(SYN | ACK, ack=1).option(MpJoinSynAck)
    return keys.ack_hmac(level.key, level.stack_key, flow.local_nonce, answer.nonce)


def beside(caller: Peer, number: int) -> Peer:
    """A further flow of the client."""
    return caller.beside(port=41000 + number, local_port=5000, **SECOND_PATH)


# -- joins without state (J5, J6, J7) -------------------------------------------------------------


@pytest.mark.row("J5")
def test_a_join_that_leaves_no_subflow_until_its_third_ack() -> None:
    """§3.2 with SYN cookies: the token and the nonces wait in a table of fixed size, and the third
    ACK makes a subflow like any other."""
    wire, caller, connection = served(syn_cookies="always")
    flow = beside(caller, 1)
    mac = ask(flow, address_id=9)
    assert len(connection.subflows) == 1
    flow.send(ACK, options=[MpJoinAck(mac)])
    flow.expect(ACK, ack=1)
    flow.mptcp = True
    assert [s.remote_id for s in connection.subflows] == [0, 9]
    assert flow.subflow().local_id != 0
    flow.send(ACK, data=b"hello")
    assert connection.recv() == b"hello"
    wire.flush()


@pytest.mark.row("J5", "J6")
def test_joins_that_never_finish_take_no_place() -> None:
    """§3.2, §5: who knows the token but no keys cannot keep others from joining."""
    wire, caller, connection = served(max_subflows=4)
    for number in range(50):
        ask(beside(caller, number))
    assert len(connection.subflows) == 3
    flow = beside(caller, 100)
    flow.join()
    assert flow.subflow() in connection.subflows
    wire.flush()


@pytest.mark.row("J7")
def test_a_wrong_hmac_without_a_subflow() -> None:
    """§3.2: RST with reason 1, and the true one, which came late, finds nothing any more."""
    _, caller, connection = served(syn_cookies="always")
    flow = beside(caller, 1)
    mac = ask(flow)
    flow.send(ACK, options=[MpJoinAck(bytes(20))])
    flow.expect(RST, options=has(MpTcprst(RST_MPTCP_SPECIFIC)))
    flow.send(ACK, options=[MpJoinAck(mac)])
    flow.expect(RST, options=has(MpTcprst(RST_LACK_OF_RESOURCES, True)))
    assert len(connection.subflows) == 1


@pytest.mark.row("J6")
def test_a_join_whose_connection_is_full_or_gone_meanwhile() -> None:
    """§3.2: what holds for the SYN holds for the third ACK, if the SYN left nothing behind."""
    wire, caller, connection = served(syn_cookies="always", max_subflows=2)
    early, late, after = (beside(caller, number) for number in range(3))
    macs = [ask(flow) for flow in (early, late, after)]
    early.send(ACK, options=[MpJoinAck(macs[0])])
    assert len(connection.subflows) == 2
    late.send(ACK, options=[MpJoinAck(macs[1])])
    late.expect(RST, options=has(MpTcprst(RST_LACK_OF_RESOURCES, True)))
    connection.abort()
    wire.flush()
    after.send(ACK, options=[MpJoinAck(macs[2])])
    after.expect(RST, options=has(MpTcprst(RST_MPTCP_SPECIFIC)))


@pytest.mark.row("J6")
def test_the_third_ack_of_a_join_that_nobody_began() -> None:
    """§3.2, §3.8: an HMAC without its SYN is no subflow, at a listening port neither."""
    wire, caller, connection = served(syn_cookies="always")
    flow = beside(caller, 1)
    flow.send(ACK, seq=1, ack=12345, options=[MpJoinAck(bytes(20))])
    flow.expect(RST)
    assert len(connection.subflows) == 1
    assert len(wire.stack.metas) == 1


@pytest.mark.row("J5")
def test_a_join_expires() -> None:
    """What waits for a third ACK waits no longer than a cookie is good."""
    wire, caller, connection = served(syn_cookies="always")
    flow = beside(caller, 1)
    mac = ask(flow)
    wire.advance(wire.time + 200_000_000)
    flow.send(ACK, options=[MpJoinAck(mac)])
    assert flow.expect().flags & RST
    assert connection.ended is None
