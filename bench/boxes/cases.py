"""The middlebox table: what stands where, and what RFC 8684 asks of the two ends.

What is expected was read in the RFC, before anything was run; `asks` says where. A case is a
transfer in both directions at once over one path or two, with boxes on one of them. Box's "forward"
begins at side A, and either side may be the one that connects, as far as the boxes let it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import Final

from mptcp.tun.middlebox import BoxSpec, box_spec

PORT: Final = 5001
RATE_BPS: Final = 20_000_000
DELAY_US: Final = 5_000
SIZE: Final = 300_000
"""Bytes each side sends."""
WORD: Final = "internal.example"
EQUAL: Final = "external.example"
LONGER: Final = "the-outside.example"
SHORTER: Final = "out.example"
SKIP: Final = 60_000
"""Bytes or, divided by 1000, segments that pass before a box begins: both subflows are up then."""
PAUSE_S: Final = 3.0
"""Silence in the middle, where a case has one."""
IDLE_US: Final = 1_000_000
"""What a NAT's patience is then."""


class Outcome(Enum):
    """What became of the connection. Where one subflow is reset or not joined, MPTCP goes on."""

    KEPT = "MPTCP kept"
    FELL_BACK = "TCP"
    RESET = "subflow reset"
    NOT_JOINED = "not joined"
    REVIVED = "joined anew"


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    key: str
    boxes: tuple[BoxSpec, ...]
    expected: tuple[Outcome, ...]
    asks: str
    """What RFC 8684 asks, with the section."""
    paths: int = 1
    boxed: int = 1
    """The path with the boxes; 2 is joined, if `paths` is 2."""
    checksum: bool = False
    changed: tuple[str, str] | None = None
    """(what, by what): the applications get this instead of what was sent, as behind TCP."""
    pause: bool = False
    """Both sides rest for `PAUSE_S` in the middle."""
    loss: float = 0.0
    """Of the boxed path, both directions."""
    openers: str = "ab"
    """The sides that may connect."""
    kernel: bool = True
    """Whether the kernel is run against it too; `why_not` says why it is not."""
    why_not: str = ""
    reason: int | None = None
    """MP_TCPRST's reason code that the RFC wants with the reset."""

    @property
    def label(self) -> str:
        """The boxes as people write them."""
        words = []
        for box in self.boxes:
            given = ", ".join(f"{name}={value}" for name, value in box.parameters.items())
            words.append(f"{box.name}({given})" if given else box.name)
        where = "" if self.paths == 1 else f" on path {self.boxed} of 2"
        return f"{' + '.join(words)}{where}{', DSS checksum' if self.checksum else ''}"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Who sends how much: the client (who connects) and the server."""

    name: str
    up: int
    down: int
    answers: bool = False
    """The server waits for all of the client's before it sends."""


TRAFFIC: Final = (
    Traffic("both", SIZE, SIZE),
    Traffic("up", SIZE, 0),
    Traffic("down", 0, SIZE),
    Traffic("request", 500, SIZE, answers=True),
)
"""Both at once first: the others are for what goes one way."""


def content(seed: int, size: int = SIZE) -> bytes:
    """What a side sends: bytes without structure, the word every 5,000 or so."""
    rng = random.Random(f"content {seed}")
    pieces, length = [], 0
    while length < size:
        piece = rng.randbytes(rng.randrange(4000, 6000)) + WORD.encode()
        pieces.append(piece)
        length += len(piece)
    return b"".join(pieces)[:size]


def same(case: Case, sent: bytes, got: bytes) -> bool:
    """Whether `got` is what had to arrive: all bytes of `sent`, changed by the box at most."""
    if case.changed is None:
        return got == sent
    old, new = (text.encode() for text in case.changed)
    changed = got != sent or len(sent) < SIZE
    return got.replace(old, new) == sent.replace(old, new) and changed


_KEPT: Final = (Outcome.KEPT,)
_TCP: Final = (Outcome.FELL_BACK,)
_RESET: Final = (Outcome.RESET,)
_NOT_JOINED: Final = (Outcome.NOT_JOINED,)

_FIRST: Final = "§3.1, §6: no MP_CAPABLE in a SYN: regular TCP"
_DATA: Final = "§3.7: no option on regular packets of the first subflow: regular TCP"
_JOIN: Final = "§3.2, §6: no MP_JOIN: the subflow fails, the connection does not"
_JOINED: Final = "§3.7: an ACK of data without DSS on a joined subflow: RST, reason 6"

CASES: Final = (
    Case("strip-syn", (box_spec("strip", on="syn"),), _TCP, _FIRST),
    Case("strip-syn-ack", (box_spec("strip", on="syn-ack"),), _TCP, _FIRST),
    Case("strip-all", (box_spec("strip"),), _TCP, _FIRST),
    Case(
        "strip-syns-one-way",
        (box_spec("strip", on="syns", direction="forward"),),
        _TCP,
        _FIRST,
    ),
    Case("mss", (box_spec("mss", most=900),), _KEPT, "§6: smaller segments are nothing special"),
    Case("strip-non-syn", (box_spec("strip", on="non-syn"),), _TCP, _DATA),
    Case(
        "strip-non-syn-one-way",
        (box_spec("strip", on="non-syn", direction="forward"),),
        _TCP,
        _DATA,
    ),
    Case(
        "drop-syn",
        (box_spec("drop-syn"),),
        _TCP,
        "§3.1, §3.9.3: SYNs with MP_CAPABLE are not answered: regular TCP",
    ),
    Case(
        "nat44",
        (box_spec("nat44", outside=["10.0.1.77"]),),
        _KEPT,
        "§6: NATs: MPTCP works",
        openers="a",
    ),
    Case(
        "napt",
        (box_spec("napt", outside="10.0.1.77"),),
        _KEPT,
        "§6: NATs: MPTCP works",
        openers="a",
    ),
    Case(
        "napt-join",
        (box_spec("napt", outside="10.0.2.77"),),
        _KEPT,
        "§6: addresses are added by MP_JOIN, whatever their number",
        paths=2,
        boxed=2,
        openers="a",
    ),
    Case("isn", (box_spec("isn"),), _KEPT, "§6: ISN randomisation: the SSN is relative"),
    Case(
        "isn-both",
        (box_spec("isn"),),
        _KEPT,
        "§6: ISN randomisation: the SSN is relative",
        paths=2,
        boxed=2,
    ),
    Case("split", (box_spec("split"),), _KEPT, "§6: options copied to both halves: harmless"),
    Case(
        "split-first",
        (box_spec("split", options="first"),),
        _KEPT,
        "§6, §3.3.1: the mapping covers the other half",
    ),
    Case(
        "coalesce",
        (box_spec("mss", most=700), box_spec("coalesce", skip=SKIP // 1000)),
        (Outcome.KEPT, Outcome.RESET),
        "§6: goes on while mappings cover the data, else the subflow is closed",
        paths=2,
        kernel=False,
        why_not="Linux 6.18 may deliver the half without a mapping, in the wrong place",
    ),
    Case(
        "rewrite",
        (box_spec("rewrite", find=WORD, replace=EQUAL),),
        _KEPT,
        "§3.7: without a checksum nothing tells: as behind TCP",
        changed=(WORD, EQUAL),
    ),
    Case(
        "rewrite-checksum",
        (box_spec("rewrite", find=WORD, replace=EQUAL),),
        _TCP,
        "§3.7: one subflow, wrong checksum: MP_FAIL, regular TCP",
        checksum=True,
        changed=(WORD, EQUAL),
    ),
    Case(
        "alg-longer",
        (box_spec("rewrite", find=WORD, replace=LONGER),),
        _TCP,
        "§3.7: one subflow, wrong checksum: MP_FAIL, regular TCP",
        checksum=True,
        changed=(WORD, LONGER),
    ),
    Case(
        "alg-shorter",
        (box_spec("rewrite", find=WORD, replace=SHORTER),),
        _TCP,
        "§3.7: one subflow, wrong checksum: MP_FAIL, regular TCP",
        checksum=True,
        changed=(WORD, SHORTER),
    ),
    Case(
        "rewrite-two-paths",
        (box_spec("rewrite", find=WORD, replace=EQUAL, skip=SKIP),),
        _RESET,
        "§3.7: several subflows, wrong checksum: RST with MP_FAIL, data elsewhere",
        paths=2,
        checksum=True,
    ),
    Case(
        "alg-two-paths",
        (box_spec("rewrite", find=WORD, replace=LONGER),),
        _RESET,
        "§3.7: several subflows, wrong checksum: RST with MP_FAIL, data elsewhere",
        paths=2,
        boxed=2,
        checksum=True,
    ),
    Case("pep", (box_spec("pep"),), _TCP, "§6, §3.7: ACKs of data without DSS: regular TCP"),
    Case(
        "pep-first",
        (box_spec("pep"),),
        (Outcome.FELL_BACK, Outcome.RESET),
        "§3.7: ACKs of data without DSS: regular TCP, with other subflows a RST",
        paths=2,
    ),
    Case("pep-join", (box_spec("pep"),), _RESET, _JOINED, paths=2, boxed=2, reason=6),
    Case(
        "no-holes",
        (box_spec("no-holes"),),
        _KEPT,
        "§6: normalizers: looks like TCP to them",
        loss=0.01,
    ),
    Case(
        "no-holes-two-paths",
        (box_spec("no-holes"),),
        _KEPT,
        "§3.3.6, §6: the data is sent again on its own subflow too",
        paths=2,
        loss=0.01,
    ),
    Case(
        "normalise",
        (box_spec("normalise", replay=5),),
        _KEPT,
        "§6: what is sent again is the same data",
        loss=0.01,
    ),
    Case(
        "lose-dss",
        (box_spec("lose-dss", after=SKIP // 1000),),
        _RESET,
        "§3.7: options vanish in mid-life: RST, reason 6; the others go on",
        paths=2,
        reason=6,
    ),
    Case(
        "rst",
        (box_spec("rst", after=SKIP // 1000),),
        _RESET,
        "§4: a RST ends its subflow only",
        paths=2,
    ),
    Case(
        "rst-only-path",
        (box_spec("rst", after=SKIP // 1000),),
        (Outcome.REVIVED,),
        "§3.3.3, appendix D: break before make",
        kernel=False,
        why_not="the kernel opens no subflow again by itself",
    ),
    Case(
        "idle-nat",
        (box_spec("napt", outside="10.0.1.77", idle_us=IDLE_US, stranger="rst"),),
        _RESET,
        "§4: a RST ends its subflow only",
        paths=2,
        pause=True,
        openers="a",
    ),
    Case(
        "idle-nat-silent",
        (box_spec("napt", outside="10.0.1.77", idle_us=IDLE_US),),
        (Outcome.KEPT, Outcome.RESET),
        "§3.3.6: what a subflow does not deliver goes on another",
        paths=2,
        pause=True,
        openers="a",
    ),
    Case("join-strip-syn", (box_spec("strip", on="syn"),), _NOT_JOINED, _JOIN, paths=2, boxed=2),
    Case(
        "join-strip-syn-ack",
        (box_spec("strip", on="syn-ack"),),
        _NOT_JOINED,
        _JOIN,
        paths=2,
        boxed=2,
    ),
    Case(
        "join-strip-all",
        (box_spec("strip"),),
        _NOT_JOINED,
        _JOIN,
        paths=2,
        boxed=2,
    ),
    Case("join-drop-syn", (box_spec("drop-syn"),), _NOT_JOINED, _JOIN, paths=2, boxed=2),
    Case(
        "join-strip-non-syn",
        (box_spec("strip", on="non-syn"),),
        (Outcome.RESET, Outcome.NOT_JOINED),
        "§3.2: no HMAC in the third ACK: RST",
        paths=2,
        boxed=2,
    ),
    Case(
        "join-strip-one-way",
        (box_spec("strip", on="non-syn", direction="backward"),),
        (Outcome.RESET, Outcome.NOT_JOINED),
        "§3.7: data or ACKs without DSS on a joined subflow: RST, reason 6",
        paths=2,
        boxed=2,
    ),
)
