"""TIME-WAIT and what may end it: RFC 9293 §3.6.1, RFC 6191, RFC 1122 §4.2.2.13, RFC 1337."""

from __future__ import annotations

from typing import Any

import pytest

from mptcp.errors import AddressInUseError
from mptcp.events import Accepted
from mptcp.meta_socket import MetaSocket
from mptcp.tcp.state import State
from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.options import Mss, Timestamps
from tests.peer import Peer, Wire, ms, seconds

PORT = 5000
MASK32 = 0xFFFFFFFF


def served(wire: Wire, **handshake: Any) -> tuple[Peer, MetaSocket]:
    """A connection from the peer, closed here first and in TIME-WAIT."""
    wire.stack.listen(PORT)
    peer = Peer(wire, port=40000, local_port=PORT)
    connection = peer.handshake(active=False, **handshake)
    close(peer, connection)
    return peer, connection


def close(peer: Peer, connection: MetaSocket) -> None:
    connection.close()
    peer.expect(ACK | FIN)
    peer.send(ACK | FIN)
    peer.expect(ACK)
    assert peer.subflow().state is State.TIME_WAIT
    peer.wire.take_events()


def accepts(wire: Wire) -> int:
    return sum(isinstance(event, Accepted) for event in wire.take_events())


def again(peer: Peer, *, seq: int, ts_val: int | None) -> None:
    """A SYN of the same pair; `seq` and `ts_val` count from what the old connection used last."""
    options: list[Any] = [Mss(1400)]
    if ts_val is not None:
        options.append(Timestamps(peer.subflow().ts_recent + ts_val, 0))
    peer.timestamps = False
    peer.send(SYN, seq=peer.nxt + seq, options=options)


@pytest.mark.parametrize(
    ("before", "ts_val", "seq", "honoured"),
    [
        # RFC 6191 §2: the old connection had timestamps
        (True, 1, 100, True),
        (True, 1, -100, True),
        (True, 0, 1, True),
        (True, 0, -100, False),
        (True, -1, 100, False),
        (True, -1, -100, False),
        (True, None, 100, True),
        (True, None, -100, False),
        # it had none
        (False, 1, 100, True),
        (False, 1, -100, True),
        (False, None, 100, True),
        (False, None, -100, False),
    ],
)
def test_a_syn_in_time_wait(
    wire: Wire, before: bool, ts_val: int | None, seq: int, honoured: bool
) -> None:
    """RFC 6191 §2, every row; what is not honoured is challenged (RFC 9293 §3.10.7.4 fourth)."""
    peer, _ = served(wire, timestamps=before)
    last = (peer.stack_isn + 2) & MASK32  # SYN and FIN
    again(peer, seq=seq, ts_val=ts_val)
    if honoured:
        answer = peer.expect(SYN | ACK)
        # RFC 1122 §4.2.2.13 (1): above the largest sequence number of the old connection.
        assert 0 < (answer.segment.seq - last) & MASK32 < 0x8000_0000
        assert wire.stack.counters["TcpExtTWRecycled"] == 1
        peer.send(ACK)
        assert accepts(wire) == 1
        assert peer.subflow().state is State.ESTABLISHED
    else:
        peer.expect(ACK, length=0)
        assert peer.subflow().state is State.TIME_WAIT
        assert accepts(wire) == 0


def test_the_new_isn_is_above_a_fast_connection(wire: Wire) -> None:
    """RFC 1122 §4.2.2.13 (1): also when more was sent than the ISN's clock has ticked."""
    wire.stack.listen(PORT)
    peer = Peer(wire, port=40000, local_port=PORT)
    connection = peer.handshake(active=False)
    for _ in range(10):
        connection.send(bytes(10000))
        peer.drain()
        peer.send(ACK)
    close(peer, connection)
    last = peer.subflow().snd.nxt
    assert wire.time < ms(1)  # the clock: 250 numbers, while 100,000 were used
    again(peer, seq=1, ts_val=None)
    answer = peer.expect(SYN | ACK)
    assert 0 < (answer.segment.seq - last) & MASK32 < 0x8000_0000


def test_a_stranger_keeps_time_wait(wire: Wire) -> None:
    """RFC 9293 §3.6.1: without a listener nobody can take over: the SYN is challenged."""
    peer = Peer(wire)
    connection = peer.handshake()
    close(peer, connection)
    again(peer, seq=100, ts_val=None)
    peer.expect(ACK, length=0)
    assert peer.subflow().state is State.TIME_WAIT


def test_a_repeated_fin_restarts_the_timer(wire: Wire) -> None:
    """RFC 9293 §3.10.7.4 eighth: acknowledged again, and 2 MSL begin anew."""
    peer, _ = served(wire)
    wire.mark()
    peer.send(ACK | FIN, seq=peer.nxt - 1, at=seconds(40))
    peer.expect(ACK, length=0)
    wire.advance(seconds(99.9))
    assert peer.subflow().state is State.TIME_WAIT
    wire.advance(seconds(100.1))
    assert wire.stack.connections == {}


@pytest.mark.parametrize("rfc1337", [False, True])
def test_a_reset_in_time_wait(rfc1337: bool) -> None:
    """RFC 9293 §3.10.7.4 second: it ends TIME-WAIT, unless RFC 1337's fix F1 is asked for."""
    wire = Wire(mptcp=False, rfc1337=rfc1337)
    peer, _ = served(wire)
    peer.send(RST, seq=peer.nxt)
    peer.expect_nothing()
    assert bool(wire.stack.connections) is rfc1337


def test_a_reset_that_does_not_match_does_not_assassinate(wire: Wire) -> None:
    """RFC 5961 §3.2 in TIME-WAIT: only the exact number resets (RFC 1337's hazard H3)."""
    peer, _ = served(wire)
    peer.send(RST, seq=peer.nxt + 1)
    peer.expect(ACK)
    assert peer.subflow().state is State.TIME_WAIT


def test_old_data_in_time_wait_is_acknowledged(wire: Wire) -> None:
    """RFC 1337 hazard H1: an old duplicate gets an ACK, never a way into a connection."""
    peer, _ = served(wire)
    peer.send(ACK, seq=peer.nxt - 3, data=b"old")
    peer.expect(ACK, length=0, ack=peer.nxt)
    assert accepts(wire) == 0


@pytest.mark.mib("TcpExtTCPTimeWaitOverflow")
def test_time_wait_is_bounded() -> None:
    """Design rule 6: the oldest give way; RFC 9293 allows to cut TIME-WAIT for resources."""
    wire = Wire(mptcp=False, max_time_wait=3)
    wire.stack.listen(PORT)
    peers = []
    for number in range(5):
        peer = Peer(wire, port=40000 + number, local_port=PORT)
        close(peer, peer.handshake(active=False))
        peers.append(peer)
    ports = sorted(connection.remote_port for connection in wire.stack.connections.values())
    assert ports == [40002, 40003, 40004]


# -- our own SYN -----------------------------------------------------------------------------------


def reconnect(wire: Wire) -> MetaSocket:
    return wire.stack.connect("10.0.0.2", 80, local_addr=("10.0.0.1", 40000))


def test_a_port_in_time_wait_can_be_used_again(wire: Wire) -> None:
    """RFC 6191 §1 seen from the other end: our timestamps are newer, our ISN is larger."""
    peer = Peer(wire, local_port=40000)
    close(peer, peer.handshake(timestamps=True))
    last = peer.subflow().snd.nxt
    stamp = peer.ts_recent
    with pytest.raises(AddressInUseError):
        reconnect(wire)  # the timestamp clock must have ticked
    wire.advance(seconds(1.1))
    connection = reconnect(wire)
    peer.nxt = 0
    peer.isn += 100_000
    peer.timestamps = False
    syn = peer.expect(SYN)
    assert 0 < (syn.segment.seq - last) & MASK32 < 0x8000_0000
    assert 0 < (syn.option(Timestamps).val - stamp) & MASK32 < 0x8000_0000
    peer.send(SYN | ACK, seq=0, ack=1, options=[Mss(1460)])
    peer.expect(ACK, seq=1, ack=1)
    assert connection.established


def test_without_timestamps_a_port_waits(wire: Wire) -> None:
    """RFC 9293 §3.4.1: for 2 MSL nothing tells old segments from new ones."""
    peer = Peer(wire, local_port=40000)
    close(peer, peer.handshake())
    wire.advance(seconds(59))
    with pytest.raises(AddressInUseError):
        reconnect(wire)
    wire.advance(seconds(61))
    reconnect(wire)
    peer.expect(SYN)


def test_reuse_can_be_turned_off() -> None:
    """RFC 9293 §3.6.1, MAY-2: reuse is an option."""
    wire = Wire(mptcp=False, time_wait_reuse=False)
    peer = Peer(wire, local_port=40000)
    close(peer, peer.handshake(timestamps=True))
    wire.advance(seconds(10))
    with pytest.raises(AddressInUseError):
        reconnect(wire)


def test_ephemeral_ports_in_time_wait_are_the_last_to_go() -> None:
    """RFC 6056 §3.3.1: a free port first; when all are used, one in TIME-WAIT that is safe."""
    wire = Wire(mptcp=False, ephemeral_ports=(40000, 40001))
    first = Peer(wire, local_port=40000)
    close(first, first.handshake(timestamps=True))
    wire.advance(seconds(2))
    seen = []
    for _ in range(2):
        connection = wire.stack.connect("10.0.0.2", 80)
        seen.append(connection.fendpoint.local_port)
    assert seen == [40001, 40000]
    with pytest.raises(AddressInUseError, match="every local port"):
        wire.stack.connect("10.0.0.2", 80)


def test_repeated_fins_do_not_crowd_others_out() -> None:
    """RFC 9293 §3.10.7.4: each FIN restarts the 2 MSL timer, but it is one connection that waits:
    a peer cannot end the TIME-WAIT of others before its time."""
    wire = Wire(mptcp=False, max_time_wait=3)
    peer, _ = served(wire)
    other = Peer(wire, port=40001, local_port=PORT)
    close(other, other.handshake(active=False))
    for number in range(10):
        other.send(ACK | FIN, seq=other.nxt + number)
        other.drain()
    assert peer.subflow().state is State.TIME_WAIT
