"""A packet corrupted upstream of a TUN device with offload: dropped, counted, and life goes on.

The device marks a packet of this machine as unchecked-but-right; one from the wire comes without
that mark, and its checksum must be verified whatever the device can do.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

import pytest
from scapy.utils import checksum

from tests.interop.lab import lab
from tests.interop.script import Script
from tests.interop.test_transfers import bad_counters

pytestmark = pytest.mark.netns

ETH_P_ALL: Final = 3
ETHERNET: Final = 14
PIECE: Final = 1000


def right_checksum(packet: bytes, family: int) -> int:
    """The TCP checksum that the IP packet should have."""
    start = 20 if family == 4 else 40
    addresses = packet[12:20] if family == 4 else packet[8:40]
    segment = packet[start : start + 16] + b"\0\0" + packet[start + 18 :]
    pseudo = addresses + struct.pack("!II", len(segment), socket.IPPROTO_TCP)
    return int(checksum(pseudo + segment))


def corrupted_successor(frame: bytes, family: int, flip: int = 0x5555) -> bytes:
    """The segment that follows `frame` in its connection, with a checksum off by `flip`."""
    start = 20 if family == 4 else 40
    packet = bytearray(frame[ETHERNET:])
    sequence = struct.unpack_from("!I", packet, start + 4)[0]
    struct.pack_into("!I", packet, start + 4, (sequence + PIECE) & 0xFFFFFFFF)
    packet[-PIECE:] = bytes(255 - byte for byte in packet[-PIECE:])
    wrong = right_checksum(bytes(packet), family) ^ flip
    struct.pack_into("!H", packet, start + 16, wrong)
    return frame[:ETHERNET] + bytes(packet)


def last_data_frame(sniffer: socket.socket) -> bytes:
    """The last frame the far kernel has sent that ends with a piece of data."""
    found = b""
    while True:
        try:
            frame, where = sniffer.recvfrom(1 << 16)
        except BlockingIOError:
            break
        if where[2] == socket.PACKET_OUTGOING and len(frame) > ETHERNET + PIECE:
            found = frame
    assert found, "no data frame was seen"
    return found


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("offload", [True, False], ids=["offload", "plain"])
def test_a_corrupted_packet(family: int, offload: bool) -> None:
    theirs: Script = [["send", PIECE], ["gate"], ["send", PIECE], ["eof"], ["until_eof"]]
    ours: Script = [["receive", PIECE], ["gate"], ["receive", PIECE], ["exchange", PIECE]]
    with (
        lab(family) as network,
        network.far.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as sniffer,
        network.kernel("server", theirs) as peer,
    ):
        sniffer.bind(("w1", ETH_P_ALL))
        sniffer.setblocking(False)
        with network.node("client", ours, offload=offload) as node:
            for program in (node, peer):
                program.expect("gate")
            sniffer.send(corrupted_successor(last_data_frame(sniffer), family))
            for program in (peer, node):
                program.go_on()
            near, far = node.result(), peer.result()
    assert near["counters"]["TcpInCsumErrors"] == 1
    assert bad_counters(near["counters"]) == {}
    assert (near["error"], far["error"]) == (None, None)
    assert (near["received"], near["received_digest"]) == (2 * PIECE, far["sent_digest"])
    assert (far["received"], far["received_digest"]) == (PIECE, near["sent_digest"])
    assert not near["info"]["fallback"]
