"""SYN/ACKs that leave nothing behind: SYN cookies on the wire (RFC 4987 §3.6, RFC 8684 §3.1, §3.2).

The cookie (`tcp.syncookies`) brings back what TCP agreed to. MP_CAPABLE needs no state either: our
key is made of the cookie, and the client's third ACK carries both keys. The third ACK of MP_JOIN
has neither token nor nonce, so its SYN leaves a `JoinRequest` in a table of fixed size; a later one
may take its place, and then the client's ACK is answered with RST.
"""

from __future__ import annotations

from hashlib import blake2s
from typing import TYPE_CHECKING

from mptcp.tcp.ecn import Ecn
from mptcp.tcp.handshake import peer_mss, wanted_wscale
from mptcp.tcp.syncookies import PERIOD_US, decode_options, encode_options
from mptcp.wire.tcp import (
    ACK,
    CWR,
    ECE,
    SACK_PERMITTED,
    SYN,
    HeaderTemplate,
    Segment,
    emit_options,
    mss_option,
    timestamps_option,
    window_scale_option,
)

if TYPE_CHECKING:
    from mptcp.stack import Stack
    from mptcp.tcp.connection import TcpConnection


class JoinRequest:
    """What must be remembered of a SYN with MP_JOIN; `expires` in µs of the host."""

    __slots__ = ("address_id", "backup", "expires", "flow", "local_nonce", "remote_nonce", "token")

    def __init__(
        self,
        flow: bytes,
        token: int,
        local_nonce: bytes,
        remote_nonce: bytes,
        address_id: int,
        backup: bool,
        now: int,
    ) -> None:
        self.flow = flow
        self.token = token
        self.local_nonce = local_nonce
        self.remote_nonce = remote_nonce
        self.address_id = address_id
        self.backup = backup
        self.expires = now + PERIOD_US


class JoinTable:
    """Best effort: each flow has one slot, which a stranger cannot work out, and shares it."""

    __slots__ = ("_secret", "_slots")

    def __init__(self, secret: bytes, slots: int) -> None:
        self._secret = secret
        self._slots: list[JoinRequest | None] = [None] * slots

    def _index(self, flow: bytes) -> int:
        digest = blake2s(flow, digest_size=4, key=self._secret, person=b"joinslot").digest()
        return int.from_bytes(digest, "big") % len(self._slots)

    def put(self, request: JoinRequest, now: int) -> bool:
        """Remember a request; False when one that waits still has lost its place to it."""
        index = self._index(request.flow)
        before = self._slots[index]
        self._slots[index] = request
        return before is None or before.flow == request.flow or now > before.expires

    def take(self, flow: bytes, now: int) -> JoinRequest | None:
        """The request of `flow`, which is forgotten; None when it is not there any more."""
        index = self._index(flow)
        request = self._slots[index]
        if request is None or request.flow != flow or now > request.expires:
            return None
        self._slots[index] = None
        return request


def cookie_for(stack: Stack, seg: Segment, now: int) -> int:
    """The ISN that answers the SYN `seg` without being kept."""
    interface = stack.book.owner[seg.dst]
    flow = stack.flow_key(seg.dst, seg.dport, seg.src, seg.sport)
    limit = interface.mtu - (40 if len(seg.dst) == 4 else 60)
    return stack.cookies.make(flow, seg.seq, min(peer_mss(seg), limit), now)


def send_cookie(stack: Stack, seg: Segment, isn: int, now: int, option: bytes = b"") -> None:
    """Answer the SYN `seg` with `isn`, and with MPTCP's `option` (at most 16 bytes).

    Only what `syncookies` and the peer's third ACK can bring back is agreed to.
    """
    if not stack.answers.has_room():
        return
    config = stack.config
    interface = stack.book.owner[seg.dst]
    flow = stack.flow_key(seg.dst, seg.dport, seg.src, seg.sport)
    options = [mss_option(interface.mtu - (40 if len(seg.dst) == 4 else 60))]
    flags = SYN | ACK
    if seg.ts_val >= 0 and config.timestamps:
        wscale = seg.wscale if config.window_scaling else None
        sack = seg.sack_permitted and config.sack
        clock = (now // 1000 + stack.timestamp_offset(flow)) & 0xFFFFFFFF
        ecn = Ecn(config.ecn)
        ecn.on_syn(seg)
        flags |= ecn.syn_flags(answer=True, repeated=False)
        value = encode_options(clock, wscale, sack, ecn.sends)
        options.append(timestamps_option(value, seg.ts_val))
        if sack:
            options.append(SACK_PERMITTED)
        if wscale is not None:
            options.append(window_scale_option(wanted_wscale(config.receive_buffer)))
    if option:
        options.append(option)
    template = HeaderTemplate(seg.dst, seg.src, seg.dport, seg.sport, ttl=config.ttl)
    window = min(config.receive_buffer, 0xFFFF)
    header = template.build(
        *(isn, (seg.seq + 1) & 0xFFFFFFFF, flags, window, emit_options(options), 0),
        tos=config.dscp << 2,
    )
    template.finish_checksum(header, [])
    stack.counters["TcpExtSyncookiesSent"] += 1
    stack.answers.send(interface.id, bytes(header))


def syn_again(seg: Segment, mss: int) -> Segment:
    """The SYN that `seg`, the ACK of a cookie, belongs to: as it was, as far as it matters."""
    irs = (seg.seq - 1) & 0xFFFFFFFF
    syn = Segment(seg.src, seg.dst, seg.sport, seg.dport, irs, 0, SYN, seg.window)
    syn.mss = mss
    if seg.ts_val >= 0:
        syn.ts_val = seg.ts_val
        syn.wscale, syn.sack_permitted, ecn = decode_options(seg.ts_ecr)
        if ecn:
            syn.flags |= ECE | CWR
    return syn


def as_answered(connection: TcpConnection) -> None:
    """A connection made of `syn_again`: its SYN/ACK has gone, as `send_cookie` sends it."""
    connection.syn_pending = False
    connection.snd.nxt = connection.snd.iss + 1
    connection.ecn.syn_flags(answer=True, repeated=False)
