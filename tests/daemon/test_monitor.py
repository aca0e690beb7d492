"""`mptcpctl info`, `counters` and `monitor`, and what the daemon answers to them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from mptcp.config import Config
from mptcp.daemon import ctl
from mptcp.daemon.ctl_info import select_counters
from mptcp.daemon.ctl_monitor import line_of
from mptcp.daemon.messages import encode
from mptcp.event_stream import EventStream
from mptcp.stack import Stack
from tests.daemon.fake import INFO, PATIENCE_S, Harness
from tests.daemon.test_cli import Daemon, mptcpctl, one_line

EVENT = {
    "event": "sub-closed",
    "unix_time": 1_700_000_000.25,
    "time": 5,
    "token": 0xCAFE,
    "number": 7,
    "family": 4,
    "saddr": "10.9.1.2",
    "sport": 40000,
    "daddr": "10.9.2.2",
    "dport": 80,
    "loc_id": 1,
    "rem_id": 2,
    "backup": False,
    "interface": "tun1",
    "error": 104,
    "reset_reason": 2,
    "reset_flags": 1,
}


# -- the engine's stream --------------------------------------------------------------------------


async def test_a_stream_waits_and_ends() -> None:
    """`async for` gets what was there before, waits for more, and ends with `close()`."""
    stack = Stack(Config(), lambda count: bytes(count))
    stream = EventStream(stack.monitor())
    seen: list[int | None] = []

    async def read() -> None:
        async for event in stream:
            seen[len(seen) :] = [event.sport]

    stack.listen(5000)
    task = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    assert seen == [5000]
    stack.listen(5001)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert seen == [5000, 5001]
    stream.close()
    await asyncio.wait_for(task, PATIENCE_S)
    assert stack.monitors == []


# -- the control socket ---------------------------------------------------------------------------


async def lines_of(harness: Harness) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(harness.path, limit=1 << 20)
    writer.write(encode({"op": "monitor"}))
    assert json.loads(await reader.readline()) == {"ok": True, "pid": os.getpid()}
    return reader, writer


async def test_the_daemon_streams_events(harness: Harness) -> None:
    """Each client gets every event from when it asked; its end closes its sink."""
    streams = [await lines_of(harness) for _ in range(2)]
    assert len(harness.engine.core.monitors) == 2
    harness.engine.core.listen(5000)
    for reader, _ in streams:
        async with asyncio.timeout(PATIENCE_S):
            event = json.loads(await reader.readline())
        assert event.pop("unix_time") > 1_600_000_000
        assert event == {"event": "listener-created", "time": 0, "saddr": "*", "sport": 5000}
    for reader, writer in streams:
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        writer.close()
    assert harness.engine.core.monitors == []


async def test_info_of_one_connection(harness: Harness) -> None:
    """By number, by token in any spelling; everything is in it; else one line says no."""
    opener, accepter = await harness.pair("out")
    reader, writer = await asyncio.open_unix_connection(harness.path, limit=1 << 20)

    async def ask(**request: Any) -> dict[str, Any]:
        writer.write(encode({"op": "info", **request}))
        return dict(json.loads(await reader.readline()))

    whole = INFO.to_dict()
    for wanted in ({}, {"id": 7}, {"id": "7"}, {"id": "cafe"}, {"id": "0x0000CAFE"}):
        reply = await ask(**wanted)
        assert reply["connections"] == [whole], wanted
        assert reply["connections_total"] == 1
    no = await ask(id="beef")
    assert (no["ok"], no["errno"]) == (False, 22)
    assert "no connection beef" in no["error"]
    for wrong in (True, 1.5, [7]):
        assert "is no number and no token" in (await ask(id=wrong))["error"]
    writer.close()
    await opener.close()
    await accepter.close()


# -- mptcpctl -------------------------------------------------------------------------------------


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


def test_counters_are_chosen() -> None:
    """A part of a name, or a pattern; upper and lower case are one; zeros on demand only."""
    values = {"TcpActiveOpens": 3, "MPTcpExtMPRstTx": 0, "TcpOutRsts": 2}
    assert select_counters(values, None, nonzero=False) == values
    assert select_counters(values, None, nonzero=True) == {"TcpActiveOpens": 3, "TcpOutRsts": 2}
    assert list(select_counters(values, "rst", nonzero=False)) == ["MPTcpExtMPRstTx", "TcpOutRsts"]
    assert list(select_counters(values, "tcp*S", nonzero=False)) == ["TcpActiveOpens", "TcpOutRsts"]
    assert list(select_counters(values, "TCPOUT????", nonzero=False)) == ["TcpOutRsts"]


def test_counters_on_the_command_line(daemon: Daemon) -> None:
    socket = ("--socket", daemon.socket)
    assert "MPTcpExtMPRstTx" in mptcpctl(*socket, "counters").stdout
    few = mptcpctl(*socket, "counters", "--nonzero", "*rst*", "--json")
    assert json.loads(few.stdout)["counters"] == {"TcpOutRsts": 2}
    none = mptcpctl(*socket, "counters", "nothing")
    assert (none.returncode, "no such counter" in none.stdout) == (0, True)


def test_info_on_the_command_line(daemon: Daemon) -> None:
    """Exit status 2 and one line for a connection that is not there."""
    socket = ("--socket", daemon.socket)
    nothing = mptcpctl(*socket, "info")
    assert (nothing.returncode, nothing.stdout) == (0, "no connections\n")
    no = mptcpctl(*socket, "info", "9")
    assert (no.returncode, no.stdout) == (2, "")
    assert one_line(no.stderr).startswith("mptcpctl: there is no connection 9;")


def test_info_as_tables(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every field is in the tables, the kernel's with their prefix."""
    asked: list[dict[str, Any]] = []

    def ask(_path: str, request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {"ok": True, "connections_total": 2, "connections": [INFO.to_dict()]}

    monkeypatch.setattr(ctl, "ask", ask)
    assert ctl.main(["--socket", "nowhere", "info", "7"]) == 0
    assert asked == [{"op": "info", "id": "7"}]
    shown = capsys.readouterr().out
    words = shown.split()
    for name in INFO.mptcp_info.__slots__:
        assert f"mptcpi_{name}" in words
    for name in INFO.subflows[0].tcp_info.__slots__:
        assert f"tcpi_{name}" in words
    for name in ("fallback_reason", "congestion_control", "0000cafe", "lia"):
        assert name in words
    assert "and 1 connections more" in shown


def test_a_line_of_the_monitor() -> None:
    """Time, type, token, then the attributes in one order, the error in words."""
    line = line_of(EVENT)
    assert line[8:16] == ".250000 "
    assert line[16:] == (
        "[sub-closed] token=0000cafe number=7 saddr=10.9.1.2 sport=40000 daddr=10.9.2.2 dport=80 "
        'loc_id=1 rem_id=2 backup=0 interface=tun1 error="Connection reset by peer" '
        "reset_reason=2 reset_flags=1"
    )


def test_the_monitor_without_a_daemon(tmp_path: Path) -> None:
    done = mptcpctl("--socket", tmp_path / "none", "monitor")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no mptcpd of this project runs" in one_line(done.stderr)


def line(pipe: IO[str] | None) -> str:
    assert pipe is not None
    return pipe.readline()


def test_the_monitor_outlives_the_daemon_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    """One line when the daemon goes, the stream again when it is back; SIGINT ends it in order."""
    first = Daemon(tmp_path)
    first.ready()
    watching = subprocess.Popen(
        [
            *(sys.executable, "-m", "mptcp.daemon.ctl"),
            *("--socket", str(first.socket), "monitor", "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    second = None
    try:
        connected(first)
        first.end(signal.SIGTERM)
        assert line(watching.stderr) == (
            f"mptcpctl: mptcpd at {first.socket} is gone; waiting for it\n"
        )
        second = Daemon(tmp_path)
        second.ready()
        connected(second)
        watching.send_signal(signal.SIGINT)
        out, complaint = watching.communicate(timeout=PATIENCE_S)
        assert (watching.returncode, out, complaint) == (0, "", "")
    finally:
        for process in (watching, first.process, *([second.process] if second else [])):
            if process.poll() is None:
                process.kill()
            process.communicate()


def connected(daemon: Daemon) -> None:
    """Wait until the daemon has a reader of its events: its log says so."""
    assert daemon.process.stderr is not None
    for text in daemon.process.stderr:
        if "events are read" in text:
            return
    raise AssertionError("the daemon ended")
