"""docs/conformance.md tells every difference between ours and the kernel."""

from __future__ import annotations

from tests.conformance.table import table, written


def test_document_is_up_to_date() -> None:
    """Write it with `python -m tests.conformance.table`."""
    assert written() == table()
