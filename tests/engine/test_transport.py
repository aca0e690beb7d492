"""MptcpTransport: order of callbacks, back-pressure both ways, every way to end."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mptcp
from mptcp import Config
from mptcp.engine import clock
from mptcp.info import MptcpInfo
from mptcp.meta_socket import MetaSocket
from mptcp.transport import HIGH_WATER, READ_BUDGET, READ_PIECE, MptcpTransport
from tests.engine.memory import A, B, Pair
from tests.engine.recorder import Recorder

SMALL = Config(send_buffer=64 << 10, receive_buffer=64 << 10)
WHOLE = Config(autotune=False)
"""With all of its buffers from the beginning."""


async def connect(
    pair: Pair, client: Recorder | None = None, server: Recorder | None = None
) -> tuple[Recorder, Recorder]:
    """A connection from A to B: the protocols of both ends, both told that it is made."""
    one = client or Recorder(keep_open=True)
    other = server or Recorder(keep_open=True)
    listening = await pair.b.create_server(lambda: other, port=5001)
    await pair.a.create_connection(lambda: one, B, 5001)
    await pair.until(lambda: bool(other.calls))
    listening.close()
    return one, other


async def test_writing_pauses_while_the_peer_does_not_read_and_memory_stays_bounded() -> None:
    chunk = bytes(10_000)
    async with Pair(SMALL, SMALL) as pair:
        one, other = await connect(pair, server=Recorder(keep_open=True, paused=True))
        written = 0
        while True:
            while one.writable.is_set():
                one.transport.write(chunk)
                written += len(chunk)
            await pair.settle()
            if not one.writable.is_set():
                break
        transport = one.transport
        assert isinstance(transport, MptcpTransport)
        waiting = transport.get_write_buffer_size()
        assert HIGH_WATER // 4 < waiting <= HIGH_WATER + len(chunk)
        peer: MetaSocket = other.transport.get_extra_info("connection")
        assert not other.data
        assert 0 < peer.rx.unread <= SMALL.receive_buffer
        assert transport.connection.tx.used <= SMALL.send_buffer
        assert written <= SMALL.send_buffer + SMALL.receive_buffer + HIGH_WATER + len(chunk)

        other.transport.resume_reading()
        await one.writable.wait()
        one.transport.write_eof()
        await other.ended.wait()
        assert other.data == bytes(written)
        assert one.calls[0] == "made"
        assert one.calls[1:] == ["pause", "resume"] * (len(one.calls) // 2)


async def test_a_turn_hands_over_no_more_than_its_budget() -> None:
    size = 4 * READ_BUDGET
    async with Pair(WHOLE, WHOLE) as pair:
        one, other = await connect(pair, server=Recorder(keep_open=True, paused=True))
        one.transport.write(bytes(size))
        peer: MetaSocket = other.transport.get_extra_info("connection")
        while peer.rx.unread < size:  # pacing takes its time
            await pair.settle()
        other.transport.resume_reading()
        steps = []
        while len(other.data) < size:
            before = len(other.data)
            await asyncio.sleep(0)
            steps.append(len(other.data) - before)
        assert max(steps) == READ_BUDGET


async def test_a_protocol_that_pauses_gets_no_more(pair: Pair) -> None:
    class Once(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()

    async with pair:
        one, other = await connect(pair, server=Once(keep_open=True))
        one.transport.write(bytes(5 * READ_PIECE))
        await pair.settle()
        assert 0 < len(other.data) <= READ_PIECE
        assert not other.transport.is_reading()
        while len(other.data) < 5 * READ_PIECE:
            other.transport.resume_reading()
            assert other.transport.is_reading()
            await pair.settle()


async def test_half_close_both_ways(pair: Pair) -> None:
    async with pair:
        one, other = await connect(pair)
        one.transport.write(b"question")
        assert one.transport.can_write_eof()
        one.transport.write_eof()
        one.transport.write_eof()
        with pytest.raises(RuntimeError):
            one.transport.write(b"more")
        await other.ended.wait()
        assert other.data == b"question"
        other.transport.writelines([b"ans", bytearray(b"w"), memoryview(b"er")])
        other.transport.write_eof()
        await one.ended.wait()
        assert one.data == b"answer"
        await one.lost.wait()
        await other.lost.wait()
        for end in (one, other):
            assert end.calls == ["made", "eof", "lost"]
            assert end.exception is None


async def test_a_protocol_that_does_not_keep_open_is_closed_at_the_peers_end(pair: Pair) -> None:
    async with pair:
        one, other = await connect(pair, server=Recorder())
        one.transport.write(b"x")
        one.transport.write_eof()
        await other.lost.wait()
        await one.lost.wait()
        assert other.calls == ["made", "eof", "lost"]
        assert (one.exception, other.exception) == (None, None)


async def test_close_sends_what_is_written_and_does_not_wait_for_the_peers_end() -> None:
    data = random.Random(1).randbytes(500_000)
    async with Pair(SMALL, SMALL, linger=0) as pair:
        one, other = await connect(pair)
        one.transport.write(data)
        one.transport.close()
        one.transport.close()
        assert one.transport.is_closing()
        one.transport.write(b"ignored")
        await one.lost.wait()
        assert one.exception is None
        assert other.data == data
        await other.ended.wait()
        assert other.calls == ["made", "eof"]


async def test_abort_resets_the_peer(pair: Pair) -> None:
    async with pair:
        one, other = await connect(pair)
        one.transport.abort()
        one.transport.abort()
        await one.lost.wait()
        await other.lost.wait()
        assert one.exception is None
        assert isinstance(other.exception, ConnectionResetError)
        assert not pair.a.handlers
        assert not pair.b.handlers


async def test_close_with_unread_data_resets_the_peer(pair: Pair) -> None:
    async with pair:
        one, other = await connect(pair, server=Recorder(paused=True))
        one.transport.write(b"never read")
        await pair.settle()
        other.transport.close()
        await other.lost.wait()
        await one.lost.wait()
        assert other.exception is None
        assert isinstance(one.exception, ConnectionResetError)


async def test_data_that_waits_while_the_connection_ends_comes_before_the_end(pair: Pair) -> None:
    async with pair:
        one, other = await connect(pair, server=Recorder(keep_open=True, paused=True))
        other.transport.write_eof()
        one.transport.write(b"last words")
        one.transport.write_eof()
        await one.lost.wait()
        await pair.settle()
        assert other.calls == ["made"]
        assert not other.data
        other.transport.resume_reading()
        await other.lost.wait()
        assert other.data == b"last words"
        assert other.calls == ["made", "eof", "lost"]
        assert other.exception is None


async def test_data_that_is_never_taken_does_not_hold_up_the_engines_end(pair: Pair) -> None:
    async with pair:
        one, other = await connect(pair, server=Recorder(keep_open=True, paused=True))
        other.transport.write_eof()
        one.transport.write(b"unheard")
        one.transport.write_eof()
        await one.lost.wait()
    assert other.calls == ["made", "lost"]
    assert isinstance(other.exception, ConnectionAbortedError)


@pytest.mark.parametrize("method", ["data_received", "eof_received"])
async def test_a_protocol_that_raises_loses_its_connection_and_no_other(
    pair: Pair, method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair:
        one, other = await connect(pair)
        third, fourth = await connect(pair)
        boom = ZeroDivisionError("boom")

        def fail(*_: object) -> None:
            raise boom

        monkeypatch.setattr(other, method, fail)
        with caplog.at_level(logging.ERROR):
            one.transport.write(b"x")
            one.transport.write_eof()
            await other.lost.wait()
        assert other.exception is boom
        assert "boom" in caplog.text
        await one.lost.wait()
        third.transport.write(b"y")
        third.transport.write_eof()
        await fourth.ended.wait()
        assert fourth.data == b"y"


async def test_a_buffer_that_is_reused_is_not_sent_changed() -> None:
    async with Pair(SMALL, SMALL) as pair:
        one, other = await connect(pair, server=Recorder(keep_open=True, paused=True))
        buffer = bytearray(b"a" * 100_000)
        one.transport.write(buffer)
        one.transport.write(memoryview(buffer).cast("H"))
        buffer[:] = b"b" * 100_000
        one.transport.write_eof()
        other.transport.resume_reading()
        await other.ended.wait()
        assert other.data == b"a" * 200_000


@pytest.mark.parametrize("method", ["close", "abort", "write_eof"])
async def test_the_stack_knows_the_time_when_something_ends(pair: Pair, method: str) -> None:
    async with pair:
        one, _ = await connect(pair)
        one.transport.write(b"x")
        await pair.settle()
        before = clock()
        getattr(one.transport, method)()
        assert pair.a.stack.now >= before


async def test_limits_and_types(pair: Pair) -> None:
    async with pair:
        one, _ = await connect(pair)
        transport = one.transport
        assert transport.get_write_buffer_limits() == (HIGH_WATER // 4, HIGH_WATER)
        transport.set_write_buffer_limits(low=10)
        assert transport.get_write_buffer_limits() == (10, 40)
        transport.set_write_buffer_limits(high=100, low=50)
        assert transport.get_write_buffer_limits() == (50, 100)
        with pytest.raises(ValueError, match="must be >="):
            transport.set_write_buffer_limits(high=1, low=2)
        with pytest.raises(TypeError):
            transport.write("text")  # type: ignore[arg-type]
        transport.write(b"")
        assert transport.get_write_buffer_size() == 0


async def test_lower_limits_pause_a_writer_at_once() -> None:
    async with Pair(SMALL, SMALL) as pair:
        one, other = await connect(pair, server=Recorder(keep_open=True, paused=True))
        size = SMALL.send_buffer + 10_000
        one.transport.write(bytes(size))
        assert one.writable.is_set()
        one.transport.set_write_buffer_limits(high=0)
        assert not one.writable.is_set()
        other.transport.resume_reading()
        await one.writable.wait()
        one.transport.write_eof()
        await other.ended.wait()
        assert len(other.data) == size


async def test_extra_info(pair: Pair) -> None:
    async with pair:
        one, other = await connect(pair)
        mine, peers = one.transport.get_extra_info, other.transport.get_extra_info
        assert mine("peername") == peers("sockname") == (B, 5001)
        assert mine("sockname") == peers("peername")
        assert mine("sockname")[0] == A
        info = mine("mptcp_info")
        assert isinstance(info, MptcpInfo)
        assert not info.fallback
        assert info.token == peers("mptcp_info").remote_token
        assert [subflow.state for subflow in info.subflows] == ["ESTABLISHED"]
        assert mine("connection").nodelay
        assert all(subflow.nodelay for subflow in mine("connection").subflows)
        assert mine("socket", "nothing") == "nothing"
        assert "open" in repr(one.transport)


async def test_a_buffered_protocol(pair: Pair) -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.space = bytearray(1000)
            self.data = bytearray()
            self.ended = asyncio.Event()

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.space

        def buffer_updated(self, nbytes: int) -> None:
            self.data += self.space[:nbytes]

        def eof_received(self) -> None:
            self.ended.set()

    async with pair:
        data = random.Random(2).randbytes(300_000)
        protocol = Buffered()
        await pair.b.create_server(lambda: protocol, port=5001)
        transport, _ = await pair.a.create_connection(Recorder, B, 5001)
        transport.write(data)
        transport.close()
        await protocol.ended.wait()
        assert protocol.data == data


Operation = tuple[int, str, int]
OPERATIONS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(["write", "write", "eof", "close", "abort", "pause", "resume", "turn"]),
        st.integers(1, 200_000),
    ),
    max_size=25,
)


def operate(end: Recorder, name: str, size: int) -> bytes:
    """Do what a program could do; what it has written."""
    transport = end.transport
    data = bytes([size % 251]) * size
    if name == "write" and not end.transport.is_closing():
        try:
            transport.write(data)
        except RuntimeError:  # after write_eof()
            return b""
        return data
    if name == "eof":
        transport.write_eof()
    elif name == "close":
        transport.close()
    elif name == "abort":
        transport.abort()
    elif name == "pause":
        transport.pause_reading()
    elif name == "resume":
        transport.resume_reading()
    return b""


@pytest.mark.parametrize("config", [Config(), SMALL], ids=["default", "small"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(operations=OPERATIONS, keep=st.tuples(st.booleans(), st.booleans()))
def test_any_program_sees_a_prefix_of_the_data_then_the_end_once(
    config: Config, operations: list[Operation], keep: tuple[bool, bool]
) -> None:
    async def main() -> None:
        async with Pair(config, config, linger=0) as pair:
            ends = await connect(pair, Recorder(keep_open=keep[0]), Recorder(keep_open=keep[1]))
            written = [bytearray(), bytearray()]
            graceful = True
            for who, name, size in operations:
                if name == "turn":
                    await pair.settle()
                else:
                    graceful = graceful and name in ("write", "eof", "resume")
                    written[who] += operate(ends[who], name, size)
            if graceful and all(keep):
                for end in ends:
                    end.transport.write_eof()
                for end in ends:
                    await end.lost.wait()
                assert [ends[1].data, ends[0].data] == written
        for who, end in enumerate(ends):
            assert end.calls[0] == "made"
            assert end.calls[-1] == "lost"
            assert written[1 - who].startswith(end.data)
        assert not pair.a.handlers
        assert not pair.b.handlers

    mptcp.run(main())
