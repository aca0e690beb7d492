"""docs/interop.md: what is tried with a Linux kernel as the other end, and by which tests.

    python -m tests.interop.matrix        # writes the table anew

A row is a feature; the tests of each direction are named by file and function, and those in
`WITNESSED` files have tshark read every packet. `tests/test_interop_matrix.py` compares.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
DOCUMENT: Final = FOLDER.parents[1] / "docs" / "interop.md"
BEGIN: Final = "<!-- table: made by python -m tests.interop.matrix -->"


@dataclass(frozen=True, slots=True)
class Row:
    """A feature and the tests that show it, as "file: test"."""

    feature: str
    section: str
    """Of RFC 8684 unless another is named."""
    ours: tuple[str, ...]
    """What our side asks for or does."""
    kernels: tuple[str, ...]
    """What the kernel's side asks for or does."""


ROWS: Final = (
    Row(
        "transfer, one and two paths, IPv4 and IPv6",
        "3.1-3.3",
        ("transfers: with_the_kernel", "capture: tshark_finds_no_fault"),
        ("transfers: with_the_kernel", "capture: tshark_finds_no_fault"),
    ),
    Row(
        "IPv4 and IPv6 in one connection",
        "3.2",
        ("transfers: with_the_kernel",),
        ("transfers: with_the_kernel",),
    ),
    Row(
        "checksums asked for",
        "3.3.1",
        ("matrix_opening: checksums",),
        ("matrix_opening: checksums",),
    ),
    Row(
        "MP_FASTCLOSE",
        "3.5",
        ("endings: we_reset",),
        ("endings: the_kernel_resets",),
    ),
    Row(
        "MP_JOIN",
        "3.2",
        ("matrix_opening: syn_cookies_of_the_kernel", "joins: full_mesh_to_the_kernel"),
        ("joins: the_kernel_joins_from_its_second_address",),
    ),
    Row(
        "backup by MP_JOIN's B flag",
        "3.2",
        ("matrix_backup: we_join_a_backup", "matrix_backup: a_backup_carries_on"),
        ("matrix_backup: the_kernel_joins_a_backup",),
    ),
    Row(
        "backup by MP_PRIO",
        "3.3.8",
        ("matrix_backup: we_say_backup_later",),
        ("matrix_backup: the_kernel_says_backup_later",),
    ),
    Row(
        "ADD_ADDR",
        "3.4.1",
        ("capture: tshark_finds_no_fault",),
        ("joins: an_address_that_comes_before_the_first_dss", "capture: tshark_finds_no_fault"),
    ),
    Row(
        "ADD_ADDR with a port",
        "3.4.1",
        ("matrix_addresses: we_announce_a_port",),
        ("matrix_addresses: the_kernel_announces_a_port",),
    ),
    Row(
        "an address removed in mid-transfer",
        "3.4.2",
        ("matrix_addresses: we_lose_an_address_mid_transfer",),
        (
            "matrix_addresses: the_kernel_loses_an_address_mid_transfer",
            "joins: the_kernel_withdraws_an_address",
        ),
    ),
    Row(
        "full mesh",
        "3.2",
        ("joins: full_mesh_to_the_kernel",),
        ("matrix_addresses: the_kernels_full_mesh",),
    ),
    Row(
        "Fast Open with MPTCP",
        "App. B, RFC 7413",
        ("opening: data_in_our_syn",),
        ("opening: data_in_the_kernels_syn",),
    ),
    Row(
        "SYN cookies",
        "RFC 4987",
        ("matrix_opening: our_syn_cookies", "opening: the_kernel_connects_through_a_syn_cookie"),
        ("matrix_opening: syn_cookies_of_the_kernel",),
    ),
    Row(
        "C flag",
        "3.1",
        ("matrix_opening: we_forbid_joins_to_our_first_address",),
        ("matrix_opening: the_kernel_forbids_joins_to_its_first_address",),
    ),
)


def functions_of(file: Path) -> list[str]:
    """The test functions of a file, without their prefix."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [
        node.name.removeprefix("test_")
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    ]


def witnessed(name: str) -> bool:
    """Whether tshark reads what the tests of a file put on the wire."""
    text = (FOLDER / f"test_{name}.py").read_text(encoding="utf-8")
    return "witnessed" in text or "complaints(" in text or "_ws.malformed" in text


def table() -> str:
    """The table as Markdown."""
    lines = [
        "| feature | RFC 8684 § | we ask or do it | the kernel asks or does it | tshark |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        files = {entry.partition(":")[0] for entry in row.ours + row.kernels}
        seen = "yes" if any(witnessed(name) for name in files) else ""
        lines.append(
            f"| {row.feature} | {row.section} | {_cell(row.ours)} | {_cell(row.kernels)} | {seen} |"
        )
    return "\n".join(lines) + "\n"


def _cell(entries: tuple[str, ...]) -> str:
    return "; ".join(f"`{entry}`" for entry in entries)


def written() -> str:
    """The table as it stands in the document."""
    return DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].lstrip("\n")


if __name__ == "__main__":
    text = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[0]
    DOCUMENT.write_text(f"{text}{BEGIN}\n\n{table()}", encoding="utf-8")
