"""Two hosts, each with mptcpd, joined by two paths: real programs on either side."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mptcp.tun.netns import Namespace
from tests.daemon.fake import digest

pytestmark = pytest.mark.netns

PATIENCE_S = 30.0
SIZE = 8 << 20

CLIENT = """
[daemon]
socket = "{folder}/client"
[[interface]]
name = "tun1"
address = "10.9.1.2/24"
[[interface]]
name = "tun2"
address = "10.9.2.2/24"
[[forward]]
listen = "127.0.0.1:8080"
to = "10.9.3.2:80"
[[forward]]
listen = "127.0.0.1:8081"
to = "10.9.3.2:81"
"""
SERVER = """
[daemon]
socket = "{folder}/server"
[[interface]]
name = "tun1"
address = "10.9.3.2/24"
[[listen]]
port = 80
to = "127.0.0.1:8000"
"""


class Host:
    """A namespace with mptcpd in it."""

    def __init__(self, namespace: Namespace, folder: Path, name: str, text: str) -> None:
        self.namespace = namespace
        self.socket = folder / name
        file = folder / f"{name}.toml"
        file.write_text(text.format(folder=folder))
        self.daemon = namespace.run(
            [sys.executable, "-m", "mptcp.daemon.main", "--config", str(file)],
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(self.daemon, "ready")

    def ctl(self, command: str) -> dict[str, Any]:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "mptcp.daemon.ctl"),
                *("--socket", str(self.socket), command, "--json"),
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
        return dict(json.loads(done.stdout))

    def end(self) -> tuple[int, str]:
        self.daemon.send_signal(signal.SIGINT)
        _, complaint = self.daemon.communicate(timeout=PATIENCE_S)
        return self.daemon.returncode, complaint


def wait_for(program: subprocess.Popen[str], word: str) -> None:
    for line in program.stderr or ():
        if word in line:
            return
    raise AssertionError(f"it ended without saying {word!r}")


@pytest.fixture
def hosts(left: Namespace, right: Namespace, tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    for number in (1, 2):
        left.veth(
            right,
            f"v{number}",
            addresses=[f"10.1.{number}.1/24"],
            other_addresses=[f"10.1.{number}.2/24"],
        )
        # What comes from the second address goes out by the second way.
        left.add_route("10.9.3.0/24", via=f"10.1.{number}.2", table=100 + number)
        left.add_source_rule(f"10.9.{number}.2", 100 + number)
        right.add_route(f"10.9.{number}.0/24", via=f"10.1.{number}.1")
    for namespace in (left, right):
        namespace.enable_forwarding()
    both = Host(left, tmp_path, "client", CLIENT), Host(right, tmp_path, "server", SERVER)
    yield both
    for host in both:
        if host.daemon.poll() is None:
            host.daemon.kill()
        host.daemon.communicate()


@pytest.fixture
def content(right: Namespace, hosts: tuple[Host, Host], tmp_path: Path) -> Iterator[bytes]:
    """A file behind an ordinary HTTP server on the right host."""
    folder = tmp_path / "www"
    folder.mkdir()
    content = os.urandom(SIZE)
    (folder / "file").write_bytes(content)
    command = "import http.server, sys, functools as f, socketserver as s\n"
    command += "h = f.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])\n"
    command += "d = http.server.ThreadingHTTPServer(('127.0.0.1', 8000), h)\n"
    command += "print('serving', file=sys.stderr, flush=True)\nd.serve_forever()\n"
    server = right.run(
        [sys.executable, "-c", command, str(folder)], stderr=subprocess.PIPE, text=True
    )
    wait_for(server, "serving")
    yield content
    server.kill()
    server.communicate()


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        return bytes(answer.read())


def test_a_browser_and_a_web_server_that_know_only_tcp(
    hosts: tuple[Host, Host], content: bytes
) -> None:
    client, _server = hosts
    got = client.namespace.call(fetch, "http://127.0.0.1:8080/file")
    assert digest(got) == digest(content)
    counters = client.ctl("counters")
    assert counters["services"][0]["bytes_in"] > SIZE
    # Nobody listens on port 81: the client's TCP connection is reset, not left hanging.
    with pytest.raises(OSError, match=r"reset|refused|closed"):
        client.namespace.call(fetch, "http://127.0.0.1:8081/file")
    assert client.ctl("counters")["services"][1]["failures"] == 1
    for host in hosts:
        status, complaint = host.end()
        assert status == 0
        assert "Traceback" not in complaint
        assert "tun" not in host.namespace.output(["ip", "-brief", "link"])
        assert not host.socket.exists()


def test_a_subnet_in_use_is_one_line(left: Namespace, right: Namespace, tmp_path: Path) -> None:
    left.veth(right, "v1", addresses=["10.9.2.77/16"])
    file = tmp_path / "a.toml"
    file.write_text(CLIENT.format(folder=tmp_path))
    daemon = left.run(
        [sys.executable, "-m", "mptcp.daemon", "--config", str(file), "--log-level", "warning"],
        stderr=subprocess.PIPE,
        text=True,
    )
    _, complaint = daemon.communicate(timeout=PATIENCE_S)
    assert daemon.returncode == 1
    assert complaint == (
        "mptcpd: 10.9.1.2/24 (tun1) overlaps 10.9.2.77/16 on v1: choose a subnet of its own\n"
    )
    assert "tun" not in left.output(["ip", "-brief", "link"])
    assert not (tmp_path / "client").exists()


async def test_programs_without_an_engine_and_what_status_shows(hosts: tuple[Host, Host]) -> None:
    import mptcp
    from mptcp.daemon.client import refresh_info

    client, server = hosts

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with (
        asyncio.timeout(PATIENCE_S),
        await mptcp.start_server(echo, "10.9.3.2", 7, path=server.socket),
    ):
        reader, writer = await mptcp.open_connection("10.9.3.2", 7, path=client.socket)
        payload = os.urandom(1 << 20)
        writer.write(payload)
        assert digest(await reader.readexactly(len(payload))) == digest(payload)
        info = writer.get_extra_info("mptcp_info")
        assert not info.fallback
        assert info.token
        loop = asyncio.get_running_loop()
        status = await loop.run_in_executor(None, client.ctl, "status")
        (shown,) = status["connections"]
        assert (shown["token"], shown["remote"], shown["remote_port"]) == (
            info.token,
            "10.9.3.2",
            7,
        )
        fresh = await refresh_info(writer)
        assert fresh is not None
        while len([flow for flow in fresh.subflows if flow.state == "ESTABLISHED"]) < 2:
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            fresh = await refresh_info(writer)
            assert fresh is not None
        assert {flow.local for flow in fresh.subflows} == {"10.9.1.2", "10.9.2.2"}
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await mptcp.open_connection("10.9.3.2", 8, path=client.socket)
