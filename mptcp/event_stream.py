"""The event stream for asyncio: `async for event in engine.monitor()`."""

from __future__ import annotations

import asyncio

from mptcp.monitor import Monitor, MonitorEvent


class EventStream:
    """Events from the moment it was made until `close()` or the engine's end.

    Use it in one task. What is not fetched waits, up to the sink's limit; then an event of type
    `lost` stands for what is missing.
    """

    def __init__(self, sink: Monitor) -> None:
        self.sink = sink
        self._ready = asyncio.Event()
        self._closed = False
        sink.wake = self._ready.set

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> MonitorEvent:
        while (event := self.sink.poll()) is None:
            if self._closed:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        return event

    def close(self) -> None:
        """No more events; those that wait can still be fetched. Idempotent."""
        self._closed = True
        self.sink.close()
        self._ready.set()
