"""Our stack and the kernel's MPTCP with a box of the emulator between them, each connecting."""

from __future__ import annotations

import pytest

from mptcp.bench.boxes.cases import CASES
from mptcp.bench.boxes.emulated import run

pytestmark = pytest.mark.netns


@pytest.mark.row("I17", "I18", "F5", "F7", kernel=True)
@pytest.mark.parametrize("ours", ["a", "b"], ids=["we connect", "the kernel connects"])
@pytest.mark.parametrize(
    "key", ["strip-syn", "drop-syn", "strip-non-syn", "napt-join", "rewrite-checksum"]
)
def test_case(key: str, ours: str) -> None:
    """RFC 8684 §3.1, §3.7, §6: as `Case.asks` says; every byte arrives."""
    (case,) = [case for case in CASES if case.key == key]
    result = run(case, ours)
    assert result.trouble == "", result
    assert result.met(case), result
    assert all(result.counters) or key == "napt-join", result
