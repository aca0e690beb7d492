"""The event stream: types and attributes of Linux's netlink family `mptcp_pm`, and what is ours."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from mptcp import keys
from mptcp.monitor import Monitor
from mptcp.wire.mptcp_options import AddAddr, MpPrio, MpTcprst, RemoveAddr
from mptcp.wire.tcp import ACK, FIN, RST
from tests.peer import PEER_KEY, Peer, Wire, seconds

SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}


def told(sink: Monitor) -> list[dict[str, Any]]:
    """All that is in the sink, without times."""
    events = []
    while (event := sink.poll()) is not None:
        values = event.to_dict()
        del values["time"]
        events.append(values)
    return events


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def test_the_life_of_a_client(wire: Wire, peer: Peer) -> None:
    """created after the handshake, established with the first DSS (RFC 8684 §3.1), closed last."""
    sink = wire.stack.monitor()
    connection = peer.handshake(mptcp=True, confirm=False)
    (created,) = told(sink)
    assert created == {
        "type": "created",
        "token": connection.token,
        "number": 1,
        "server_side": False,
        "family": 4,
        "saddr": "10.0.0.1",
        "sport": peer.local_port,
        "daddr": "10.0.0.2",
        "dport": 80,
    }
    peer.send(ACK)
    (established,) = told(sink)
    assert established == {**created, "type": "established"}
    connection.abort()
    wire.flush()
    aborted, closed = told(sink)
    assert (aborted["type"], aborted["error"]) == ("sub-closed", errno.ECONNABORTED)
    assert closed == {"type": "closed", "token": connection.token, "number": 1}


def test_listeners_and_the_server_side(wire: Wire) -> None:
    """listener-created and listener-closed have address, port, family; created says which side."""
    sink = wire.stack.monitor()
    anywhere = wire.stack.listen(5000)
    here = wire.stack.listen(5001, "10.0.1.1")
    caller = Peer(wire, port=40000, local_port=5000)
    caller.handshake(active=False, mptcp=True)
    here.close()
    here.close()
    anywhere.close()
    events = told(sink)
    assert events[:2] == [
        {"type": "listener-created", "saddr": "*", "sport": 5000},
        {"type": "listener-created", "family": 4, "saddr": "10.0.1.1", "sport": 5001},
    ]
    assert types(events[2:]) == ["created", "established", "listener-closed", "listener-closed"]
    assert events[2]["server_side"] is True
    assert (events[2]["sport"], events[2]["dport"]) == (5000, 40000)


def test_subflows_of_the_peer(wire: Wire, caller: Peer) -> None:
    """sub-established with both identifiers and the B flag; MP_PRIO; the RST's reason (§3.6)."""
    connection = caller.handshake(active=False, mptcp=True)
    sink = wire.stack.monitor()
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join(address_id=7, backup=True)
    (joined,) = told(sink)
    where = {
        "token": connection.token,
        "number": 1,
        "family": 4,
        "saddr": "10.0.1.1",
        "sport": 5000,
        "daddr": "10.0.1.2",
        "dport": 40001,
        "loc_id": flow.subflow().local_id,
        "rem_id": 7,
        "interface": "path2",
    }
    assert joined == {"type": "sub-established", **where, "backup": True}
    flow.send(ACK, options=[MpPrio(False)])
    assert told(sink) == [{"type": "sub-priority", **where, "backup": False}]
    flow.send(RST, options=[MpTcprst(2, transient=True)])
    assert told(sink) == [
        {
            "type": "sub-closed",
            **where,
            "backup": False,
            "error": errno.ECONNRESET,
            "reset_reason": 2,
            "reset_flags": 1,
        }
    ]


def test_a_reset_of_ours_says_why(wire: Wire, caller: Peer) -> None:
    """RFC 8684 §3.7: data for which no mapping comes resets the subflow, reason 6."""
    caller.handshake(active=False, mptcp=True)
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    flow.send(ACK, data=b"mapped")
    sink = wire.stack.monitor()
    flow.mptcp = False
    flow.send(ACK, data=b"not mapped")
    wire.advance(seconds(2))
    (event,) = told(sink)
    assert event["type"] == "sub-closed"
    assert (event["error"], event["reset_reason"]) == (errno.EPROTO, 6)
    assert "reset_flags" not in event


def test_addresses_of_the_peer(wire: Wire, peer: Peer) -> None:
    """announced when the HMAC is right (RFC 8684 §3.4.1), with the port if there is one."""
    connection = peer.handshake(mptcp=True)
    sink = wire.stack.monitor()
    other = bytes([10, 0, 1, 2])
    for address_id, port in ((3, None), (4, 8080)):
        mac = keys.add_addr_hmac(PEER_KEY, connection.local_key, address_id, other, port)
        peer.send(ACK, options=[AddAddr(address_id, other, port, mac)])
    peer.send(ACK, options=[AddAddr(5, other, None, bytes(8))])
    peer.send(ACK, options=[RemoveAddr((3, 9))])
    head = {"token": connection.token, "number": 1}
    announced = {"type": "announced", **head, "family": 4, "daddr": "10.0.1.2"}
    events = told(sink)
    # The join that had begun to the first of them ends unheard of by the peer.
    (given_up,) = [event for event in events if event["type"] == "sub-closed"]
    assert (given_up["rem_id"], given_up["error"]) == (3, errno.EHOSTUNREACH)
    events.remove(given_up)
    assert events == [
        {**announced, "rem_id": 3},
        {**announced, "rem_id": 4, "dport": 8080},
        {"type": "removed", **head, "rem_id": 3},
        {"type": "removed", **head, "rem_id": 9},
    ]


def test_fallback_has_its_reason(wire: Wire, caller: Peer) -> None:
    """RFC 8684 §3.7: data without a mapping; the connection goes on and is closed later."""
    connection = caller.handshake(active=False, mptcp=True, confirm=False)
    sink = wire.stack.monitor()
    caller.mptcp = False
    caller.send(ACK, data=b"plain")
    (event,) = told(sink)
    assert event["type"] == "fallback"
    assert event["reason"] == connection.info().fallback_reason
    assert event["token"] == connection.token
    caller.send(RST)
    assert types(told(sink)) == ["sub-closed", "closed"]


def test_plain_tcp_is_not_told_of(wire: Wire, caller: Peer) -> None:
    """As in the kernel, where a plain socket has no such events."""
    sink = wire.stack.monitor()
    connection = caller.handshake(active=False)
    caller.send(ACK | FIN)
    connection.close()
    wire.advance(seconds(100))
    assert told(sink) == []


def test_the_second_close_is_not_told_again(wire: Wire, peer: Peer) -> None:
    """A sink that was closed takes no more; what it had can still be fetched."""
    sink = wire.stack.monitor()
    connection = peer.handshake(mptcp=True)
    sink.close()
    sink.close()
    connection.abort()
    wire.flush()
    assert types(told(sink)) == ["created", "established"]
    assert wire.stack.monitors == []


def test_a_full_sink_says_what_is_missing(wire: Wire) -> None:
    """Bounded: what does not fit is lost, counted, and told where it would have stood."""
    sink = wire.stack.monitor(limit=3)
    beside = wire.stack.monitor()
    for port in range(5000, 5010):
        wire.stack.listen(port)
    assert sink.lost == 7
    first = sink.poll()
    assert first is not None
    assert first.sport == 5000
    wire.stack.listen(6000)
    events = told(sink)
    assert types(events) == ["listener-created"] * 2 + ["lost", "listener-created"]
    assert (events[2]["count"], events[3]["sport"]) == (7, 6000)
    assert len(told(beside)) == 11


def test_what_is_missing_at_the_end_is_told_too(wire: Wire) -> None:
    """Nothing need follow a loss for it to be seen."""
    sink = wire.stack.monitor(limit=1)
    for port in (5000, 5001, 5002):
        wire.stack.listen(port)
    assert [(e["type"], e.get("count")) for e in told(sink)] == [
        ("listener-created", None),
        ("lost", 2),
    ]
    assert told(sink) == []


def test_wake_is_called_once_for_an_empty_sink(wire: Wire) -> None:
    """The reader is called when there is something to fetch, not for each event."""
    sink = wire.stack.monitor()
    calls: list[int] = []
    sink.wake = lambda: calls.append(1)
    wire.stack.listen(5000)
    wire.stack.listen(5001)
    assert len(calls) == 1
    told(sink)
    wire.stack.listen(5002)
    assert len(calls) == 2


def test_a_sink_of_nothing_is_refused(wire: Wire) -> None:
    with pytest.raises(ValueError, match="at least one event"):
        wire.stack.monitor(limit=0)
