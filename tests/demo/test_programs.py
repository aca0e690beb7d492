"""The demonstration's parts that need no network of their own."""

from __future__ import annotations

import functools
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import fetch, hosts
from demo.capture import payload_per_packet
from demo.judgement import Finding
from demo.network import PATHS
from demo.show import Display
from mptcp.daemon.configuration import parse
from mptcp.tun.pcap import PcapWriter
from mptcp.wire.tcp import ACK, HeaderTemplate

SERVER = bytes([10, 2, 1, 2])
CLIENT = bytes([10, 1, 1, 2])


class ShortServer(http.server.SimpleHTTPRequestHandler):
    """Serves files; /short promises more than it sends."""

    def do_GET(self) -> None:
        if self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"x" * 60)
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    handler = functools.partial(ShortServer, directory=str(tmp_path / "served"))
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


def run_fetch(url: str, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(Path(fetch.__file__)), url, str(target)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_the_download_knows_nothing_of_this_package_and_brings_the_file(
    server: str, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 4000
    (tmp_path / "served" / "file").write_bytes(content)
    done = run_fetch(f"{server}/file", tmp_path / "got")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "got").read_bytes() == content
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert reports[0]["bytes"] == 0
    assert reports[-2]["bytes"] == reports[-1]["done"] == len(content)
    assert [report["t"] for report in reports] == sorted(report["t"] for report in reports)


@pytest.mark.parametrize(
    ("page", "complaint"), [("/none", "answers 404"), ("/short", "40 bytes too early")]
)
def test_a_download_that_fails_says_so_in_one_line(
    server: str, tmp_path: Path, page: str, complaint: str
) -> None:
    done = run_fetch(server + page, tmp_path / "got")
    assert done.returncode == 1
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("host", ["a", "b"])
def test_the_daemons_take_their_configuration(host: str, tmp_path: Path) -> None:
    text = hosts.daemon_configuration(host, tmp_path / "control", tmp_path / 'odd "name".pcap')
    settings = parse(text.encode(), "demo")
    assert [each.name for each in settings.interface] == [f"mp{path.number}" for path in PATHS]
    assert settings.daemon.pcap == str(tmp_path / 'odd "name".pcap')
    assert (len(settings.forward), len(settings.listen)) == ((1, 0) if host == "a" else (0, 1))


def packet(source: bytes, target: bytes, options: int, payload: int) -> bytes:
    template = HeaderTemplate(source, target, 8080, 40000)
    data = [memoryview(bytes(payload))]
    header = template.build(1, 1, ACK, 100, bytes([1]) * options, payload)
    template.finish_checksum(header, data)
    return b"".join([bytes(header), *data])


def test_the_payload_of_a_full_packet_is_read_from_the_capture(tmp_path: Path) -> None:
    file = tmp_path / "some.pcap"
    with PcapWriter(file) as capture:
        capture.write(0, packet(CLIENT, SERVER, 12, 1448))  # the other direction
        capture.write(0, packet(SERVER, CLIENT, 12, 0))
        capture.write(0, packet(SERVER, CLIENT, 40, 900))
        for _ in range(3):
            capture.write(0, packet(SERVER, CLIENT, 40, 1420))
        capture.write(0, bytes(76))  # no IPv4
        capture.write(0, packet(SERVER, CLIENT, 40, 20_000))  # an offloaded chunk, no packet
    assert payload_per_packet(file, SERVER[:2], 1500) == (1420, 1500)
    assert payload_per_packet(file, b"\x0b", 1500) is None


def test_what_is_no_terminal_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(PATHS, 1000)
    with display.transfer():
        display.progress(0, 0, [0.0, 0.0], [True, True])
        display.progress(500_000, 10, [1e6, 2e6], [True, True])  # too early for a line
        display.progress(1_000_000, 500, [3e6, 4e6], [False, True])
    display.result([Finding("digest", "equal", True), Finding("stall", "2 s", False)])
    printed = capsys.readouterr().out
    assert printed.splitlines() == [
        "  0.0 s     0.0 MB  path 1 up     0.0 Mbit/s  path 2 up     0.0 Mbit/s",
        "  1.0 s     0.0 MB  path 1 DOWN   3.0 Mbit/s  path 2 up     4.0 Mbit/s",
        "  digest  equal  ok",
        "  stall   2 s  MISSED",
    ]
    assert all(character.isprintable() or character == "\n" for character in printed)
