"""Engines on real TUN devices: with each other, with the kernel's TCP and MPTCP, and Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from mptcp import Engine, Interface
from mptcp.engine_interfaces import Attachment, open_tun
from mptcp.tun.netns import Namespace
from tests.engine.test_streams import echo, exchange

pytestmark = pytest.mark.netns

IPPROTO_MPTCP = 262
STACK, KERNEL = "10.1.0.2", "10.1.0.1"
STACK6 = "fd01::2"
BOTH = ("10.1.0.2/24", "fd01::2/64")
DATA = random.Random(8).randbytes(3_000_000)

Factory = Callable[[Interface], Attachment]


def inside(namespace: Namespace) -> Factory:
    """A factory whose devices are in `namespace`."""
    return lambda description: namespace.call(open_tun, description)


def links(namespace: Namespace) -> list[str]:
    return sorted(name for _, name in namespace.call(socket.if_nameindex))


def interface(*addresses: str, offload: bool = True) -> Interface:
    return Interface("tun1", addresses or BOTH, offload=offload)


async def serve_in_kernel(namespace: Namespace, protocol: int) -> asyncio.Server:
    """An echo server of the kernel's, on port 5001."""
    listening = namespace.socket(socket.AF_INET6, socket.SOCK_STREAM, protocol)
    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listening.bind(("::", 5001))
    return await asyncio.start_server(echo, sock=listening)


async def connect_from_kernel(
    namespace: Namespace, protocol: int, address: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connecting = namespace.socket(family, socket.SOCK_STREAM, protocol)
    try:
        # In a thread: asyncio's own connect looks for the protocol in the resolver, in vain.
        await asyncio.to_thread(connecting.connect, (address, 5001))
    except BaseException:
        connecting.close()
        raise
    return await asyncio.open_connection(sock=connecting)


@pytest.mark.parametrize("offload", [True, False], ids=["offload", "plain"])
async def test_ours_to_ours_over_a_routed_link(
    left: Namespace, right: Namespace, offload: bool
) -> None:
    left.veth(right, "v0", addresses=["10.9.0.1/24"], other_addresses=["10.9.0.2/24"])
    left.enable_forwarding()
    right.enable_forwarding()
    left.add_route("10.2.0.0/24", via="10.9.0.2")
    right.add_route("10.1.0.0/24", via="10.9.0.1")
    one = Engine([interface("10.1.0.2/24", offload=offload)], device_factory=inside(left))
    other = Engine([interface("10.2.0.2/24", offload=offload)], device_factory=inside(right))
    async with one, other:
        await other.start_server(echo, port=5001)
        reader, writer = await one.open_connection("10.2.0.2", 5001)
        answer = await exchange(reader, writer, DATA)
        assert hashlib.sha256(answer).digest() == hashlib.sha256(DATA).digest()
        assert not writer.get_extra_info("mptcp_info").fallback
    assert links(left) == links(right) == ["lo", "v0"]


@pytest.mark.parametrize("protocol", [0, IPPROTO_MPTCP], ids=["tcp", "mptcp"])
@pytest.mark.parametrize("offload", [True, False], ids=["offload", "plain"])
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
async def test_ours_to_the_kernel_and_back(
    left: Namespace, protocol: int, offload: bool, version: int
) -> None:
    kernel, stack = (KERNEL, STACK) if version == 4 else ("fd01::1", STACK6)
    async with Engine([interface(offload=offload)], device_factory=inside(left)) as engine:
        server = await serve_in_kernel(left, protocol)
        reader, writer = await engine.open_connection(kernel, 5001)
        assert await exchange(reader, writer, DATA) == DATA
        assert writer.get_extra_info("mptcp_info").fallback == (protocol == 0)
        server.close()
        await server.wait_closed()

        await engine.start_server(echo, port=5001)
        reader, writer = await connect_from_kernel(left, protocol, stack)
        assert await exchange(reader, writer, DATA) == DATA
        assert all(info.fallback == (protocol == 0) for info in engine.connections())
    assert links(left) == ["lo"]


async def test_the_kernel_refuses(left: Namespace) -> None:
    async with Engine([interface()], device_factory=inside(left)) as engine:
        with pytest.raises(ConnectionRefusedError):
            await engine.open_connection(KERNEL, 9)


async def test_a_device_deleted_under_us_is_one_line_in_the_log(
    left: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(
        [interface(), Interface("tun2", "10.2.0.2/24")],
        device_factory=inside(left),
    )
    async with engine:
        lost = asyncio.Event()
        handler = logging.Handler()
        handler.emit = lambda record: lost.set()  # type: ignore[method-assign]
        logger = logging.getLogger("mptcp.engine")
        logger.addHandler(handler)
        try:
            left.delete_link("tun2")
            async with asyncio.timeout(5):
                await lost.wait()
        finally:
            logger.removeHandler(handler)
        assert [port.description.name for port in engine.ports.values()] == ["tun1"]
        server = await serve_in_kernel(left, 0)
        reader, writer = await engine.open_connection(KERNEL, 5001)
        assert await exchange(reader, writer, b"goes on") == b"goes on"
        server.close()
        await server.wait_closed()
    assert [record.message for record in caplog.records if "tun2" in record.message] == [
        "TUN device 'tun2' has gone: was the interface deleted?; its subflows end"
    ]


async def test_what_was_there_before_stays(left: Namespace) -> None:
    left.output(["ip", "tuntap", "add", "tun1", "mode", "tun"])
    before = left.output(["ip", "-o", "addr", "show", "dev", "tun1", "scope", "global"])
    async with Engine([interface()], device_factory=inside(left)):
        assert "10.1.0.1/24" in left.output(
            ["ip", "-o", "addr", "show", "dev", "tun1", "scope", "global"]
        )
    assert left.output(["ip", "-o", "addr", "show", "dev", "tun1", "scope", "global"]) == before
    assert links(left) == ["lo", "tun1"]


PROGRAM = """
import asyncio, sys
import mptcp

async def chat(reader, writer):
    while data := await reader.read(1000):
        writer.write(data)

async def main():
    try:
        async with mptcp.Engine([mptcp.Interface("tun1", "10.1.0.2/24")]) as engine:
            server = await engine.start_server(chat, port=5001)
            reader, writer = await engine.open_connection("10.1.0.1", 5002)
            print(await reader.readexactly(5), flush=True)
            await server.serve_forever()
    finally:
        print("tasks left:", len(asyncio.all_tasks()) - 1)

try:
    {run}(main())
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("runner", ["asyncio.run", "mptcp.run"])
async def test_ctrl_c_leaves_nothing(left: Namespace, runner: str) -> None:
    ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await writer.drain()
        error: Exception | None = None
        try:
            await reader.read()
        except ConnectionResetError as reset:
            error = reset
        ended.set_result(error)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            writer.close()
            await writer.wait_closed()

    listening = left.socket()
    listening.bind(("0.0.0.0", 5002))
    server = await asyncio.start_server(greet, sock=listening)
    child = left.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(run=runner)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert await asyncio.to_thread(child.stdout.readline) == "b'hello'\n"
    assert "tun1" in links(left)
    child.send_signal(signal.SIGINT)
    printed, complaint = await asyncio.to_thread(child.communicate, timeout=10)
    assert (printed, complaint, child.returncode) == ("tasks left: 0\ninterrupted\n", "", 0)
    assert links(left) == ["lo"]
    assert isinstance(await ended, ConnectionResetError)
    server.close()
    await server.wait_closed()


async def test_a_subnet_in_use_is_refused_and_nothing_is_left(left: Namespace) -> None:
    one = Interface("tun1", "10.1.0.2/24")
    async with Engine([one], device_factory=inside(left)) as engine:
        with pytest.raises(OSError, match=r"^10.1.0.3/24 \(tun2\) overlaps 10.1.0.1/24 on tun1:"):
            engine.add_interface(Interface("tun2", "10.1.0.3/24"))
        assert links(left) == ["lo", "tun1"]
        other = Engine(
            [Interface("tun3", "10.3.0.2/24"), Interface("tun4", "10.1.0.9/28")],
            device_factory=inside(left),
        )
        with pytest.raises(OSError, match="choose a subnet of its own"):
            await other.__aenter__()
        assert links(left) == ["lo", "tun1"]
    assert links(left) == ["lo"]
