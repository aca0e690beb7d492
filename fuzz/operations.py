"""What an input can do to a scene: segments of every kind, ICMP, fragments, time, the application.

An operation is one byte, then what it reads. `run` plays an input from its first byte to the rules
that hold at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fuzz.forge import Draft, options
from fuzz.harness import FuzzPeer
from fuzz.reader import Reader
from fuzz.states import Scene, scene_in
from mptcp.errors import MptcpError
from mptcp.meta_socket import MetaSocket
from mptcp.stack import Offload
from mptcp.wire.checksum import ones_sum, pseudo_sum
from mptcp.wire.errors import ParseError
from mptcp.wire.icmp import IcmpKind, packet_too_big, unreachable
from mptcp.wire.ip import ICMP, ICMPV6, TCP, ip_header, parse_ip
from mptcp.wire.tcp import ACK, FIN, PSH, RST, SYN, URG, HeaderTemplate

MASK32: Final = 0xFFFFFFFF
LONGEST: Final = 60
"""Operations of one input."""
FLAGS: Final = (ACK, ACK, ACK | PSH, ACK | FIN, RST, RST | ACK, SYN, SYN | ACK, ACK | URG, 0, FIN)
TIMES: Final = (
    1, 100, 1_000, 40_000, 200_000, 500_000, 1_000_000, 3_000_000, 10_000_000, 61_000_000,
    130_000_000, 300_000_000, 7_300_000_000,
)  # fmt: skip
"""Microseconds."""
KINDS: Final = tuple(kind for kind in IcmpKind if kind.name != "PARAMETER_PROBLEM")


def forge(reader: Reader, peer: FuzzPeer) -> bytes:
    """A segment of the flow, its numbers near the right ones, its checksums right."""
    control, numbers = reader.u8(), reader.u8()
    flags = FLAGS[control % len(FLAGS)] if control < 0xC0 else reader.u8()
    seq = peer.nxt if not flags & SYN else 0
    match numbers & 7:
        case 1 | 2:
            seq += reader.delta()
        case 3:
            seq = peer.right_edge + reader.delta()
        case 4:
            seq = peer.stack_ack + reader.delta()
        case 5:
            seq = reader.u32()
    ack = 0
    if flags & ACK:
        ack = peer.stack_end
        match numbers >> 3 & 7:
            case 1 | 2:
                ack += reader.delta()
            case 3:
                ack = 1
            case 4:
                ack = reader.u32()
    window = reader.u16() if numbers & 64 else 65535
    size = reader.size() if numbers & 128 else 0
    data = bytes(size)
    draft = Draft(peer, seq & MASK32, data)
    opts = options(reader, draft)
    if not opts and peer.mptcp and not flags & (SYN | RST):
        opts = peer.dss(data_ack=peer.data.data_ack).emit()
        opts += b"\1" * (-len(opts) % 4)
    template = HeaderTemplate(peer.address, peer.local, peer.port, peer.local_port or 32768)
    size = min(size, 65535 - 60 - len(opts))
    data = data[:size]
    header = template.build(
        peer.isn + seq & MASK32,
        peer.stack_isn + ack & MASK32 if flags & ACK else 0,
        flags,
        window,
        opts,
        len(data),
        tos=control & 3,
    )
    if URG & flags:
        at = (20 if len(peer.local) == 4 else 40) + 18
        header[at : at + 2] = reader.u16().to_bytes(2, "big")
    template.finish_checksum(header, [data])
    if numbers & 7 == 0 and not flags & RST:
        end = seq + len(data) + (flags & FIN) + (flags >> 1 & 1)
        peer.nxt = max(peer.nxt, end)
    return bytes(header) + data


def mend(packet: bytearray) -> None:
    """Make the checksums of a packet right where its headers make sense."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        size = (packet[0] & 15) << 2
        if 20 <= size <= len(packet):
            packet[10:12] = b"\0\0"
            packet[10:12] = (-ones_sum(packet[:size]) % 0xFFFF).to_bytes(2, "big")
    try:
        ip = parse_ip(memoryview(packet))
    except ParseError:
        return
    place = {TCP: 16, ICMP: 2, ICMPV6: 2}.get(ip.protocol)
    if ip.is_fragment or place is None or ip.end - ip.offset < place + 2:
        return
    at = ip.offset + place
    packet[at : at + 2] = b"\0\0"
    total = ones_sum(packet[ip.offset : ip.end])
    if ip.protocol != ICMP:
        total += pseudo_sum(ip.src, ip.dst, ip.protocol, ip.end - ip.offset)
    packet[at : at + 2] = (-total % 0xFFFF).to_bytes(2, "big")


# -- operations ----------------------------------------------------------------------------------


def _flow(scene: Scene, reader: Reader) -> FuzzPeer:
    return scene.flows[reader.u8() % len(scene.flows)]


def segment(scene: Scene, reader: Reader) -> None:
    """A forged segment."""
    peer = _flow(scene, reader)
    scene.wire.attack(forge(reader, peer), peer.interface)


def merged(scene: Scene, reader: Reader) -> None:
    """A forged segment that the device says it has merged, its checksum unverified."""
    peer = _flow(scene, reader)
    offload = Offload(True, reader.u16(), reader.u8() & 1 != 0)
    scene.wire.attack(forge(reader, peer), peer.interface, offload)


def mutated(scene: Scene, reader: Reader) -> None:
    """A forged segment with some bytes changed, its checksums made right again or not."""
    peer = _flow(scene, reader)
    packet = bytearray(forge(reader, peer))
    control = reader.u8()
    for _ in range(1 + (control & 3)):
        packet[reader.u8() % len(packet)] = reader.u8()
    if control & 4:
        del packet[-1 - reader.u8() % (len(packet) - 1) :]
    if control & 8 == 0:
        mend(packet)
    scene.wire.attack(bytes(packet), peer.interface)


def again(scene: Scene, reader: Reader) -> None:
    """An old packet of the peer again, or one of the stack's own, as it is or turned round."""
    wire = scene.wire
    control = reader.u8()
    kept = wire.sent if control & 1 else wire.injected
    if not kept:
        return
    packet = bytearray(kept[-1 - reader.u8() % len(kept)])
    if control & 2 and len(packet) >= 24 and packet[0] == 0x45:
        packet[12:16], packet[16:20] = packet[16:20], packet[12:16]
        packet[20:22], packet[22:24] = packet[22:24], packet[20:22]
    if control & 4:
        packet[reader.u8() % len(packet)] ^= reader.u8()
    mend(packet)
    wire.attack(bytes(packet), 1 + (control >> 3 & 1))


def raw(scene: Scene, reader: Reader) -> None:
    """Bytes as they are in the input, the checksums made right or not."""
    control = reader.u8()
    packet = bytearray(reader.take(reader.u8() | (control & 7) << 8))
    if control & 8 == 0:
        mend(packet)
    if packet:
        scene.wire.attack(bytes(packet), 1 + (control >> 4 & 1))


def fragments(scene: Scene, reader: Reader) -> None:
    """A forged segment in pieces, in any order, some of them twice or overlapping."""
    peer = _flow(scene, reader)
    packet = forge(reader, peer)[:3000]
    ip = parse_ip(memoryview(packet), quoted=True)
    body = packet[ip.offset :]
    control = reader.u8()
    step = 8 * (1 + reader.u8() % 64)
    pieces = [(at, body[at : at + step]) for at in range(0, len(body), step)][:50]
    if control & 1:
        pieces.reverse()
    if control & 2:
        pieces.append(pieces[0])
    if control & 4 and len(pieces) > 1:
        at, part = pieces[1]
        pieces.append((max(0, at - 8), part))
    if control & 8:
        pieces.pop()
    for at, part in pieces:
        last = at + len(part) >= len(body) and not control & 16
        scene.wire.attack(fragment(peer, packet, at, part, last), peer.interface)


def fragment(peer: FuzzPeer, packet: bytes, at: int, part: bytes, last: bool) -> bytes:
    """One piece of a packet."""
    if len(peer.address) == 16:
        extension = bytes((TCP, 0)) + (at | (not last)).to_bytes(2, "big") + b"\0\0\0\7"
        return ip_header(peer.address, peer.local, 44, 8 + len(part)) + extension + part
    head = bytearray(packet[:20])
    head[2:4] = (20 + len(part)).to_bytes(2, "big")
    head[4:8] = b"\0\7" + (at // 8 | (0 if last else 0x2000)).to_bytes(2, "big")
    whole = head + part
    mend(whole)
    return bytes(whole)


def icmp(scene: Scene, reader: Reader) -> None:
    """An error of a router about a packet of the stack, true or forged; or an echo request."""
    wire = scene.wire
    control = reader.u8()
    if not wire.sent:
        return
    quoted = bytearray(wire.sent[-1 - reader.u8() % len(wire.sent)])
    if control & 1:
        quoted[reader.u8() % len(quoted)] = reader.u8()
    if control & 2:
        del quoted[28 + reader.u8() :]
    router = bytes([10, 0, 0, 254]) if quoted[0] >> 4 == 4 else b"\xfd" + bytes(15)
    kind = KINDS[(control >> 2) % len(KINDS)]
    try:
        if kind is IcmpKind.PACKET_TOO_BIG:
            error = packet_too_big(memoryview(quoted), reader.u16(), router)
        else:
            error = unreachable(memoryview(quoted), router, kind)
    except ValueError:  # ParseError too: nobody could have said it
        return
    if error is not None:
        wire.attack(error)


def clock(scene: Scene, reader: Reader) -> None:
    """Time passes."""
    scene.wire.pass_time(TIMES[reader.u8() % len(TIMES)])


def _connection(scene: Scene, reader: Reader) -> MetaSocket | None:
    known = list(scene.wire.known)
    return known[reader.u8() % len(known)] if known else None


def application(scene: Scene, reader: Reader) -> None:
    """A call of the program that owns a connection."""
    wire = scene.wire
    connection = _connection(scene, reader)
    if connection is None:
        return
    call = reader.u8()
    try:
        match call % 10:
            case 0 | 1:
                connection.send(bytes(reader.size()))
            case 2 | 3:
                connection.recv(reader.size())
            case 4:
                connection.shutdown()
            case 5:
                connection.close()
            case 6:
                connection.abort()
            case 7:
                connection.options.keepalive(idle_us=10_000_000, interval_us=1_000_000, count=3)
            case 8:
                connection.options.user_timeout(5_000_000, advertise=True)
            case 9:
                connection.options.buffers(receive=4096 << (call >> 4), send=1 << 18)
    except (MptcpError, ValueError):
        pass  # told to the program, which goes on
    wire.flush()
    if connection.ended is not None:
        # The program ended it: it is told nothing that it does not know.
        wire.known[connection] = connection.ended
    wire.judge()


def host(scene: Scene, reader: Reader) -> None:
    """Interfaces come and go, the MTU changes, a connection is opened."""
    wire = scene.wire
    stack = wire.stack
    call = reader.u8()
    interface = wire.interfaces[call >> 4 & 1]
    up = interface.id in stack.book.interfaces
    match call & 3:
        case 0 if up:
            stack.interface_down(wire.now, interface.id)
        case 1 if not up:
            stack.interface_up(wire.now, interface)
        case 2 if up:
            stack.mtu_changed(wire.now, interface.id, 1280 + reader.u16() % 8000)
        case 3 if len(wire.known) < 4:
            peer = scene.first
            try:
                new = stack.connect(peer.address, peer.port, data=b"first", fast_open=call & 8 != 0)
                wire.known[new] = None
                scene.flow(active=True).wild = True
            except MptcpError:
                pass  # no route: the interface is down
    wire.flush()
    wire.judge()


OPERATIONS: Final[tuple[Callable[[Scene, Reader], None], ...]] = (
    segment, segment, segment, segment, mutated, merged, again, raw,
    fragments, icmp, clock, clock, application, application, host, segment,
)  # fmt: skip
"""By the low nibble in the input."""


def operate(scene: Scene, reader: Reader) -> None:
    """One operation."""
    OPERATIONS[reader.u8() & 15](scene, reader)


def run(data: bytes) -> Scene:
    """Play an input: state, variant, operations, and the rules. Raises `Violation`, or whatever
    escapes the stack."""
    reader = Reader(data)
    scene = scene_in(reader.u8(), reader.u8())
    for _ in range(LONGEST):
        if not reader:
            break
        operate(scene, reader)
    scene.wire.finish()
    return scene
