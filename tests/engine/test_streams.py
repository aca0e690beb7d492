"""Streams, connections, servers and TLS over two engines joined in memory."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from pathlib import Path

import pytest

from mptcp import Config
from mptcp.errors import AddressInUseError, NoRouteError
from tests.engine.memory import A2, B2, B, Pair
from tests.engine.recorder import Recorder

CERTIFICATE = Path(__file__).with_name("tls_test_only.pem")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back, then close."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes
) -> bytes:
    """Send `data` and its end while reading; what came back."""

    async def send() -> None:
        for start in range(0, len(data), 50_000):
            writer.write(data[start : start + 50_000])
            await writer.drain()
        writer.write_eof()

    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        answer = group.create_task(reader.read())
    writer.close()
    await writer.wait_closed()
    return answer.result()


@pytest.mark.parametrize("offload", [True, False], ids=["offload", "plain"])
@pytest.mark.parametrize("small", [True, False], ids=["small", "default"])
async def test_a_stream_comes_back_whole(offload: bool, small: bool) -> None:
    config = Config(send_buffer=50_000, receive_buffer=30_000) if small else Config()
    data = random.Random(3).randbytes(3_000_000)
    async with Pair(config, config, offload=offload) as pair:
        await pair.b.start_server(echo, port=5001)
        assert await exchange(*await pair.a.open_connection(B, 5001), data) == data


async def test_two_hundred_connections_at_once(pair: Pair) -> None:
    async def one(number: int) -> None:
        data = number.to_bytes(4, "big") * 5_000
        assert await exchange(*await pair.a.open_connection(B, 5001), data) == data

    async with pair:
        server = await pair.b.start_server(echo, B, 5001)
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(one(number))
        server.close()
        assert not pair.a.handlers


async def test_one_end_listens_and_connects_over_two_paths() -> None:
    data = random.Random(4).randbytes(2_000_000)
    async with Pair(paths=2) as pair:
        await pair.b.start_server(echo, port=5001)
        reader, writer = await pair.a.open_connection(B2, 5001, local_addr=A2)
        assert writer.get_extra_info("sockname")[0] == A2
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        await pair.until(lambda: len(writer.get_extra_info("mptcp_info").subflows) == 2)
        assert await exchange(reader, writer, data) == data


async def test_reading_too_little_does_not_fill_the_memory() -> None:
    config = Config(send_buffer=50_000, receive_buffer=50_000)
    limit, chunk = 1000, 10_000
    async with Pair(config, config) as pair:
        accepted: asyncio.Future[asyncio.StreamReader] = pair.b_loop().create_future()
        await pair.b.start_server(
            lambda reader, writer: accepted.set_result(reader), port=5001, limit=limit
        )
        _, writer = await pair.a.open_connection(B, 5001)
        written = 0

        async def send() -> None:
            nonlocal written
            while True:
                writer.write(bytes(chunk))
                written += chunk
                await writer.drain()

        sender = asyncio.create_task(send())
        reader = await accepted
        await pair.settle()
        # A StreamReader pauses above twice its limit; one piece of at most 64 KiB may be there.
        before = written
        assert before <= 50_000 + 50_000 + 65_536 + chunk + 2 * limit + 65_536
        await reader.readexactly(100_000)
        await pair.settle()
        assert written > before
        sender.cancel()
        writer.transport.abort()


async def test_refused(pair: Pair) -> None:
    async with pair:
        with pytest.raises(ConnectionRefusedError, match="refused"):
            await pair.a.open_connection(B, 1)
        assert not pair.a.handlers
        assert not pair.a.stack.metas


async def test_no_route(pair: Pair) -> None:
    async with pair:
        with pytest.raises(NoRouteError, match="no route to 192"):
            await pair.a.open_connection("192.0.2.1", 5001)
        with pytest.raises(NoRouteError, match="fd00"):
            await pair.a.open_connection("fd00::1", 5001)
        with pytest.raises(NoRouteError, match="not an address of this stack"):
            await pair.a.open_connection(B, 5001, local_addr=("10.0.1.77", 0))
        with pytest.raises(ValueError, match="port"):
            await pair.a.open_connection(B, 0)


async def test_no_answer_times_out() -> None:
    config = Config(initial_rto_us=2_000, min_rto_us=1_000, syn_retries=2)
    async with Pair(config) as pair:
        pair.cut()
        with pytest.raises(TimeoutError, match="did not answer"):
            await pair.a.open_connection(B, 5001)
        assert not pair.a.stack.metas


async def test_cancelling_ends_the_attempt(pair: Pair) -> None:
    async with pair:
        pair.cut()
        attempt = asyncio.create_task(pair.a.open_connection(B, 5001))
        await pair.settle()
        assert len(pair.a.stack.metas) == 1
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        assert not pair.a.stack.metas
        assert not pair.a.handlers


async def test_names_are_resolved_and_their_addresses_tried_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert host == "peer.test"
        addresses = ["fd00::1", B2, B, B]  # no route, nobody listens, right
        return [(socket.AF_INET, 0, 0, "", (address, port)) for address in addresses]

    async with Pair(paths=2) as pair:
        monkeypatch.setattr(pair.a.loop, "getaddrinfo", getaddrinfo)
        await pair.b.start_server(echo, B, 5001)
        reader, writer = await pair.a.open_connection("peer.test", 5001)
        assert writer.get_extra_info("peername") == (B, 5001)
        assert await exchange(reader, writer, b"hello") == b"hello"
        with pytest.raises(ConnectionRefusedError):
            await pair.a.open_connection("peer.test", 5002)


async def test_a_protocol_that_fails_to_begin_leaves_no_connection(pair: Pair) -> None:
    class Failing(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            raise ZeroDivisionError

    async with pair:
        server = Recorder(keep_open=True)
        await pair.b.create_server(lambda: server, port=5001)
        with pytest.raises(ZeroDivisionError):
            await pair.a.create_connection(Failing, B, 5001)
        await server.lost.wait()
        assert not pair.a.stack.metas

        await pair.b.create_server(Failing, port=5002)
        client, _ = Recorder(keep_open=True), None
        await pair.a.create_connection(lambda: client, B, 5002)
        await client.lost.wait()
        assert isinstance(client.exception, ConnectionResetError)


async def test_a_servers_life(pair: Pair) -> None:
    async with pair:
        server = await pair.b.start_server(echo)
        assert server.port > 0
        assert server.address is None
        assert server.is_serving()
        await server.start_serving()
        with pytest.raises(AddressInUseError):
            await pair.b.start_server(echo, B, server.port)
        reader, writer = await pair.a.open_connection(B, server.port)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        forever = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0)
        server.close()
        server.close()
        await server.wait_closed()
        await forever
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await pair.a.open_connection(B, server.port)
        assert await exchange(reader, writer, b"lives on") == b"lives on"


async def test_serving_until_cancelled(pair: Pair) -> None:
    async with pair:
        async with await pair.b.start_server(echo, [B, "0.0.0.0"][:1], 5001) as server:
            assert server.address == B
            assert f"{B}:5001" in repr(server)
            forever = asyncio.create_task(server.serve_forever())
            await asyncio.sleep(0)
            forever.cancel()
            with pytest.raises(asyncio.CancelledError):
                await forever
            assert not server.is_serving()
        with pytest.raises(NoRouteError, match="not an address"):
            await pair.b.start_server(echo, "10.0.1.99", 5001)
        with pytest.raises(ValueError, match="no host"):
            await pair.b.start_server(echo, [], 5001)
        assert not pair.b.stack.listeners


async def test_closing_and_aborting_the_clients_of_a_server(pair: Pair) -> None:
    async with pair:
        ends = [Recorder(keep_open=True) for _ in range(4)]
        waiting = list(ends[:2])
        server = await pair.b.create_server(waiting.pop, port=5001)
        for end in ends[2:]:
            await pair.a.create_connection(lambda end=end: end, B, 5001)  # type: ignore[misc]
            end.transport.write(b"x")
        await pair.settle()
        server.close_clients()
        for end in ends[2:]:
            await end.ended.wait()
            assert end.calls == ["made", "eof"]
        server.abort_clients()
        await pair.settle()
        assert all(end.calls[-1] == "lost" for end in ends[:2])


async def test_tls_both_ends(pair: Pair) -> None:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(CERTIFICATE)
    client_side = ssl.create_default_context(cafile=str(CERTIFICATE))
    data = random.Random(5).randbytes(1_000_000)

    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(len(data)))
        writer.close()
        await writer.wait_closed()

    async with pair:
        await pair.b.start_server(upper, port=5001, ssl=server_side)
        reader, writer = await pair.a.open_connection(
            B, 5001, ssl=client_side, server_hostname="mptcp.test"
        )
        assert not writer.get_extra_info("mptcp_info").fallback
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

        with pytest.raises(ssl.SSLCertVerificationError):
            await pair.a.open_connection(B, 5001, ssl=client_side, server_hostname="other.test")
        with pytest.raises(TypeError, match="SSLContext"):
            await pair.a.open_connection(B, 5001, ssl="yes")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="SSLContext"):
            await pair.b.start_server(upper, ssl=True)  # type: ignore[arg-type]
        await pair.settle()
        assert not pair.a.handlers


async def test_fast_open_through_the_streams(pair: Pair) -> None:
    """RFC 7413: the second connection carries its first bytes in the SYN; the server sees no
    difference."""
    async with pair:
        server = await pair.b.start_server(echo, port=5001, fast_open=8)
        for _ in range(2):
            reader, writer = await pair.a.open_connection(B, 5001, data=b"first", fast_open=True)
            assert not writer.get_extra_info("mptcp_info").fallback
            writer.write(b" second")
            writer.write_eof()
            assert await reader.read() == b"first second"
            writer.close()
            await writer.wait_closed()
        server.close()
        assert pair.a.stack.counters["TcpExtTCPFastOpenActive"] == 1
        assert pair.b.stack.counters["TcpExtTCPFastOpenPassive"] == 1


async def test_first_data_is_not_for_tls(pair: Pair) -> None:
    """The first bytes of a TLS connection are the ClientHello."""
    async with pair:
        with pytest.raises(ValueError, match="TLS"):
            await pair.a.open_connection(B, 5001, ssl=True, data=b"x")
