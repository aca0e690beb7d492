"""Our `Stack` in virtual time as the system under a conformance script."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from mptcp.addressing import parse_prefix
from mptcp.config import Config
from mptcp.errors import ConnectionEnd, NotConnectedError
from mptcp.events import Accepted
from mptcp.meta_socket import MetaSocket
from mptcp.stack import Listener as StackListener
from mptcp.stack import Stack
from mptcp.subflow import Subflow
from mptcp.tcp.host import Interface
from tests.conformance.vocabulary import LOCAL4, LOCAL6, App, AppError, Listener, Net

_ERRORS = {
    ConnectionEnd.RESET: "reset",
    ConnectionEnd.REFUSED: "refused",
    ConnectionEnd.TIMED_OUT: "timed out",
    ConnectionEnd.UNREACHABLE: "unreachable",
    ConnectionEnd.ABORTED: "aborted",
}


class OurNet(Net):
    """A plain TCP `Stack`, made at the first use."""

    name = "ours"

    def __init__(self) -> None:
        super().__init__()
        self._now = 1_000_000
        self._zero = self._now
        self._stack: Stack | None = None
        self.accepted: dict[StackListener, deque[MetaSocket]] = {}

    @property
    def stack(self) -> Stack:
        """The stack; starts it."""
        if self._stack is None:
            self.started = True
            settings = self.settings
            changes: dict[str, Any] = {
                field: value for field, value, _, _ in settings.more if field
            }
            if "pacing" in Config.__slots__:
                changes.setdefault("pacing", False)  # as the kernel's reno without the qdisc fq
            config = Config(
                mptcp=False,
                timestamps=settings.timestamps,
                sack=settings.sack,
                window_scaling=settings.window_scaling,
                congestion_control=settings.congestion_control,
                syn_retries=settings.syn_retries,
                synack_retries=settings.synack_retries,
                data_retries=settings.data_retries,
                fin_wait_2_us=settings.fin_wait_2_s * 1_000_000,
                min_rto_us=settings.min_rto_ms * 1000,
                **changes,
            )
            self._stack = Stack(config, random.Random(1).randbytes, now=self._now)
            addresses = [parse_prefix(f"{LOCAL4}/24"), parse_prefix(f"{LOCAL6}/64")]
            interface = Interface(1, "path1", mtu=settings.mtu, addresses=addresses)
            self._stack.interface_up(self._now, interface)
        return self._stack

    @property
    def now(self) -> int:
        return self._now

    @property
    def time(self) -> int:
        return self._now - self._zero

    def mark(self) -> None:
        self._zero = self._now

    def tolerance(self, at: int) -> tuple[int, int]:
        return 0, 0

    def collect(self) -> None:
        stack = self.stack
        while (transmit := stack.poll_transmit(self._now)) is not None:
            self.arrived(transmit.packet(), self.time)
        while (event := stack.poll_event()) is not None:
            if isinstance(event, Accepted):
                self.accepted.setdefault(event.listener, deque()).append(event.connection)

    def inject(self, packet: bytes) -> None:
        self.stack.handle_packet(self._now, 1, memoryview(packet))
        self.collect()

    def advance(self, to: int) -> None:
        self.collect()
        target = self._zero + to
        assert target >= self._now, "time cannot go back"
        while (due := self.stack.poll_timeout()) is not None and due <= target:
            self._fire(due)
        self._now = target
        self.stack.handle_timeout(target)
        self.collect()

    def wait(self, limit: int) -> bool:
        self.collect()
        waiting = [len(peer.queue) for peer in self.peers]
        target = self._zero + limit
        while (due := self.stack.poll_timeout()) is not None and due <= target:
            self._fire(due)
            if [len(peer.queue) for peer in self.peers] != waiting:
                return True
        self._now = max(self._now, target)
        return False

    def _fire(self, due: int) -> None:
        self._now = max(self._now, due)
        self.stack.handle_timeout(self._now)
        self.collect()

    def connect(
        self, address: str, port: int, *, data: bytes = b"", fast_open: bool = False
    ) -> App:
        return OurApp(self, self.stack.connect(address, port, data=data, fast_open=fast_open))

    def listen(
        self, port: int, *, backlog: int = 16, ipv6: bool = False, fast_open: int = 0
    ) -> Listener:
        address = LOCAL6 if ipv6 else LOCAL4
        listener = self.stack.listen(port, address, backlog=backlog, fast_open=fast_open)
        return OurListener(self, listener)

    def close(self) -> None:
        self._stack = None


class OurApp(App):
    """A `MetaSocket`."""

    def __init__(self, net: OurNet, meta: MetaSocket) -> None:
        self.net = net
        self.meta = meta
        self.subflow: Subflow = meta.subflows[0]

    def write(self, data: bytes) -> int:
        try:
            taken = self.meta.send(data)
        except NotConnectedError:
            self._raise()
            raise AppError("closed") from None
        self.net.collect()
        return taken

    def read(self, limit: int = 1 << 20) -> bytes | None:
        data = self.meta.recv(limit)
        self.net.collect()
        if data:
            return data
        if self.meta.eof:
            return b""
        self._raise()
        return None

    def _raise(self) -> None:
        if self.meta.ended in _ERRORS:
            raise AppError(_ERRORS[self.meta.ended])

    def shutdown(self) -> None:
        self.meta.shutdown()
        self.net.collect()

    def close(self) -> None:
        self.meta.close()
        self.net.collect()

    def abort(self) -> None:
        self.meta.abort()
        self.net.collect()

    def set(self, **options: Any) -> None:
        for name, value in options.items():
            match name:
                case "nodelay":
                    self.meta.nodelay = self.subflow.nodelay = value
                    self.meta.dispatcher.wake()
                case "oobinline":
                    pass  # always so (RFC 6093 §6)
                case "quickack":
                    self.subflow.quick_acks = 16 if value else 0
                case "keepalive":
                    idle, interval, count = value
                    self.meta.options.keepalive(
                        idle_us=idle * 1_000_000, interval_us=interval * 1_000_000, count=count
                    )
                case "user_timeout_ms":
                    self.meta.options.user_timeout(value * 1000)
                case _:
                    raise ValueError(name)
        self.net.collect()

    def state(self) -> str:
        return self.subflow.state.name.replace("_", "-")


class OurListener(Listener):
    """A listener of the stack."""

    def __init__(self, net: OurNet, listener: StackListener) -> None:
        self.net: OurNet = net
        self.listener = listener

    def accept(self) -> App | None:
        self.net.collect()
        waiting = self.net.accepted.get(self.listener)
        return OurApp(self.net, waiting.popleft()) if waiting else None

    def close(self) -> None:
        self.listener.close()
        self.net.collect()
