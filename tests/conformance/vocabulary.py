"""What a conformance script is written in: a network, a scripted peer, an application.

    peer, app = net.established()               # the system under test has connected to the peer
    peer.send(ACK, data=b"x" * 10, at=ms(20))
    peer.expect_nothing(until=ms(59))
    peer.expect(ACK, ack=11, at=ms(60))
    app.expect_read(b"x" * 10)

`Net` is the system under test (`ours.OurNet` or `kernel.KernelNet`) with its clock; `Peer`
(in `peer`) is the scripted host; `App` is a socket of the system under test. Times are µs since
`Net.mark()`, which `established` calls at its end. A field that is not given is not compared. Each
`expect…` counts as one expectation of its backend.

Where ours and the kernel differ on purpose a script says so: `net.differs(why, ours=, kernel=)`.
The table in docs/conformance.md is made of those calls (`table`).

Tolerance: in virtual time `at` is exact. The kernel's times are stamped by the kernel when the
packet leaves, and accepted from EARLY_US before `at` to LATE_US after it, plus the step of the
kernel's timer wheel for a timer that long.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from mptcp.addressing import parse_address
from mptcp.wire.ip import ICMP, ICMPV6, TCP, parse_ip
from mptcp.wire.tcp import ACK, SYN, parse_segment
from tests.options import Emits, Mss, SackPermitted, Timestamps, WindowScale

if TYPE_CHECKING:
    from tests.conformance.peer import Peer

T = TypeVar("T")

EARLY_US = 5_000
"""A kernel timer may be armed just before a jiffy (4 ms at HZ=250) ends."""
LATE_US = 12_000
LOCAL4, PEER4 = "10.0.0.1", "10.0.0.2"
LOCAL6, PEER6 = "fd00::1", "fd00::2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Host-wide settings that both systems know; the defaults are those of our `Config`."""

    mtu: int = 1500
    timestamps: bool = True
    sack: bool = True
    window_scaling: bool = True
    congestion_control: str = "newreno"
    syn_retries: int = 6
    synack_retries: int = 5
    data_retries: int = 15
    fin_wait_2_s: int = 60
    min_rto_ms: int = 200
    more: tuple[tuple[str, object, str, object], ...] = ()
    """Settings one script needs: (`Config` field, value, sysctl below net.ipv4, value); "" where
    one of the two has none."""


class AppError(Exception):
    """The application's call failed; `kind` is "reset", "refused", "timed out", …"""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class App(abc.ABC):
    """A connected or connecting socket of the system under test; nothing here blocks."""

    net: Net

    @abc.abstractmethod
    def write(self, data: bytes) -> int:
        """Queue data; returns the bytes taken. Raises AppError."""

    @abc.abstractmethod
    def read(self, limit: int = 1 << 20) -> bytes | None:
        """What has come; None when nothing waits, b"" at the end. Raises AppError."""

    @abc.abstractmethod
    def shutdown(self) -> None:
        """No more will be written."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give the socket up."""

    @abc.abstractmethod
    def abort(self) -> None:
        """ABORT of RFC 9293 §3.10.5 (SO_LINGER with 0 seconds)."""

    @abc.abstractmethod
    def set(self, **options: Any) -> None:
        """Change options: nodelay, quickack (False: delay ACKs from now on), oobinline,
        keepalive (idle s, interval s, count), user_timeout_ms."""

    @abc.abstractmethod
    def state(self) -> str:
        """The RFC's name of the state, "CLOSED" when there is no connection any more."""

    # -- expectations --------------------------------------------------------------------------

    def expect_read(self, data: bytes) -> None:
        """Exactly these bytes wait, in one or more pieces; they are read."""
        __tracebackhide__ = True
        self.net.count()
        got = bytearray()
        while len(got) < len(data) and (piece := self.read(len(data) - len(got))):
            got += piece
        if bytes(got) != data:
            self.net.fail(f"read {_short(bytes(got))}, wanted {_short(data)}")

    def expect_nothing_to_read(self) -> None:
        """Neither data nor the end waits."""
        __tracebackhide__ = True
        self.net.count()
        got = self.read()
        if got is not None:
            self.net.fail(f"read {_short(got)}, wanted to be told to wait")

    def expect_end(self) -> None:
        """The peer has closed its half, and all it sent has been read."""
        __tracebackhide__ = True
        self.net.count()
        got = self.read()
        if got != b"":
            self.net.fail(f"read {got if got is None else _short(got)}, wanted the end")

    def expect_error(self, kind: str) -> None:
        """The connection has ended with this error."""
        __tracebackhide__ = True
        self.net.count()
        try:
            got = self.read()
        except AppError as error:
            if error.kind != kind:
                self.net.fail(f"the error is {error.kind!r}, wanted {kind!r}")
            return
        self.net.fail(f"read {got!r}, wanted the error {kind!r}")

    def expect_write_refused(self) -> None:
        """Writing fails: the connection cannot send any more."""
        __tracebackhide__ = True
        self.net.count()
        try:
            self.write(b"x")
        except AppError:
            return
        self.net.fail("the write succeeded")

    def expect_state(self, name: str) -> None:
        """The connection is in this state of RFC 9293 §3.3.2."""
        __tracebackhide__ = True
        self.net.count()
        got = self.state()
        if got != name:
            self.net.fail(f"the state is {got}, wanted {name}")


class Listener(abc.ABC):
    """A listening socket."""

    net: Net

    @abc.abstractmethod
    def accept(self) -> App | None:
        """The next connection, None when none waits."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stop listening."""

    def expect_accept(self) -> App:
        """A connection waits; it is taken."""
        __tracebackhide__ = True
        self.net.count()
        app = self.accept()
        if app is None:
            self.net.fail("no connection to accept")
        return app

    def expect_none(self) -> None:
        """No connection waits."""
        __tracebackhide__ = True
        self.net.count()
        if self.accept() is not None:
            self.net.fail("there is a connection to accept")


class Net(abc.ABC):
    """One system under test, its clock, and the peers around it."""

    name: str

    def __init__(self) -> None:
        self.settings = Settings()
        self.started = False
        self.peers: list[Peer] = []
        self.icmp: list[bytes] = []
        """ICMP messages that the system sent."""
        self.log: list[str] = []
        self.expectations = 0
        self.patience = 1
        """Factor on LATE_US."""

    # -- set by the script before anything else ------------------------------------------------

    def configure(self, **changes: Any) -> None:
        """Change `Settings` before the first use."""
        assert not self.started, "configure() comes first"
        self.settings = replace(self.settings, **changes)

    def tune(self, field: str, value: object, sysctl: str, kernel: object) -> None:
        """Set one field of `Config`, or the sysctl net.ipv4.`sysctl`, before the first use.

        "" stands for none.
        """
        self.configure(more=(*self.settings.more, (field, value, sysctl, kernel)))

    def differs(self, why: str, *, ours: T, kernel: T) -> T:
        """What to expect where the two systems differ on purpose, or by their granularity."""
        return ours if self.name == "ours" else kernel

    # -- the backend ---------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def now(self) -> int:
        """Microseconds of the backend's clock."""

    @property
    @abc.abstractmethod
    def time(self) -> int:
        """Microseconds since the mark."""

    @abc.abstractmethod
    def mark(self) -> None:
        """Let times count from now."""

    @abc.abstractmethod
    def advance(self, to: int) -> None:
        """Let time pass up to `to`."""

    @abc.abstractmethod
    def wait(self, limit: int) -> bool:
        """Let time pass until packets come or `limit`; whether some came."""

    @abc.abstractmethod
    def inject(self, packet: bytes) -> None:
        """Hand the system under test a packet as from its wire."""

    @abc.abstractmethod
    def collect(self) -> None:
        """Take what the system has sent by now."""

    @abc.abstractmethod
    def connect(
        self, address: str, port: int, *, data: bytes = b"", fast_open: bool = False
    ) -> App:
        """An application begins to connect, with Fast Open (RFC 7413) where it can."""

    @abc.abstractmethod
    def listen(
        self, port: int, *, backlog: int = 16, ipv6: bool = False, fast_open: int = 0
    ) -> Listener:
        """An application listens; `fast_open`: how many it takes by data of their SYN."""

    @abc.abstractmethod
    def close(self) -> None:
        """The script is over."""

    @abc.abstractmethod
    def tolerance(self, at: int) -> tuple[int, int]:
        """How much earlier and later than `at` a segment may leave."""

    # -- shared --------------------------------------------------------------------------------

    def count(self) -> None:
        """One more expectation is checked."""
        self.expectations += 1

    def check(self, holds: bool, why: str) -> None:
        """One expectation that has no word of its own."""
        __tracebackhide__ = True
        self.count()
        if not holds:
            self.fail(why)

    def fail(self, why: str) -> NoReturn:
        """The script has failed: say so with the last segments."""
        __tracebackhide__ = True
        transcript = "\n".join(self.log[-40:])
        raise AssertionError(f"[{self.name}] {why}\n--- the last segments ---\n{transcript}")

    def arrived(self, packet: bytes, at: int) -> None:
        """A packet of the system under test that left `at` (since the mark)."""
        view = memoryview(packet)
        ip = parse_ip(view)
        if ip.protocol == TCP:
            seg = parse_segment(view, ip, verify_checksum=True)
            for peer in self.peers:
                if peer.owns(seg):
                    peer.arrived(seg, packet, at)
                    return
            self.log.append(f"  ? {at / 1000:.3f} ms {seg}")
        elif ip.protocol == ICMP or (ip.protocol == ICMPV6 and packet[ip.offset] < 128):
            self.icmp.append(packet)

    def peer(self, **options: Any) -> Peer:
        """A scripted host; `options` as for `Peer`."""
        from tests.conformance.peer import Peer

        return Peer(self, **options)

    def connected(self, peer: Peer) -> App:
        """An application begins to connect to `peer`."""
        return self.connect(peer.address, peer.port)

    def established(
        self,
        *,
        active: bool = True,
        mss: int | None = 1460,
        sack: bool = True,
        wscale: int | None = None,
        timestamps: bool = False,
        window: int = 65535,
        rtt: int = 0,
        ipv6: bool = False,
    ) -> tuple[Peer, App]:
        """Open a connection: the system connects (`active`) or accepts. Marks the time.

        The rest is what the peer says in its SYN; `rtt` µs pass between SYN and answer.
        """
        peer = self.peer(ipv6=ipv6, local_port=0 if active else 5000)
        peer.window = window
        options = syn_options(peer, mss, sack, wscale, timestamps)
        if active:
            app = self.connected(peer)
            syn = peer.expect(SYN)
            peer.agree(syn, wscale, timestamps)
            peer.send(SYN | ACK, options=options(), at=self.time + rtt if rtt else None)
            peer.expect(ACK, seq=1, ack=1)
        else:
            listener = self.listen(5000, ipv6=ipv6)
            peer.send(SYN, options=options())
            syn = peer.expect(SYN | ACK, ack=1)
            peer.agree(syn, wscale, timestamps)
            peer.send(ACK, at=self.time + rtt if rtt else None)
            app = listener.expect_accept()
        app.expect_state("ESTABLISHED")
        self.mark()
        return peer, app


class _SynOptions:
    """The options of a peer's SYN, made when it leaves (its clock is in them)."""

    def __init__(
        self, peer: Peer, mss: int | None, sack: bool, wscale: int | None, timestamps: bool
    ) -> None:
        self.peer = peer
        self.mss, self.sack, self.wscale, self.timestamps = mss, sack, wscale, timestamps

    def __call__(self) -> list[Emits]:
        options: list[Emits] = []
        if self.mss is not None:
            options.append(Mss(self.mss))
        if self.timestamps:
            options.append(Timestamps(self.peer.clock(), self.peer.ts_recent))
        if self.sack:
            options.append(SackPermitted())
        if self.wscale is not None:
            options.append(WindowScale(self.wscale))
        return options


syn_options = _SynOptions


def raw_address(text: str) -> bytes:
    """An address as in a packet."""
    return parse_address(text)


def _short(data: bytes) -> str:
    return repr(data) if len(data) <= 32 else f"{len(data)} bytes {data[:16]!r}…"
