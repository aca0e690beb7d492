"""The scenarios of the subflow heuristics: short files (thesis fig. 5.13), opening and closing."""

from __future__ import annotations

import json
from pathlib import Path

from mptcp.bench import cli


def medians(name: str, folder: Path) -> dict[str, float]:
    """Of a quick run, which also draws its picture."""
    assert cli.main(["run", name, "--quick", "--plot", str(folder)]) == 0
    assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    document = json.loads((folder / f"{name}.json").read_text())
    return {row["key"]: row["median"] for row in document["scenarios"][0]["rows"]}


def test_short_files(tmp_path: Path) -> None:
    """Thesis fig. 5.13: 9 packets take no longer than TCP, 250 kB much less."""
    found = medians("short-files", tmp_path)
    assert found["lan-default-12852"] < 1.05 * found["lan-tcp-12852"]
    assert found["lan-default-250000"] < 0.8 * found["lan-tcp-250000"]
    assert found["lan-default-250000"] <= found["lan-slow-start-250000"]


def test_a_harmful_path_is_closed(tmp_path: Path) -> None:
    """Thesis §4.6: removing a subflow of much delay increases the aggregate where the buffer is
    small."""
    found = medians("heuristics", tmp_path)
    assert found["slow-close-costly"] > 0.9 * found["slow-alone"]
    assert found["slow-close-costly"] >= found["slow-at-once"]
    for rule in ("close-share", "default"):
        assert found[f"slow-{rule}"] > 0.95 * found["slow-alone"]
        assert found[f"slow-{rule}"] > found["slow-at-once"]
