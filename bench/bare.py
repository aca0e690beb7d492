"""The bare loop: two Python processes, each with one TUN device, that only write and read.

No protocol: one prepared TCP chunk of 44 segments, written over and over, and read and counted at
the other end. It is what no stack in Python on this machine can exceed; what the reader gets
counts, and what the writer was too fast for is dropped by the kernel.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from mptcp.tun.device import F_NEEDS_CSUM, GSO_TCPV4, VNET_HDR, VNET_HDR_LEN, TunDevice
from mptcp.tun.interface import configure_interface

from .meter import Meter
from .registry import BenchError
from .topology import MTU, Side, address

if TYPE_CHECKING:
    from .nodes import Arguments

IP_HEADER: Final = 20
TCP_HEADER: Final = 32  # with timestamps, as data has
SEGMENT: Final = MTU - IP_HEADER - TCP_HEADER
SEGMENTS: Final = 44  # the most that fit into 64 KiB
QUEUE: Final = 4000  # packets; the reader is to be the limit, not the queue
_PATIENCE_S: Final = 5.0


def _open(side: Side) -> TunDevice:
    device = TunDevice("t1", mtu=MTU, offload=True)
    if not device.offload:
        raise BenchError("this kernel gives TUN devices no offload")
    configure_interface("t1", addresses=[f"10.{int(side)}.1.1/24"], txqueuelen=QUEUE)
    return device


def _headers() -> bytes:
    """IPv4 and TCP header of the chunk; the TCP checksum field holds the pseudo-header's sum."""
    source, destination = (socket.inet_aton(address(side, 1)) for side in Side)
    total = IP_HEADER + TCP_HEADER + SEGMENTS * SEGMENT
    pack = struct.Struct("!BBHHHBBH4s4s").pack
    ip = pack(0x45, 0, total, 0, 0x4000, 64, 6, 0, source, destination)
    checksum = -int.from_bytes(ip, "big") % 0xFFFF
    ip = pack(0x45, 0, total, 0, 0x4000, 64, 6, checksum, source, destination)
    pseudo = struct.pack("!4s4sHH", source, destination, 6, total - IP_HEADER)
    partial = int.from_bytes(pseudo, "big") % 0xFFFF
    tcp = struct.pack("!HHIIBBHHH", 1000, 2000, 0, 1, 0x80, 0x10, 65535, partial, 0)
    return ip + tcp + b"\1" * (TCP_HEADER - 20)


def send(args: Arguments) -> None:
    """Write until killed: nobody answers."""
    with _open(Side.A) as device:
        header = _headers()
        payload = memoryview(bytes(SEGMENTS * SEGMENT))
        vnet = VNET_HDR.pack(F_NEEDS_CSUM, GSO_TCPV4, len(header), SEGMENT, IP_HEADER, 16)
        write = device.write
        deadline = time.perf_counter() + args.warmup + args.seconds + _PATIENCE_S
        while time.perf_counter() < deadline:
            for _ in range(256):
                write(vnet, [header, payload])


def receive(args: Arguments) -> None:
    """Read and count."""
    from .nodes import say

    meter = Meter(args.warmup, args.seconds)
    overhead = VNET_HDR_LEN + IP_HEADER + TCP_HEADER
    with _open(Side.B) as device:
        poll = select.epoll()
        poll.register(device.fileno(), select.EPOLLIN)
        read = device.read
        say({"ready": True})
        while not meter.done:
            if not poll.poll(_PATIENCE_S):
                raise BenchError("no packet came through")
            while not meter.done and (packet := read()) is not None:
                if packet[VNET_HDR_LEN] == 0x45:  # not the kernel's own IPv6 greetings
                    meter.add(len(packet) - overhead)
        poll.close()
    say(meter.result)
