"""The whole demonstration, in small, and that nothing of it stays behind."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mptcp.tun.netns import require_namespaces

ROOT = Path(__file__).parents[2]


@functools.cache
def _reason() -> str | None:
    return require_namespaces()


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Skip without namespaces; afterwards no program, interface or temporary file is left."""
    reason = _reason() if request.node.get_closest_marker("netns") else None
    if reason is not None:
        pytest.skip(reason)
    (tmp_path / "tmp").mkdir()
    interfaces = socket.if_nameindex()
    yield
    assert list((tmp_path / "tmp").iterdir()) == []
    assert _programs_of(tmp_path) == []
    assert socket.if_nameindex() == interfaces


def _programs_of(folder: Path) -> list[str]:
    """Command lines of living programs that were told of the test's folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, UnicodeDecodeError):
            continue
        if str(folder) in command:
            found.append(command)
    return found


def start_demo(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "demo", "--output", str(tmp_path / "out"), *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.netns
@pytest.mark.realtime
@pytest.mark.slow
@pytest.mark.parametrize("peer", ["ours", "kernel"])
def test_a_file_crosses_and_survives_the_cut(tmp_path: Path, peer: str) -> None:
    if peer == "kernel" and not Path("/proc/sys/net/mptcp/enabled").exists():
        pytest.skip("this kernel has no MPTCP")
    with start_demo(tmp_path, "--peer", peer, "--size", "20") as demo:
        printed, complaint = demo.communicate(timeout=100)
    assert (demo.returncode, complaint) == (0, ""), printed
    assert "SHA-256      equal, 20.0 MB" in printed
    assert all(character.isprintable() or character == "\n" for character in printed)
    captures = sorted(path.name for path in (tmp_path / "out").glob("*.pcap"))
    assert captures == (["host-a.pcap", "host-b.pcap"] if peer == "ours" else ["host-a.pcap"])


@pytest.mark.netns
@pytest.mark.realtime
@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "signum", "status"),
    [
        ("Two network namespaces", signal.SIGINT, 130),
        ("path 1 goes down", signal.SIGINT, 130),
        ("fetching", signal.SIGTERM, 143),
    ],
)
def test_a_signal_ends_it_in_good_order(
    tmp_path: Path, when: str, signum: int, status: int
) -> None:
    with start_demo(tmp_path, "--size", "20") as demo:
        assert demo.stdout is not None
        assert any(when in line for line in demo.stdout)
        demo.send_signal(signum)
        _, complaint = demo.communicate(timeout=60)
    assert (demo.returncode, complaint) == (status, "")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--output", "/proc/version/out"], "demo: [Errno 20] Not a directory"),
        (["--size", "5"], "5 is not within 10 to 1000"),
        (["--size", "ten"], "ten is not within 10 to 1000"),
        (["--peer", "plan9"], "invalid choice"),
    ],
)
def test_what_cannot_run_ends_with_status_2_and_a_line(
    tmp_path: Path, options: list[str], complaint: str
) -> None:
    with start_demo(tmp_path, *options) as demo:
        _, complaints = demo.communicate(timeout=60)
    assert demo.returncode == 2
    assert complaint in complaints.splitlines()[-1]
    assert "Traceback" not in complaints
