"""Connections for programs without an engine: `mptcp.open_connection` and `mptcp.start_server`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import mptcp
from mptcp.daemon import client
from mptcp.daemon.client_transport import DaemonTransport
from mptcp.daemon.messages import DaemonError, find_socket_path, own_socket_path
from tests.daemon.fake import INFO, PATIENCE_S, Harness, Stream, digest


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


async def opened(harness: Harness) -> tuple[Stream, Stream]:
    """(program's end through the daemon, the peer's end)."""
    accepted: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()

    def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result(Stream(reader, writer))

    await harness.serve(on_client, harness.remote_port)
    program = Stream(
        *await mptcp.open_connection(harness.host, harness.remote_port, path=harness.path)
    )
    return program, await accepted


async def accepted(harness: Harness, port: int) -> tuple[Stream, Stream]:
    """The same, where the program is the one that accepts."""
    got: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()

    def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.set_result(Stream(reader, writer))

    server = await mptcp.start_server(on_client, harness.host, port, path=harness.path)
    peer = Stream(*await asyncio.open_connection(harness.host, port))
    async with asyncio.timeout(PATIENCE_S):
        program = await got
    server.close()
    await server.wait_closed()
    return program, peer


@pytest.fixture(params=["connects", "accepts"])
async def ends(
    request: pytest.FixtureRequest, harness: Harness, port: Callable[[], int]
) -> tuple[Stream, Stream]:
    """(program, peer), for a program that connects and for one that accepts."""
    if request.param == "connects":
        return await opened(harness)
    return await accepted(harness, port())


async def gone(harness: Harness) -> None:
    """Wait until the daemon has nothing left of any connection."""
    await harness.until(lambda: not harness.service("clients")["active"])
    await harness.until(lambda: not harness.engine.open)


async def test_echo_with_back_pressure(harness: Harness, ends: tuple[Stream, Stream]) -> None:
    program, peer = ends
    payload = os.urandom(1 << 20) * 8

    async def echo() -> None:
        while data := await peer.reader.read(65536):
            peer.writer.write(data)
            await peer.writer.drain()
        peer.end()

    echoing = asyncio.ensure_future(echo())
    sending = asyncio.ensure_future(program.send(payload))
    assert digest(await program.read(len(payload))) == digest(payload)
    await sending
    program.end()
    assert await program.read() == b""
    await echoing
    await program.close()
    await peer.close()
    await gone(harness)
    assert harness.service("clients")["failures"] == 0
    assert harness.service("clients")["bytes_out"] == len(payload)


async def test_half_close_both_ways(harness: Harness, ends: tuple[Stream, Stream]) -> None:
    program, peer = ends
    await program.send(b"question")
    program.end()
    assert await peer.read() == b"question"
    await peer.send(b"answer")
    peer.end()
    assert await program.read() == b"answer"
    await program.close()
    await peer.close()
    await gone(harness)
    assert harness.service("clients")["failures"] == 0


async def test_the_peer_may_end_first(harness: Harness, ends: tuple[Stream, Stream]) -> None:
    program, peer = ends
    await peer.send(b"banner")
    peer.end()
    assert await program.read() == b"banner"
    await program.send(b"still heard")
    program.end()
    assert await peer.read() == b"still heard"
    await program.close()
    await peer.close()
    await gone(harness)


async def test_a_reset_by_the_peer_reaches_the_program(
    harness: Harness, ends: tuple[Stream, Stream]
) -> None:
    program, peer = ends
    await program.send(b"x")
    assert await peer.read(1) == b"x"
    peer.reset()
    with pytest.raises(ConnectionResetError):
        await program.read()
    await program.close()
    await gone(harness)
    assert harness.service("clients")["failures"] == 1


async def test_a_reset_is_no_clean_end_of_a_half_closed_stream(
    harness: Harness, ends: tuple[Stream, Stream]
) -> None:
    program, peer = ends
    program.end()
    assert await peer.read() == b""
    peer.reset()
    with pytest.raises(ConnectionResetError):
        await program.read()
    await program.close()
    await gone(harness)


async def test_abort_resets_the_peer(harness: Harness, ends: tuple[Stream, Stream]) -> None:
    program, peer = ends
    await program.send(b"x")
    assert await peer.read(1) == b"x"
    program.writer.transport.abort()
    with pytest.raises(ConnectionResetError):
        await peer.read()
    await peer.close()
    await gone(harness)


async def test_close_sends_what_was_written(harness: Harness, ends: tuple[Stream, Stream]) -> None:
    program, peer = ends
    payload = os.urandom(3 << 20)
    program.writer.write(payload)
    program.writer.close()
    assert digest(await peer.read()) == digest(payload)
    await peer.close()
    await gone(harness)
    assert harness.service("clients")["failures"] == 0


async def test_a_daemon_that_vanishes_is_no_clean_end(
    harness: Harness, ends: tuple[Stream, Stream]
) -> None:
    program, peer = ends
    await peer.send(b"the first half")
    assert await program.read(14) == b"the first half"
    (splice,) = next(each for each in harness.daemon.services if each.title == "clients").active
    # As the kernel does for a process that is killed: both sockets close, nothing is said.
    splice.local._control.close()  # type: ignore[attr-defined]
    assert splice.local.transport is not None
    splice.local.transport.abort()
    with pytest.raises(ConnectionResetError, match="mptcpd went away"):
        await program.read()
    await program.close()
    await peer.close()


async def test_a_refusal_is_a_refusal(harness: Harness) -> None:
    with pytest.raises(ConnectionRefusedError):
        await mptcp.open_connection(harness.host, harness.remote_port, path=harness.path)
    await gone(harness)
    assert harness.service("clients")["failures"] == 1


async def test_policies_of_one_connection_and_of_one_server(
    harness: Harness, port: Callable[[], int]
) -> None:
    """docs/daemon.md: `policies` reach the engine; those of the rules are asked for as well."""
    asked = harness.engine.policies
    assert asked == [mptcp.Policies()]  # of the listen rule
    await harness.serve(lambda reader, writer: writer.close(), harness.remote_port)
    own = mptcp.Policies(scheduler="ecf", path_manager="fullmesh")
    _, writer = await mptcp.open_connection(
        harness.host, harness.remote_port, policies=own, path=harness.path
    )
    writer.close()
    server = await mptcp.start_server(
        lambda reader, writer: None,
        harness.host,
        port(),
        policies=mptcp.Policies(congestion_control="cubic"),
        path=harness.path,
    )
    server.close()
    await server.wait_closed()
    assert asked[1:] == [own, mptcp.Policies(congestion_control="cubic")]


async def test_a_cancelled_connect_leaves_nothing(harness: Harness) -> None:
    harness.engine.hang = True
    before = descriptors()
    connecting = asyncio.ensure_future(
        mptcp.open_connection(harness.host, harness.remote_port, path=harness.path)
    )
    async with asyncio.timeout(PATIENCE_S):
        await harness.engine.connecting.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await harness.engine.cancelled.wait()
    await gone(harness)
    await harness.until(lambda: descriptors() <= before)


async def test_hundred_connections_leave_no_descriptor(harness: Harness) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()
        await writer.wait_closed()

    await harness.serve(echo, harness.remote_port)
    before = descriptors()

    async def talk(number: int) -> bool:
        stream = Stream(
            *await mptcp.open_connection(harness.host, harness.remote_port, path=harness.path)
        )
        await stream.send(b"%d" % number)
        stream.end()
        answer = await stream.read()
        await stream.close()
        return answer == b"%d" % number

    async with asyncio.timeout(PATIENCE_S):
        assert all(await asyncio.gather(*map(talk, range(100))))
    await gone(harness)
    await harness.until(lambda: descriptors() <= before)


async def test_the_snapshot_and_a_new_one(harness: Harness, ends: tuple[Stream, Stream]) -> None:
    program, peer = ends
    info = program.writer.get_extra_info("mptcp_info")
    assert info == INFO
    assert info.subflows[0].srtt == 15_000
    for name in ("peername", "sockname"):
        address, number = program.writer.get_extra_info(name)
        assert address.startswith("127.")
        assert 0 < number < 65536
    fresh = await client.refresh_info(program.writer)
    assert fresh == INFO
    await peer.close()
    await program.read()
    await program.close()
    assert await client.refresh_info(program.writer) == INFO  # the last one


async def test_refresh_is_for_daemon_connections(harness: Harness) -> None:
    opener, accepter = await harness.pair("in")
    with pytest.raises(TypeError, match="not a connection through the daemon"):
        await client.refresh_info(opener.writer)
    await opener.close()
    await accepter.close()


async def test_a_server_lives_as_long_as_its_program_wants(
    harness: Harness, port: Callable[[], int]
) -> None:
    number = port()
    server = await mptcp.start_server(lambda r, w: None, harness.host, number, path=harness.path)
    assert isinstance(server, client.DaemonServer)
    assert (server.port, server.is_serving()) == (number, True)
    with pytest.raises(OSError, match="in use"):
        await mptcp.start_server(lambda r, w: None, harness.host, number, path=harness.path)
    async with server:
        pass
    assert not server.is_serving()

    async def refused() -> bool:
        try:
            _, writer = await asyncio.open_connection(harness.host, number)
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:  # it closed in the middle
            return False
        writer.transport.abort()
        return False

    async with asyncio.timeout(PATIENCE_S):
        while not await refused():  # noqa: ASYNC110 - the daemon closes it in its own time
            await asyncio.sleep(0)


async def test_a_server_ends_with_its_daemon(harness: Harness, port: Callable[[], int]) -> None:
    server = await mptcp.start_server(lambda r, w: None, harness.host, port(), path=harness.path)
    await harness.end()
    async with asyncio.timeout(PATIENCE_S):
        await server.wait_closed()
    assert not server.is_serving()


async def test_connections_nobody_fetches_are_reset(
    harness: Harness, port: Callable[[], int]
) -> None:
    # A program that listens, never reads, and dies: what the daemon had accepted is reset.
    number = port()
    request = client._Request(harness.path)
    await request.ask({"op": "listen", "host": harness.host, "port": number, "backlog": 2})
    peers = [Stream(*await asyncio.open_connection(harness.host, number)) for _ in range(5)]
    await harness.until(lambda: harness.service("clients")["connections"] == 5)
    request.close()
    for peer in peers:
        # Handed over and closed unread by the kernel, or never handed over: an end in any case.
        with contextlib.suppress(ConnectionResetError):
            assert await peer.read() == b""
        await peer.close()
    await gone(harness)


async def test_no_daemon_is_one_clear_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none", "x" * 200):
        with pytest.raises(DaemonError) as caught:
            await mptcp.open_connection("10.0.0.1", 1, path=path)
        assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match="start one"):
        await mptcp.start_server(lambda r, w: None, port=1, path=tmp_path / "none")


def test_where_the_socket_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert own_socket_path() == find_socket_path() == "/run/mptcp-us/control"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert find_socket_path() == "/run/mptcp-us/control"
    own = tmp_path / "mptcp-us" / "control"
    own.parent.mkdir()
    own.touch()
    assert find_socket_path() == str(own)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert own_socket_path() == str(own)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    assert own_socket_path() == "/run/mptcp-us/control"
    # Root of a user namespace, whose /run belongs to somebody else.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert own_socket_path() == find_socket_path() == str(own)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert own_socket_path() == "/run/mptcp-us/control"


async def test_the_transport_is_an_ordinary_one(
    harness: Harness, ends: tuple[Stream, Stream]
) -> None:
    program, peer = ends
    transport = program.writer.transport
    assert isinstance(transport, DaemonTransport)
    transport.set_write_buffer_limits(high=4096)
    assert transport.get_write_buffer_limits() == (1024, 4096)
    assert (transport.can_write_eof(), transport.is_reading()) == (True, True)
    transport.pause_reading()
    assert not transport.is_reading()
    transport.resume_reading()
    protocol = transport.get_protocol()
    transport.set_protocol(protocol)
    program.writer.writelines([b"a", b"b"])
    assert await peer.read(2) == b"ab"
    assert transport.get_write_buffer_size() == 0
    assert not transport.is_closing()
    await program.close()
    assert transport.is_closing()
    await peer.close()
    await gone(harness)
