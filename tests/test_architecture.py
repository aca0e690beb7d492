"""The rules of the design that imports can show: a core without I/O, layers that look down."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mptcp

ROOT = Path(mptcp.__file__).parent
TUN = ROOT.parent / "tun"

IO = {
    "asyncio",
    "uvloop",
    "time",
    "datetime",
    "random",
    "secrets",
    "socket",
    "logging",
    "threading",
    "os",
    "select",
    "selectors",
    "subprocess",
    "signal",
    "pytun",
    "pyroute2",
}
"""What only the engine and what lies above it may know."""

LAYERS = [
    {"wire", "errors"},
    {"config", "registry", "keys", "tcp"},
    {
        "addressing",
        "coupled_cc",
        "data_queues",
        "heuristics",
        "mapping",
        "path_manager",
        "reorder",
        "policies",
        "reorder_shortcuts",
        "reorder_variants",
        "retransmission",
        "retransmit_queue",
        "scheduler",
        "schedulers",
        "send_order",
        "timers",
        "unmapped",
        "wvegas",
    },
    {
        "blackholes",
        "buffers",
        "events",
        "delivery",
        "fallback",
        "monitor",
        "fastclose",
        "priority",
        "signals",
        "socket_options",
        "subflow",
        "subflow_input",
        "subflow_options",
        "subflow_output",
        "tcp_path",
        "tuning",
    },
    {
        "cloning",
        "data_states",
        "dispatcher",
        "info",
        "linux_info",
        "membership",
        "meta_socket",
        "paths",
        "receiving",
        "removal",
        "sending_view",
        "upkeep",
    },
    {
        "accepting",
        "answers",
        "arrival",
        "early",
        "icmp_errors",
        "joining",
        "mib",
        "opening",
        "ports",
        "stack",
        "stateless",
    },
    {
        "sim",
        "compiled",
        "driver",
        "engine",
        "engine_failures",
        "engine_interfaces",
        "event_stream",
        "engine_timer",
        "transport",
        "streams",
    },
    {"daemon"},
]
"""`wire <- tcp <- {subflow, ...} <- meta_socket <- stack <- {sim, engine} <- {streams, daemon}`: a
module may import what is in its own layer or one before it."""

CORE = set().union(*LAYERS[:6])


def level(name: str) -> int:
    """The layer of a top-level name of the package."""
    found = [number for number, names in enumerate(LAYERS) if name in names]
    assert len(found) == 1, f"mptcp.{name} is in no layer of the design: put it in one"
    return found[0]


def modules() -> list[Path]:
    """Every source file of the package; tun and bench are links to packages of their own."""
    links = {ROOT / "tun", ROOT / "bench"}
    return [path for path in sorted(ROOT.rglob("*.py")) if not links & set(path.parents)]


def name_of(path: Path) -> str:
    """The top-level name a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path, *, typing_too: bool = False) -> Iterator[str]:
    """Absolute names of what a file imports; what only type checkers see if `typing_too`."""
    tree = ast.parse(path.read_text())
    hidden: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            hidden.update(inner for part in node.body for inner in ast.walk(part))
    for node in ast.walk(tree):
        if node in hidden and not typing_too:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or TUN in path.parents, f"{path.name}: a relative import"
            yield node.module or "."
            if node.module == "mptcp":
                yield from (f"mptcp.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "path", [p for p in modules() if name_of(p) in CORE], ids=lambda p: str(p.relative_to(ROOT))
)
def test_the_core_knows_no_io(path: Path) -> None:
    """Design rule 1: no I/O, no clock, no randomness; entropy and time are arguments."""
    found = {name.split(".")[0] for name in imports(path, typing_too=True)}
    assert not found & IO


def test_the_simulator_may_draw_random_numbers_only() -> None:
    """It owns time and entropy, seeded; it knows no sockets, files or clocks either."""
    for path in (ROOT / "sim").glob("*.py"):
        found = {name.split(".")[0] for name in imports(path, typing_too=True)}
        assert not found & (IO - {"random"}), path.name


@pytest.mark.parametrize(
    "path",
    [path for path in modules() if name_of(path) != "__init__"],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_imports_point_one_way(path: Path) -> None:
    """The import rule of the design, at run time (types may be named both ways)."""
    own = level(name_of(path))
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "mptcp" or len(parts) == 1:
            continue
        if parts[1] in ("tun", "bench"):
            assert parts[1] == "tun", f"{path.name} imports the benchmarks"
            assert name_of(path) not in CORE, f"{path.name} imports the device layer"
            continue
        assert level(parts[1]) <= own, f"{path.name} imports {name}, which is above it"


def test_tcp_knows_no_mptcp() -> None:
    """mptcp/tcp is plain TCP: it names nothing of subflows or connections, not even as types."""
    allowed = {"wire", "tcp", "config", "errors", "registry"}
    for path in (ROOT / "tcp").glob("*.py"):
        for name in imports(path, typing_too=True):
            parts = name.split(".")
            if parts[0] == "mptcp" and len(parts) > 1:
                assert parts[1] in allowed, f"tcp/{path.name} imports {name}"


def test_wire_is_pure() -> None:
    """Codecs import each other and the standard library's pure parts."""
    for path in (ROOT / "wire").glob("*.py"):
        for name in imports(path, typing_too=True):
            if name.startswith("mptcp"):
                assert name.startswith("mptcp.wire"), f"wire/{path.name} imports {name}"


def test_tun_imports_no_mptcp() -> None:
    """The device layer stands by itself."""
    sources = sorted(TUN.rglob("*.py"))
    assert len(sources) > 5
    for path in sources:
        for name in imports(path, typing_too=True):
            assert name.split(".")[0] != "mptcp", f"tun/{path.name} imports {name}"


def test_files_stay_readable() -> None:
    """No file of the package may grow beyond 800 lines (400 is the aim)."""
    for path in modules():
        assert len(path.read_text().splitlines()) <= 800, path.name
