"""The control socket: what it answers, what it survives, and who may use it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp.daemon.control import ControlSocket
from mptcp.daemon.messages import MAX_REQUEST, decode, encode, errno_of, to_exception
from tests.daemon.fake import INFO, PATIENCE_S, Harness


class Client:
    """Raw lines to the control socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, line: bytes) -> None:
        self.writer.write(line)
        await self.writer.drain()

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            return dict(json.loads(await self.reader.readline()))

    async def ask(self, line: bytes) -> dict[str, Any]:
        await self.send(line + b"\n")
        return await self.receive()

    async def hung_up(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read() == b""

    def close(self) -> None:
        self.writer.close()


@pytest.fixture
def connect(harness: Harness) -> Callable[[], Any]:
    async def connected() -> Client:
        return Client(*await asyncio.open_unix_connection(harness.path, limit=1 << 20))

    return connected


async def test_the_plain_questions(harness: Harness, connect: Callable[[], Any]) -> None:
    client = await connect()
    assert await client.ask(b'{"op": "ping"}') == {"ok": True}
    version = await client.ask(b'{"op": "version"}')
    assert version["pid"] == os.getpid()
    assert version["protocol"] == 1
    counters = await client.ask(b'{"op": "counters"}')
    assert counters["counters"]["TcpActiveOpens"] == 3
    assert [service["name"] for service in counters["services"]] == ["in", "out", "clients"]
    client.close()


@pytest.mark.parametrize(
    ("clear", "cleared", "left"),
    [("false", 0, ["192.0.2.1", "192.0.2.2"]), ('"192.0.2.1"', 1, ["192.0.2.2"]), ("true", 2, [])],
)
async def test_black_holes(
    connect: Callable[[], Any], clear: str, cleared: int, left: list[str]
) -> None:
    """RFC 8684 §3.9.3: told with their age, and forgotten one by one or all at once."""
    client = await connect()
    before = await client.ask(b'{"op": "blackholes"}')
    first = before["blackholes"][0]
    assert (first["failures"], first["age_us"], first["left_us"]) == (1, 4_000_000, 56_000_000)
    after = await client.ask(b'{"op": "blackholes", "clear": ' + clear.encode() + b"}")
    assert after["cleared"] == cleared
    assert [entry["address"] for entry in after["blackholes"]] == left
    wrong = await client.ask(b'{"op": "blackholes", "clear": 7}')
    assert not wrong["ok"]
    client.close()


async def test_status_shows_connections(harness: Harness, connect: Callable[[], Any]) -> None:
    opener, accepter = await harness.pair("out")
    client = await connect()
    status = await client.ask(b'{"op": "status"}')
    assert status["connections"] == [INFO.brief()]
    assert status["interfaces"] == [{"name": "tun1", "address": ["10.9.1.2/24"], "mtu": 1500}]
    paths = await client.ask(b'{"op": "paths"}')
    (path,) = paths["connections"]
    assert path["paths"] == [INFO.to_dict()["paths"][0]]
    none = await client.ask(b'{"op": "status", "limit": 0}')
    assert (none["connections"], none["connections_total"]) == ([], 1)
    client.close()
    await opener.close()
    await accepter.close()


GARBAGE = {
    "empty line": b"",
    "no JSON": b"hello",
    "no object": b"[1]",
    "a number": b"5",
    "null": b"null",
    "no op": b"{}",
    "unknown op": b'{"op": "reboot"}',
    "op of no text": b'{"op": ["status"]}',
    "bad UTF-8": b'{"op": "\xff"}',
    "deep": b"[" * 5000,
    "zeros": b"\0" * 100,
    "connect to nothing": b'{"op": "connect"}',
    "connect to a list": b'{"op": "connect", "host": [1], "port": 1}',
    "port of text": b'{"op": "connect", "host": "x", "port": "1"}',
    "port too large": b'{"op": "connect", "host": "x", "port": 65536}',
    "port true": b'{"op": "connect", "host": "x", "port": true}',
    "local address": b'{"op": "connect", "host": "x", "port": 1, "local_addr": 5}',
    "local port": b'{"op": "connect", "host": "x", "port": 1, "local_addr": ["a", -1]}',
    "policies": b'{"op": "connect", "host": "x", "port": 1, "policies": ["ecf"]}',
    "a policy unheard of": b'{"op": "listen", "port": 1, "policies": {"x": "ecf"}}',
    "a policy of numbers": b'{"op": "listen", "port": 1, "policies": {"scheduler": 1}}',
    "limit": b'{"op": "status", "limit": "all"}',
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_is_answered_and_the_session_goes_on(
    harness: Harness, connect: Callable[[], Any], name: str
) -> None:
    client = await connect()
    reply = await client.ask(GARBAGE[name])
    assert reply["ok"] is False
    assert reply["errno"] == 22
    assert reply["error"]
    assert "\n" not in reply["error"]
    assert await client.ask(b'{"op": "ping"}') == {"ok": True}
    client.close()


@pytest.mark.parametrize("line", [b"x" * (MAX_REQUEST * 3), b"x" * MAX_REQUEST + b"\n"])
async def test_a_line_too_long_is_answered_and_the_client_dropped(
    harness: Harness, connect: Callable[[], Any], line: bytes
) -> None:
    client = await connect()
    await client.send(line)
    reply = await client.receive()
    assert reply["ok"] is False
    assert "longer than" in reply["error"]
    client.close()
    other = await connect()
    assert await other.ask(b'{"op": "ping"}') == {"ok": True}
    other.close()


async def test_lines_in_pieces_and_several_in_one(
    harness: Harness, connect: Callable[[], Any]
) -> None:
    client = await connect()
    for byte in b'{"op": "pi':
        await client.send(bytes([byte]))
        await asyncio.sleep(0)
    await client.send(b'ng"}\n{"op": "ping"}\n{"op": "nonsense"}\n')
    assert [(await client.receive())["ok"] for _ in range(3)] == [True, True, False]
    client.close()


async def test_a_hundred_clients_at_once(harness: Harness, connect: Callable[[], Any]) -> None:
    clients = [await connect() for _ in range(100)]
    replies = await asyncio.gather(*(client.ask(b'{"op": "status"}') for client in clients))
    assert all(reply["ok"] for reply in replies)
    for client in clients:
        client.close()


async def test_a_client_that_never_reads_holds_up_nobody(
    harness: Harness, connect: Callable[[], Any]
) -> None:
    silent = await connect()
    silent.writer.transport.pause_reading()
    for _ in range(200):
        silent.writer.write(b'{"op": "counters"}\n')
    other = await connect()
    assert await other.ask(b'{"op": "ping"}') == {"ok": True}
    other.close()
    silent.writer.transport.abort()


async def test_clients_above_the_limit_are_told(
    tmp_path: Path, host: str, port: Callable[[], int]
) -> None:
    harness = Harness(tmp_path, host, port)
    harness.extra = "max_clients = 2"
    async with harness:
        clients = [
            Client(*await asyncio.open_unix_connection(harness.path, limit=1 << 20))
            for _ in range(2)
        ]
        for client in clients:
            assert (await client.ask(b'{"op": "ping"}'))["ok"]
        third = Client(*await asyncio.open_unix_connection(harness.path))
        reply = await third.receive()
        assert (reply["ok"], reply["error"]) == (False, "too many clients; try again later")
        assert await third.hung_up()
        for client in (*clients, third):
            client.close()


async def test_mode_and_group_guard_the_socket(
    tmp_path: Path, host: str, port: Callable[[], int]
) -> None:
    harness = Harness(tmp_path, host, port)
    async with harness:
        assert stat.S_IMODE(os.stat(harness.path).st_mode) == 0o660
    assert not harness.socket_exists()
    strict = Harness(tmp_path, host, port)
    strict.extra = 'mode = "0600"'
    async with strict:
        assert stat.S_IMODE(os.stat(strict.path).st_mode) == 0o600


async def test_a_second_daemon_is_told_and_the_first_lives_on(
    harness: Harness, tmp_path: Path, host: str, port: Callable[[], int]
) -> None:
    second = Harness(tmp_path, host, port)
    with pytest.raises(OSError, match="in use by a running mptcpd; stop that one"):
        await second.start()
    assert second.engine.started == 0
    client = Client(*await asyncio.open_unix_connection(harness.path))
    assert await client.ask(b'{"op": "ping"}') == {"ok": True}
    client.close()


async def test_a_stale_socket_is_replaced(
    tmp_path: Path, host: str, port: Callable[[], int]
) -> None:
    harness = Harness(tmp_path, host, port)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(harness.path)
    async with harness:
        client = Client(*await asyncio.open_unix_connection(harness.path))
        assert await client.ask(b'{"op": "ping"}') == {"ok": True}
        client.close()
    assert not harness.socket_exists()


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control"
    path.write_text("precious")
    with pytest.raises(OSError, match=r"no socket; name another place in \[daemon\] socket"):
        ControlSocket(str(path), 0o660, None).open()
    assert path.read_text() == "precious"


def test_a_folder_made_for_the_socket_goes_with_it(tmp_path: Path) -> None:
    control = ControlSocket(str(tmp_path / "new" / "control"), 0o660, None)
    control.open()
    assert (tmp_path / "new" / "control").is_socket()
    control.close()
    control.close()
    assert not (tmp_path / "new").exists()


async def test_a_start_that_fails_leaves_nothing(
    tmp_path: Path, host: str, port: Callable[[], int]
) -> None:
    harness = Harness(tmp_path, host, port)
    harness.engine.fail_start = OSError(1, "no right to open TUN device 'tun1'")
    with pytest.raises(OSError, match="no right to open TUN"):
        await harness.start()
    assert not harness.socket_exists()
    harness = Harness(tmp_path, host, port)
    taken = await asyncio.start_server(lambda r, w: None, host, harness.forward_port)
    with pytest.raises(OSError, match=r"^\[Errno 98\] out: .*in use"):
        await harness.start()
    assert not harness.socket_exists()
    assert harness.engine.stopped == 1
    taken.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, harness.listen_port)


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=5,
        ),
    )
)
def test_messages_survive_the_line(message: dict[str, Any]) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == message


@given(st.binary(max_size=100))
def test_any_line_is_a_message_or_a_value_error(line: bytes) -> None:
    try:
        message = decode(line)
    except ValueError:
        return
    assert isinstance(message, dict)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError("no"), ConnectionRefusedError),
        (ConnectionResetError("no"), ConnectionResetError),
        (TimeoutError("no"), TimeoutError),
        (PermissionError("no"), PermissionError),
        (OSError(113, "no"), OSError),
        (ValueError("no"), OSError),
        (socket.gaierror(-2, "no"), OSError),
        (RuntimeError("no"), OSError),
    ],
)
def test_errors_keep_their_class_on_the_way(error: Exception, kind: type[OSError]) -> None:
    caught = to_exception({"errno": errno_of(error), "error": str(error)})
    assert type(caught) is kind
