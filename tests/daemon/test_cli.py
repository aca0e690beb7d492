"""The commands as a user meets them: exit status, one line, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mptcp.daemon import ctl
from mptcp.daemon.messages import encode
from tests.daemon.fake import INFO

PATIENCE_S = 30.0
GOOD = '[[interface]]\nname = "mptcpcli0"\naddress = "10.9.1.2/24"\n'
# mptcpd with the engine of the tests in the place of TUN devices.
FAKED = """
import sys
from mptcp.daemon.main import main
from tests.daemon.fake import FakeEngine
sys.exit(main(sys.argv[1:], engine_factory=lambda settings: FakeEngine("127.0.0.1")))
"""


def mptcpd(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run("mptcp.daemon.main", *arguments)


def mptcpctl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run("mptcp.daemon.ctl", *arguments)


def run(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text


def test_check_says_yes_or_where_not(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(GOOD)
    bad.write_text(GOOD + "mtuu = 1\n")
    yes = mptcpd("--check", "--config", good)
    assert (yes.returncode, yes.stdout, yes.stderr) == (0, f"{good}: nothing wrong\n", "")
    no = mptcpd("--check", "--config", bad)
    assert (no.returncode, no.stdout) == (2, "")
    assert one_line(no.stderr).startswith(f"{bad}:4: interface.mtuu: unknown key;")


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_no_such_configuration(tmp_path: Path, arguments: list[str]) -> None:
    done = mptcpd("--config", tmp_path / "none.toml", *arguments)
    assert done.returncode == 2
    assert "none.toml: cannot be read: No such file" in one_line(done.stderr)


@pytest.mark.parametrize("arguments", [[], ["--config"], ["--config", "x", "--log-level", "loud"]])
def test_wrong_arguments(arguments: list[str]) -> None:
    done = mptcpd(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give its rights away")
def test_no_right_for_tun_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    file = tmp_path / "a.toml"
    file.write_text(f'[daemon]\nsocket = "{tmp_path}/control"\nlog_level = "error"\n{GOOD}')
    done = subprocess.run(
        [
            *("setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs", "--"),
            *(sys.executable, "-m", "mptcp.daemon.main", "--config", str(file)),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    assert "no right" in one_line(done.stderr)
    assert not (tmp_path / "control").exists()


class Daemon:
    """mptcpd on the fake engine, as a process."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.socket = folder / "control"
        self.file = folder / "a.toml"
        self.file.write_text(f'[daemon]\nsocket = "{self.socket}"\n{GOOD}{more}')
        self.process = subprocess.Popen(
            [sys.executable, "-c", FAKED, "--config", str(self.file)],
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "ready" in line:
                return
        raise AssertionError("it ended before it was ready")

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        _, complaint = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, complaint


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    running = Daemon(tmp_path)
    try:
        running.ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(daemon: Daemon, number: int) -> None:
    assert daemon.socket.is_socket()
    status, complaint = daemon.end(number)
    assert status == 0
    assert complaint == "INFO mptcp.daemon: ending\n"
    assert not daemon.socket.exists()


def test_a_signal_ends_it_with_clients_connected(daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as idle, socket.socket(socket.AF_UNIX) as listening:
        idle.connect(str(daemon.socket))
        listening.connect(str(daemon.socket))
        listening.sendall(encode({"op": "listen", "host": None, "port": 0}))
        assert b'"ok":true' in listening.recv(1000)
        status, complaint = daemon.end(signal.SIGTERM)
        assert (status, complaint) == (0, "INFO mptcp.daemon: ending\n")
        assert listening.recv(1) == idle.recv(1) == b""


def test_a_second_one_is_told(daemon: Daemon, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAKED, "--config", str(daemon.file)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    assert "in use by a running mptcpd" in one_line(done.stderr)
    assert mptcpctl("--socket", daemon.socket, "ping").returncode == 0


def test_an_address_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        rule = f'[[forward]]\nname = "web"\nlisten = "127.0.0.1:{port}"\nto = "10.9.2.2:80"\n'
        daemon = Daemon(tmp_path, rule)
        _, complaint = daemon.process.communicate(timeout=PATIENCE_S)
    assert daemon.process.returncode == 1
    assert complaint.splitlines()[-1] == (
        f"mptcpd: web: 127.0.0.1:{port} is in use by another program: stop it, "
        "or choose another listen address for [[forward]] web"
    )
    assert "Traceback" not in complaint
    assert not daemon.socket.exists()


def test_ctl_asks_the_daemon(daemon: Daemon) -> None:
    where = ("--socket", str(daemon.socket))
    for arguments in ((*where, "status"), ("status", *where)):
        done = mptcpctl(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "no connections\n", "")
    version = mptcpctl("--socket", daemon.socket, "version", "--json")
    assert json.loads(version.stdout)["pid"] == daemon.process.pid
    counters = mptcpctl("--socket", daemon.socket, "counters")
    assert "TcpActiveOpens" in counters.stdout
    assert "clients" in counters.stdout
    holes = mptcpctl("--socket", daemon.socket, "blackholes")
    assert [hole in holes.stdout for hole in ("192.0.2.1", "192.0.2.2")] == [True, True]
    cleared = mptcpctl("--socket", daemon.socket, "blackholes", "--clear", "192.0.2.1")
    assert cleared.stdout.startswith("1 cleared")
    assert "192.0.2.1 " not in cleared.stdout
    assert "3 s" in mptcpctl("--socket", daemon.socket, "blackholes").stdout


@pytest.mark.parametrize("command", ["status", "paths", "counters", "ping", "version"])
def test_ctl_without_a_daemon_says_what_to_do(tmp_path: Path, command: str) -> None:
    done = mptcpctl("--socket", tmp_path / "none", command)
    assert (done.returncode, done.stdout) == (2, "")
    assert "start one (mptcpd --config FILE.toml)" in one_line(done.stderr)


class Stub:
    """A daemon that gives one prepared answer."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self.path = path
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._socket.accept()
        with client:
            client.recv(1000)
            client.sendall(self._answer)

    def close(self) -> None:
        self._thread.join(PATIENCE_S)
        self._socket.close()


def asked(
    tmp_path: Path, answer: bytes, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    stub = Stub(tmp_path / "stub", answer)
    status = ctl.main(["--socket", str(stub.path), *arguments])
    stub.close()
    return (status, *capsys.readouterr())


ANSWER = {"ok": True, "connections": [INFO.to_dict()], "connections_total": 3}


def test_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed, complaint = asked(tmp_path, encode(ANSWER), capsys, "status")
    assert (status, complaint) == (0, "")
    for part in ("10.9.1.2:40000", "10.9.2.2:80", "mptcp 0000cafe", "established", "15.0", "14600"):
        assert part in printed
    assert printed.endswith("and 2 connections more\n")
    (tmp_path / "stub").unlink()
    status, printed, _ = asked(tmp_path, encode(ANSWER), capsys, "paths")
    assert status == 0
    assert "yes" in printed


def test_json_is_what_the_daemon_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, printed, _ = asked(tmp_path, encode(ANSWER), capsys, "status", "--json")
    assert json.loads(printed) == {key: value for key, value in ANSWER.items() if key != "ok"}


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (b"", "hung up"),
        (b"hello\n", "no mptcpd of this project"),
        (encode({"ok": False, "errno": 22, "error": "it said no"}), "it said no"),
    ],
)
def test_answers_that_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: bytes, part: str
) -> None:
    status, printed, complaint = asked(tmp_path, answer, capsys, "status")
    assert (status, printed) == (2, "")
    assert part in one_line(complaint)


def test_a_pipe_that_closes_is_no_error(daemon: Daemon) -> None:
    command = f"{sys.executable} -m mptcp.daemon.ctl --socket {daemon.socket} counters | true"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stderr == ""


def test_a_controller_of_an_installed_package_is_known_by_name(tmp_path: Path) -> None:
    """docs/daemon.md, policies of your own: an entry point is enough, and an error lists it."""
    named = tmp_path / "named.toml"
    named.write_text(f'[stack]\ncongestion_control = "half_reno"\n{GOOD}')
    without = mptcpd("--check", "--config", named)
    assert without.returncode == 2
    assert 'unknown congestion control "half_reno"; use one of balia, cubic, ' in without.stderr
    package = tmp_path / "half_reno-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: half_reno\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[mptcp.congestion_control]\nhalf_reno = half_reno:HalfReno\n"
    )
    examples = Path(__file__).parents[2] / "examples"
    path = os.pathsep.join([str(tmp_path), str(examples), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "mptcp.daemon.main", "--check", "--config", str(named)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert (done.returncode, done.stderr) == (0, "")
