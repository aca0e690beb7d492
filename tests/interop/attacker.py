"""An attacker on the road of an interop test: scapy's packets, through a TUN device of its own.

    python -m tests.interop.attacker SPEC

SPEC (JSON): `attacks` (names in `ATTACKS`), `host` and `port` of the attacked stack, `peer` (the
kernel at the other end), `wire` (the device between them, where it reads along).

It reads the last segments of the transfer from the wire, writes forged packets for the stack to its
device, turn about, and goes on until a line comes; then it reports how many of each it has sent.
"""

from __future__ import annotations

import contextlib
import json
import random
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP
from scapy.packet import Packet, Raw

from mptcp.tun.device import VNET_HDR_NONE, TunDevice
from mptcp.tun.interface import configure_interface
from tests.interop.script import say

MPTCP = 30
ETHERNET = 14
PAUSE_S = 0.0005
ROUNDS = 20
"""Of all attacks, before it says that it is at work."""


class Attacker:
    """What it has read, and what it makes of it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.host: str = spec["host"]
        self.port: int = spec["port"]
        self.peer: str = spec["peer"]
        self.random = random.Random(1)
        self.inward: TCP | None = None
        """The peer's last segment to the stack."""
        self.outward: TCP | None = None

    def read_along(self, frame: bytes) -> None:
        """A packet of the wire."""
        packet = IP(frame[ETHERNET:])
        if TCP not in packet:
            return
        if (packet.src, packet.dst) == (self.peer, self.host):
            self.inward = packet[TCP]
            # Where its data ends, for the next one would begin there.
            self.inward.end = packet.len - 4 * packet.ihl - 4 * packet[TCP].dataofs
        elif (packet.src, packet.dst) == (self.host, self.peer):
            self.outward = packet[TCP]

    def _number(self, distance: int) -> int:
        assert self.outward is not None
        return (int(self.outward.ack) + distance) & 0xFFFFFFFF

    def forged(self, flags: str, seq: int, options: list[tuple[int, bytes]], load: bytes) -> Packet:
        """A segment as from the peer; with the timestamps of its last one, as PAWS wants."""
        inward, outward = self.inward, self.outward
        assert inward is not None
        assert outward is not None
        stamps = [option for option in inward.options if option[0] == "Timestamp"]
        tcp = TCP(
            sport=inward.sport,
            dport=inward.dport,
            seq=seq,
            ack=outward.seq,
            flags=flags,
            window=inward.window,
            options=[*stamps, *options],
        )
        return IP(src=self.peer, dst=self.host) / tcp / Raw(load)

    # -- blind -------------------------------------------------------------------------------------

    def syn(self) -> Packet:
        """A SYN from somebody who is not there."""
        draw = self.random
        source = f"198.18.{draw.randrange(256)}.{draw.randrange(1, 255)}"
        options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (draw.getrandbits(32), 0))]
        tcp = TCP(sport=draw.randrange(1024, 65536), dport=self.port, seq=draw.getrandbits(32),
                  flags="S", options=[*options, (MPTCP, bytes((0x01, 0x81)))])  # fmt: skip
        return IP(src=source, dst=self.host) / tcp

    def join(self) -> Packet:
        """MP_JOIN with a token of no connection (RFC 8684 §3.2)."""
        packet = self.syn()
        packet[TCP].options = [(MPTCP, bytes((0x10, 1)) + self.random.randbytes(8))]
        return packet

    def blind_reset(self) -> Packet:
        return self.forged("R", self.random.getrandbits(32), [], b"")

    def blind_syn(self) -> Packet:
        return self.forged("S", self.random.getrandbits(32), [], b"")

    def blind_close(self) -> Packet:
        """MP_FASTCLOSE far outside the window."""
        option = (MPTCP, bytes((0x70, 0)) + self.random.randbytes(8))
        return self.forged("A", self._number(1 << 30), [option], b"")

    def blind_error(self) -> Packet:
        """An ICMP error about a segment that is not under way (RFC 5927 §4.1)."""
        return self._error(self.random.getrandbits(32), 3, 3)

    # -- reading along -----------------------------------------------------------------------------

    def window_reset(self) -> Packet:
        """In the window, but not its first number (RFC 5961 §3.2)."""
        return self.forged("R", self._number(20_000), [], b"")

    def close(self) -> Packet:
        """MP_FASTCLOSE in the window, with a key that is not the stack's."""
        option = (MPTCP, bytes((0x70, 0)) + self.random.randbytes(8))
        return self.forged("A", self._number(0), [option], b"")

    def address(self) -> Packet:
        """ADD_ADDR without the right HMAC (RFC 8684 §3.4.1)."""
        body = bytes((0x30, 77, 10, 9, 9, 9)) + self.random.randbytes(8)
        return self.forged("A", self._number(0), [(MPTCP, body)], b"")

    def data_ack(self) -> Packet:
        """A DATA_ACK of data that was never sent."""
        body = bytes((0x20, 0x03)) + self.random.randbytes(8)
        return self.forged("A", self._number(0), [(MPTCP, body)], b"")

    def bomb(self) -> Packet:
        """Options that make no sense."""
        return self.forged("A", self._number(0), [(253, self.random.randbytes(20))], b"")

    def error(self) -> Packet:
        """An ICMP error about a segment that is under way, perhaps (RFC 5927 §5.2)."""
        assert self.outward is not None
        return self._error(self.outward.seq, 3, 1)

    def _error(self, seq: int, kind: int, code: int) -> Packet:
        outward = self.outward
        assert outward is not None
        quoted = IP(src=self.host, dst=self.peer) / TCP(
            sport=outward.sport, dport=outward.dport, seq=seq, flags="A"
        )
        return IP(src="10.9.9.9", dst=self.host) / ICMP(type=kind, code=code) / quoted


ATTACKS: dict[str, Callable[[Attacker], Packet]] = {
    name: getattr(Attacker, name)
    for name in (
        *("syn", "join", "blind_reset", "blind_syn", "blind_close", "blind_error"),
        *("window_reset", "close", "address", "data_ack", "bomb", "error"),
    )
}


def attack(spec: dict[str, Any], device: TunDevice, tap: socket.socket) -> Counter[str]:
    """Attack until a line comes; how often."""
    attacker = Attacker(spec)
    names: list[str] = spec["attacks"]
    sent: Counter[str] = Counter()
    turn = 0
    said = False
    while not select.select([0], [], [], PAUSE_S)[0]:
        with contextlib.suppress(BlockingIOError):
            for _ in range(20):
                attacker.read_along(tap.recv(200))
        if attacker.inward is None or attacker.outward is None:
            continue
        name = names[turn % len(names)]
        packet = ATTACKS[name](attacker)
        sent[name] += device.write(VNET_HDR_NONE, [bytes(packet)])
        turn += 1
        if turn >= ROUNDS * len(names) and not said:
            said = True
            say("attacking")
    return sent


def main() -> None:
    """Run the specification of the command line."""
    spec = json.loads(sys.argv[1])
    started = time.monotonic()
    with TunDevice("evil", offload=False) as device:
        configure_interface("evil", addresses=["10.66.0.1/24"])
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)) as tap:
            tap.bind((spec["wire"], 0x0003))
            tap.setblocking(False)
            say("ready")
            sent = attack(spec, device, tap)
    say("done", sent=sent, seconds=time.monotonic() - started)


if __name__ == "__main__":
    main()
