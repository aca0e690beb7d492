"""A protocol that writes down what happens to it, and checks the order asyncio promises."""

from __future__ import annotations

import asyncio


class Recorder(asyncio.Protocol):
    """`calls` is what happened; `data` what came. The order is checked as it happens."""

    def __init__(self, *, keep_open: bool = False, paused: bool = False) -> None:
        self.keep_open = keep_open
        self.start_paused = paused
        self.calls: list[str] = []
        self.data = bytearray()
        self.exception: Exception | None = None
        self.transport: asyncio.Transport = asyncio.Transport()
        self.lost = asyncio.Event()
        self.ended = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert not self.calls
        assert isinstance(transport, asyncio.Transport)
        self.calls.append("made")
        self.transport = transport
        if self.start_paused:
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        assert self.calls
        assert "eof" not in self.calls
        assert "lost" not in self.calls
        assert data
        self.data += data

    def eof_received(self) -> bool:
        assert "eof" not in self.calls
        assert "lost" not in self.calls
        self.calls.append("eof")
        self.ended.set()
        return self.keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        assert "made" in self.calls
        assert "lost" not in self.calls
        assert self.transport.is_closing()
        self.calls.append("lost")
        self.exception = exc
        self.lost.set()
        self.ended.set()
        self.writable.set()

    def pause_writing(self) -> None:
        assert self.writable.is_set()
        self.calls.append("pause")
        self.writable.clear()

    def resume_writing(self) -> None:
        assert not self.writable.is_set()
        self.calls.append("resume")
        self.writable.set()
