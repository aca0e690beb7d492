"""Boxes that take offence at options they do not know (RFC 8684 §6)."""

from __future__ import annotations

import random
from typing import Final

from .base import Box, FlowTable, OneWay, Segments, check_choice, check_range, register
from .packet import ACK, DSS, MP_FAIL, MP_TCPRST, MPTCP, MSS, RST, SYN, TcpPacket

_ALL: Final = ("all", "syn", "syn-ack", "syns", "non-syn")


def _is_one_of(segment: TcpPacket, on: str) -> bool:
    """Whether a segment is of the kind that `on` names."""
    syn = segment.flags & SYN
    match on:
        case "all":
            return True
        case "syn":
            return bool(syn) and not segment.flags & ACK
        case "syn-ack":
            return bool(syn and segment.flags & ACK)
        case "syns":
            return bool(syn)
        case _:
            return not syn


@register
class StripOptions(OneWay):
    """Overwrites options of a kind with no-operations and passes the rest."""

    name = "strip"

    def __init__(
        self,
        *,
        rng: random.Random,
        direction: str = "both",
        on: str = "all",
        kind: int = MPTCP,
        after: int = 0,
    ) -> None:
        """`on`: "all" segments, "syn" (without ACK), "syn-ack", "syns" (either), "non-syn".

        The first `after` such segments of each flow and direction keep theirs (0 to 2^31).
        """
        super().__init__(rng=rng, direction=direction)
        check_choice("on", on, _ALL)
        check_range("kind", kind, 2, 255)
        check_range("after", after, 0, 1 << 31)
        self._on, self._kind, self._after = on, kind, after
        self._subtypes: tuple[int, ...] = ()
        self._seen: FlowTable[dict[bool, int]] = FlowTable(dict)

    def act(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """See `OneWay`."""
        if _is_one_of(segment, self._on) and segment.has(self._kind):
            if self._after:
                seen = self._seen.entry(segment.flow(forward))
                seen[forward] = seen.get(forward, 0) + 1
                if seen[forward] <= self._after:
                    return [(forward, segment)]
            if segment.remove(self._kind, self._subtypes):
                self.count("stripped")
        return [(forward, segment)]


@register
class LoseDss(StripOptions):
    """Passes a flow's options at first and strips the DSS later, as after a change of route."""

    name = "lose-dss"

    def __init__(self, *, rng: random.Random, direction: str = "both", after: int = 20) -> None:
        """The first `after` segments with an MPTCP option that are no SYNs keep them."""
        super().__init__(rng=rng, direction=direction, on="non-syn", after=after)
        self._subtypes = (DSS,)


@register
class DropSyns(OneWay):
    """Drops SYNs, with or without ACK, that carry an option of a kind; may answer with a RST."""

    name = "drop-syn"

    def __init__(
        self,
        *,
        rng: random.Random,
        direction: str = "both",
        on: str = "syns",
        kind: int = MPTCP,
        answer: str = "none",
    ) -> None:
        """`on`: "syn", "syn-ack" or "syns"; `answer`: "none" or "rst" (to whoever sent it)."""
        super().__init__(rng=rng, direction=direction)
        check_choice("on", on, ("syn", "syn-ack", "syns"))
        check_choice("answer", answer, ("none", "rst"))
        check_range("kind", kind, 2, 255)
        self._on, self._kind, self._answer = on, kind, answer

    def act(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """See `OneWay`."""
        if not _is_one_of(segment, self._on) or not segment.has(self._kind):
            return [(forward, segment)]
        self.count("dropped")
        if self._answer == "none":
            return []
        if segment.flags & ACK:
            return [(not forward, segment.answer(RST, segment.ack, 0))]
        return [(not forward, segment.answer(RST | ACK, 0, segment.end))]


@register
class ClampMss(OneWay):
    """Lowers the MSS that SYNs announce, as access routers do."""

    name = "mss"

    def __init__(self, *, rng: random.Random, direction: str = "both", most: int = 1400) -> None:
        """`most`: 64 to 65535 bytes."""
        super().__init__(rng=rng, direction=direction)
        check_range("most", most, 64, 65535)
        self._most = most

    def act(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """See `OneWay`."""
        if segment.flags & SYN:
            for place, option in enumerate(segment.options):
                if option[0] == MSS and int.from_bytes(option[2:4], "big") > self._most:
                    segment.options[place] = option[:2] + self._most.to_bytes(2, "big")
                    self.count("clamped")
        return [(forward, segment)]


@register
class Watch(Box):
    """Changes nothing and counts what tells of trouble: resets and their reasons, MP_FAILs."""

    name = "watch"

    def segment(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """See `Box`: "resets", "reason N" of MP_TCPRST (RFC 8684 §3.6), "MP_FAIL" (§3.7)."""
        if segment.flags & RST:
            self.count("resets")
        for option in segment.options:
            if option[0] == MPTCP and len(option) > 3:
                if option[2] >> 4 == MP_TCPRST:
                    self.count(f"reason {option[3]}")
                elif option[2] >> 4 == MP_FAIL:
                    self.count("MP_FAIL")
        return [(forward, segment)]


@register
class InjectRst(OneWay):
    """Sends RSTs in both ends' names once a flow has sent enough, as censors do."""

    name = "rst"

    def __init__(
        self, *, rng: random.Random, direction: str = "both", after: int = 20, to: str = "both"
    ) -> None:
        """At the segment with data after the first `after` ones of a flow, once (0 to 2^31).

        `direction`: whose data counts; `to`: "both", "sender" or "receiver" of that segment, which
        goes on ahead of its RST.
        """
        super().__init__(rng=rng, direction=direction)
        check_range("after", after, 0, 1 << 31)
        check_choice("to", to, ("both", "sender", "receiver"))
        self._after, self._to = after, to
        self._seen: FlowTable[list[int]] = FlowTable(lambda: [0])

    def act(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """See `OneWay`."""
        outputs = [(forward, segment)]
        flow = segment.flow(forward)
        if segment.flags & SYN:
            self._seen.drop(flow)
        if not segment.payload:
            return outputs
        seen = self._seen.entry(flow)
        seen[0] += 1
        if seen[0] != self._after + 1:
            return outputs
        self.count("resets")
        if self._to != "sender":
            reset = segment.copy()
            reset.seq, reset.flags = segment.end, RST | ACK
            reset.options, reset.payload = [], b""
            outputs.append((forward, reset))
        if self._to != "receiver":
            outputs.append((not forward, segment.answer(RST, segment.ack, 0)))
        return outputs
