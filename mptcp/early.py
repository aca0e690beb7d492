"""The short way of a SYN that a cookie answers: no object is made of it (RFC 4987 §3.6).

While a flood lasts, each of its SYNs costs what is done here. `stateless` has the long way.

Invariant: whatever `answer_early` answers, the long way would have answered with the same packet;
what is the least unusual (data, a join, a malformed option, a wrong checksum) goes the long way.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from mptcp import keys
from mptcp.addressing import can_be_source
from mptcp.tcp.ecn import ECN_MASK
from mptcp.tcp.handshake import DEFAULT_MSS_V4, DEFAULT_MSS_V6, wanted_wscale
from mptcp.tcp.host import Interface
from mptcp.tcp.syncookies import encode_options
from mptcp.wire.checksum import ones_sum, pseudo_sum
from mptcp.wire.ip import IpHeader
from mptcp.wire.tcp import ACK, CWR, ECE, SYN

if TYPE_CHECKING:
    from mptcp.stack import Stack

_HEAD = struct.Struct("!HHIIH")
_WORDS = struct.Struct("!II")
_IPV4 = struct.Struct("!HHIHH")
_IPV6 = struct.Struct("!IHH")
_TCP = struct.Struct("!4sIIHHHH")
_TIMESTAMPS = struct.Struct("!III")
_CHECKSUM = struct.Struct("!H")
_MPTCP: Final = 30
_IP_CONSTANT: Final = 0x4500 + 0x4000
_NOT_OFFERED: Final = -1
# Flags of MP_CAPABLE (RFC 8684 §3.1).
_CHECKSUM_REQUIRED: Final = 0x80
_EXTENSIBILITY: Final = 0x40
_NO_JOIN_INITIAL: Final = 0x20
_HMAC_SHA256: Final = 0x01


def answer_early(stack: Stack, packet: memoryview, ip: IpHeader, now: int, verify: bool) -> bool:
    """Answer a SYN for a listener that keeps no state; False: nothing was done, take the long way.

    `packet` holds a whole TCP header whose flags are those of a SYN.
    """
    offset = ip.offset
    end = ip.end
    sport, dport, seq, _, offset_flags = _HEAD.unpack_from(packet, offset)
    if offset + (offset_flags >> 12 << 2) != end:
        return False
    src = ip.src
    dst = ip.dst
    listeners = stack.listeners
    listener = listeners.get((dst, dport)) or listeners.get((None, dport))
    config = stack.config
    if listener is None or not sport or not can_be_source(src):
        return False
    full = len(listener.half_open) >= listener.backlog
    if (config.syn_cookies != "always" and (config.syn_cookies == "never" or not full)) or len(
        stack.metas
    ) >= config.max_connections:
        return False
    flow = src + dst + bytes(packet[offset : offset + 4])
    if flow in stack.connections:
        return False
    mss = DEFAULT_MSS_V4 if ip.version == 4 else DEFAULT_MSS_V6
    wscale = _NOT_OFFERED
    sack = False
    ts_val = -1
    capable = _NOT_OFFERED
    at = offset + 20
    while at < end:
        kind = packet[at]
        if kind == 1:
            at += 1
            continue
        if kind == 0:
            break
        if at + 1 == end:
            return False
        size = packet[at + 1]
        if size < 2 or at + size > end:
            return False
        if kind == 2 and size == 4:
            mss = packet[at + 2] << 8 | packet[at + 3]
            if not mss:
                return False
        elif kind == 3 and size == 3:
            wscale = min(packet[at + 2], 14)
        elif kind == 4 and size == 2:
            sack = True
        elif kind == 8 and size == 10:
            ts_val = _WORDS.unpack_from(packet, at + 2)[0]
        elif kind == _MPTCP:
            # MP_CAPABLE of version 1, once, without what nobody has defined; a join is not for us.
            if size != 4 or packet[at + 2] != 1 or capable >= 0:
                return False
            capable = packet[at + 3]
        elif kind < 9:
            return False
        at += size
    if verify and (pseudo_sum(src, dst, 6, end - offset) + ones_sum(packet[offset:end])) % 0xFFFF:
        return False
    if full:
        stack.counters["TcpExtTCPReqQFullDoCookies"] += 1
    if not stack.answers.has_room():
        return True
    interface = stack.book.owner[dst]
    limit = interface.mtu - (40 if ip.version == 4 else 60)
    isn = stack.cookies.make(flow, seq, min(mss, limit), now)
    options = bytes((2, 4, limit >> 8, limit & 0xFF))
    flags = SYN | ACK
    if ts_val >= 0 and config.timestamps:
        scale = wscale if config.window_scaling and wscale >= 0 else None
        sack = sack and config.sack
        setup = offset_flags & (ECE | CWR) == ECE | CWR and not ip.tos & ECN_MASK
        ecn = setup and config.ecn != "off"
        if ecn:
            flags |= ECE
        clock = (now // 1000 + stack.timestamp_offset(flow)) & 0xFFFFFFFF
        value = encode_options(clock, scale, sack, ecn)
        options += _TIMESTAMPS.pack(0x0101_080A, value, ts_val)
        if sack:
            options += b"\x04\x02\x01\x01"
        if scale is not None:
            options += bytes((3, 3, wanted_wscale(config.receive_buffer), 1))
    if capable >= 0 and config.mptcp and capable & (_HMAC_SHA256 | _EXTENSIBILITY) == _HMAC_SHA256:
        options += _capable(stack, flow, seq, isn, capable, now)
    _send(stack, interface, flow, isn, seq, flags, options)
    return True


def _capable(stack: Stack, flow: bytes, seq: int, isn: int, offered: int, now: int) -> bytes:
    """The answer to MP_CAPABLE with those flags; empty when there is no unique key for it."""
    key = stack.cookies.key(flow, seq, isn, now)
    if keys.token(key) in stack.tokens:
        stack.counters["MPTcpExtMPFallbackTokenInit"] += 1
        return b""
    stack.counters["MPTcpExtMPCapableSYNRX"] += 1
    config = stack.config
    flags = _HMAC_SHA256 | (offered & _CHECKSUM_REQUIRED)
    if config.checksum:
        flags |= _CHECKSUM_REQUIRED
    if not config.allow_join_initial_addr_port:
        flags |= _NO_JOIN_INITIAL
    return bytes((_MPTCP, 12, 1, flags)) + key


def _send(
    stack: Stack, interface: Interface, flow: bytes, isn: int, seq: int, flags: int, options: bytes
) -> None:
    """Both headers at once."""
    config = stack.config
    length = 20 + len(options)
    # `flow` has the peer's address and port first; ours go first.
    at = len(flow) - 4
    half = at >> 1
    addresses = flow[half:at] + flow[:half]
    header = bytearray(
        _TCP.pack(
            flow[at + 2 :] + flow[at : at + 2],
            isn,
            (seq + 1) & 0xFFFFFFFF,
            (length << 10) | flags,
            min(config.receive_buffer, 0xFFFF),
            0,
            0,
        )
    )
    header += options
    total = ones_sum(addresses)
    _CHECKSUM.pack_into(header, 16, -(total + 6 + length + ones_sum(header)) % 0xFFFF)
    tos = config.dscp << 2
    if half == 4:
        middle = config.ttl << 8 | 6
        ip = _IPV4.pack(
            0x4500 | tos,
            20 + length,
            0x4000,  # identification 0, DF
            middle,
            -(_IP_CONSTANT + tos + 20 + length + middle + total) % 0xFFFF,
        )
    else:
        ip = _IPV6.pack(0x6000_0000 | tos << 20, length, 6 << 8 | config.ttl)
    stack.counters["TcpExtSyncookiesSent"] += 1
    stack.answers.send(interface.id, ip + addresses + header)
