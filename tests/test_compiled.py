"""The compiled core: when it is used, and that it does what its sources do."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from mptcp import compiled

ROOT = Path(__file__).parent.parent


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package whose core was compiled after its sources were written."""
    package = tmp_path / "mptcp"
    for name in (*(f"{name}.py" for name in compiled.MODULES), "tcp/rtt.py", "wire/tcp.py"):
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (1000, 1000))
    library = tmp_path / "build" / "compiled" / f"{compiled.GROUP}__mypyc{EXTENSION_SUFFIXES[0]}"
    library.parent.mkdir(parents=True)
    library.touch()
    os.utime(library, (2000, 2000))
    return package


@pytest.fixture
def search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undoes what `use` does to sys.path, and starts without a wish."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("MPTCP_COMPILED", raising=False)


@pytest.mark.usefixtures("search_path")
def test_used_while_no_source_is_newer(tree: Path) -> None:
    """It goes before the sources; one edited source, and the sources run."""
    path = [str(tree)]
    compiled.use(path)
    assert path == [str(tree.parent / "build" / "compiled" / "mptcp"), str(tree)]
    assert sys.path[-1] == str(tree.parent / "build" / "compiled")
    os.utime(tree / "tcp" / "rtt.py", (3000, 3000))
    path = [str(tree)]
    compiled.use(path)
    assert path == [str(tree)]


@pytest.mark.usefixtures("search_path")
def test_a_new_source_counts(tree: Path) -> None:
    """A module that was not there when the core was compiled."""
    (tree / "tcp" / "new.py").touch()
    path = [str(tree)]
    compiled.use(path)
    assert path == [str(tree)]


@pytest.mark.usefixtures("search_path")
def test_what_the_environment_says(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0: never. 1: an error rather than the sources, which says what to do."""
    monkeypatch.setenv("MPTCP_COMPILED", "0")
    path = [str(tree)]
    compiled.use(path)
    assert path == [str(tree)]
    monkeypatch.setenv("MPTCP_COMPILED", "1")
    compiled.use(path)
    assert len(path) == 2
    os.utime(tree / "stack.py", (3000, 3000))
    with pytest.raises(ImportError, match="make compiled"):
        compiled.use([str(tree)])


RUN = """
import hashlib, io, mptcp.compiled
from mptcp.sim import Simulation
from mptcp.sim.apps import Bulk, Sink
sim = Simulation(seed=5)
a, b = sim.host("a", congestion_control="{controller}"), sim.host("b")
for path, loss in ((1, 0.01), (2, 0.001)):
    sim.connect(
        a, f"10.0.{{path}}.1/24", b, f"10.0.{{path}}.2/24", rate_bps=5_000_000,
        delay_us=10_000 * path, queue_bytes=40_000, loss=loss, reorder=0.02, reorder_us=9_000,
    )
Sink(b)
Bulk(a, "10.0.1.2")
file = io.BytesIO()
sim.capture(file)
sim.run(10_000_000)
print(mptcp.compiled.is_compiled(), len(file.getvalue()))
print(hashlib.sha256(file.getvalue()).hexdigest(), sorted(a.stack.counters.items()))
"""


@pytest.mark.parametrize("controller", ["lia", "cubic"])
def test_the_same_packets_as_from_the_sources(controller: str) -> None:
    """Ten seconds of a bulk transfer over two lossy paths, down to the last bit and microsecond."""
    if not compiled.is_compiled():
        pytest.skip("nothing is compiled: make compiled")
    lines = []
    for wish in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", RUN.format(controller=controller)],
            env={**os.environ, "MPTCP_COMPILED": wish},
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        lines.append(done.stdout.splitlines())
    (first, source), (second, translated) = lines
    assert (first.split()[0], second.split()[0]) == ("False", "True")
    assert int(first.split()[1]) > 5_000_000
    assert source == translated
