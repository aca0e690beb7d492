"""The states a connection is in when the attack begins, each reached by a proper handshake.

A state is a function from a `Scene` to nothing, registered in `STATES` by its order: inputs name it
by number, so new ones go to the end. The flags of `Variant` come from the input too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fuzz.harness import FuzzPeer, FuzzWire
from mptcp import keys
from mptcp.meta_socket import MetaSocket
from mptcp.wire.dss import Dss
from mptcp.wire.mptcp_options import AddAddr, MpCapable, MpFail, MpJoinSyn
from mptcp.wire.tcp import ACK, FIN, SYN
from tests.options import Emits, Mss, SackPermitted, Timestamps, WindowScale
from tests.virtual import ms, seconds

SERVER_PORT: Final = 5000
CLIENT_PORT: Final = 40_000


class Variant:
    """Settings of the stack and of the peer, from one byte."""

    __slots__ = ("checksum", "cookies", "ipv6", "no_sack", "plain", "small", "timestamps", "tuned")

    def __init__(self, bits: int) -> None:
        self.timestamps = bits & 1 != 0
        self.checksum = bits & 2 != 0
        self.no_sack = bits & 4 != 0
        self.small = bits & 8 != 0
        self.tuned = bits & 16 != 0
        """Pacing, tuned buffers, ECN, probing for the MTU: what the scripted tests leave out."""
        self.ipv6 = bits & 32 != 0
        self.cookies = bits & 64 != 0
        """SYN cookies always, and Fast Open."""
        self.plain = bits & 128 != 0
        """Segments of the peer bear no DSS of themselves."""


class Scene:
    """The stack, its peer's flows and its connection."""

    __slots__ = ("connection", "flows", "variant", "wire")

    def __init__(self, variant: Variant, *, early: bool = False, **settings: Any) -> None:
        """`early`: the state comes before ESTABLISHED, so that cookies and ECN may be in it."""
        self.variant = variant
        if variant.small:
            settings = {"receive_buffer": 4096, "send_buffer": 4096, **settings}
        else:
            settings = {"receive_buffer": 1 << 17, "send_buffer": 1 << 17, **settings}
        if variant.tuned:
            more = {"mtu_probing": "on", "keepalive": True, "fast_open": 2}
            settings = {"pacing": True, "autotune": True, **more, **settings}
        if variant.cookies and early:
            settings = {"syn_cookies": "always", "fast_open": 2, **settings}
        addresses = ["10.0.0.1/24", "10.0.1.1/24"]
        if variant.ipv6:
            addresses = ["fd00::1/64", "10.0.1.1/24"]
        self.wire = FuzzWire(
            addresses=addresses,
            checksum=variant.checksum,
            sack=not variant.no_sack,
            nodelay=True,
            ecn="on" if variant.tuned and early else "passive",
            **settings,
        )
        self.flows: list[FuzzPeer] = []
        self.connection: MetaSocket | None = None
        self.flow(active=True)

    @property
    def first(self) -> FuzzPeer:
        """The first flow."""
        return self.flows[0]

    def flow(self, *, active: bool, second: bool = False) -> FuzzPeer:
        """One more flow of the peer; the stack is the client when `active`."""
        address, local, interface = "10.0.0.2", "10.0.0.1", 1
        if second:
            address, local, interface = "10.0.1.2", "10.0.1.1", 2
        elif self.variant.ipv6:
            address, local = "fd00::2", "fd00::1"
        number = len(self.flows)
        peer = FuzzPeer(
            self.wire,
            address=address,
            local=local,
            interface=interface,
            port=80 if active else CLIENT_PORT + number,
            local_port=0 if active else SERVER_PORT,
            isn=0x3000_0000 + (number << 24),
        )
        if self.flows:
            peer.data = self.flows[0].data
        self.flows.append(peer)
        return peer

    # -- pieces ----------------------------------------------------------------------------------

    def serve(self) -> FuzzPeer:
        """The stack listens; the first flow is a client that has said nothing."""
        old = self.flows.pop()
        self.wire.peers.remove(old)
        self.wire.stack.listen(SERVER_PORT)
        return self.flow(active=False)

    def syn_options(self, mptcp: bool = True) -> list[Emits]:
        """Of the peer's SYN."""
        options: list[Emits] = [Mss(1400)]
        if not self.variant.no_sack:
            options.append(SackPermitted())
        if self.variant.timestamps:
            options.append(Timestamps(self.wire.now // 1000, 0))
        options.append(WindowScale(3))
        if mptcp:
            options.append(MpCapable(checksum_required=self.variant.checksum))
        return options

    def open(self, *, mptcp: bool = True, active: bool = True, confirm: bool = True) -> MetaSocket:
        """A connection in ESTABLISHED."""
        peer = self.first if active else self.serve()
        variant = self.variant
        capable = None
        if mptcp and variant.checksum:
            capable = MpCapable(peer.data.key if active else None, checksum_required=True)
        meta = peer.handshake(
            active=active,
            mptcp=mptcp,
            confirm=confirm,
            sack=not variant.no_sack,
            timestamps=variant.timestamps,
            wscale=3,
            capable=capable,
            rtt=ms(10),
        )
        self.connection = meta
        return meta

    def talk(self, size: int = 3000) -> None:
        """Data both ways; that of the stack is not acknowledged."""
        assert self.connection is not None
        self.connection.send(bytes(size))
        self.wire.flush()
        self.send(b"hello")

    def send(self, data: bytes = b"", flags: int = ACK, *more: Emits) -> None:
        """A proper segment of the first flow."""
        peer = self.first
        if peer.mptcp and (data or more):
            level = peer.data
            dss: list[Emits] = []
            if data:
                dsn, ssn = level.nxt, peer.nxt
                level.nxt += len(data)
                dss = [mapped(peer, dsn, ssn, data, self.variant.checksum)]
            peer.send(flags, data=data, options=[*dss, *more])
        else:
            peer.send(flags, data=data, options=list(more))

    def second(self, *, fourth: bool = True) -> FuzzPeer:
        """A second subflow, opened by the stack to an address that the peer has announced."""
        first = self.first
        address = bytes([10, 0, 1, 2])
        mac = keys.add_addr_hmac(first.data.key, first.data.stack_key, 1, address, None)
        flow = self.flow(active=True, second=True)
        first.send(ACK, options=[first.dss(data_ack=1), AddAddr(1, address, None, mac)])
        self.wire.advance(self.wire.time + ms(60))
        flow.accept_join(fourth=fourth)
        return flow

    def joined(self) -> FuzzPeer:
        """A second subflow, opened by the peer."""
        flow = self.flow(active=False, second=True)
        self.first.drain()
        flow.join()
        return flow

    def data_fin(self) -> None:
        """The peer's end of data, on the first flow."""
        peer = self.first
        if peer.mptcp:
            fin = mapped(peer, peer.data.nxt, 0, b"", self.variant.checksum, fin=True)
            peer.send(ACK, options=[fin])
            peer.data.nxt += 1
        else:
            peer.send(ACK | FIN)

    def acknowledge(self) -> None:
        """The peer acknowledges all there is, on both levels."""
        for peer in self.flows:
            if peer.mptcp:
                peer.send(ACK, options=[peer.dss(data_ack=peer.data.data_ack)])
            else:
                peer.send(ACK)


def mapped(
    peer: FuzzPeer, dsn: int, ssn: int, data: bytes, checksum: bool, *, fin: bool = False
) -> Dss:
    """A DSS that maps `data`, with the checksum if there is one (RFC 8684 §3.3.1)."""
    length = len(data) + fin
    value = None
    if checksum:
        absolute = (peer.data.idsn + dsn) & (1 << 64) - 1
        value = dss_checksum(absolute, ssn, length, data)
    return peer.dss(
        data_ack=peer.data.data_ack,
        dsn=dsn,
        ssn=ssn,
        length=length,
        data_fin=fin,
        checksum=value,
    )


def dss_checksum(dsn: int, ssn: int, length: int, data: bytes) -> int:
    """RFC 8684 §3.3.1: over the data and a pseudo-header of DSN, SSN, length and zeros."""
    head = dsn.to_bytes(8, "big") + (ssn & 0xFFFFFFFF).to_bytes(4, "big")
    whole = head + length.to_bytes(2, "big") + b"\0\0" + data + b"\0" * (len(data) & 1)
    total = int.from_bytes(whole, "big") % 0xFFFF
    return 0xFFFF - total if total else 0xFFFF if not any(whole) else 0


# -- the states ----------------------------------------------------------------------------------


def listen(scene: Scene) -> None:
    """LISTEN: the peer has a SYN to send."""
    scene.serve()


def syn_sent(scene: Scene, mptcp: bool = True) -> None:
    """SYN-SENT."""
    first = scene.first
    wire = scene.wire
    scene.connection = wire.stack.connect(first.address, first.port)
    wire.known[scene.connection] = None
    wire.flush()


def syn_received(scene: Scene, mptcp: bool = True) -> None:
    """SYN-RECEIVED."""
    peer = scene.serve()
    peer.send(SYN, options=scene.syn_options(mptcp))
    peer.drain()


def established(scene: Scene) -> None:
    """ESTABLISHED, plain TCP, data both ways."""
    scene.open(mptcp=False)
    scene.talk()


def mptcp(scene: Scene) -> None:
    """ESTABLISHED, MPTCP, data both ways."""
    scene.open()
    scene.talk()


def unconfirmed(scene: Scene) -> None:
    """ESTABLISHED, MPTCP as the server, but nothing has come after the keys."""
    scene.open(active=False, confirm=False)


def closing_state(which: str, with_mptcp: bool) -> Callable[[Scene], None]:
    """FIN-WAIT-1, FIN-WAIT-2, CLOSE-WAIT, CLOSING, LAST-ACK or TIME-WAIT of both levels."""

    def state(scene: Scene) -> None:
        meta = scene.open(mptcp=with_mptcp)
        if which in ("CLOSE-WAIT", "LAST-ACK"):
            scene.data_fin()
        meta.send(b"last words")
        if which != "CLOSE-WAIT":
            meta.shutdown()
        scene.wire.flush()
        if which in ("FIN-WAIT-2", "TIME-WAIT"):
            scene.acknowledge()
        if which == "CLOSING" and not with_mptcp:
            scene.first.send(ACK | FIN, ack=1)
        elif which in ("CLOSING", "TIME-WAIT"):
            scene.data_fin()
        if which == "TIME-WAIT" and with_mptcp:
            scene.first.send(ACK | FIN)
            scene.acknowledge()

    state.__doc__ = f"{which}, {'MPTCP' if with_mptcp else 'plain TCP'}."
    return state


def two_subflows(scene: Scene) -> None:
    """Two subflows, the second joined by the stack; data in flight."""
    scene.open()
    scene.second()
    scene.talk()


def two_joined(scene: Scene) -> None:
    """Two subflows, the second joined by the peer; data in flight."""
    scene.open(active=False)
    scene.joined()
    scene.talk()


def join_sent(scene: Scene) -> None:
    """The stack's MP_JOIN is not answered yet."""
    scene.open()
    first = scene.first
    address = bytes([10, 0, 1, 2])
    mac = keys.add_addr_hmac(first.data.key, first.data.stack_key, 1, address, None)
    scene.flow(active=True, second=True)
    first.send(ACK, options=[first.dss(data_ack=1), AddAddr(1, address, None, mac)])
    scene.wire.advance(scene.wire.time + ms(60))


def join_unconfirmed(scene: Scene) -> None:
    """The stack's MP_JOIN has been answered, but the fourth ACK has not come (RFC 8684 §3.2)."""
    scene.open()
    scene.second(fourth=False)


def join_received(scene: Scene) -> None:
    """The peer's MP_JOIN was answered; its third ACK has not come."""
    scene.open(active=False)
    flow = scene.flow(active=False, second=True)
    level = flow.data
    join = wanted_join(flow)
    flow.send(SYN, options=[Mss(1400), SackPermitted(), join])
    assert level.stack_key
    flow.drain()


def wanted_join(flow: FuzzPeer) -> Emits:
    """The peer's proper MP_JOIN."""
    return MpJoinSyn(False, 1, keys.token(flow.data.stack_key), flow.local_nonce)


def fallen_back(scene: Scene) -> None:
    """Plain TCP because the SYN/ACK had no MP_CAPABLE."""
    peer = scene.first
    scene.connection = scene.wire.stack.connect(peer.address, peer.port)
    scene.wire.known[scene.connection] = None
    peer.expect()
    peer.send(SYN | ACK, options=[Mss(1400), WindowScale(3)])
    peer.wscale = 3
    scene.talk()


def infinite(scene: Scene) -> None:
    """The peer has declared the infinite mapping (RFC 8684 §3.7)."""
    scene.open()
    peer = scene.first
    scene.talk()
    checksum = 0 if scene.variant.checksum else None
    peer.send(
        ACK,
        data=b"plain",
        options=[peer.dss(dsn=peer.data.nxt, ssn=peer.nxt, length=0, checksum=checksum)],
    )
    peer.mptcp = False


def failed(scene: Scene) -> None:
    """The peer has said MP_FAIL (RFC 8684 §3.7)."""
    scene.open()
    scene.talk()
    peer = scene.first
    dsn = (peer.data.stack_idsn + 1) & (1 << 64) - 1
    peer.send(ACK, options=[peer.dss(data_ack=1), MpFail(dsn)])


def fast_closed(scene: Scene) -> None:
    """The stack has aborted: MP_FASTCLOSE was sent (RFC 8684 §3.5)."""
    scene.open()
    scene.second()
    assert scene.connection is not None
    scene.connection.abort()


def orphaned(scene: Scene) -> None:
    """No subflow is left; the connection waits for one (break before make)."""
    scene.open(active=False)
    scene.talk()
    scene.wire.stack.interface_down(scene.wire.now, 1)


def half_read(scene: Scene) -> None:
    """Data with holes on both levels, over two subflows; nothing is read."""
    scene.open(active=False)
    flow = scene.joined()
    checksum = scene.variant.checksum
    for peer, dsn, ssn in ((scene.first, 2000, 1), (flow, 1000, 1), (flow, 4000, 500)):
        data = bytes(400)
        peer.send(ACK, seq=ssn, data=data, options=[mapped(peer, dsn, ssn, data, checksum)])


def retransmitting(scene: Scene) -> None:
    """Two subflows, nothing acknowledged for two seconds: time-outs and reinjection."""
    scene.open()
    scene.second()
    assert scene.connection is not None
    scene.connection.send(bytes(20_000))
    scene.wire.pass_time(seconds(2))


def closed_with_data(scene: Scene) -> None:
    """The application has closed; data and the DATA_FIN are on their way on two subflows."""
    scene.open(active=False)
    scene.joined()
    assert scene.connection is not None
    scene.connection.send(bytes(6000))
    scene.connection.close()


CLOSING: Final = ("FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT")


def _plain(state: Callable[..., None]) -> Callable[[Scene], None]:
    def plain(scene: Scene) -> None:
        state(scene, False)

    plain.__doc__ = f"{(state.__doc__ or '').rstrip('.')}, plain TCP."
    return plain


STATES: Final[tuple[tuple[str, Callable[[Scene], None], bool], ...]] = (
    ("LISTEN", listen, True),
    ("SYN-SENT", syn_sent, True),
    ("SYN-SENT plain", syn_sent, False),
    ("SYN-RECEIVED", syn_received, True),
    ("SYN-RECEIVED plain", _plain(syn_received), False),
    ("ESTABLISHED plain", established, False),
    ("ESTABLISHED", mptcp, True),
    ("unconfirmed", unconfirmed, True),
    *((f"{name} plain", closing_state(name, False), False) for name in CLOSING),
    *((name, closing_state(name, True), True) for name in CLOSING),
    ("two subflows", two_subflows, True),
    ("two subflows, joined by the peer", two_joined, True),
    ("join sent", join_sent, True),
    ("join unconfirmed", join_unconfirmed, True),
    ("join received", join_received, True),
    ("fallback", fallen_back, True),
    ("infinite mapping", infinite, True),
    ("MP_FAIL received", failed, True),
    ("FASTCLOSE sent", fast_closed, True),
    ("no subflow left", orphaned, True),
    ("holes on both levels", half_read, True),
    ("retransmitting", retransmitting, True),
    ("closed with data", closed_with_data, True),
)
"""(name, how to get there, whether the stack speaks MPTCP)."""
EARLY: Final = 5
"""So many of them come before ESTABLISHED."""


def scene_in(state: int, variant: int) -> Scene:
    """A stack in that state, the attack yet to come."""
    number = state % len(STATES)
    _, reach, with_mptcp = STATES[number]
    scene = Scene(Variant(variant), early=number < EARLY, mptcp=with_mptcp)
    wire = scene.wire
    reach(scene)
    for flow in scene.flows:
        flow.wild = True
        flow.drain()
        if scene.variant.plain:
            flow.mptcp = False
    wire.flush()
    wire.judge()
    return scene
