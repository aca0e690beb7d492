"""The checklist of RFC 8684: every row has a test, and docs/rfc8684.md says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rfc8684 import marks, table, written
from tests.rfc8684_rows import ROWS

EXPECTED = {"I": 19, "J": 8, "D": 18, "A": 8, "F": 12}


def test_the_rows_are_all_there() -> None:
    """I1 to I19, J1 to J8, D1 to D18, A1 to A8, F1 to F12, each once, in order."""
    wanted = [f"{letter}{n}" for letter, last in EXPECTED.items() for n in range(1, last + 1)]
    assert [row.id for row in ROWS] == wanted


def test_every_row_has_a_test() -> None:
    """A row without a test is a promise that nobody checks; an unknown one is a slip."""
    named = {mark.row for mark in marks()}
    rows = {row.id for row in ROWS}
    assert sorted(rows - named) == []
    assert sorted(named - rows) == []


def test_the_document_is_up_to_date() -> None:
    """`python -m tests.rfc8684` was run after the last change."""
    assert written() == table()


def test_kernel_tests_are_where_the_kernel_is() -> None:
    """Only a test of tests/interop, or one of the conformance scripts, has a kernel to ask."""
    for mark in marks():
        if mark.kernel:
            assert mark.path.split("/")[0] in ("interop", "conformance"), mark


@pytest.mark.parametrize("source", ["@pytest.mark.row(X)", "@pytest.mark.row('I1', other=1)"])
def test_a_marker_that_cannot_be_read(tmp_path: Path, source: str) -> None:
    """A marker with anything but literals is an error, not a row that is left out."""
    (tmp_path / "test_it.py").write_text(f"{source}\ndef test_x() -> None: ...\n", encoding="utf-8")
    with pytest.raises((AssertionError, ValueError)):
        list(marks(tmp_path))
