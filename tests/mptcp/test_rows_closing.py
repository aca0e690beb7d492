"""The checklist's rows of close, reset and fallback that have no test elsewhere: §3.5 to §3.8."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mptcp import keys
from mptcp.data_states import DataState
from mptcp.errors import ConnectionEnd, FallbackReason
from mptcp.events import Closed, FellBack, SubflowClosed
from mptcp.meta_socket import MetaSocket
from mptcp.wire.mptcp_options import (
    RST_MIDDLEBOX,
    RST_MPTCP_SPECIFIC,
    MpFail,
    MpFastclose,
    MpJoinSyn,
    MpTcprst,
)
from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.mptcp.test_checksum import checked, mapped
from tests.options import has
from tests.peer import Peer, Wire, ms, seconds

TWO = ("10.0.0.1/24", "10.0.1.1/24")
SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}
MASK64 = (1 << 64) - 1


# -- MP_FAIL (F7) ---------------------------------------------------------------------------------


@pytest.mark.row("F7")
def test_failure_on_one_of_several_says_why() -> None:
    """§3.7, §3.6: beside MP_FAIL the RST carries reason 6, middlebox interference."""
    wire = Wire(addresses=TWO, nodelay=True)
    caller, _ = checked(wire)
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    flow.drain()
    flow.send(ACK, data=b"evil", options=[mapped(flow, b"evil", 5, damage=1)])
    (reset,) = [seen for seen in flow.drain() if seen.flags & RST]
    assert has(MpFail, MpTcprst(RST_MIDDLEBOX))(reset.options)


@pytest.mark.row("F7")
@pytest.mark.parametrize("how", ["after another subflow", "with a hole before it"])
def test_failure_on_the_only_subflow_that_is_not_contiguous(how: str) -> None:
    """§3.7: with a single subflow whose data is not contiguous: RST with MP_FAIL, nothing of it is
    delivered; a new subflow brings the data again."""
    wire = Wire(addresses=TWO, nodelay=True)
    caller, connection = checked(wire)
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    dsn = 5
    if how == "after another subflow":
        flow.join()
        flow.drain()
        caller.send(RST)
    else:
        flow, dsn = caller, 20
    flow.drain()
    flow.send(ACK, data=b"evil", options=[mapped(flow, b"evil", dsn, damage=1)])
    (reset,) = [seen for seen in flow.drain() if seen.flags & RST]
    assert has(MpFail((caller.data.idsn + dsn) & MASK64))(reset.options)
    assert connection.recv() == b""
    assert not connection.fallback
    assert connection.subflows == []
    again = caller.beside(port=40002, local_port=5000, isn=77, **SECOND_PATH)
    again.join()
    again.send(ACK, data=b"true", options=[mapped(again, b"true", 5)])
    assert connection.recv() == b"true"


@pytest.mark.row("F7", "F6")
def test_the_answer_to_mp_fail(wire: Wire, peer: Peer) -> None:
    """§3.7: the receiver of MP_FAIL answers with one of its own direction, and the infinite mapping
    on the first new packet acts retroactively: it begins where the intact data ends."""
    connection = peer.handshake(mptcp=True)
    peer.send(ACK, data=b"theirs")
    assert connection.recv() == b"theirs"
    connection.send(b"a" * 100)
    connection.send(b"b" * 100)
    assert sum(len(seen.data) for seen in peer.drain()) == 200
    wire.take_events()
    fail = MpFail((peer.data.stack_idsn + 101) & MASK64)
    peer.send(ACK, ack=201, options=[peer.dss(data_ack=101), fail])
    (answer,) = [seen for seen in peer.drain() if has(MpFail)(seen.options)]
    assert answer.option(MpFail).dsn == (peer.data.idsn + 7) & MASK64
    (event,) = [e for e in wire.take_events() if isinstance(e, FellBack)]
    assert event.reason is FallbackReason.MP_FAIL_RECEIVED
    peer.mptcp = False
    connection.send(b"new")
    seen = peer.expect(ACK, seq=201, data=b"new")
    assert seen.dss is not None
    assert (seen.dss.data_ack, seen.dss.dsn, seen.dss.ssn, seen.dss.length) == (None, 101, 101, 0)
    connection.send(b"newer")
    assert peer.expect(ACK, data=b"newer").dss is None
    peer.send(ACK)
    assert connection.tx.used == 0


@pytest.mark.row("F7")
def test_mp_fail_among_several_subflows_resets_that_one() -> None:
    """§3.7: no infinite mapping while there are others: the subflow is closed, its data goes on."""
    wire = Wire(addresses=TWO, nodelay=True)
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    connection = caller.handshake(active=False, mptcp=True, rtt=ms(50))
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    flow.drain()
    connection.send(b"x" * 100)
    assert [seen.data for seen in flow.drain() if seen.data] == [b"x" * 100]
    flow.send(ACK, options=[flow.dss(data_ack=1), MpFail((flow.data.stack_idsn + 1) & MASK64)])
    assert any(seen.flags & RST for seen in flow.drain())
    assert [seen.data for seen in caller.drain() if seen.data] == [b"x" * 100]
    assert not connection.fallback


@pytest.mark.row("F7")
def test_mp_fail_on_a_reset(wire: Wire, caller: Peer) -> None:
    """§3.7: the peer closes the subflow with RST and MP_FAIL: what was not DATA_ACKed goes on the
    other."""
    connection = caller.handshake(active=False, mptcp=True, rtt=ms(50))
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    flow.drain()
    connection.send(b"x" * 100)
    flow.drain()
    wire.take_events()
    flow.send(RST | ACK, options=[MpFail((flow.data.stack_idsn + 1) & MASK64)])
    assert [seen.data for seen in caller.drain() if seen.data] == [b"x" * 100]
    assert wire.stack.counters["MPTcpExtMPFailRx"] == 1
    (event,) = [e for e in wire.take_events() if isinstance(e, SubflowClosed)]
    assert event.end is ConnectionEnd.RESET


@pytest.mark.row("F6")
def test_no_fallback_once_data_went_under_other_numbers(wire: Wire, peer: Peer) -> None:
    """§3.7: data that was sent again under new subflow numbers is not the subflow's stream any
    more: an infinite mapping would put it in the wrong place, so the subflow is reset."""
    connection = peer.handshake(mptcp=True, rtt=ms(10))
    connection.send(b"x" * 100)
    peer.drain()
    peer.send(ACK, ack=101, options=[peer.dss(data_ack=1)])
    peer.expect(ACK, seq=101, dsn=1, within=seconds(30))
    peer.send(ACK, options=[peer.dss(data_ack=1), MpFail((peer.data.stack_idsn + 1) & MASK64)])
    assert any(has(MpTcprst(RST_MIDDLEBOX))(seen.options) for seen in peer.drain())
    assert not connection.fallback


# -- fast close (F1, F2) --------------------------------------------------------------------------


def two_flows(**changes: object) -> tuple[Wire, MetaSocket, Peer, Peer]:
    """A client's connection to our listener with two subflows, the first the faster."""
    wire = Wire(addresses=TWO, nodelay=True, **changes)  # type: ignore[arg-type]
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    connection = caller.handshake(active=False, mptcp=True, rtt=ms(10))
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    for _ in range(20):
        flow.subflow().snd.rtt.sample(ms(50), wire.now)
    caller.drain()
    flow.drain()
    wire.take_events()
    return wire, connection, caller, flow


@pytest.mark.row("F1", "F2")
def test_fast_close_on_an_ack() -> None:
    """§3.5, option A: MP_FASTCLOSE with the peer's key on the ACK of one subflow, a plain RST on
    the other; repeated after each RTO, three times, then a RST with the option."""
    wire, connection, caller, flow = two_flows(fast_close="ack")
    connection.abort()
    (reset,) = flow.drain()
    assert reset.flags & RST
    assert not has(MpFastclose)(reset.options)
    (event, *_) = [e for e in wire.take_events() if isinstance(e, Closed)]
    assert event.end is ConnectionEnd.ABORTED
    option = MpFastclose(caller.data.key)
    times = []
    for _ in range(4):
        seen = caller.expect(ACK, length=0, options=has(option), within=seconds(10))
        times.append(seen.sent_at)
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps == [ms(210), ms(420), ms(840)]  # from an RTT of 10 ms
    last = caller.expect(options=has(option), within=seconds(10))
    assert last.flags & RST
    wire.advance(wire.time + seconds(100))
    assert caller.drain() == []
    assert wire.stack.connections == {}


@pytest.mark.row("F1")
@pytest.mark.parametrize("answer", ["RST", "MP_FASTCLOSE", "data"])
def test_the_answer_to_a_fast_close(answer: str) -> None:
    """§3.5: a RST ends FASTCLOSE_WAIT; MP_FASTCLOSE of the peer's own, sent at the same time, is
    answered with a RST; data means nothing any more."""
    wire, connection, caller, _ = two_flows(fast_close="ack")
    connection.abort()
    caller.expect(ACK, options=has(MpFastclose))
    if answer == "RST":
        caller.send(RST)
        assert caller.drain() == []
    elif answer == "MP_FASTCLOSE":
        own = MpFastclose(connection.local_key)
        caller.send(ACK, options=[caller.dss(data_ack=1), own])
        assert any(seen.flags & RST for seen in caller.drain())
    else:
        caller.send(ACK, data=b"late")
        assert connection.recv() == b""
        assert wire.stack.connections != {}
        return
    assert wire.stack.connections == {}
    wire.advance(wire.time + seconds(20))
    assert caller.drain() == []


@pytest.mark.row("F1")
@pytest.mark.parametrize("form", ["ack", "reset"])
def test_fast_close_received(form: str) -> None:
    """§3.5: with the right key both forms end all of it: RST on each subflow, but none in answer to
    a RST."""
    wire, connection, caller, flow = two_flows()
    fast = MpFastclose(connection.local_key)
    if form == "ack":
        caller.send(ACK, options=[caller.dss(data_ack=1), fast])
    else:
        caller.send(RST | ACK, options=[fast])
    assert [bool(seen.flags & RST) for seen in flow.drain()] == [True]
    assert [bool(seen.flags & RST) for seen in caller.drain()] == ([True] if form == "ack" else [])
    assert connection.ended is ConnectionEnd.FAST_CLOSED
    assert wire.stack.tokens == {}


# -- states at the data level (F10) ---------------------------------------------------------------


def data_fin(peer: Peer, data_ack: int, dsn: int = 1) -> None:
    """The peer's DATA_FIN."""
    fin = peer.dss(data_ack=data_ack, dsn=dsn, ssn=0, length=1, data_fin=True)
    peer.send(ACK, options=[fin])


@pytest.mark.row("F10")
@pytest.mark.parametrize("order", ["we first", "they first", "together"])
def test_the_states_of_a_close(wire: Wire, peer: Peer, order: str) -> None:
    """App. D, figure 17: the three ways from M_ESTAB to the end, and TIME-WAIT for all but the one
    that answered."""
    connection = peer.handshake(mptcp=True)
    seen = [connection.state]
    if order == "they first":
        data_fin(peer, 1)
        seen.append(connection.state)
        connection.close()
        seen.append(connection.state)
        peer.send(ACK, options=[peer.dss(data_ack=2)])
    else:
        connection.close()
        seen.append(connection.state)
        if order == "we first":
            peer.send(ACK, options=[peer.dss(data_ack=2)])
            seen.append(connection.state)
            data_fin(peer, 2)
        else:
            data_fin(peer, 1)
            seen.append(connection.state)
            peer.send(ACK, options=[peer.dss(data_ack=2)])
    seen.append(connection.state)
    wire.advance(wire.time + seconds(61))
    seen.append(connection.state)
    names = {
        "we first": "M_ESTAB M_FINWAIT-1 M_FINWAIT-2 M_TIMEWAIT M_CLOSED",
        "they first": "M_ESTAB M_CLOSEWAIT M_LAST-ACK M_CLOSED M_CLOSED",
        "together": "M_ESTAB M_FINWAIT-1 M_CLOSING M_TIMEWAIT M_CLOSED",
    }
    assert [state.value for state in seen] == names[order].split()
    assert connection.ended is ConnectionEnd.CLOSED
    assert wire.stack.tokens == {}


def closed_first() -> tuple[Wire, MetaSocket, Peer]:
    """A connection that our server closed first; the last DATA_ACK, of the peer's DATA_FIN, did not
    arrive, and the peer's only path is gone."""
    wire = Wire(addresses=TWO, nodelay=True)
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    connection = caller.handshake(active=False, mptcp=True)
    caller.send(ACK, data=b"request")
    assert connection.recv() == b"request"
    connection.close()
    caller.send(ACK, options=[caller.dss(data_ack=2)])
    data_fin(caller, 2, 8)
    caller.data.nxt = 9
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.CLOSED)
    assert connection.state is DataState.M_TIMEWAIT
    return wire, connection, caller


@pytest.mark.row("F10")
def test_time_wait_answers_the_last_word_again() -> None:
    """App. D: M_TIMEWAIT is there because the last DATA_ACK may be lost: a subflow that joins late
    and repeats the DATA_FIN gets it, and a FIN for its FIN."""
    wire, connection, caller = closed_first()
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    wire.advance(wire.time + seconds(20))
    flow.join()
    flow.drain()
    data_fin(flow, 2, 8)
    assert any(s.dss is not None and s.dss.data_ack == 9 for s in flow.drain())
    flow.send(ACK | FIN)
    answers = flow.drain()
    assert any(seen.flags & FIN for seen in answers)
    flow.send(ACK)
    assert wire.take_events() == []
    assert [subflow.remote_port for subflow in connection.subflows] == [40000]
    wire.advance(wire.time + seconds(61))
    assert wire.stack.tokens == {}
    late = caller.beside(port=40002, local_port=5000, isn=9, **SECOND_PATH)
    late.send(SYN, options=[MpJoinSyn(False, 1, connection.token, b"abcd")])
    late.expect(RST | ACK, options=has(MpTcprst(RST_MPTCP_SPECIFIC)))


@pytest.mark.row("F10")
def test_what_joins_in_time_wait_and_stays_is_reset() -> None:
    """App. D: after 2 MSL nothing of the connection is left."""
    wire, _, caller = closed_first()
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    wire.advance(wire.time + seconds(61))
    assert any(seen.flags & RST for seen in flow.drain())
    assert wire.stack.tokens == {}


@pytest.mark.row("F10")
def test_time_waits_are_bounded() -> None:
    """As those of TCP are: the oldest gives way."""
    wire = Wire(nodelay=True, max_time_wait=3)
    tokens = []
    for port in range(80, 90):
        peer = Peer(wire, port=port)
        connection = peer.handshake(mptcp=True)
        connection.close()
        peer.send(ACK, options=[peer.dss(data_ack=2)])
        data_fin(peer, 2)
        tokens.append(connection.token)
    assert list(wire.stack.tokens) == tokens[-3:]


@pytest.mark.row("F10", "F3")
@pytest.mark.parametrize("unsent", [False, True])
def test_a_peer_that_has_forgotten_us_had_our_last_word(unsent: bool) -> None:
    """App. D, §3.6: all data has arrived both ways and only our DATA_FIN is not acknowledged; the
    peer, asked by a join, knows the token no more: it closed. With data on the way it was reset."""
    wire = Wire(nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True)
    data_fin(peer, 1)
    if unsent:
        connection.send(b"not acknowledged")
    connection.close()
    peer.drain()
    wire.stack.interface_down(wire.now, 1)
    wire.stack.interface_up(wire.now, wire.interfaces[0])
    peer.local_port = 0
    join = peer.expect(SYN, within=seconds(5))
    assert join.option(MpJoinSyn).token == keys.token(peer.data.key)
    assert connection.ended is None
    peer.send(RST | ACK, seq=0, ack=1, options=[MpTcprst(RST_MPTCP_SPECIFIC)])
    assert connection.ended is (ConnectionEnd.RESET if unsent else ConnectionEnd.CLOSED)
