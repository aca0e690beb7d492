"""Rows of the requirements table of RFC 1122 §4.2.5 that no other module checks.

Each test names its row; docs/tcp.md maps the whole table to tests. RFC 9293 appendix B has the same
rows with numbers (MUST-n, SHLD-n), which are given where they differ in substance.
"""

from __future__ import annotations

import pytest

from mptcp.config import Config
from mptcp.errors import ConnectionEnd
from mptcp.events import Closed, Readable, Urgent
from mptcp.info import mptcp_info
from mptcp.wire.ip import parse_ip
from mptcp.wire.tcp import ACK, FIN, PSH, RST, SYN, URG, HeaderTemplate
from tests.options import Mss
from tests.peer import Peer, Wire, ms, seconds


def urgent(peer: Peer, data: bytes, pointer: int) -> bytes:
    """A segment in order with URG, its pointer relative to its first byte; not sent yet."""
    template = HeaderTemplate(peer.address, peer.local, peer.port, peer.local_port)
    seq = peer.isn + peer.nxt
    ack = peer.stack_isn + peer.acked()
    header = template.build(
        seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, ACK | URG, peer.window, b"", len(data)
    )
    header[38:40] = pointer.to_bytes(2, "big")
    template.finish_checksum(header, [data])
    peer.nxt += len(data)
    return bytes(header) + data


# -- PUSH ----------------------------------------------------------------------------------


def test_successive_pushes_collapse() -> None:
    """Row "Sender collapse successive PSH flags" (SHOULD): many writes, one PSH, at the end."""
    wire = Wire(mptcp=False, nodelay=True)
    peer = Peer(wire)
    peer.window = 0
    connection = peer.handshake(mss=1000)
    for _ in range(30):
        connection.send(bytes(100))
    peer.expect_nothing()
    peer.send(ACK, window=10_000)
    sent = peer.drain()
    assert [(len(seen.data), bool(seen.flags & PSH)) for seen in sent] == [
        (1000, False),
        (1000, False),
        (1000, True),
    ]


def test_received_push_is_not_needed(wire: Wire, peer: Peer) -> None:
    """Row "Notify receiving ALP of PSH" (MAY): data is handed over at once, PSH or not."""
    connection = peer.handshake()
    wire.take_events()
    peer.send(ACK, data=b"no push")
    assert wire.take_events() == [Readable(connection)]
    assert connection.recv() == b"no push"


# -- window --------------------------------------------------------------------------------


def test_window_is_unsigned(wire: Wire, peer: Peer) -> None:
    """Row "Treat as unsigned number" (MUST-1): 65535 is a large window, not -1."""
    peer.window = 65535
    connection = peer.handshake(mss=1000)
    connection.send(bytes(8000))
    assert sum(len(seen.data) for seen in peer.drain()) == 8000


# -- urgent data ---------------------------------------------------------------------------


@pytest.mark.mib("TcpExtTCPUrgentReceived")
def test_the_application_is_told_of_urgent_data(wire: Wire, peer: Peer) -> None:
    """Rows "Inform ALP asynchronously" and "ALP can learn if/how much" (MUST-32, MUST-33).

    RFC 6093 §3: the pointer names the octet after the urgent data, which stays in line.
    """
    connection = peer.handshake()
    wire.take_events()
    wire.inject(urgent(peer, b"abcdef", 4))
    assert Urgent(connection) in wire.take_events()
    assert connection.urgent_left == 4
    assert connection.recv(3) == b"abc"
    assert connection.urgent_left == 1
    assert connection.recv() == b"def"
    assert connection.urgent_left == 0


def test_urgent_data_of_any_length(wire: Wire, peer: Peer) -> None:
    """Row "Arbitrary length urgent data sequence" (MUST-31): the pointer may be far ahead.

    A pointer that says nothing new is no news.
    """
    connection = peer.handshake()
    wire.take_events()
    wire.inject(urgent(peer, bytes(10), 30_000))
    assert wire.take_events().count(Urgent(connection)) == 1
    wire.inject(urgent(peer, bytes(10), 29_990))
    assert wire.take_events().count(Urgent(connection)) == 0
    wire.inject(urgent(peer, bytes(10), 60_000))
    assert wire.take_events().count(Urgent(connection)) == 1
    assert connection.urgent_left == 60_020
    connection.recv()
    assert connection.urgent_left == 60_020 - 30


def test_urgent_pointer_of_old_data(wire: Wire, peer: Peer) -> None:
    """RFC 9293 §3.10.7.4 sixth: only a pointer in advance of what was received is signalled."""
    connection = peer.handshake()
    peer.send(ACK, data=bytes(100))
    wire.take_events()
    peer.nxt = 1
    wire.inject(urgent(peer, bytes(100), 50))
    assert Urgent(connection) not in wire.take_events()


# -- closing -------------------------------------------------------------------------------


def test_reset_with_data(wire: Wire, peer: Peer) -> None:
    """Rows "RST can contain data" (SHLD-2) and "Inform application of aborted conn" (MUST)."""
    connection = peer.handshake()
    peer.send(RST, data=b"the reason, in words")
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.RESET)


def test_reading_after_the_peers_close(wire: Wire, peer: Peer) -> None:
    """RFC 9293 §3.10.3, RECEIVE in CLOSE-WAIT: what is here is delivered, then the end."""
    connection = peer.handshake()
    peer.send(ACK | FIN, data=b"last words")
    assert connection.recv(4) == b"last"
    assert connection.eof
    assert connection.recv() == b" words"
    assert connection.recv() == b""
    assert connection.send(b"still open this way") == 19


# -- acknowledgements ----------------------------------------------------------------------


def test_all_that_came_is_processed_before_an_ack(wire: Wire, peer: Peer) -> None:
    """Row "Process all Q'd before send ACK" (MUST-59): a batch is acknowledged once, as a whole."""
    peer.handshake()
    packets = [peer.packet(ACK, data=bytes(1000)) for _ in range(8)]
    for packet in packets:
        wire.stack.handle_packet(wire.now, 1, memoryview(packet))
    acks = [seen.ack for seen in peer.drain()]
    assert set(acks) == {8001}
    assert len(acks) == 1


@pytest.mark.parametrize("delay", [-1, 500_001])
def test_delay_of_acks_is_below_half_a_second(delay: int) -> None:
    """Row "Delay < 0.5 seconds" (MUST-40): another value is not a configuration."""
    with pytest.raises(ValueError, match="delayed_ack_us"):
        Config(delayed_ack_us=delay)


# -- sending -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
def test_ttl_is_configurable(family: int) -> None:
    """Row "Configurable TTL" (MUST-49)."""
    ours = "10.0.0.1/24" if family == 4 else "fd00::1/64"
    theirs = "10.0.0.2" if family == 4 else "fd00::2"
    wire = Wire(mptcp=False, ttl=9, addresses=[ours])
    wire.stack.connect(theirs, 80)
    wire.flush()
    (packet,) = wire.raw
    assert packet[8 if family == 4 else 7] == 9
    assert len(packet) > 40


def test_type_of_service() -> None:
    """Rows "ALP can specify TOS" (MUST-48), "passed to IP unchanged", "can change during conn"."""
    wire = Wire(mptcp=False, nodelay=True, dscp=46)
    peer = Peer(wire)
    connection = peer.handshake()
    connection.send(b"x")
    assert peer.expect(ACK, length=1).segment.tos >> 2 == 46
    connection.options.dscp(8)
    connection.send(b"y")
    assert peer.expect(ACK, length=1).segment.tos >> 2 == 8
    with pytest.raises(ValueError, match="out of range"):
        connection.options.dscp(64)


# -- opening -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["224.0.0.1", "255.255.255.255", "0.0.0.0", "127.0.0.1", "ff02::1", "::", "::1"]
)
def test_open_to_an_invalid_address(address: str) -> None:
    """Rows "OPEN to broadcast/multicast IP address", "Reject OPEN to invalid IP address"."""
    wire = Wire(mptcp=False, addresses=["10.0.0.1/24", "fd00::1/64"])
    with pytest.raises(ValueError, match="not the address of one host"):
        wire.stack.connect(address, 80)
    wire.flush()
    assert not wire.raw


def test_listeners_do_not_interfere() -> None:
    """Rows "Passive Open call interfere with others" (MUST NOT), "simultan. LISTENs" (MUST-42)."""
    wire = Wire(mptcp=False, addresses=["10.0.0.1/24", "10.0.1.1/24"])
    one = wire.stack.listen(5000, "10.0.0.1")
    two = wire.stack.listen(5000, "10.0.1.1")
    first = Peer(wire, port=40000, local_port=5000)
    second = Peer(wire, port=40000, local="10.0.1.1", address="10.0.1.2", local_port=5000)
    connections = [peer.handshake(active=False) for peer in (first, second)]
    assert [connection.listener for connection in connections] == [one, two]
    third = Peer(wire, port=40001, local_port=5000)
    assert third.handshake(active=False).listener is one
    assert all(connection.ended is None for connection in connections)


def test_local_address_of_an_open() -> None:
    """Rows "Ask IP for src address" (MUST-44), "Optional local IP addr parm" (MUST-43)."""
    wire = Wire(mptcp=False, addresses=["10.0.0.1/24", "10.0.1.1/24"])
    for local in (None, ("10.0.1.1", 0), ("10.0.1.1", 4321)):
        wire.stack.connect("10.0.0.2", 80, local_addr=local)
    wire.flush()
    sources = [parse_ip(memoryview(packet)).src for packet in wire.raw]
    assert sources == [bytes((10, 0, 0, 1)), bytes((10, 0, 1, 1)), bytes((10, 0, 1, 1))]
    assert int.from_bytes(wire.raw[2][20:22], "big") == 4321


def test_status(wire: Wire, peer: Peer) -> None:
    """RFC 9293 §3.9.1.6, STATUS (MAY): state, windows and what waits can be asked for."""
    connection = peer.handshake(mss=1000)
    connection.send(bytes(300))
    peer.send(ACK, data=b"unread", ack=1)
    info = mptcp_info(connection)
    assert info.subflows[0].state == "ESTABLISHED"
    assert (info.send_queued, info.receive_queued) == (300, 6)
    assert (info.subflows[0].in_flight, info.subflows[0].mss) == (300, 1000)


# -- options and failures ------------------------------------------------------------------


def test_unknown_options_anywhere(wire: Wire, peer: Peer) -> None:
    """Rows "Receive TCP option in any segment" (MUST-5), "Ignore unsupported options" (MUST-6)."""

    class Unknown:
        def emit(self) -> bytes:
            return bytes((253, 6, 1, 2, 3, 4))

    connection = peer.handshake()
    peer.send(ACK, data=b"data", options=[Unknown()])
    assert connection.recv() == b"data"
    peer.send(ACK | FIN, options=[Unknown()])
    assert connection.eof


def test_syns_have_an_r2_of_their_own() -> None:
    """Rows "Same mechanism for SYNs", "R2 at least 3 minutes for SYN" (MUST-23): configurable."""
    wire = Wire(mptcp=False, syn_retries=1)
    peer = Peer(wire)
    connection = wire.stack.connect("10.0.0.2", 80)
    wire.mark()
    peer.expect(SYN, at=0)
    peer.expect(SYN, at=seconds(1))
    wire.advance(seconds(3))
    assert wire.take_events() == [Closed(connection, ConnectionEnd.TIMED_OUT)]


def test_the_sender_waits_for_a_full_segment() -> None:
    """Rows "Send max size segment when possible" (SHLD-28), Nagle (SHLD-7), with a late ACK."""
    wire = Wire(mptcp=False, nodelay=False)
    peer = Peer(wire)
    connection = peer.handshake(mss=1000, rtt=ms(50))
    connection.send(b"a")
    peer.expect(ACK, length=1)
    for _ in range(15):
        connection.send(bytes(100))
    peer.expect(ACK, length=1000)
    peer.expect_nothing(until=ms(50))
    peer.send(ACK)
    peer.expect(ACK, length=500)


def test_segments_of_a_template_have_its_ttl() -> None:
    """Row "Configurable TTL": the header is where it ends up, in range only."""
    template = HeaderTemplate(bytes(4), bytes((10, 0, 0, 2)), 1, 2, ttl=255)
    assert template.build(0, 0, ACK, 0, b"", 0)[8] == 255
    with pytest.raises(ValueError, match="ttl"):
        Config(ttl=0)


def test_mss_option_is_always_sent(wire: Wire, peer: Peer) -> None:
    """Rows "Implement sending & receiving MSS", "Send MSS always" (MUST-14, MAY-3)."""
    wire.stack.connect("10.0.0.2", 80)
    assert peer.expect(SYN).option(Mss) == Mss(1460)
