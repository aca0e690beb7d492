"""The engine: a `Stack` driven by asyncio and TUN devices.

Sole owner of device descriptors, of the clock, of entropy and of the place in the event loop; the
stack below has none of them and the streams above reach them only through here.

A wake-up is one turn of `_pump`: packets are read first (at most `BUDGET` and for `BUDGET_US`, each
stamped when it is read), then events go to their handlers, what the stack wants to send is written
(within the same bounds; what is left waits for the next turn of the loop, so that other tasks and
other interfaces have theirs), and the one timer is re-armed, which touches the loop only when the
deadline has become earlier. The time bounds large packets, the number small ones: a flood of them
must be read as fast as it comes, or it takes the place of others in the device's queue.

Invariants
  * Whoever calls the stack outside `_pump` calls `schedule()` after it; calls are coalesced. Before
    a call that starts timers (open, close) comes `advance()`.
  * Between two turns `_wake_up` is armed for the stack's deadline or something earlier.
  * After `stop()`, however it was reached, nothing is left: reader, timer, device, address.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from mptcp.config import Config
from mptcp.driver import Handler
from mptcp.engine_failures import FailureLog
from mptcp.engine_interfaces import DeviceFactory, Interface, Offloads, Port, VnetHeaders, open_tun
from mptcp.engine_timer import WakeUp
from mptcp.errors import ConnectionEnd
from mptcp.event_stream import EventStream
from mptcp.events import Accepted, Closed, Event
from mptcp.info import MptcpInfo
from mptcp.meta_socket import MetaSocket
from mptcp.monitor import LIMIT
from mptcp.policies import load_entry_points
from mptcp.stack import Stack
from mptcp.streams import StreamApi
from mptcp.tun.device import VNET_HDR_LEN, VNET_HDR_NONE, DeviceError
from mptcp.tun.pcap import PcapWriter

if TYPE_CHECKING:
    from mptcp.accepting import Listener

__all__ = ["Engine", "Interface", "run"]

BUDGET: Final = 256
"""Packets read, and packets written, in one turn."""
BUDGET_US: Final = 2_000
"""How long a turn reads, and how long it writes."""
LINGER_S: Final = 1.0
NEVER: Final = 1 << 63

logger = logging.getLogger("mptcp.engine")
T = TypeVar("T")


def clock() -> int:
    """Monotonic microseconds: the `now` of every call into the stack."""
    return time.monotonic_ns() // 1000


class Engine(StreamApi):
    """A stack that lives in the running event loop. Use it with `async with`."""

    def __init__(
        self,
        interfaces: Sequence[Interface] = (),
        config: Config | None = None,
        *,
        pcap: str | os.PathLike[str] | PcapWriter | None = None,
        device_factory: DeviceFactory = open_tun,
        linger: float = LINGER_S,
    ) -> None:
        """`pcap` captures every packet of every interface; a writer that is given stays open.

        `linger`: seconds that `stop()` grants to connections which the application has closed
        and whose peer has not.
        Raises ValueError for two interfaces of one name, and for a policy nobody has registered.
        """
        names = [interface.name for interface in interfaces]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two interfaces are called {name}: give each its own name")
        self.config = config or Config()
        load_entry_points()
        self.stack = Stack(self.config, os.urandom, now=clock())
        self.handlers: dict[MetaSocket, Handler] = {}
        """Who takes the events of a connection."""
        self.acceptors: dict[Listener, Callable[[MetaSocket], None]] = {}
        """Who takes the connections of a listener."""
        self.lingering: dict[MetaSocket, Callable[[], None]] = {}
        """Called at each turn, until removed, for connections that are closed for the application
        and not yet flushed."""
        self.on_event: Callable[[Event], None] | None = None
        """Sees every event before its handler does (logging)."""
        self.ports: dict[int, Port] = {}
        self._descriptions = list(interfaces)
        self._factory = device_factory
        self._linger = linger
        self._pcap_target = pcap
        self._pcap: PcapWriter | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._numbers = 0
        self._streams: list[EventStream] = []
        self._scheduled = False
        self._wake_up: WakeUp | None = None
        self._turn: asyncio.Future[None] | None = None
        self._offloads = Offloads()
        self._headers = VnetHeaders()
        self._failures = FailureLog(self.stack.counters)

    # -- life ----------------------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop the engine runs in. Raises RuntimeError when it does not run."""
        if self._loop is None:
            raise RuntimeError("the engine is not running: use `async with` or await start()")
        return self._loop

    async def start(self) -> None:
        """Open the interfaces. Raises DeviceError or ValueError in one line; nothing stays then."""
        if self._loop is not None:
            raise RuntimeError("the engine is running already")
        self._loop = asyncio.get_running_loop()
        self._wake_up = WakeUp(self._loop, self._on_timer)
        try:
            target = self._pcap_target
            if target is not None:
                self._pcap = target if isinstance(target, PcapWriter) else PcapWriter(target)
            for description in self._descriptions:
                self.add_interface(description)
        except BaseException:
            self._shut_down()
            raise

    async def stop(self) -> None:
        """End everything and take everything back. Idempotent.

        Connections that the application has closed get up to `linger` seconds to end in good
        order; the others are reset. A cancellation cuts the wait short and still cleans up.
        """
        if self._loop is None:
            return
        try:
            for listener in list(self.acceptors):
                listener.close()
            self.acceptors.clear()
            self.schedule()
            try:
                async with asyncio.timeout(self._linger):
                    while self._closing():
                        self._turn = self._loop.create_future()
                        await self._turn
            except TimeoutError:
                logger.info("connections that did not end in time are reset")
        finally:
            self._turn = None
            self._shut_down()
        # connection_lost() of what was reset has been scheduled: let it run, and its readers.
        for _ in range(2):
            await asyncio.sleep(0)

    def _closing(self) -> bool:
        if any(handler.is_closing() for handler in self.handlers.values()):
            return True
        return any(meta.app_closed for meta in self.stack.metas)

    def _shut_down(self) -> None:
        """The part of `stop()` that cannot be interrupted: no await in it."""
        self.advance()
        for listener in list(self.stack.listeners.values()):
            listener.close()
        self.acceptors.clear()
        for meta in list(self.stack.metas):
            meta.abort()
        try:
            self._scheduled = True  # nothing is to be scheduled any more
            self._dispatch()
            while self.ports and self._transmit():  # the resets
                pass
            self._dispatch()
            # Who still waits to hand over what an ended connection has left will wait in vain.
            for connection, handler in list(self.handlers.items()):
                handler.handle_event(Closed(connection, ConnectionEnd.ABORTED))
        finally:
            if self._wake_up is not None:
                self._wake_up.close()
                self._wake_up = None
            for number in list(self.ports):
                self.stack.interface_down(clock(), number)
                self._detach(number)
            if self._pcap is not None and self._pcap is not self._pcap_target:
                self._pcap.close()
            self._pcap = None
            for stream in self._streams:
                stream.close()
            self._streams.clear()
            self._loop = None
            self._scheduled = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # -- interfaces ----------------------------------------------------------------------------

    def add_interface(self, interface: Interface) -> None:
        """Attach one more interface to the running engine.

        Raises DeviceError when its device cannot be opened, ValueError when its name or one of its
        addresses is taken, RuntimeError when the engine does not run.
        """
        loop = self.loop
        if any(port.description.name == interface.name for port in self.ports.values()):
            raise ValueError(f"an interface {interface.name} is there already: choose another name")
        attachment = self._factory(interface)
        try:
            self._numbers += 1
            port = Port(self._numbers, interface, attachment)
            self.stack.interface_up(clock(), port.core)
            loop.add_reader(port.device.fileno(), self._readable, port)
        except BaseException:
            self.stack.interface_down(clock(), self._numbers)
            attachment.close()
            raise
        self.ports[port.number] = port
        self.schedule()

    def remove_interface(self, name: str) -> None:
        """Detach an interface: its subflows end, its device closes. Raises KeyError."""
        port = self._named(name)
        self.stack.interface_down(clock(), port.number)
        self._transmit()  # what its subflows and the others have to say about it
        self._detach(port.number)
        self.schedule()

    def interface_down(self, name: str) -> None:
        """Stop using an interface, its device stays open: its subflows end. Raises KeyError."""
        self.stack.interface_down(clock(), self._named(name).number)
        self.schedule()

    def interface_up(self, name: str) -> None:
        """Use an interface again after `interface_down()`. Raises KeyError."""
        self.stack.interface_up(clock(), self._named(name).core)
        self.schedule()

    def _named(self, name: str) -> Port:
        for port in self.ports.values():
            if port.description.name == name:
                return port
        raise KeyError(f"there is no interface {name}")

    def _detach(self, number: int) -> None:
        port = self.ports.pop(number)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(port.device.fileno())
        try:
            port.attachment.close()
        except OSError as error:
            logger.warning("interface %s was not put back: %s", port.description.name, error)

    def _lost(self, port: Port, error: DeviceError) -> None:
        """The device was deleted under us: a path less, and the others go on."""
        if self.ports.get(port.number) is port:
            logger.warning("%s; its subflows end", error)
            self.stack.interface_down(clock(), port.number)
            self._detach(port.number)
            self.schedule()

    # -- the turn ------------------------------------------------------------------------------

    def advance(self) -> None:
        """Tell the stack the time, before a call that starts timers; see `Driver`."""
        self.stack.handle_timeout(clock())

    def schedule(self) -> None:
        """Have one turn run soon: the stack may have something to send or to tell."""
        if not self._scheduled and self._loop is not None:
            self._scheduled = True
            self._loop.call_soon(self._pump)

    def _readable(self, port: Port) -> None:
        """The device has packets: the wake-up that counts."""
        read = port.device.read
        handle = self.stack.handle_packet
        number = port.number
        offloads = self._offloads
        pcap = self._pcap
        end = 0
        for _ in range(BUDGET):
            try:
                packet = read()
                if packet is None:
                    break
                now = time.monotonic_ns() // 1000
                if not end:
                    end = now + BUDGET_US
                view = memoryview(packet)
                offload = offloads[packet[:VNET_HDR_LEN]]
                if pcap is not None:
                    self._capture(view[VNET_HDR_LEN:])
                handle(now, number, view[VNET_HDR_LEN:], offload)
                if now >= end:
                    break
            except DeviceError as error:
                self._lost(port, error)
                break
            except Exception as error:
                self._failures.note("a packet", error, clock())
        self._pump()

    def _on_timer(self) -> None:
        try:
            # Early it does nothing, and is armed again.
            self.stack.handle_timeout(clock())
        except Exception as error:
            self._failures.note("a timer", error, clock())
        self._pump()

    def _pump(self) -> None:
        """Events out, packets out, timer. See the module's text."""
        if self._loop is None:
            return
        # What handlers ask of the stack goes out in this very turn.
        self._scheduled = True
        for check in list(self.lingering.values()):
            check()
        self._dispatch()
        self._scheduled = False
        more = self._transmit()
        if self._dispatch() or more:
            self.schedule()
        self._arm()
        turn = self._turn
        if turn is not None and not turn.done():
            turn.set_result(None)

    def _dispatch(self) -> bool:
        """Hand all events to whoever waits for them; whether there were any."""
        poll = self.stack.poll_event
        handlers = self.handlers
        any_event = False
        while (event := poll()) is not None:
            any_event = True
            try:
                if self.on_event is not None:
                    self.on_event(event)
                handler = handlers.get(event.connection)
                if handler is not None:
                    handler.handle_event(event)
                elif type(event) is Accepted:
                    acceptor = self.acceptors.get(event.listener)
                    if acceptor is not None:
                        acceptor(event.connection)
                    else:  # the listener was closed meanwhile
                        event.connection.abort()
            except Exception as error:
                self._failures.note(type(event).__name__, error, clock())
        return any_event

    def _transmit(self) -> bool:
        """Write what the stack has; True when the budget ended before the packets did."""
        stack = self.stack
        ports = self.ports
        headers = self._headers
        end = 0
        try:
            for _ in range(BUDGET):
                now = time.monotonic_ns() // 1000
                if not end:
                    end = now + BUDGET_US
                elif now >= end:
                    break
                transmit = stack.poll_transmit(now)
                if transmit is None:
                    return False
                port = ports.get(transmit.interface)
                if port is None:
                    stack.transmit_refused(now, transmit)
                    continue
                header = transmit.header
                vnet = VNET_HDR_NONE
                if transmit.csum_start:
                    vnet = headers[
                        len(header), transmit.gso_type, transmit.gso_size, transmit.csum_start
                    ]
                try:
                    taken = port.device.write(vnet, [header, *transmit.payload])
                except DeviceError as error:
                    taken = False
                    self._lost(port, error)
                if not taken:
                    stack.transmit_refused(now, transmit)
                elif self._pcap is not None:
                    self._capture(header, *transmit.payload)
        except Exception as error:
            # What else is ready goes in the next turn: the stack has let go of what failed.
            self._failures.note("sending", error, clock())
        return True

    def _arm(self) -> None:
        """Set the one timer, if it has to ring earlier than it would."""
        deadline = self.stack.poll_timeout()
        if deadline is not None and self._wake_up is not None:
            self._wake_up.arm(deadline)

    def _capture(self, *parts: bytes | bytearray | memoryview) -> None:
        assert self._pcap is not None
        try:
            self._pcap.write(time.time_ns() // 1000, *parts)
        except (OSError, ValueError) as error:
            logger.error("the capture ends here: %s", error)
            self._pcap = None

    # -- the application's side ----------------------------------------------------------------

    def monitor(self, limit: int = LIMIT) -> EventStream:
        """What happens to connections from now on, as `ip mptcp monitor` tells it (`monitor`).

        `limit` events wait for the reader; more are lost and counted. Raises ValueError.
        """
        stream = EventStream(self.stack.monitor(limit))
        self._streams.append(stream)
        return stream

    def connections(self) -> list[MptcpInfo]:
        """A snapshot of every connection."""
        return self.stack.info()


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """As `asyncio.run`, on uvloop where it is installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(main, debug=debug)
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)
