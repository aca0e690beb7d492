"""The Linux kernel in a network namespace of its own as the system under a conformance script.

The peer's packets are written into a TUN device; what the kernel sends is taken from a packet
socket on it, because that one stamps every packet with the time at which it left: the script may
come late, its measurements do not. The thread that runs the script is in the namespace, so that
sockets and /proc/sys are the namespace's.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from typing import Any, Final

from mptcp.tun import netlink
from mptcp.tun.device import TunDevice
from mptcp.tun.interface import configure_interface, write_setting
from mptcp.tun.linux import unshare_network
from tests.conformance.vocabulary import (
    EARLY_US,
    LATE_US,
    LOCAL4,
    LOCAL6,
    App,
    AppError,
    Listener,
    Net,
)

_ETH_P_ALL: Final = 3
_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("=qq")
_TCP_QUICKACK: Final = 12
_KEEPALIVE: Final = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
_STATES: Final = (
    "",
    "ESTABLISHED",
    "SYN-SENT",
    "SYN-RECEIVED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "CLOSED",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
)
_ERRORS: Final = {
    errno.ECONNRESET: "reset",
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timed out",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EPIPE: "closed",
    errno.ECONNABORTED: "aborted",
}
_LEVELS: Final = ((252_000, 4_000), (2_044_000, 32_000), (16_380_000, 256_000))
"""The kernel's timer wheel at HZ=250: a timer of up to so many µs is late by so many."""
_COMMON: Final = {
    # One script's network must not teach the next connection of the same script.
    "tcp_no_metrics_save": "1",
    # RFC 6298 backs off from the first SYN on; Linux repeats four SYNs linearly by default.
    "tcp_syn_linear_timeouts": "0",
    # Linux may hold SACKs back for a millisecond; a script wants to see each.
    "tcp_comp_sack_nr": "0",
    # RFC 5961 §7: Linux answers one bad segment of a connection in 500 ms (a script tests it).
    "tcp_invalid_ratelimit": "0",
    # Linux may hold a segment back to make a larger chunk of it; not when this is large.
    "tcp_tso_win_divisor": "255",
    "tcp_rmem": "4096 131072 6291456",
    "tcp_wmem": "4096 1048576 6291456",
}


class KernelNet(Net):
    """A namespace with one TUN device, made at the first use, in the calling thread."""

    name = "kernel"

    def __init__(self, patience: int = 1) -> None:
        super().__init__()
        self.patience = patience
        self._zero = self.now
        self._tun: TunDevice | None = None
        self._tap: socket.socket | None = None
        self._sockets: list[socket.socket] = []

    def _start(self) -> tuple[TunDevice, socket.socket]:
        if self._tun is None or self._tap is None:
            self.started = True
            unshare_network()
            netlink.set_link("lo", state="up")
            self._write_settings()
            tun = self._tun = TunDevice(
                "tun0", mtu=self.settings.mtu, offload=False, vnet_header=False
            )
            configure_interface("tun0", addresses=[f"{LOCAL4}/24", f"{LOCAL6}/64"])
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            tap.bind(("tun0", _ETH_P_ALL))
            tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            tap.setblocking(False)
            self._tap = tap
            self._zero = self.now
            return tun, tap
        return self._tun, self._tap

    def _write_settings(self) -> None:
        settings = self.settings
        reno = settings.congestion_control == "newreno"
        values: dict[str, object] = {
            **_COMMON,
            "tcp_timestamps": int(settings.timestamps),
            "tcp_sack": int(settings.sack),
            "tcp_window_scaling": int(settings.window_scaling),
            "tcp_congestion_control": "reno" if reno else settings.congestion_control,
            "tcp_syn_retries": settings.syn_retries,
            "tcp_synack_retries": settings.synack_retries,
            "tcp_retries2": settings.data_retries,
            "tcp_fin_timeout": settings.fin_wait_2_s,
            "tcp_rto_min_us": settings.min_rto_ms * 1000,
        }
        values.update({name: value for _, _, name, value in settings.more})
        for name, value in values.items():
            if name:
                write_setting(f"net.ipv4.{name}", str(value))

    # -- time and packets ----------------------------------------------------------------------

    @property
    def now(self) -> int:
        # The clock of the packet socket's stamps.
        return time.clock_gettime_ns(time.CLOCK_REALTIME) // 1000

    @property
    def time(self) -> int:
        return self.now - self._zero

    def mark(self) -> None:
        self._zero = self.now

    def tolerance(self, at: int) -> tuple[int, int]:
        step = next((step for most, step in _LEVELS if at <= most), 1_000_000)
        return EARLY_US, LATE_US * self.patience + step

    def collect(self) -> None:
        _, tap = self._start()
        while True:
            try:
                packet, ancillary, _, address = tap.recvmsg(65536, 64)
            except BlockingIOError:
                break
            if address[2] != socket.PACKET_OUTGOING:
                continue
            at = self.now
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                    seconds, nanoseconds = _TIMESPEC.unpack(data[:16])
                    at = seconds * 1_000_000 + nanoseconds // 1000
            self.arrived(packet, at - self._zero)
        assert self._tun is not None
        while self._tun.read() is not None:
            pass  # the packet socket has seen it

    def inject(self, packet: bytes) -> None:
        tun, _ = self._start()
        assert tun.write(b"", [packet]) or tun.write(bytes(10), [packet])
        self.collect()

    def advance(self, to: int) -> None:
        while self.time < to:
            self._select(to)

    def wait(self, limit: int) -> bool:
        waiting = [len(peer.queue) for peer in self.peers]
        while True:
            self.collect()
            if [len(peer.queue) for peer in self.peers] != waiting:
                return True
            if self.time >= limit:
                return False
            self._select(limit)

    def _select(self, limit: int) -> None:
        _, tap = self._start()
        left = (limit - self.time) / 1_000_000
        if left > 0:
            select.select([tap], [], [], left)
        self.collect()

    # -- sockets -------------------------------------------------------------------------------

    def _socket(self, ipv6: bool) -> socket.socket:
        self._start()
        made = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        self._sockets.append(made)
        return made

    def connect(
        self, address: str, port: int, *, data: bytes = b"", fast_open: bool = False
    ) -> App:
        made = self._socket(":" in address)
        if fast_open:
            try:
                made.sendto(data, socket.MSG_FASTOPEN, (address, port))
            except BlockingIOError:
                assert not data, "no cookie: the kernel has not taken the data"
        else:
            code = made.connect_ex((address, port))
            assert code in (0, errno.EINPROGRESS), errno.errorcode[code]
        self.collect()
        return KernelApp(self, made)

    def listen(
        self, port: int, *, backlog: int = 16, ipv6: bool = False, fast_open: int = 0
    ) -> Listener:
        made = self._socket(ipv6)
        if fast_open:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, fast_open)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((LOCAL6 if ipv6 else LOCAL4, port))
        made.listen(backlog)
        return KernelListener(self, made)

    def adopt(self, made: socket.socket) -> App:
        """An accepted socket."""
        made.setblocking(False)
        self._sockets.append(made)
        return KernelApp(self, made)

    def close(self) -> None:
        if self._tun is not None:
            self._tun.close()  # first: what the sockets still say goes nowhere
        for made in self._sockets:
            made.close()
        if self._tap is not None:
            self._tap.close()


class KernelApp(App):
    """A kernel socket."""

    def __init__(self, net: KernelNet, made: socket.socket) -> None:
        self.net = net
        self.socket = made

    def write(self, data: bytes) -> int:
        taken = 0
        try:
            while taken < len(data):
                taken += self.socket.send(data[taken:])
        except BlockingIOError:
            pass
        except OSError as error:
            raise _app_error(error) from error
        self.net.collect()
        return taken

    def read(self, limit: int = 1 << 20) -> bytes | None:
        try:
            got = self.socket.recv(limit)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _app_error(error) from error
        self.net.collect()
        return got

    def shutdown(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)
        self.net.collect()

    def close(self) -> None:
        self.socket.close()
        self.net.collect()

    def abort(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def set(self, **options: Any) -> None:
        for name, value in options.items():
            match name:
                case "nodelay":
                    self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(value))
                case "oobinline":
                    self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, int(value))
                case "quickack":
                    self.socket.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, int(value))
                case "keepalive":
                    self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    for option, setting in zip(_KEEPALIVE, value, strict=True):
                        self.socket.setsockopt(socket.IPPROTO_TCP, option, setting)
                case "user_timeout_ms":
                    self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, value)
                case _:
                    raise ValueError(name)
        self.net.collect()

    def state(self) -> str:
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
        return _STATES[info[0]]


class KernelListener(Listener):
    """A listening kernel socket."""

    def __init__(self, net: KernelNet, made: socket.socket) -> None:
        self.net: KernelNet = net
        self.socket = made

    def accept(self) -> App | None:
        try:
            made, _ = self.socket.accept()
        except BlockingIOError:
            return None
        return self.net.adopt(made)

    def close(self) -> None:
        self.socket.close()
        self.net.collect()


def _app_error(error: OSError) -> AppError:
    return AppError(_ERRORS.get(error.errno or 0, str(error)))
