"""A packet comes in: whose it is (RFC 9293 §3.10.7, RFC 8684 §3.2).

From the bytes of a packet to the connection, the listener or the join that it is for, or to the
answer that it gets when it is nobody's. Nothing is kept here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp.accepting import cookie_arrives, listener_for, syn_arrives
from mptcp.early import answer_early
from mptcp.icmp_errors import icmp_arrives
from mptcp.ports import syn_may_reuse, take_over
from mptcp.tcp.input import segment_arrives
from mptcp.tcp.state import State
from mptcp.wire import ParseError
from mptcp.wire.errors import ChecksumError
from mptcp.wire.ip import ICMP, ICMPV6, TCP, parse_ip
from mptcp.wire.tcp import ACK, FIN, RST, SYN, Segment, parse_segment

if TYPE_CHECKING:
    from mptcp.stack import Stack


class Offload:
    """What a device says of a packet it hands in: checksum state and segmentation.

    `trusted`: the TCP checksum is known to be right or was left out (NEEDS_CSUM, DATA_VALID); else
    it is verified. `gso_size`: payload of each merged segment, 0 for a single one.
    """

    __slots__ = ("ecn", "gso_size", "trusted")

    def __init__(self, trusted: bool = False, gso_size: int = 0, ecn: bool = False) -> None:
        self.trusted = trusted
        self.gso_size = gso_size
        self.ecn = ecn


PLAIN = Offload()


def packet_arrives(stack: Stack, interface: int, packet: memoryview, offload: Offload) -> None:
    """Take one packet read from an interface, at `stack.now`. Never raises on its bytes."""
    counters = stack.counters
    now = stack.now
    try:
        ip = parse_ip(packet)
        if ip.dst not in stack.book.owner:
            counters["IpInAddrErrors"] += 1
            return
        if ip.is_fragment:
            counters["IpReasmReqds"] += 1
            whole = stack.fragments.add(now, packet, ip)
            count_fragments(stack)
            if whole is None:
                return
            counters["IpReasmOKs"] += 1
            packet = memoryview(whole)
            ip = parse_ip(packet)
        if ip.protocol == TCP:
            if (
                stack.cookies.sent_at is not None
                and ip.end - ip.offset >= 20
                and packet[ip.offset + 13] & (SYN | ACK | RST | FIN) == SYN
                and answer_early(stack, packet, ip, now, not offload.trusted)
            ):
                counters["TcpInSegs"] += 1
                return
            seg = parse_segment(packet, ip, verify_checksum=not offload.trusted)
            seg.gso_size = offload.gso_size
            _segment(stack, seg, now)
        elif ip.protocol in (ICMP, ICMPV6):
            if stack.icmp_limit.allow(now):
                icmp_arrives(stack, packet, ip, interface)
            else:
                counters["IcmpInRateLimited"] += 1
        else:
            counters["IpInUnknownProtos"] += 1
    except ChecksumError:
        counters["TcpInCsumErrors"] += 1
        counters["TcpInErrs"] += 1
    except ParseError:
        counters["IpInHdrErrors"] += 1


def count_fragments(stack: Stack) -> None:
    """RFC 4293's ipReasm counters, and what of the failures was for want of room."""
    fragments = stack.fragments
    lost = fragments.timed_out + fragments.overlapped + fragments.malformed + fragments.evicted
    stack.counters["IpReasmFails"] = lost
    stack.counters["IpReasmEvicted"] = fragments.evicted


def _segment(stack: Stack, seg: Segment, now: int) -> None:
    """Demultiplex a segment (RFC 8684 §3.2: the token comes before the listener)."""
    key = stack.flow_key(seg.dst, seg.dport, seg.src, seg.sport)
    connection = stack.connections.get(key)
    flags = seg.flags
    if connection is not None:
        if (
            connection.state is State.TIME_WAIT
            and flags & (SYN | ACK | RST | FIN) == SYN
            and syn_may_reuse(connection, seg)
            # MP_JOIN needs no listener (RFC 8684 §3.2).
            and (seg.mptcp or listener_for(stack, seg) is not None)
        ):
            syn_arrives(stack, seg, now, take_over(stack, connection))
        else:
            segment_arrives(connection, seg, now)
        return
    stack.counters["TcpInSegs"] += 1
    if flags & RST:
        return
    if flags & (SYN | ACK | FIN) == SYN:
        syn_arrives(stack, seg, now)
    elif not flags & ACK:
        if listener_for(stack, seg) is None:
            stack.reset_for(seg)
        # RFC 9293 §3.10.7.2 fourth: to a listener it says nothing.
    elif flags & SYN or not (stack.cookies.recent(now) and cookie_arrives(stack, seg, now)):
        stack.reset_for(seg)
