"""The sans-I/O host: demultiplexing, listeners, timers, and the queue of what wants to transmit.

`docs/stack-api.md` is the contract. In: `handle_packet`, `handle_timeout`, `transmit_refused`,
`interface_up/down`. Out: `poll_transmit`, `poll_timeout`, `poll_event`. `now` is an integer of
monotonic microseconds that the caller supplies and that never decreases; entropy is a callable
that returns that many random bytes. Nothing here reads a clock, a random source or a file, and no
packet makes it raise.

Invariants
  * A connection is in `connections` from its SYN until it is CLOSED, under the bytes that its
  packets carry: source, destination, ports.
  * An object (subflow or connection) with a deadline has an entry in the timer heap no later than
    it; entries may be early (timers are lazy: re-arming per ACK costs a comparison).
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable

from mptcp import (
    accepting,
    coupled_cc,
    keys,
    opening,
    policies,
    reorder_shortcuts,
    reorder_variants,
    schedulers,
    wvegas,
)
from mptcp.accepting import Listener
from mptcp.addressing import AddressBook
from mptcp.answers import IN_A_ROW, Answers
from mptcp.arrival import PLAIN, Offload, count_fragments, packet_arrives
from mptcp.blackholes import Blackholes
from mptcp.config import Config
from mptcp.data_states import DataTimeWaits
from mptcp.errors import ConnectionEnd
from mptcp.events import Closed, Event
from mptcp.info import MptcpInfo
from mptcp.meta_socket import MetaSocket
from mptcp.mib import snapshot
from mptcp.monitor import LIMIT, Monitor, tell_event
from mptcp.path_manager.base import Path
from mptcp.policies import Policies
from mptcp.stateless import JoinTable
from mptcp.tcp import cubic
from mptcp.tcp.connection import TcpConnection
from mptcp.tcp.fastopen import CookieCache, CookieKeys
from mptcp.tcp.host import Interface, Transmit
from mptcp.tcp.known_mtus import PathMtuCache
from mptcp.tcp.memory import FREE, UNLIMITED, HostMemory, quanta
from mptcp.tcp.state import NEVER, State
from mptcp.tcp.syncookies import SynCookies
from mptcp.timers import BlurredLimit, RateLimit, Timed, TimerHeap
from mptcp.wire.fragments import Reassembler
from mptcp.wire.tcp import Segment

__all__ = ["PLAIN", "Listener", "Offload", "Stack"]

BUILT_IN_POLICIES = (coupled_cc, cubic, reorder_shortcuts, reorder_variants, schedulers, wvegas)
"""Modules whose import registers the policies that a `Config` may name."""


class Stack:
    """A host. See the module's text and docs/stack-api.md."""

    def __init__(
        self,
        config: Config,
        entropy: Callable[[int], bytes],
        *,
        now: int = 0,
        isn: Callable[[bytes], int] | None = None,
        idsn: Callable[[bytes], int] | None = None,
    ) -> None:
        """Raises ValueError for a policy name in `config` that nobody has registered.

        `isn` and `idsn` replace RFC 6528's ISN and RFC 8684's IDSN in tests near a wrap."""
        self.config = config
        self.entropy = entropy
        policies.check(config)  # ValueError now, not when the first connection begins
        self.secret = entropy(32)
        self.cookies = SynCookies(self.secret)
        self.joins = JoinTable(self.secret, config.max_half_open_joins)
        self.fast_open_keys = CookieKeys(self.secret, config.fast_open_key_us)
        self.fast_open_cache = CookieCache(config.fast_open_cookies, config.fast_open_retry_us)
        self.blackholes = Blackholes(config.blackhole_entries, config.blackhole_timeout_us)
        """Destinations that get plain SYNs for a while (RFC 8684 §3.9.3)."""
        self.counters: Counter[str] = Counter()
        self.memory = HostMemory(
            config.max_buffer_memory, self.counters, self._time, self._count_memory
        )
        """What all buffers together may hold."""
        self.now = now
        self.book = AddressBook()
        self.connections: dict[bytes, TcpConnection] = {}
        self.tokens: dict[int, MetaSocket] = {}
        self.metas: set[MetaSocket] = set()
        self.listeners: dict[tuple[bytes | None, int], Listener] = {}
        self.path_mtus = PathMtuCache()
        self.fragments = Reassembler(config.max_reassembly_bytes, config.max_fragmented_datagrams)
        self._isn_override = isn
        self._idsn = idsn or keys.idsn
        self._ready: deque[TcpConnection] = deque()
        self.answers = Answers(config, self.counters, self.book)
        self._events: deque[Event] = deque()
        self.monitors: list[Monitor] = []
        """Who reads the event stream (`monitor`)."""
        self._timers = TimerHeap()
        self.numbers = 0
        """Connections so far."""
        self._time_wait: deque[TcpConnection] = deque()
        self.data_time_waits = DataTimeWaits(config.max_time_wait)
        self._challenges = BlurredLimit(config.challenge_acks_per_second, entropy)
        self.icmp_limit = RateLimit(config.icmp_per_second)

    # -- interfaces ----------------------------------------------------------------------------

    def interface_up(self, now: int, interface: Interface) -> None:
        """An interface can be used, with the addresses it has. Raises ValueError on a clash."""
        self._advance(now)
        self.book.add(interface)
        self._addresses_changed()

    def interface_down(self, now: int, interface_id: int) -> None:
        """An interface is gone: its subflows end, the others go on."""
        self._advance(now)
        interface = self.book.remove(interface_id)
        if interface is None:
            return
        for meta in list(self.metas):
            for subflow in list(meta.subflows):
                if subflow.interface is interface:
                    subflow.terminate(ConnectionEnd.INTERFACE_LOST, self.now)
        self._addresses_changed()

    def mtu_changed(self, now: int, interface_id: int, mtu: int) -> None:
        """An interface takes packets of up to `mtu` bytes from now on.

        Connections through it send smaller segments at once, larger ones as `mtu_probing` says;
        the MSS of new ones follows. Raises KeyError, ValueError for an MTU below 68 or above 65535.
        """
        if not 68 <= mtu <= 65535:
            raise ValueError(f"MTU {mtu} is not in 68..65535")
        self._advance(now)
        interface = self.book.interfaces[interface_id]
        interface.mtu = mtu
        for connection in list(self.connections.values()):
            if connection.interface is interface:
                connection.mtu_changed(mtu, self.now)

    def address_added(self, now: int, interface_id: int, address: bytes, prefix: int) -> None:
        """An interface that is up has one more address. Raises KeyError, ValueError."""
        interface = self.book.interfaces[interface_id]
        interface.addresses.append((address, prefix))
        self.interface_up(now, interface)

    def address_removed(self, now: int, interface_id: int, address: bytes) -> None:
        """An address is gone: the subflows that use it end."""
        self._advance(now)
        interface = self.book.interfaces[interface_id]
        interface.addresses = [item for item in interface.addresses if item[0] != address]
        self.book.owner.pop(address, None)
        for connection in list(self.connections.values()):
            if connection.local == address:
                connection.terminate(ConnectionEnd.INTERFACE_LOST, self.now)
        self._addresses_changed()

    def _addresses_changed(self) -> None:
        for meta in list(self.metas):
            meta.paths.on_local_addresses(self.now)

    # -- opening -------------------------------------------------------------------------------

    def connect(
        self,
        remote: str | bytes,
        port: int,
        *,
        local_addr: tuple[str | bytes, int] | None = None,
        data: bytes = b"",
        fast_open: bool = False,
        policies: Policies | None = None,
    ) -> MetaSocket:
        """Open a connection; `Connected` or `Closed` follows.

        `local_addr` is (address, port), port 0 for any. `data` is sent first, and with `fast_open`
        in the SYN where the server allows it (RFC 7413): it may then reach the server's
        application twice. `policies` are the connection's own where they differ from the stack's.
        Raises ValueError for what is not an address or port, for more data than the send buffer
        takes and for an unknown policy, NoRouteError, AddressInUseError, LocalError at the
        connection limit.
        """
        return opening.connect(
            self,
            remote,
            port,
            local_addr=local_addr,
            data=data,
            fast_open=fast_open,
            policies=policies,
        )

    def listen(
        self,
        port: int,
        address: str | bytes | None = None,
        *,
        backlog: int | None = None,
        fast_open: int | None = None,
        policies: Policies | None = None,
    ) -> Listener:
        """Accept connections on `port` (0: any free) of `address` (None: all addresses).

        `fast_open`: connections that data of their SYN may have opened while their handshake is
        under way (RFC 7413), 0 for none, None for the configuration's. `policies` are those of the
        connections accepted here, where they differ from the stack's.
        Raises AddressInUseError, NoRouteError for an address that is not ours, ValueError.
        """
        return accepting.listen(
            self, port, address, backlog=backlog, fast_open=fast_open, policies=policies
        )

    def join(self, meta: MetaSocket, path: Path) -> None:
        """Open one more subflow of `meta` on `path` (RFC 8684 §3.2)."""
        opening.join(self, meta, path)

    def isn(self, flow: bytes) -> int:
        """RFC 6528 §3: M (4 µs ticks) + F(4-tuple, secret)."""
        if self._isn_override:
            return self._isn_override(flow)
        digest = hashlib.sha256(self.secret + flow).digest()
        return (self.now // 4 + int.from_bytes(digest[:4], "big")) & 0xFFFFFFFF

    def timestamp_offset(self, flow: bytes) -> int:
        """RFC 7323 §5.4: an offset per connection keeps the clock private."""
        return int.from_bytes(hashlib.sha256(self.secret + flow).digest()[8:12], "big")

    def idsn(self, key: bytes) -> int:
        """Initial data sequence number that goes with a key."""
        return self._idsn(key)

    @staticmethod
    def flow_key(local: bytes, local_port: int, remote: bytes, remote_port: int) -> bytes:
        """The bytes with which the peer's packets begin after the IP header's fixed part."""
        return remote + local + remote_port.to_bytes(2, "big") + local_port.to_bytes(2, "big")

    # -- packets in ----------------------------------------------------------------------------

    def handle_packet(
        self, now: int, interface: int, packet: memoryview, offload: Offload | None = None
    ) -> None:
        """Take one packet read from an interface. Never raises on its bytes."""
        self._advance(now)
        packet_arrives(self, interface, packet, offload or PLAIN)

    # -- Host: what connections use ------------------------------------------------------------

    def mark_ready(self, connection: TcpConnection) -> None:
        """See `tcp.host.Host`."""
        if not connection.ready:
            connection.ready = True
            self._ready.append(connection)

    def reset_for(self, seg: Segment, options: bytes = b"") -> None:
        """See `tcp.host.Host`."""
        self.answers.reset(seg, options, self.now)

    def rearm(self, timed: Timed) -> None:
        """See `tcp.host.Host`; also for connections and whatever else has deadlines."""
        self._timers.rearm(timed)

    def forget(self, connection: TcpConnection) -> None:
        """See `tcp.host.Host`."""
        key = self.flow_key(
            connection.local, connection.local_port, connection.remote, connection.remote_port
        )
        if self.connections.get(key) is connection:
            del self.connections[key]
            connection.stats.on_forgotten()
        self._timers.forget(connection)

    def forget_meta(self, meta: MetaSocket) -> None:
        """The connection is over: free its token and its place in the backlog."""
        self.metas.discard(meta)
        # What is left to read is the application's now.
        self.memory.release(meta.rx.reserved)
        self.memory.release(meta.tx.reserved)
        meta.rx.reserved = meta.tx.reserved = UNLIMITED
        self._timers.forget(meta)
        if meta.time_wait is None and self.tokens.get(meta.token) is meta:
            del self.tokens[meta.token]
        if meta.listener is not None:
            meta.listener.ended(meta, self.now)

    def enter_time_wait(self, connection: TcpConnection) -> None:
        """See `tcp.host.Host`; the oldest give way (RFC 9293 lets TIME-WAIT be cut for
        resources)."""
        waiting = self._time_wait
        waiting.append(connection)
        while len(waiting) > self.config.max_time_wait:
            self.counters["TcpExtTCPTimeWaitOverflow"] += 1
            waiting.popleft().terminate(ConnectionEnd.CLOSED, self.now)
        while waiting and waiting[0].state is not State.TIME_WAIT:
            waiting.popleft()

    def allow_challenge_ack(self, now: int) -> bool:
        """RFC 5961 §7."""
        if not self._challenges.allow(now):
            return False
        self.counters["TcpExtTCPChallengeACK"] += 1
        return True

    def emit(self, event: Event) -> None:
        """Queue an event for `poll_event`; `Closed` is a connection's last one."""
        # Its subflows live on for a while, and things still happen to them.
        if event.connection.ended is None or type(event) is Closed:
            self._events.append(event)
            if self.monitors:
                tell_event(event)

    def _time(self) -> int:
        return self.now

    def _count_memory(self) -> int:
        """Set the accounts of all buffers anew; their sum (`tcp.memory`)."""
        total = 0
        for meta in self.metas:
            rx = meta.rx
            rx.reserved = quanta(rx.memory + rx.reorder.memory + rx.mapped)
            meta.tx.reserved = quanta(meta.tx.used)
            total += rx.reserved + meta.tx.reserved - 2 * FREE
        for connection in self.connections.values():
            connection.reserved = quanta(connection.reassembly.memory)
            total += connection.reserved - FREE
        return total

    # -- time and output -----------------------------------------------------------------------

    def _advance(self, now: int) -> None:
        if now > self.now:
            self.now = now

    def handle_timeout(self, now: int) -> None:
        """Run every timer that is due. Spurious calls do nothing."""
        self._advance(now)
        self._timers.run(now)
        if len(self.fragments):
            self.fragments.expire(now)
            count_fragments(self)

    def poll_timeout(self) -> int | None:
        """The time at which `handle_timeout` is to be called, None if nothing waits.

        It may be early (lazy timers), never late.
        """
        deadline = self._timers.next()
        fragments = self.fragments.next_deadline()
        if fragments is not None and fragments < deadline:
            deadline = fragments
        return deadline if deadline < NEVER else None

    def poll_transmit(self, now: int) -> Transmit | None:
        """The next packet to write, None when there is none. Call until None.

        The views of a Transmit are valid until the next call into the stack.
        """
        if now > self.now:
            self.now = now
        ready = self._ready
        answers = self.answers
        if answers.waiting and (answers.in_a_row < IN_A_ROW or not ready):
            return answers.next()
        answers.in_a_row = 0
        while ready:
            connection = ready.popleft()
            connection.ready = False
            transmit = connection.poll_transmit(now)
            if transmit is not None:
                self.mark_ready(connection)  # at the end: connections take turns
                if connection.interface.up:
                    return transmit
        return answers.next() if answers.waiting else None

    def transmit_refused(self, now: int, transmit: Transmit) -> None:
        """The device did not take this packet: it counts as lost."""
        self._advance(now)
        self.counters["IpOutDiscards"] += 1
        if transmit.connection is not None:
            transmit.connection.transmit_refused(transmit.chunk, now)

    def monitor(self, limit: int = LIMIT) -> Monitor:
        """A sink for the event stream from now on, until its `close()`; it holds `limit` events.

        Raises ValueError for a limit below 1.
        """
        if limit < 1:
            raise ValueError(f"limit {limit} is below 1: a sink holds at least one event")
        sink = Monitor(self, limit)
        self.monitors.append(sink)
        return sink

    def mib(self) -> dict[str, int]:
        """Every counter of docs/counters.md, those that are 0 too, and the gauges."""
        return snapshot(self)

    def info(self) -> list[MptcpInfo]:
        """A snapshot of every connection, in the order they were opened."""
        return [meta.info() for meta in sorted(self.metas, key=lambda meta: meta.number)]

    def poll_event(self) -> Event | None:
        """The next event, None when there is none."""
        return self._events.popleft() if self._events else None
