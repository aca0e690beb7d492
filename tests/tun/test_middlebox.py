"""Middleboxes of the first kind: what they do to options, addresses and numbers, packet by packet.

The segments that come out are read by the stack's parser, which verifies every checksum.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from mptcp.tun.middlebox import BoxSpec, TcpPacket, box_spec, boxes, make_box, make_chain
from mptcp.wire.tcp import ACK, FIN, RST, SYN, Segment
from tests.tun.boxes import (
    CAPABLE,
    PORT_A,
    TIMESTAMPS,
    box,
    dss,
    open_flow,
    packet,
    passes,
    through,
)

WHOLE: dict[str, dict[str, Any]] = {
    "nat44": {"outside": ["10.0.0.9"]},
    "napt": {"outside": "10.0.0.9"},
    "rewrite": {"find": "a", "replace": "b"},
}
"""Parameters that have no default."""


def has_mptcp(segment: Segment) -> bool:
    return bool(segment.mptcp) or segment.dss is not None


@pytest.mark.parametrize("name", sorted(boxes))
def test_every_box_is_made_by_name_and_lets_strangers_be(name: str) -> None:
    """By its name and plain values, also after a way through JSON; what is no IP packet at all does
    not upset it, and a TCP segment whose checksum is wrong never leaves it repaired (RFC 9293
    §3.1)."""
    spec = box_spec(name, **WHOLE.get(name, {}))
    made = make_box(BoxSpec(**json.loads(json.dumps(asdict(spec)))), seed=3)
    for rubbish in (b"", b"\x45", bytes(60), b"\x60" + bytes(59), packet(b"x")[:30]):
        out = made.process(0, rubbish, True)
        assert out in ([(True, rubbish)], [])
    broken = bytearray(packet(b"data"))
    broken[-1] ^= 1
    assert made.process(0, bytes(broken), True) == []


@pytest.mark.parametrize(
    ("name", "parameters", "complaint"),
    [
        ("tracebox", {}, "no middlebox 'tracebox'"),
        ("strip", {"of": 3}, "no parameter 'of'"),
        ("strip", {"on": "fin"}, "on = 'fin'"),
        ("strip", {"direction": "up"}, "direction = 'up'"),
        ("strip", {"kind": 1}, "kind = 1"),
        ("napt", {}, "outside"),
        ("napt", {"outside": "::1"}, "no IPv4 address"),
        ("napt", {"outside": "10.0.0.9", "first_port": 9, "last_port": 8}, "last_port = 8"),
        ("napt", {"outside": "10.0.0.9", "idle_us": True}, "idle_us = True"),
        ("nat44", {"outside": "10.0.0.9"}, "a list of"),
        ("nat44", {"outside": ["10.0.0.9", "10.0.0.9"]}, "twice"),
        ("rewrite", {"find": "", "replace": ""}, "1 to 256"),
        ("rewrite", {"find": 3, "replace": ""}, "no text"),
        ("coalesce", {"hold_us": 0}, "hold_us = 0"),
        ("pep", {"buffer": 1.5}, "buffer = 1.5"),
    ],
)
def test_bad_configurations(name: str, parameters: dict[str, Any], complaint: str) -> None:
    """What is unknown, missing or out of range is refused in words, before any packet."""
    with pytest.raises(ValueError, match=complaint):
        box_spec(name, **parameters)


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_not_touched_goes_on_as_it_came(family: int) -> None:
    """Reading and writing keep every byte: numbers, options, payload, both families (RFC 791 §3.1,
    RFC 8200 §3)."""
    ends: dict[str, Any] = {} if family == 4 else {"a": "fd00::1", "b": "fd00::2"}
    options = (b"\1", b"\1", TIMESTAMPS, dss(1, 5), b"\1", b"\1")
    raw = packet(b"hello", seq=0xFFFFFFFF, ack=3, flags=ACK | FIN, options=options, **ends)
    copy = TcpPacket.read(raw)
    assert copy is not None
    assert copy.intact
    assert copy.copy().write() == raw
    assert copy.end == 5


@pytest.mark.parametrize(
    ("on", "stripped"),
    [
        ("all", (True, True, True)),
        ("syn", (True, False, False)),
        ("syn-ack", (False, True, False)),
        ("syns", (True, True, False)),
        ("non-syn", (False, False, True)),
    ],
)
def test_strip(on: str, stripped: tuple[bool, ...]) -> None:
    """RFC 8684 §6: options of kind 30 are taken from the chosen segments, TCP's own stay."""
    stripper = box("strip", on=on)
    options = (CAPABLE, TIMESTAMPS, b"\1", b"\1")
    for flags, gone in zip((SYN, SYN | ACK, ACK), stripped, strict=True):
        segment = through(stripper, packet(b"x", flags=flags, options=options))
        assert has_mptcp(segment) is not gone
        assert segment.ts_val == 1
        assert bytes(segment.payload) == b"x"


def test_strip_one_direction_and_later() -> None:
    """Only the way that is named, and only after the first segments of each flow."""
    stripper = box("strip", direction="backward", on="non-syn", after=1)
    raw = packet(b"x", options=(dss(1, 1),))
    back = packet(b"x", options=(dss(1, 1),), forward=False)
    other = packet(b"x", options=(dss(1, 1),), forward=False, port_a=9)
    assert has_mptcp(through(stripper, raw))
    assert has_mptcp(through(stripper, back, forward=False))
    assert not has_mptcp(through(stripper, back, forward=False))
    assert has_mptcp(through(stripper, other, forward=False))
    assert has_mptcp(through(stripper, raw))
    assert stripper.counters == {"stripped": 1}


def test_mss_is_clamped() -> None:
    """RFC 9293 §3.7.1: the announcement in a SYN is lowered, never raised, and nothing else."""
    clamp = box("mss", most=700)
    mss = bytes((2, 4, 5, 180))
    assert through(clamp, packet(flags=SYN, options=(mss,))).mss == 700
    assert through(clamp, packet(flags=SYN, options=(b"\2\4\1\0",))).mss == 256
    assert through(clamp, packet(b"x")).mss is None
    assert clamp.counters == {"clamped": 1}


def test_lose_dss_spares_other_subtypes() -> None:
    """RFC 8684 §3.7: only the DSS goes; MP_CAPABLE on data would pass."""
    loser = box("lose-dss", after=0)
    assert not has_mptcp(through(loser, packet(b"x", options=(dss(1, 1),))))
    assert has_mptcp(through(loser, packet(b"x", options=(CAPABLE,))))
    assert has_mptcp(through(loser, packet(flags=SYN, options=(CAPABLE,))))


def test_drop_syn() -> None:
    """RFC 8684 §6: SYNs with the option vanish or are refused; without it they pass."""
    silent, loud = box("drop-syn"), box("drop-syn", answer="rst")
    syn = packet(flags=SYN, seq=7, ack=0, options=(CAPABLE,))
    assert passes(silent, syn) == []
    assert through(silent, packet(flags=SYN, seq=7)).flags == SYN
    assert through(silent, packet(b"x", options=(CAPABLE,))).flags == ACK
    ((onward, answer),) = passes(loud, syn)
    # RFC 9293 §3.5.2: sequence number 0, the acknowledgement covers the SYN.
    assert (onward, answer.flags, answer.seq, answer.ack) == (False, RST | ACK, 0, 8)
    assert (answer.sport, answer.dport) == (80, PORT_A)


def test_watch() -> None:
    """RFC 8684 §3.6, §3.7: it counts what tells of trouble and leaves every byte."""
    watch = box("watch")
    fail = b"\x1e\x0c\x60\0" + bytes(8)
    packets = [
        packet(flags=RST, options=(b"\x1e\4\x80\6",)),
        packet(options=(fail,), forward=False),
        packet(b"x", options=(dss(1, 1),)),
    ]
    for raw in packets:
        assert watch.process(0, raw, True) == [(True, raw)]
    assert watch.counters == {"resets": 1, "reason 6": 1, "MP_FAIL": 1}


def test_rst_injection() -> None:
    """RFC 9293 §3.10.7.4: both ends get a RST whose number is exactly the one they expect next."""
    injector = box("rst", after=1)
    assert len(passes(injector, packet(b"one", seq=1, ack=9))) == 1
    data, to_receiver, to_sender = passes(injector, packet(b"two", seq=4, ack=9))
    assert bytes(data[1].payload) == b"two"
    assert (to_receiver[0], to_receiver[1].flags & RST, to_receiver[1].seq) == (True, RST, 7)
    assert (to_sender[0], to_sender[1].flags & RST, to_sender[1].seq) == (False, RST, 9)
    assert len(passes(injector, packet(b"three", seq=7, ack=9))) == 1


def test_nat44() -> None:
    """RFC 3022 §2: each inside address has one outside; nobody outside begins; idle ones end."""
    nat = box("nat44", outside=["10.0.0.9"], idle_us=1_000_000, stranger="rst")
    ((_, refused),) = passes(nat, packet(flags=SYN, b="10.0.0.9", forward=False), forward=False)
    assert refused.flags & RST
    out = through(nat, packet(b"x", options=(TIMESTAMPS,)))
    assert (out.src, out.sport) == (bytes((10, 0, 0, 9)), PORT_A)
    back = packet(b"y", a="10.0.0.9", forward=False)
    assert through(nat, back, forward=False, now=900_000).dst == bytes((10, 0, 0, 1))
    ((onward, answer),) = passes(nat, packet(a="10.0.0.7"), now=900_000)
    assert (onward, answer.flags) == (False, RST)  # the pool is used up
    assert through(nat, packet(a="10.0.0.7"), now=1_900_000).src == bytes((10, 0, 0, 9))
    assert nat.counters["expired"] == 1


def test_napt() -> None:
    """RFC 3022 §2.2, RFC 5382: one address, a port for each flow, made by SYNs only."""
    nat = box("napt", outside="10.0.0.9", first_port=700, last_port=701)
    assert passes(nat, packet(b"no SYN came")) == []
    ports = [through(nat, packet(flags=SYN, port_a=port)).sport for port in (1, 2)]
    assert sorted(ports) == [700, 701]
    assert passes(nat, packet(flags=SYN, port_a=3)) == []  # full
    back = packet(b"y", a="10.0.0.9", port_a=ports[1], forward=False)
    inside = through(nat, back, forward=False)
    assert (inside.dst, inside.dport) == (bytes((10, 0, 0, 1)), 2)
    stranger = packet(b"y", a="10.0.0.9", b="10.0.0.3", port_a=ports[1], forward=False)
    assert passes(nat, stranger, forward=False) == []
    assert nat.counters == {"strangers": 3, "full": 1}


@pytest.mark.parametrize("stranger", ["drop", "rst"])
def test_napt_forgets_idle_flows(stranger: str) -> None:
    """RFC 5382 §5: after the idle time the flow is gone: silence or a RST, either way."""
    nat = box("napt", outside="10.0.0.9", idle_us=2_000_000, stranger=stranger)
    port = through(nat, packet(flags=SYN)).sport
    assert len(passes(nat, packet(b"x", ack=5), now=1_999_999)) == 1
    late = passes(nat, packet(b"x", ack=5), now=4_000_000)
    back = packet(b"x", a="10.0.0.9", port_a=port, forward=False)
    later = passes(nat, back, forward=False, now=4_000_000)
    if stranger == "drop":
        assert late == later == []
        return
    assert [(onward, answer.flags, answer.seq) for onward, answer in late] == [(False, RST, 5)]
    assert later[0][1].flags == RST


def test_nat_translates_tcp_of_ipv4_only() -> None:
    """An untranslated packet would carry an inside address out."""
    nat = box("napt", outside="10.0.0.9")
    udp = bytearray(packet(b"x"))
    udp[9] = 17
    assert nat.process(0, bytes(udp), True) == []
    assert nat.process(0, packet(flags=SYN, a="fd00::1", b="fd00::2"), True) == []


def test_isn_rewriting() -> None:
    """RFC 8684 §6: numbers shift by a constant each way, modulo 2^32; SACK blocks fit too."""
    firewall = box("isn")
    syn = through(firewall, packet(flags=SYN, seq=100, ack=0))
    shift = syn.seq - 100 & 0xFFFFFFFF
    assert shift
    assert syn.ack == 0
    answer = packet(flags=SYN | ACK, seq=500, ack=syn.seq + 1 & 0xFFFFFFFF, forward=False)
    synack = through(firewall, answer, forward=False)
    assert synack.ack == 101
    back = synack.seq - 500 & 0xFFFFFFFF
    assert back != shift
    assert through(firewall, packet(b"x", seq=101, ack=501 + back)).ack == 501
    sack = bytes((5, 10)) + b"".join(
        (number + shift & 0xFFFFFFFF).to_bytes(4, "big") for number in (110, 120)
    )
    raw = packet(seq=501, ack=101 + shift & 0xFFFFFFFF, options=(b"\1", b"\1", sack), forward=False)
    acked = through(firewall, raw, forward=False)
    assert (acked.ack, acked.sack) == (101, ((110, 120),))
    assert through(firewall, packet(b"x", seq=9, port_a=5)).seq == 9  # its SYN was not seen


def test_rewrite_of_equal_length() -> None:
    """RFC 8684 §6, application-level boxes: other bytes, the same numbers, a right TCP checksum."""
    rewriter = box("rewrite", find="http", replace="gopr", direction="forward")
    open_flow(rewriter)
    assert bytes(through(rewriter, packet(b"http://http", seq=1)).payload) == b"gopr://gopr"
    untouched = through(rewriter, packet(b"http", forward=False), forward=False)
    assert bytes(untouched.payload) == b"http"
    assert rewriter.counters == {"edits": 2}


@pytest.mark.parametrize("replace", ["", "i", "internal"])
def test_alg(replace: str) -> None:
    """RFC 8684 §3.7: the length changes and the box fits all numbers to it, so that both TCPs
    agree; what is repeated, in other pieces too, is changed as it was at first."""
    alg = box("rewrite", find="10.1", replace=replace, direction="forward")
    start = 0xFFFFFFF8  # the numbers wrap on the way
    open_flow(alg, isn=start - 1)
    text = b"host 10.1 and 10.1 again"
    new = text.replace(b"10.1", replace.encode())
    first = through(alg, packet(text, seq=start))
    assert (first.seq, bytes(first.payload)) == (start, new)
    then = through(alg, packet(b"more", seq=start + len(text) & 0xFFFFFFFF))
    assert then.seq == start + len(new) & 0xFFFFFFFF
    for cut in range(1, len(text)):
        left = through(alg, packet(text[:cut], seq=start))
        right = through(alg, packet(text[cut:], seq=start + cut & 0xFFFFFFFF))
        assert left.seq == start
        # Together they cover the new text; where they overlap they agree.
        offset = right.seq - start & 0xFFFFFFFF
        assert offset <= len(left.payload)
        assert bytes(left.payload) == new[: len(left.payload)]
        assert bytes(right.payload) == new[offset:]
    fin = through(alg, packet(seq=start + len(text) + 4 & 0xFFFFFFFF, flags=ACK | FIN))
    assert fin.seq == start + len(new) + 4 & 0xFFFFFFFF

    def acked(number: int) -> int:
        raw = packet(ack=start + number & 0xFFFFFFFF, forward=False)
        return through(alg, raw, forward=False).ack - start & 0xFFFFFFFF

    assert acked(len(new)) == len(text)
    assert acked(len(new) + 5) == len(text) + 5
    assert acked(3) == 3
    if len(replace) > 1:
        assert acked(5 + 1) == 5  # part of the new text: nothing of the old
    block = bytes((5, 10)) + b"".join(
        (start + number & 0xFFFFFFFF).to_bytes(4, "big") for number in (len(new), len(new) + 4)
    )
    raw = packet(ack=start, options=(b"\1", b"\1", block), forward=False)
    ((left_edge, right_edge),) = through(alg, raw, forward=False).sack
    assert (left_edge - start & 0xFFFFFFFF, right_edge - start & 0xFFFFFFFF) == (
        len(text),
        len(text) + 4,
    )


def test_alg_keeps_to_the_mtu() -> None:
    """What grows beyond the MTU goes in two segments that have the options, the FIN at the end."""
    alg = box("rewrite", find="x", replace="yyyy", mtu=600)
    open_flow(alg)
    raw = packet(b"x" * 50 + bytes(480), seq=1, flags=ACK | FIN, options=(dss(1, 530),))
    parts = [segment for _, segment in passes(alg, raw)]
    assert len(parts) == 2
    assert b"".join(bytes(part.payload) for part in parts) == b"yyyy" * 50 + bytes(480)
    assert parts[1].seq == 1 + len(parts[0].payload)
    assert [part.flags & FIN for part in parts] == [0, FIN]
    assert all(part.dss is not None for part in parts)


def test_chain() -> None:
    """Boxes in a row: forward through the first first, backward through the last first; what one
    sends back goes through those before it."""
    chain = make_chain(
        [box_spec("isn"), box_spec("drop-syn", answer="rst"), box_spec("strip")], seed=1
    )
    syn = packet(flags=SYN, seq=7, ack=0, options=(CAPABLE,))
    ((onward, answer),) = passes(chain, syn)
    # The first box has shifted the SYN's number, and shifts the refusal's back.
    assert (onward, answer.flags & RST, answer.ack) == (False, RST, 8)
    assert chain.boxes[1].counters == {"dropped": 1}
    assert "stripped" not in chain.boxes[2].counters
