"""What the documents say is true."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from mptcp.tun.netns import Namespace, require_namespaces

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0
ADDRESS = ("10.9.1.2", 8080)
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_modules_of_a_document_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), f"{document} links to {link}"
    for module in re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", text):
        found = [ROOT / module, ROOT / "mptcp" / module]
        assert any(path.exists() for path in found), f"{document} names {module}"


@pytest.mark.netns
def test_the_program_of_the_readme_greets(tmp_path: Path) -> None:
    reason = require_namespaces()
    if reason is not None:
        pytest.skip(reason)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "hello.py").write_text(program, encoding="utf-8")
    with Namespace.create("readme") as namespace, open(tmp_path / "errors", "wb") as errors:
        server = namespace.run([sys.executable, str(tmp_path / "hello.py")], stderr=errors)
        answers = [_ask(_connect(namespace, server.pid, tmp_path / "errors"))]
        if Path("/proc/sys/net/mptcp/enabled").exists():
            sock = namespace.socket(protocol=socket.IPPROTO_MPTCP)
            sock.settimeout(PATIENCE_S)
            sock.connect(ADDRESS)
            answers.append(_ask(sock))
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
        assert (tmp_path / "errors").read_text() == ""
    assert answers[0].endswith("\r\n\r\nHello! You came by plain TCP.\n")
    assert all("by MPTCP over 1 subflow(s)" in answer for answer in answers[1:])


def _connect(namespace: Namespace, server: int, errors: Path) -> socket.socket:
    """A connection to the program, which may still be starting: no device yet, or no listener."""
    watch = os.pidfd_open(server)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            sock = namespace.socket()
            sock.settimeout(PATIENCE_S)
            try:
                sock.connect(ADDRESS)
            except OSError:
                sock.close()
                ended, _, _ = select.select([watch], [], [], 0.02)
                assert not ended, errors.read_text()
            else:
                return sock
    finally:
        os.close(watch)
    raise AssertionError("the program does not listen")


def _ask(sock: socket.socket) -> str:
    with sock, sock.makefile("rb") as answer:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return answer.read().decode()
