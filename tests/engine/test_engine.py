"""The engine: its turns, its timer, its interfaces, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import struct
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import mptcp
from mptcp import Config, Engine, Interface
from mptcp.engine import BUDGET
from mptcp.engine_failures import INTERVAL_US, MAX_KINDS, FailureLog
from mptcp.engine_interfaces import CACHE_LIMIT, Offloads, VnetHeaders
from mptcp.events import Connected, Event
from mptcp.tun.device import (
    F_DATA_VALID,
    F_NEEDS_CSUM,
    GSO_ECN,
    GSO_TCPV4,
    VNET_HDR,
    VNET_HDR_NONE,
    DeviceError,
)
from mptcp.tun.pcap import PcapWriter
from tests.engine.memory import B2, A, B, MemoryDevice, Pair, Side
from tests.engine.recorder import Recorder
from tests.engine.test_streams import echo, exchange
from tests.virtual import STACKS

DATA = random.Random(6).randbytes(2_000_000)


def device(side: Side, name: str = "p1") -> MemoryDevice:
    return side.devices[name]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn ends by the number of its packets, however slow the machine is."""
    monkeypatch.setattr("mptcp.engine.BUDGET_US", 1 << 40)


@pytest.mark.usefixtures("patient")
async def test_reading_stops_at_the_budget_so_that_others_run(pair: Pair) -> None:
    async with pair:
        junk = device(pair.sides[0])
        for _ in range(4 * BUDGET):
            junk.queue.append(VNET_HDR_NONE + b"\0" * 20)
        os.eventfd_write(junk.fileno(), 1)
        left = []
        while junk.queue:
            await asyncio.sleep(0)
            left.append(len(junk.queue))
        steps = [a - b for a, b in zip([4 * BUDGET, *left], left, strict=False)]
        assert max(steps) == BUDGET
        assert pair.a.stack.counters["IpInHdrErrors"] == 4 * BUDGET


async def test_reading_stops_after_its_time_so_that_others_run(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mptcp.engine.BUDGET_US", 0)
    async with pair:
        junk = device(pair.sides[0])
        for _ in range(5):
            junk.queue.append(VNET_HDR_NONE + b"\0" * 20)
        os.eventfd_write(junk.fileno(), 1)
        steps = []
        while junk.queue:
            before = len(junk.queue)
            await asyncio.sleep(0)
            steps.append(before - len(junk.queue))
        assert max(steps) == 1


@pytest.mark.usefixtures("patient")
async def test_writing_stops_at_the_budget_and_goes_on_in_the_next_turn(pair: Pair) -> None:
    async with pair:
        sent = device(pair.sides[1])
        sent.closed += 1  # takes nothing: what is written counts only
        count = 0

        def deliver(packet: bytes) -> None:
            nonlocal count
            count += 1

        sent.deliver = deliver  # type: ignore[method-assign]
        for port in range(1, 3 * BUDGET + 1):
            pair.a.stack.connect(B, port)
        pair.a.schedule()
        steps = []
        while count < 3 * BUDGET:
            before = count
            await asyncio.sleep(0)
            steps.append(count - before)
        assert max(steps) == BUDGET
        sent.closed -= 1


async def test_the_timer_is_lazy_and_an_early_wake_up_does_not_spin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = Config(initial_rto_us=10_000, min_rto_us=10_000, syn_retries=3)
    async with Pair(config) as pair:
        pair.cut()
        turns = 0
        pump = pair.a._pump

        def counted() -> None:
            nonlocal turns
            turns += 1
            pump()

        monkeypatch.setattr(pair.a, "_pump", counted)
        with pytest.raises(TimeoutError):
            await pair.a.open_connection(B, 5001)
        # 10 + 20 + 40 + 80 ms; each wake-up may come early once or twice.
        assert turns <= 20


@pytest.mark.realtime
async def test_the_timer_is_not_touched_per_packet(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair:
        await pair.b.start_server(echo, port=5001)
        loop = pair.a.loop
        armed = 0
        call_later = loop.call_later

        def counted(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            nonlocal armed
            armed += 1
            return call_later(*args, **kwargs)

        monkeypatch.setattr(loop, "call_later", counted)
        reader, writer = await pair.a.open_connection(B, 5001)
        assert await exchange(reader, writer, DATA * 4) == DATA * 4
        assert 0 < armed < 40


async def test_refused_writes_are_losses(pair: Pair) -> None:
    chance = random.Random(7)
    device(pair.sides[0]).refuse = lambda packet: chance.random() < 0.1
    device(pair.sides[1]).refuse = lambda packet: chance.random() < 0.1
    async with pair:
        await pair.b.start_server(echo, port=5001)
        reader, writer = await pair.a.open_connection(B, 5001)
        assert await exchange(reader, writer, DATA) == DATA
        assert pair.a.stack.counters["IpOutDiscards"] > 0


@pytest.mark.parametrize("how", ["read", "write", "remove", "down"])
async def test_a_lost_interface_is_a_path_less(how: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Pair(paths=2) as pair:
        await pair.b.start_server(echo, port=5001)
        reader, writer = await pair.a.open_connection(B, 5001)
        writer.write(b"x")
        await reader.readexactly(1)
        await pair.until(lambda: len(writer.get_extra_info("mptcp_info").subflows) == 2)
        one = device(pair.sides[0])
        with caplog.at_level(logging.WARNING):
            if how == "read":
                one.vanish()
            elif how == "write":
                one.gone = True
            elif how == "remove":
                pair.a.remove_interface("p1")
            else:
                pair.a.interface_down("p1")
            assert await exchange(reader, writer, DATA) == DATA
        lost = [record for record in caplog.records if "took the device" in record.message]
        assert len(lost) == (how in ("read", "write"))
        names = [port.description.name for port in pair.a.ports.values()]
        assert names == (["p1", "p2"] if how == "down" else ["p2"])
        assert one.closed == (how != "down")
        assert pair.sides[0].undone == ([] if how == "down" else ["p1"])


async def test_interfaces_come_and_go_while_it_runs() -> None:
    at_once = Config(heuristics="at-once")  # a byte is worth no second path
    async with Pair(at_once, at_once, paths=2) as pair:
        await pair.b.start_server(echo, port=5001)
        pair.a.interface_down("p2")
        reader, writer = await pair.a.open_connection(B, 5001)
        writer.write(b"x")
        await reader.readexactly(1)
        await pair.settle()
        info = writer.get_extra_info("mptcp_info")
        assert [subflow.interface for subflow in info.subflows] == ["p1"]
        pair.a.interface_up("p2")
        await pair.settle()
        info = writer.get_extra_info("mptcp_info")
        assert sorted(subflow.interface for subflow in info.subflows) == ["p1", "p2"]
        with pytest.raises(KeyError, match="p9"):
            pair.a.interface_down("p9")
        with pytest.raises(ValueError, match="p1 is there already"):
            pair.a.add_interface(Interface("p1", "10.7.0.1/24"))
        pair.sides[0].devices["p3"] = third = MemoryDevice()
        with pytest.raises(ValueError, match=r"10\.0\.1\.1 is the address of p1 and of p3"):
            pair.a.add_interface(Interface("p3", f"{A}/24"))
        assert third.closed
        assert pair.sides[0].undone == ["p3"]
        assert await exchange(reader, writer, b"still there") == b"still there"


@pytest.mark.parametrize(
    ("second", "error"),
    [
        (Interface("p2", f"{A}/24"), ValueError),
        (Interface("missing", "10.0.2.1/24"), KeyError),
        (Interface("used", "10.0.2.1/24"), DeviceError),
    ],
    ids=["address", "device", "in use"],
)
async def test_a_start_that_fails_leaves_nothing(second: Interface, error: type[Exception]) -> None:
    one, two, used = MemoryDevice(), MemoryDevice(), MemoryDevice()
    used.close()
    side = Side({"p1": one, "p2": two, "used": used})
    engine = Engine([Interface("p1", f"{A}/24"), second], device_factory=side)
    with pytest.raises(error) as caught:
        await engine.start()
    assert "\n" not in str(caught.value)
    assert one.closed == 1
    assert "p1" in side.undone
    with pytest.raises(RuntimeError, match="not running"):
        _ = engine.loop
    two.close()


async def test_stopping_resets_connections_and_closes_devices(pair: Pair) -> None:
    client = Recorder(keep_open=True)
    server = Recorder(keep_open=True)
    async with pair:
        await pair.b.create_server(lambda: server, port=5001)
        await pair.a.create_connection(lambda: client, B, 5001)
        client.transport.write(b"x")
        await pair.settle()
        await pair.a.stop()
        assert isinstance(client.exception, ConnectionAbortedError)
        await server.lost.wait()
        assert isinstance(server.exception, ConnectionResetError)
        assert device(pair.sides[0]).closed == 1
        assert pair.sides[0].undone == ["p1"]
        await pair.a.stop()
        assert pair.sides[0].undone == ["p1"]
        with pytest.raises(RuntimeError, match="not running"):
            await pair.a.open_connection(B, 5001)


async def test_stopping_lets_closed_connections_end_in_good_order(pair: Pair) -> None:
    async with pair:
        got: asyncio.Future[bytes] = pair.b_loop().create_future()

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.set_result(await reader.read())
            writer.close()
            await writer.wait_closed()

        await pair.b.start_server(take, port=5001)
        _, writer = await pair.a.open_connection(B, 5001)
        writer.write(DATA)
        writer.close()
        await pair.a.stop()
        assert await got == DATA


async def test_a_cancelled_stop_still_cleans_up(pair: Pair) -> None:
    async with pair:
        server = Recorder(keep_open=True)
        await pair.b.create_server(lambda: server, port=5001)
        _, client = await pair.a.create_connection(lambda: Recorder(keep_open=True), B, 5001)
        client.transport.write(b"x")
        await pair.settle()
        client.transport.close()  # and the peer never closes
        stopping = asyncio.create_task(pair.a.stop())
        await pair.settle()
        assert not stopping.done()
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert device(pair.sides[0]).closed == 1
        await server.lost.wait()


async def test_an_engine_starts_again(pair: Pair) -> None:
    async with pair:
        with pytest.raises(RuntimeError, match="already"):
            await pair.a.start()
        await pair.a.stop()
        side = pair.sides[0]
        side.devices["p1"] = one = MemoryDevice()
        one.peer, device(pair.sides[1]).peer = device(pair.sides[1]), one
        await pair.a.start()
        await pair.b.start_server(echo, port=5001)
        assert await exchange(*await pair.a.open_connection(B, 5001), b"again") == b"again"


@pytest.mark.interpreted
@pytest.mark.mib("EngineErrors")
async def test_an_error_of_ours_is_counted_and_logged_once_and_the_rest_goes_on(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    STACKS.append(pair.a.stack)
    async with pair:
        handle = pair.a.stack.handle_packet

        def fragile(now: int, interface: int, packet: memoryview, offload: object) -> None:
            if len(packet) == 20:
                raise ZeroDivisionError
            handle(now, interface, packet, offload)  # type: ignore[arg-type]

        monkeypatch.setattr(pair.a.stack, "handle_packet", fragile)
        with caplog.at_level(logging.ERROR):
            for _ in range(200):
                device(pair.sides[0]).deliver(VNET_HDR_NONE + bytes(20))
            await pair.b.start_server(echo, port=5001)
            assert await exchange(*await pair.a.open_connection(B, 5001), b"ok") == b"ok"
        assert pair.a.stack.counters["EngineErrors"] == 200
        assert len(caplog.records) == 1
        assert "ZeroDivisionError" in caplog.text


@pytest.mark.interpreted
async def test_an_error_while_sending_holds_nobody_else_up(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else was ready goes out in the next turn, not with the next packet that comes in."""
    async with pair:
        await pair.b.start_server(echo, port=5001)
        first, second = [await pair.a.open_connection(B, 5001) for _ in range(2)]
        await pair.settle()
        sick, sound = pair.a.stack.connections.values()

        def fails(now: int) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(sick, "poll_transmit", fails)
        first[1].write(b"lost")
        second[1].write(b"ok")
        for _ in range(4):
            await asyncio.sleep(0)
        assert pair.a.stack.counters["EngineErrors"] == 1
        assert sound.snd.bytes_sent == 2


def test_kinds_of_errors_are_logged_each_at_its_own_rate(caplog: pytest.LogCaptureFixture) -> None:
    """A flood of one kind must not hide the first of another, nor fill the log by itself."""
    counters: Counter[str] = Counter()
    failures = FailureLog(counters)
    for number in range(1000):
        failures.note("a packet", ZeroDivisionError(), number * 1000)
    failures.note("a timer", ZeroDivisionError("here"), 1_000_000)
    assert [bool(record.exc_info) for record in caplog.records] == [True, True]
    failures.note("a packet", ZeroDivisionError(), INTERVAL_US)
    assert "ZeroDivisionError (1001 so far)" in caplog.records[-1].getMessage()
    for number in range(2 * MAX_KINDS):
        failures.note(f"kind {number}", ZeroDivisionError(), INTERVAL_US)
    assert len(caplog.records) == 3 + MAX_KINDS - 2
    assert counters["EngineErrors"] == 1002 + 2 * MAX_KINDS


async def test_a_capture_holds_both_directions(tmp_path: Path, pair: Pair) -> None:
    path = tmp_path / "a.pcap"
    options: dict[str, Any] = {"pcap": path}
    async with Pair(**options, linger=0.1) as captured:
        await captured.b.start_server(echo, port=5001)
        before = time.time()
        assert await exchange(*await captured.a.open_connection(B, 5001), b"hello") == b"hello"
    raw = path.read_bytes()
    position, sources = 24, set()
    while position < len(raw):
        seconds, microseconds, kept, length = struct.unpack_from("=IIII", raw, position)
        assert kept == length
        assert before - 1 < seconds + microseconds / 1e6 < time.time() + 1
        packet = raw[position + 16 : position + 16 + kept]
        assert packet[0] == 0x45
        sources.add(packet[12:16])
        position += 16 + kept
    assert len(sources) == 2
    for side in pair.sides:
        device(side).close()


async def test_a_writer_that_is_given_stays_open_and_a_full_disk_ends_the_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with PcapWriter(tmp_path / "b.pcap") as writer:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        async with Pair(pcap=writer, linger=0) as pair:
            await pair.b.start_server(echo, port=5001)
            assert await exchange(*await pair.a.open_connection(B, 5001), b"1") == b"1"
            assert writer.written > 4
            monkeypatch.setattr(writer, "write", full)
            assert await exchange(*await pair.a.open_connection(B, 5001), b"2") == b"2"
        assert caplog.text.count("the capture ends here") == 2  # one for each engine
        writer.flush()


async def test_events_can_be_watched(pair: Pair) -> None:
    seen: list[type[Event]] = []
    async with pair:
        pair.a.on_event = lambda event: seen.append(type(event))
        await pair.b.start_server(echo, port=5001)
        _, writer = await pair.a.open_connection(B, 5001)
        assert seen[0] is Connected
        (info,) = pair.a.connections()
        assert info.remote == B
        writer.transport.abort()


def test_what_a_vnet_header_says() -> None:
    offloads = Offloads()
    plain = offloads[VNET_HDR_NONE]
    assert (plain.trusted, plain.gso_size, plain.ecn) == (False, 0, False)
    chunk = offloads[VNET_HDR.pack(F_NEEDS_CSUM, GSO_TCPV4 | GSO_ECN, 52, 1448, 20, 16)]
    assert (chunk.trusted, chunk.gso_size, chunk.ecn) == (True, 1448, True)
    assert offloads[VNET_HDR.pack(F_DATA_VALID, 0, 0, 0, 0, 0)].trusted
    assert offloads[VNET_HDR_NONE] is plain
    for size in range(2 * CACHE_LIMIT):
        _ = offloads[VNET_HDR.pack(F_NEEDS_CSUM, GSO_TCPV4, 52, size, 20, 16)]
    assert len(offloads) <= CACHE_LIMIT


def test_the_vnet_header_of_a_packet() -> None:
    headers = VnetHeaders()
    assert VNET_HDR.unpack(headers[52, GSO_TCPV4, 1448, 20]) == (
        F_NEEDS_CSUM,
        GSO_TCPV4,
        52,
        1448,
        20,
        16,
    )
    assert headers[52, GSO_TCPV4, 1448, 20] is headers[52, GSO_TCPV4, 1448, 20]
    for size in range(2 * CACHE_LIMIT):
        _ = headers[52, GSO_TCPV4, size, 20]
    assert len(headers) <= CACHE_LIMIT


@pytest.mark.parametrize(
    ("arguments", "options", "complaint"),
    [
        (("tun1", "10.0.0.1"), {}, "lacks its prefix"),
        (("tun1", "10.0.0.1/32"), {}, "no room"),
        (("tun1", []), {}, "no address"),
        (("tun1", ["10.0.0.1/24", "10.0.0.1/16"]), {}, "twice"),
        (("tun1", "nonsense/8"), {}, "nonsense"),
        (("tun1", "127.0.0.2/8"), {}, "interface tun1: 127.0.0.2/8 is a loopback address"),
        (("tun1", ["10.0.0.1/24", "224.0.0.1/4"]), {}, "224.0.0.1/4 is a multicast address"),
        (("a name", "10.0.0.1/24"), {}, "bad device name"),
        (("tun1", "10.0.0.1/24"), {"mtu": 67}, "MTU 67"),
        (("tun1", "10.0.0.1/24"), {"routes": ["10.0.0.0/33"]}, "route"),
    ],
)
def test_an_interface_that_cannot_work_is_refused_in_one_line(
    arguments: tuple[Any, Any], options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        Interface(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_two_interfaces_of_one_name() -> None:
    with pytest.raises(ValueError, match="two interfaces are called tun1"):
        Engine([Interface("tun1", "10.0.0.1/24"), Interface("tun1", "10.0.1.1/24")])


@pytest.mark.parametrize("kind", ["scheduler", "congestion_control", "path_manager", "reorder"])
def test_an_unknown_policy_is_refused_at_once(kind: str) -> None:
    options: dict[str, Any] = {kind: "nonsense"}
    with pytest.raises(ValueError, match=r"unknown .* 'nonsense': use one of"):
        Engine(config=Config(**options))


def test_run_prefers_uvloop() -> None:
    async def loop_module() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert mptcp.run(loop_module()).startswith("uvloop")


def test_public_names() -> None:
    for name in mptcp.__all__:
        assert getattr(mptcp, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mptcp.nothing
    assert B2
    with contextlib.suppress(ImportError):
        import importlib.metadata

        assert importlib.metadata.version("mptcp") == mptcp.__version__


async def test_the_event_stream_of_an_engine(pair: Pair) -> None:
    """`async for event in engine.monitor()`: from when it is asked for to the engine's end."""
    async with pair:
        ours, theirs = pair.a.monitor(), pair.b.monitor()
        await pair.b.start_server(echo, port=5001)
        assert await exchange(*await pair.a.open_connection(B, 5001), b"ok") == b"ok"
    client = [event async for event in ours]
    server = [event async for event in theirs]
    assert [event.type for event in client][:2] == ["created", "established"]
    assert [event.type for event in server][:3] == ["listener-created", "created", "established"]
    assert (client[0].server_side, server[1].server_side) == (False, True)
    assert "closed" in {event.type for event in client} & {event.type for event in server}
    assert (pair.a.stack.monitors, pair.b.stack.monitors) == ([], [])
