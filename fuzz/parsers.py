"""The target `wire`: every parser of bytes from the network, alone.

Invariants
  * A parser returns, or raises `ParseError`.
  * What a parser makes of an option, emitted and parsed again, is the same.
  * Fragments and merged segments come apart and together within their bounds.
"""

from __future__ import annotations

import contextlib
from typing import Final

from fuzz.harness import Violation
from fuzz.operations import mend
from fuzz.reader import Reader
from mptcp.wire.dss import Dss
from mptcp.wire.errors import ParseError
from mptcp.wire.fragments import Reassembler
from mptcp.wire.icmp import IcmpKind, echo_reply, packet_too_big, parse_icmp, unreachable
from mptcp.wire.ip import IpHeader, parse_ip
from mptcp.wire.mptcp_options import RemoveAddr, parse_mptcp_option
from mptcp.wire.segmentation import split_tcp
from mptcp.wire.tcp import parse_segment

MOST_FRAGMENTS: Final = 4096
"""Bytes that the reassembler may hold here."""


def packet(data: bytes) -> None:
    """A packet as a device hands it in, its checksums mended: through every parser there is."""
    mendable = bytearray(data)
    mend(mendable)
    view = memoryview(bytes(mendable))
    for quoted in (False, True):
        try:
            ip = parse_ip(view, quoted=quoted)
        except ParseError:
            continue
        if not ip.offset <= ip.end <= len(view):
            raise Violation(f"{ip} lies outside of its {len(view)} bytes")
        for parse in (parse_icmp, _segment):
            with contextlib.suppress(ParseError):
                parse(view, ip)
        if not quoted and ip.offset + 4 <= ip.end:
            echo_reply(view, ip)
    source = bytes(4) if view[:1].hex().startswith("4") else bytes(16)
    for answer in (
        lambda: packet_too_big(view, 1280, source),
        lambda: unreachable(view, source, IcmpKind.PORT_UNREACHABLE),
        lambda: split_tcp(view, 100),
    ):
        with contextlib.suppress(ParseError):
            answer()


def _segment(view: memoryview, ip: IpHeader) -> None:
    seg = parse_segment(view, ip, verify_checksum=True)
    if len(seg.payload) > ip.end - ip.offset - 20:
        raise Violation(f"more payload than packet: {seg}")


def option(data: bytes) -> None:
    """One MPTCP option: parsed, emitted, parsed again."""
    whole = bytes((30, len(data) + 2)) + data
    try:
        value = parse_mptcp_option(whole)
    except ParseError:
        return
    if value is None or (isinstance(value, RemoveAddr) and len(value.address_ids) > 37):
        return
    again = parse_mptcp_option(value.emit())
    if again != value and not isinstance(value, Dss):
        raise Violation(f"{value} became {again}")
    if isinstance(value, Dss) and repr(again) != repr(value):
        raise Violation(f"{value} became {again}")


def fragments(data: bytes) -> None:
    """Pieces of packets, one after another, to one reassembler with little room."""
    reader = Reader(data)
    reassembler = Reassembler(MOST_FRAGMENTS)
    now = 0
    while reader:
        now += reader.u8() << 16
        size = reader.u8()
        piece = bytearray(reader.take(size))
        mend(piece)
        view = memoryview(bytes(piece))
        try:
            ip = parse_ip(view)
            if not ip.is_fragment:
                continue
            whole = reassembler.add(now, view, ip)
            if whole is not None:
                parse_ip(memoryview(whole))
        except ParseError:
            pass
        reassembler.expire(now)
    reassembler.expire(now + 3600_000_000)
    if len(reassembler) or reassembler.next_deadline() is not None:
        raise Violation("the reassembler keeps something for ever")


def run(data: bytes) -> None:
    """Play an input. Raises `Violation`, or whatever escapes a parser."""
    kind, rest = data[:1], data[1:]
    if not kind:
        return
    if kind[0] < 0x60:
        packet(rest)
    elif kind[0] < 0xC0:
        option(rest[:253])
    else:
        fragments(rest)
