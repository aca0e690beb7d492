"""Opening against the kernel: Fast Open both ways, plain and with MPTCP; SYN cookies of ours.

One namespace: the stack at 10.1.0.2 on a TUN, the kernel at 10.1.0.1.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from mptcp import Config, Engine, Interface
from mptcp.engine_interfaces import Attachment, open_tun
from mptcp.tun.netns import Namespace
from tests.interop.witness import TSHARK, complaints

pytestmark = pytest.mark.netns

STACK, KERNEL, PORT = "10.1.0.2", "10.1.0.1", 5001
IPPROTO_MPTCP: Final = 262
TCP_FASTOPEN: Final = 23
MSG_FASTOPEN: Final = 0x2000_0000
REQUEST: Final = b"GET / " + bytes(range(65, 91)) * 4
PROTOCOLS = pytest.mark.parametrize("protocol", [0, IPPROTO_MPTCP], ids=["tcp", "mptcp"])


@pytest.fixture
def kernel() -> Iterator[Namespace]:
    """A namespace whose kernel speaks Fast Open as client and as server."""
    with Namespace.create("opening") as namespace:
        namespace.sysctl("net.ipv4.tcp_fastopen", 3)
        yield namespace


def engine_in(namespace: Namespace, capture: Path, **settings: object) -> Engine:
    def factory(description: Interface) -> Attachment:
        return namespace.call(open_tun, description)

    interface = Interface("tun1", f"{STACK}/24", offload=True)
    config = Config(**settings)  # type: ignore[arg-type]
    return Engine([interface], config, device_factory=factory, pcap=capture)


def fast_syns(capture: Path) -> list[tuple[int, int]]:
    """(bytes of data, bytes of cookie) of each SYN with a Fast Open option."""
    if TSHARK is None:
        pytest.skip("tshark is not installed")
    keep = "tcp.flags.syn == 1 && tcp.flags.ack == 0 && tcp.options.tfo"
    command = [TSHARK, "-r", str(capture), "-Y", keep, "-T", "fields"]
    command += ["-e", "tcp.len", "-e", "tcp.options.tfo.cookie"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60, text=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return [(int(length), len(cookie.replace(":", "")) // 2) for length, cookie in rows]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.row("F11", kernel=True)
@PROTOCOLS
async def test_data_in_our_syn(kernel: Namespace, protocol: int, tmp_path: Path) -> None:
    """RFC 7413 §4.2.1 (with RFC 8684 appendix B): the kernel gives a cookie and takes the data."""
    listening = kernel.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    listening.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
    listening.bind(("", PORT))
    capture = tmp_path / "ours.pcapng"
    async with engine_in(kernel, capture) as engine:
        server = await asyncio.start_server(echo, sock=listening)
        for _ in range(2):
            reader, writer = await engine.open_connection(
                KERNEL, PORT, data=REQUEST, fast_open=True
            )
            assert await reader.readexactly(len(REQUEST)) == REQUEST
            more = random.Random(1).randbytes(300_000)
            writer.write(more)
            assert await reader.readexactly(len(more)) == more
            assert writer.get_extra_info("mptcp_info").fallback == (protocol == 0)
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        assert engine.stack.counters["TcpExtTCPFastOpenActive"] == 1
    if TSHARK is not None:
        assert complaints(capture) == Counter()
    assert fast_syns(capture) == [(0, 0), (len(REQUEST), 8)]


def request(namespace: Namespace, protocol: int, size: int) -> bytes:
    """A kernel client: REQUEST with Fast Open, then `size` more bytes, all of it echoed."""
    more = random.Random(2).randbytes(size)
    with namespace.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as client:
        client.sendto(REQUEST, MSG_FASTOPEN, (STACK, PORT))  # blocking: it connects as well
        client.settimeout(20)
        client.sendall(more)
        client.shutdown(socket.SHUT_WR)
        received = b""
        while data := client.recv(65536):
            received += data
    assert received[len(REQUEST) :] == more
    return received[: len(REQUEST)]


@pytest.mark.row("F11", kernel=True)
@PROTOCOLS
async def test_data_in_the_kernels_syn(kernel: Namespace, protocol: int, tmp_path: Path) -> None:
    """RFC 7413 §4.2.2: our cookie comes back with data, which is taken before the handshake."""
    capture = tmp_path / "theirs.pcapng"
    plain = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await echo(reader, writer)
        plain.append(writer.get_extra_info("mptcp_info").fallback)

    async with engine_in(kernel, capture) as engine:
        server = await engine.start_server(serve, port=PORT, fast_open=16)
        for _ in range(2):
            assert await asyncio.to_thread(request, kernel, protocol, 100_000) == REQUEST
        server.close()
        assert engine.stack.counters["TcpExtTCPFastOpenPassive"] == 1
        assert plain == [protocol == 0] * 2
    if TSHARK is not None:
        assert complaints(capture) == Counter()
    assert fast_syns(capture) == [(0, 0), (len(REQUEST), 8)]


@pytest.mark.row("I5", kernel=True)
@PROTOCOLS
async def test_the_kernel_connects_through_a_syn_cookie(
    kernel: Namespace, protocol: int, tmp_path: Path
) -> None:
    """RFC 4987 §3.6, RFC 8684 §3.1: no state until the ACK, and then 1 MiB with scaled windows and
    SACK, and MPTCP if the kernel wants it."""
    data = random.Random(3).randbytes(1 << 20)
    arrived: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert writer.get_extra_info("mptcp_info").fallback is (protocol == 0)
        arrived.set_result(hashlib.sha256(await reader.read(-1)).hexdigest())
        writer.close()

    def send() -> None:
        with kernel.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as client:
            client.settimeout(20)
            client.connect((STACK, PORT))
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            client.recv(1)

    async with engine_in(kernel, tmp_path / "cookie.pcapng", syn_cookies="always") as engine:
        server = await engine.start_server(sink, port=PORT)
        await asyncio.to_thread(send)
        assert await arrived == hashlib.sha256(data).hexdigest()
        server.close()
        counters = engine.stack.counters
        assert (counters["TcpExtSyncookiesSent"], counters["TcpExtSyncookiesRecv"]) == (1, 1)
