"""The proxies: half-close, errors, back-pressure and bounds, both ways."""

from __future__ import annotations

import asyncio
import socket

import pytest

from mptcp.daemon.rules import LINES_PER_SECOND, RateLimit
from mptcp.daemon.splice import BUFFER
from tests.daemon.fake import PATIENCE_S, Harness, Stream, digest

WAYS = ("in", "out")
both_ways = pytest.mark.parametrize("way", WAYS)


@both_ways
async def test_half_close_is_carried_through(harness: Harness, way: str) -> None:
    opener, accepter = await harness.pair(way)
    await opener.send(b"request")
    opener.end()
    assert await accepter.read() == b"request"
    # The other direction is still open, and ends by itself.
    await accepter.send(b"answer")
    accepter.end()
    assert await opener.read() == b"answer"
    await opener.close()
    await accepter.close()
    await harness.until(lambda: not harness.service(way)["active"])
    count = harness.service(way)
    out, back = (7, 6) if way == "out" else (6, 7)
    assert count == {
        "name": way,
        "active": 0,
        "connections": 1,
        "failures": 0,
        "refused": 0,
        "bytes_out": out,
        "bytes_in": back,
    }


@both_ways
async def test_the_accepting_side_may_end_first(harness: Harness, way: str) -> None:
    opener, accepter = await harness.pair(way)
    await accepter.send(b"banner")
    accepter.end()
    assert await opener.read() == b"banner"
    await opener.send(b"too late, but heard")
    opener.end()
    assert await accepter.read() == b"too late, but heard"
    await opener.close()
    await accepter.close()


@both_ways
@pytest.mark.parametrize("who", ["opener", "accepter"])
async def test_a_reset_is_carried_through(harness: Harness, way: str, who: str) -> None:
    opener, accepter = await harness.pair(way)
    await opener.send(b"x")
    assert await accepter.read(1) == b"x"
    ends = {"opener": (opener, accepter), "accepter": (accepter, opener)}
    breaker, other = ends[who]
    breaker.reset()
    with pytest.raises(ConnectionResetError):
        await other.read()
    await harness.until(lambda: not harness.service(way)["active"])
    assert harness.service(way)["failures"] == 1
    assert harness.engine.open == 0
    await other.close()


@both_ways
async def test_a_reset_after_half_close_is_noticed_while_all_is_silent(
    harness: Harness, way: str
) -> None:
    # Nobody reads the TCP side after its FIN, and nobody writes: only the error watch sees the RST.
    opener, accepter = await harness.pair(way)
    tcp, mptcp = (opener, accepter) if way == "out" else (accepter, opener)
    tcp.end()
    assert await mptcp.read() == b""
    tcp.reset()
    await harness.until(lambda: not harness.service(way)["active"])
    assert harness.service(way)["failures"] == 1
    assert harness.engine.open == 0
    await mptcp.close()


def _narrow(stream: Stream) -> None:
    sock = stream.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    stream.writer.transport.pause_reading()  # type: ignore[attr-defined]


@both_ways
@pytest.mark.parametrize("sender", ["opener", "accepter"])
async def test_a_reader_that_waits_makes_the_writer_wait(
    harness: Harness, way: str, sender: str
) -> None:
    opener, accepter = await harness.pair(way)
    source, sink = (opener, accepter) if sender == "opener" else (accepter, opener)
    _narrow(sink)
    payload = bytes(range(256)) * (32 << 12)  # 32 MiB, more than all kernel buffers on the way
    (service,) = [each for each in harness.daemon.services if each.title == way]
    (splice,) = service.active
    sending = asyncio.ensure_future(source.send(payload))
    await harness.until(lambda: any(half._paused for half in splice.halves))
    for _ in range(1000):  # turns in which nothing may grow any more
        await asyncio.sleep(0)
    waiting = [half.transport.get_write_buffer_size() for half in splice.halves if half.transport]
    # One read may come in after the buffer has reached its limit.
    assert BUFFER < max(waiting) <= 2 * BUFFER
    assert not sending.done()
    assert sum(half.received for half in splice.halves) < len(payload)
    sink.writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert digest(await sink.read(len(payload))) == digest(payload)
    await sending
    for stream in (opener, accepter):
        await stream.close()


@both_ways
async def test_fifty_connections_at_once(harness: Harness, way: str) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    entry = harness.forward_port if way == "out" else harness.listen_port
    await harness.serve(echo, harness.remote_port if way == "out" else harness.service_port)

    async def talk(number: int) -> bool:
        stream = Stream(*await asyncio.open_connection(harness.host, entry))
        payload = number.to_bytes(2, "big") * 20_000
        sending = asyncio.ensure_future(stream.send(payload))
        try:
            return await stream.read(len(payload)) == payload
        finally:
            await sending
            await stream.close()

    async with asyncio.timeout(PATIENCE_S):
        assert all(await asyncio.gather(*map(talk, range(50))))
    await harness.until(lambda: not harness.service(way)["active"])
    assert harness.service(way)["connections"] == 50
    assert harness.service(way)["bytes_in"] == 50 * 40_000


@both_ways
async def test_a_refusal_beyond_resets_the_one_before(harness: Harness, way: str) -> None:
    # Nobody serves behind the rule.
    entry = harness.forward_port if way == "out" else harness.listen_port
    stream = Stream(*await asyncio.open_connection(harness.host, entry))
    with pytest.raises(ConnectionResetError):
        await stream.read()
    await harness.until(lambda: not harness.service(way)["active"])
    assert harness.service(way)["failures"] == 1
    assert harness.engine.open == 0
    await stream.close()


async def test_a_client_that_gives_up_ends_the_connect(harness: Harness) -> None:
    harness.engine.hang = True
    stream = Stream(*await asyncio.open_connection(harness.host, harness.forward_port))
    async with asyncio.timeout(PATIENCE_S):
        await harness.engine.connecting.wait()
        stream.reset()
        await harness.engine.cancelled.wait()
    await harness.until(lambda: not harness.service("out")["active"])
    assert harness.service("out")["failures"] == 1


async def test_what_a_client_sends_while_the_connect_runs_is_not_lost(harness: Harness) -> None:
    # uvloop reads before it can be told not to; so data and end may be there before the other side.
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read())
        writer.close()

    await harness.serve(on_client, harness.remote_port)
    stream = Stream(*await asyncio.open_connection(harness.host, harness.forward_port))
    await stream.send(b"early")
    stream.end()
    async with asyncio.timeout(PATIENCE_S):
        assert await received == b"early"
    assert await stream.read() == b""
    await stream.close()


async def test_connections_above_the_limit_are_refused(harness: Harness) -> None:
    held: list[asyncio.StreamWriter] = []

    def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    await harness.serve(hold, harness.service_port)
    streams = [
        Stream(*await asyncio.open_connection(harness.host, harness.listen_port)) for _ in range(60)
    ]
    await harness.until(lambda: len(held) == 60)
    extra = Stream(*await asyncio.open_connection(harness.host, harness.listen_port))
    with pytest.raises(ConnectionResetError):
        await extra.read()
    await harness.until(lambda: harness.service("in")["active"] == 60)
    assert harness.service("in")["refused"] == 1
    for stream in (*streams, extra):
        await stream.close()
    for writer in held:
        writer.close()


@both_ways
async def test_the_end_of_the_daemon_resets_what_is_open(harness: Harness, way: str) -> None:
    opener, accepter = await harness.pair(way)
    await harness.end()
    for stream in (opener, accepter):
        with pytest.raises(ConnectionResetError):
            await stream.read()
        await stream.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(harness.host, harness.forward_port)
    assert harness.engine.stopped == 1


def test_log_lines_are_bounded_and_the_rest_is_told() -> None:
    import logging

    now = 0.0
    limit = RateLimit(lambda: now)
    records = [
        logging.LogRecord("x", logging.INFO, "", 0, "line", None, None)
        for _ in range(LINES_PER_SECOND + 5)
    ]
    assert sum(limit.filter(record) for record in records) == LINES_PER_SECOND
    now = 1.0
    later = logging.LogRecord("x", logging.INFO, "", 0, "line", None, None)
    assert limit.filter(later)
    assert later.getMessage() == "(5 lines left out) line"
