"""The code in docs/simulator.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import mptcp.sim
from mptcp.sim import Simulation, Sink

GUIDE = Path(__file__).parents[2] / "docs" / "simulator.md"


def blocks() -> list[str]:
    """The Python blocks of the guide."""
    return re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def start() -> dict[str, Any]:
    """What a block may take for granted: two hosts and the names of `mptcp.sim`."""
    sim = Simulation(seed=1)
    known = {name: getattr(mptcp.sim, name) for name in mptcp.sim.__all__}
    return {**known, "sim": sim, "a": sim.host("a"), "b": sim.host("b")}


def test_the_thirty_lines(capsys: pytest.CaptureFixture[str]) -> None:
    code = blocks()[0]
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["sink"].received == 5_000_000
    assert capsys.readouterr().out.startswith(str(names["sim"].now))


def test_the_routers() -> None:
    names = start()
    exec(blocks()[1], names)
    sim, a, b = names["sim"], names["a"], names["b"]
    sink = Sink(b)
    mptcp.sim.Bulk(a, "10.0.3.1", size=10_000)
    assert sim.run(5_000_000, until=lambda: sink.received == 10_000)


def test_the_middlebox() -> None:
    names = start()
    exec(blocks()[2], names)
    sim, a, b = names["sim"], names["a"], names["b"]
    b.stack.listen(80)
    connection = a.stack.connect("10.0.0.2", 80)
    assert sim.run(1_000_000, until=lambda: connection.established)


def test_the_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "captures").mkdir()
    names = {**start(), "done": lambda: False}
    with pytest.raises(AssertionError):
        exec(blocks()[3], names)
    assert (tmp_path / "captures" / "two-paths-seed-1.pcapng").exists()
