"""Two hosts of ours behind every box of the table: the outcome is the RFC's, every byte arrives."""

from __future__ import annotations

import pytest

from mptcp.bench.boxes.cases import CASES, TRAFFIC, Case, same
from mptcp.bench.boxes.simulated import run


@pytest.mark.row("D15", "F5", "F6", "F7", "F8", "I16", "I17", "J7")
@pytest.mark.parametrize("case", CASES, ids=[case.key for case in CASES])
def test_case(case: Case) -> None:
    """RFC 8684 §3.1, §3.2, §3.7, §6: `case.asks` has the section; whoever connects, whoever sends.

    The box must have had something to do, else the row proves nothing.
    """
    acted = False
    for opener in case.openers:
        for traffic in TRAFFIC:
            result = run(case, opener, traffic)
            told = f"{case.key} opened by {opener}, {traffic.name}: {result}"
            assert result.trouble == "", told
            assert result.met(case), told
            acted = acted or all(result.counters) or case.boxes[0].name in ("isn", "nat44", "napt")
    assert acted


def test_the_judge_of_contents() -> None:
    """What counts as whole: every byte, changed by the box's words at most and by them indeed."""
    plain = next(case for case in CASES if case.key == "split")
    changed = next(case for case in CASES if case.key == "alg-longer")
    assert changed.changed is not None
    old, new = (text.encode() for text in changed.changed)
    sent = bytes(400_000) + old + b"end"
    assert same(plain, sent, sent)
    assert not same(plain, sent, sent[:-1])
    assert same(changed, sent, sent.replace(old, new))
    assert not same(changed, sent, sent)
    assert not same(changed, sent, sent.replace(old, new)[:-1])
