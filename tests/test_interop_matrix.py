"""The interop matrix: its tests exist, all are in it, the document is current."""

from __future__ import annotations

from tests.interop.matrix import FOLDER, ROWS, functions_of, table, witnessed, written


def test_the_tests_exist() -> None:
    """A row names tests by file and function."""
    for row in ROWS:
        assert row.kernels, row.feature
        for entry in row.ours + row.kernels:
            file, _, name = entry.partition(": ")
            names = functions_of(FOLDER / f"test_{file}.py")
            assert any(found.startswith(name) for found in names), entry


def test_every_test_of_the_matrix_is_in_it() -> None:
    """And tshark reads what it puts on the wire."""
    named = {entry for row in ROWS for entry in row.ours + row.kernels}
    for path in FOLDER.glob("test_matrix_*.py"):
        file = path.stem.removeprefix("test_")
        assert witnessed(file)
        for name in functions_of(path):
            assert any(f"{file}: {name}".startswith(entry) for entry in named), (file, name)


def test_the_document_is_up_to_date() -> None:
    """`python -m tests.interop.matrix` was run after the last change."""
    assert written() == table()
