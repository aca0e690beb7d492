"""A scripted peer that talks raw segments to one `Stack` in virtual time: a small packetdrill.

    wire = Wire()
    peer = Peer(wire, port=80)
    connection = peer.handshake(active=True)      # the stack connects to the peer
    peer.send(ACK, data=b"x" * 10, at=ms(20))
    peer.expect_nothing(until=ms(59))
    peer.expect(ACK, ack=11, at=ms(60))

Sequence numbers are relative: the SYN of either side is 0; likewise data sequence numbers, whose 0
is the IDSN. Times count from the last `Wire.mark()`, which a handshake makes at its end. A field
that is not given is not compared. What the stack sends waits in order until `expect` takes it;
`expect` without a time wants a segment that has left already, `at` one that leaves exactly then,
`within` one that leaves up to so much later. In plain TCP the right edge of the stack's window is
checked never to move back.
"""

from __future__ import annotations

from typing import Any

from mptcp import keys
from mptcp.meta_socket import MetaSocket
from mptcp.stack import Stack
from mptcp.subflow import Subflow
from mptcp.wire.mptcp_options import MpCapable, MpJoinAck, MpJoinSyn, MpJoinSynAck
from mptcp.wire.tcp import ACK, CWR, ECE, SYN
from tests.flow import PSH, DataLevel, Flow
from tests.options import Emits, Mss, SackPermitted, Timestamps, WindowScale
from tests.virtual import PEER_KEY, Seen, Wire, ms, seconds

__all__ = ["PEER_KEY", "PSH", "DataLevel", "Peer", "Seen", "Wire", "ms", "seconds"]


class Peer(Flow):
    """A flow that knows the handshakes of TCP and MPTCP."""

    def syn_options(
        self, mss: int, sack: bool, wscale: int | None, timestamps: bool
    ) -> list[Emits]:
        """The plain options of this peer's SYN or SYN/ACK."""
        options: list[Emits] = [Mss(mss)]
        if timestamps:
            options.append(Timestamps(self.wire.now // 1000, self.ts_recent))
        if sack:
            options.append(SackPermitted())
        if wscale is not None:
            options.append(WindowScale(wscale))
        return options

    def handshake(
        self,
        *,
        active: bool = True,
        mptcp: bool = False,
        confirm: bool = True,
        mss: int = 1460,
        sack: bool = True,
        wscale: int | None = None,
        timestamps: bool = False,
        rtt: int = 0,
        capable: MpCapable | None = None,
        ecn: bool = False,
    ) -> MetaSocket:
        """Open a connection: the stack connects (`active`) or its listener on `local_port` accepts.

        `confirm` sends the first DSS, so that MPTCP is confirmed both ways. The stack measures
        `rtt` µs. With `ecn` both offer it or agree (RFC 3168 §6.1.1). Returns the stack's
        connection and marks the time.
        """
        wire = self.wire
        options = self.syn_options(mss, sack, wscale, timestamps)
        if active:
            wire.stack.connect(self.address, self.port, local_addr=(self.local, self.local_port))
            syn = self.expect(SYN | ECE | CWR if ecn else SYN)
            if mptcp:
                options.append(capable or MpCapable(self.data.key))
            self._agree(syn, wscale, timestamps)
            answer = SYN | ACK | ECE if ecn else SYN | ACK
            self.send(answer, options=options, at=wire.time + rtt)
            third = self.expect(ACK, ack=1, seq=1)
            if mptcp:
                assert third.option(MpCapable).receiver_key == self.data.key
        else:
            if mptcp:
                options.append(capable or MpCapable())
            self.send(SYN | ECE | CWR if ecn else SYN, options=options)
            syn = self.expect(SYN | ACK | ECE if ecn else SYN | ACK, ack=1)
            self._agree(syn, wscale, timestamps)
            third_options: list[Emits] = []
            if mptcp:
                asked = capable is not None and capable.checksum_required
                third_options.append(
                    MpCapable(self.data.key, self.data.stack_key, checksum_required=asked)
                )
            self.send(ACK, options=third_options, at=wire.time + rtt)
        self.mptcp = mptcp
        connection = self.subflow().meta
        if mptcp and confirm:
            self.send(ACK)
        wire.mark()
        return connection

    def _agree(self, syn: Seen, wscale: int | None, timestamps: bool) -> None:
        scaled = any(isinstance(o, WindowScale) for o in syn.options) and wscale is not None
        self.wscale = wscale or 0 if scaled else 0
        self.stack_wscale = self.stack_wscale if scaled else 0
        self.timestamps = timestamps and any(isinstance(o, Timestamps) for o in syn.options)

    def subflow(self) -> Subflow:
        """The stack's side of this flow. Raises KeyError when there is none."""
        key = Stack.flow_key(self.local, self.local_port, self.address, self.port)
        found = self.wire.stack.connections[key]
        assert isinstance(found, Subflow)
        return found

    def beside(self, **changes: Any) -> Peer:
        """Another flow of the same MPTCP connection; `changes` as for `Peer`."""
        other = Peer(self.wire, **{"isn": self.isn + 0x1000_0000, **changes})
        other.data = self.data
        return other

    def join(self, *, address_id: int = 1, backup: bool = False, nonce: bytes = b"") -> None:
        """Open this flow as a subflow of the connection, from the peer: RFC 8684 §3.2, figure 8."""
        level = self.data
        own = nonce or self.local_nonce
        syn = MpJoinSyn(backup, address_id, keys.token(level.stack_key), own)
        self.send(SYN, options=[Mss(1400), SackPermitted(), syn])
        answer = self.expect(SYN | ACK, ack=1).option(MpJoinSynAck)
        assert answer.hmac == keys.synack_hmac(level.stack_key, level.key, answer.nonce, own)
        mac = keys.ack_hmac(level.key, level.stack_key, own, answer.nonce)
        self.send(ACK, options=[MpJoinAck(mac)])
        fourth = self.expect(ACK, ack=1)
        if fourth.data:
            self.queue.appendleft(fourth)  # data is an acknowledgement too
        self.mptcp = True

    def accept_join(
        self, *, address_id: int = 1, backup: bool = False, fourth: bool = True
    ) -> Seen:
        """Answer the stack's MP_JOIN; returns its SYN. `fourth`: send the fourth ACK."""
        level = self.data
        syn = self.expect(SYN)
        option = syn.option(MpJoinSyn)
        assert option.token == keys.token(level.key)
        mac = keys.synack_hmac(level.key, level.stack_key, self.local_nonce, option.nonce)
        answer = MpJoinSynAck(backup, address_id, mac, self.local_nonce)
        self.send(SYN | ACK, options=[Mss(1400), SackPermitted(), answer])
        third = self.expect(ACK, ack=1).option(MpJoinAck)
        assert third.hmac == keys.ack_hmac(
            level.stack_key, level.key, option.nonce, self.local_nonce
        )
        self.mptcp = True
        if fourth:
            self.send(ACK)
        return syn
