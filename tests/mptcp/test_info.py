"""What `connection.info()` tells: Linux's `mptcp_info` and `tcp_info`, and what is beside them."""

from __future__ import annotations

import dataclasses

from mptcp.info import MptcpInfo, SubflowInfo
from mptcp.linux_info import FLAG_FALLBACK, FLAG_REMOTE_KEY_RECEIVED, MptcpKernelInfo, TcpInfo
from mptcp.wire.tcp import ACK, FIN
from tests.peer import Peer, Wire, ms, seconds

TCP_INFO = """
    state ca_state retransmits probes backoff options snd_wscale rcv_wscale
    delivery_rate_app_limited fastopen_client_fail rto ato snd_mss rcv_mss unacked sacked lost
    retrans fackets last_data_sent last_ack_sent last_data_recv last_ack_recv pmtu rcv_ssthresh rtt
    rttvar snd_ssthresh snd_cwnd advmss reordering rcv_rtt rcv_space total_retrans pacing_rate
    max_pacing_rate bytes_acked bytes_received segs_out segs_in notsent_bytes min_rtt data_segs_in
    data_segs_out delivery_rate busy_time rwnd_limited sndbuf_limited delivered delivered_ce
    bytes_sent bytes_retrans dsack_dups reord_seen rcv_ooopack snd_wnd rcv_wnd rehash total_rto
    total_rto_recoveries total_rto_time
"""
MPTCP_INFO = """
    subflows add_addr_signal add_addr_accepted subflows_max add_addr_signal_max
    add_addr_accepted_max flags token write_seq snd_una rcv_nxt local_addr_used local_addr_max
    csum_enabled retransmits bytes_retrans bytes_sent bytes_received bytes_acked subflows_total
    last_data_sent last_data_recv last_ack_recv
"""
NO_MEANING = """
    fackets rcv_ssthresh reordering max_pacing_rate rehash total_rto_time fastopen_client_fail
    last_ack_sent
"""


def first(info: MptcpInfo) -> tuple[SubflowInfo, TcpInfo]:
    """The first subflow, and the kernel's record of it."""
    return info.subflows[0], info.subflows[0].tcp_info


def test_every_field_of_linux_is_there() -> None:
    """uapi/linux/tcp.h and mptcp.h (6.18): the same names, but for those that mean nothing here."""
    ours = [field.name for field in dataclasses.fields(TcpInfo)]
    assert sorted(ours) == sorted(set(TCP_INFO.split()) - set(NO_MEANING.split()))
    assert [field.name for field in dataclasses.fields(MptcpKernelInfo)] == MPTCP_INFO.split()


def test_a_transfer_in_figures(wire: Wire, peer: Peer) -> None:
    """RFC 4898's and Linux's meanings: bytes, segments, times and windows of one exchange."""
    connection = peer.handshake(mptcp=True, timestamps=True, wscale=2, rtt=ms(20))
    connection.send(bytes(5000))
    sent = peer.drain()
    info = connection.info()
    flow, tcp = first(info)
    assert (tcp.state, tcp.ca_state) == (1, 0)
    assert tcp.options == 1 | 2 | 4
    assert (tcp.bytes_sent, tcp.bytes_acked, flow.in_flight) == (5000, 0, 5000)
    assert (tcp.unacked, tcp.sacked, tcp.lost) == (4, 0, 0)
    assert tcp.data_segs_out == len(sent)
    assert tcp.segs_out == len(sent) + 2  # the SYN and its ACK
    assert (tcp.rtt, tcp.min_rtt, flow.srtt) == (20_000, 20_000, 20_000)
    assert tcp.snd_cwnd == flow.cwnd // tcp.snd_mss
    assert tcp.snd_wnd == 65535 << 2
    assert (info.mptcp_info.bytes_sent, info.mptcp_info.bytes_acked) == (5000, 0)
    peer.send(ACK, data=b"x" * 300, at=ms(20))
    wire.advance(ms(50))
    info = connection.info()
    flow, tcp = first(info)
    kernel = info.mptcp_info
    assert (kernel.bytes_sent, kernel.bytes_acked, kernel.bytes_received) == (5000, 5000, 300)
    assert (tcp.bytes_acked, tcp.bytes_received) == (5000, 300)
    assert (tcp.unacked, tcp.data_segs_in) == (0, 1)
    assert (tcp.last_data_sent, tcp.last_data_recv, tcp.last_ack_recv) == (50, 30, 30)
    assert (kernel.last_data_sent, kernel.last_data_recv, kernel.last_ack_recv) == (50, 30, 30)
    assert (tcp.busy_time, tcp.rwnd_limited, tcp.sndbuf_limited) == (20_000, 0, 0)
    assert tcp.delivery_rate == flow.delivery_rate == 5000 * 1_000_000 // 20_000
    assert tcp.delivery_rate_app_limited
    assert kernel.flags == FLAG_REMOTE_KEY_RECEIVED
    # The second path's SYN has gone: it counts, as in Linux.
    assert (kernel.token, kernel.subflows, kernel.subflows_total) == (connection.token, 1, 2)


def test_the_end_counts_no_data(wire: Wire, peer: Peer) -> None:
    """RFC 8684 §3.3.3: the DATA_FINs take a number each and are no bytes of the application."""
    connection = peer.handshake(mptcp=True)
    connection.send(b"to")
    connection.shutdown()
    peer.drain()
    peer.send(ACK, data=b"fro")
    level = peer.data
    fin = peer.dss(data_ack=level.data_ack, dsn=level.nxt, ssn=0, length=1, data_fin=True)
    peer.send(ACK, options=[fin])
    kernel = connection.info().mptcp_info
    assert (kernel.bytes_sent, kernel.bytes_acked, kernel.bytes_received) == (2, 2, 3)


def test_plain_tcp(wire: Wire, peer: Peer) -> None:
    """Fallback is bit 0 of the flags; the bytes are the same ones."""
    connection = peer.handshake()
    connection.send(b"abc")
    peer.drain()
    peer.send(ACK | FIN, data=b"defg")
    info = connection.info()
    kernel = info.mptcp_info
    assert kernel.flags == FLAG_FALLBACK
    assert (kernel.bytes_sent, kernel.bytes_acked, kernel.bytes_received) == (3, 3, 4)
    assert first(info)[1].state == 8  # TCP_CLOSE_WAIT
    assert (info.fallback, info.established, info.server_side) == (True, True, False)


def test_loss_in_figures(wire: Wire, peer: Peer) -> None:
    """RFC 6675 and RFC 6298: what is sacked, lost and sent again, and the state of recovery."""
    connection = peer.handshake(rtt=ms(10))
    connection.send(bytes(5 * 1460))
    peer.drain()
    peer.send(ACK, ack=1, options=[peer.sacked((1461, 7301))], at=ms(10))
    wire.advance(ms(13))
    flow, tcp = first(connection.info())
    assert (flow.recovery, tcp.ca_state) == ("fast", 3)
    assert (tcp.sacked, tcp.unacked, tcp.lost, tcp.retrans) == (4, 5, 0, 1)
    assert (tcp.total_retrans, tcp.bytes_retrans) == (1, 1460)
    assert tcp.bytes_sent == 5 * 1460 + 1460
    wire.advance(seconds(5))
    flow, tcp = first(connection.info())
    assert (flow.recovery, tcp.ca_state) == ("loss", 4)
    assert tcp.total_rto == tcp.retransmits > 1
    assert tcp.total_rto_recoveries == 1
    assert tcp.backoff == tcp.retransmits


def test_a_closed_window_is_told(wire: Wire, peer: Peer) -> None:
    """RFC 4898 SndLimTimeRwin: the time in which only the peer's window holds the sender back."""
    connection = peer.handshake()
    peer.send(ACK, window=1000)
    connection.send(bytes(3000))
    peer.drain()
    peer.send(ACK, window=0, at=ms(30))
    wire.advance(ms(100))
    tcp = first(connection.info())[1]
    assert tcp.rwnd_limited == 100_000
    assert tcp.busy_time == 100_000
    peer.send(ACK, window=65535, at=ms(130))
    peer.drain()
    wire.advance(ms(140))
    tcp = first(connection.info())[1]
    assert tcp.busy_time == 140_000
    assert tcp.rwnd_limited == 130_000


def test_a_full_send_buffer_is_told() -> None:
    """RFC 4898 SndLimTimeSnd: the application had more, and the send buffer no room for it."""
    peer = Peer(Wire(nodelay=True, send_buffer=4096, mptcp=False))
    connection = peer.handshake()
    assert connection.send(bytes(10_000)) == 4096
    peer.drain()
    peer.wire.advance(ms(40))
    tcp = first(connection.info())[1]
    assert (tcp.sndbuf_limited, tcp.rwnd_limited) == (40_000, 0)


def test_the_delivery_rate_of_a_long_transfer(wire: Wire, peer: Peer) -> None:
    """What a round trip delivers over its length: ten segments in 100 ms again and again."""
    connection = peer.handshake(rtt=ms(100))
    connection.send(bytes(100 * 1460))
    peer.drain()
    end = 1
    for turn in range(1, 8):
        end += 10 * 1460
        peer.send(ACK, ack=end, at=ms(100 * turn))
        peer.drain()
    flow, tcp = first(connection.info())
    assert flow.delivery_rate == 10 * 1460 * 10
    assert not tcp.delivery_rate_app_limited


def test_the_stack_tells_of_all(wire: Wire, caller: Peer) -> None:
    """`Stack.info()`: every connection, in the order they were opened."""
    caller.handshake(active=False, mptcp=True)
    other = Peer(wire, port=81)
    other.handshake()
    infos = wire.stack.info()
    assert [info.number for info in infos] == [1, 2]
    assert [info.server_side for info in infos] == [True, False]
    brief = infos[0].brief()
    assert "mptcp_info" not in brief
    assert "tcp_info" not in brief["subflows"][0]
    assert infos[0].to_dict()["subflows"][0]["tcp_info"]["state"] == 1
