"""The kernel's end of an interop test: one connection over kernel sockets, by a script.

    python -m tests.interop.kernel_peer SPEC

SPEC (JSON): role (client, server), host, port, script, seed, period, digest, and as options
`protocol` ("mptcp" or "tcp"), `congestion` (set on the socket and reported, for it changes figures
fourfold), `local` (an address to bind to).
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import struct
import sys
import threading
from typing import Any, Final

from tests.interop.script import CHUNK, Ledger, say

IPPROTO_MPTCP: Final = 262
SOL_MPTCP: Final = 284
MPTCP_INFO: Final = 1
FLAG_FALLBACK: Final = 1
# struct mptcp_info; subflows counts those after the first.
_INFO: Final = struct.Struct("=6B2xIIQQQ3BxIQQQQB3x3I")
_INFO_NAMES: Final = (
    *("subflows", "add_addr_signal", "add_addr_accepted", "subflows_max", "add_addr_signal_max"),
    *("add_addr_accepted_max", "flags", "token", "write_seq", "snd_una", "rcv_nxt"),
    *("local_addr_used", "local_addr_max", "csum_enabled", "retransmits", "bytes_retrans"),
    *("bytes_sent", "bytes_received", "bytes_acked", "subflows_total", "last_data_sent"),
    *("last_data_recv", "last_ack_recv"),
)
_INFO_SUBFLOWS: Final = 0
_INFO_FLAGS: Final = 6
_INFO_RETRANSMITTED: Final = 15
_PATIENCE_S: Final = 60.0


class Connection:
    """A connected socket, its script, and what was seen of it."""

    def __init__(self, sock: socket.socket, spec: dict[str, Any]) -> None:
        self.socket = sock
        self.ledger = Ledger(spec)
        self.subflows = 0
        self.fallback: bool | None = None
        self.gates: list[dict[str, int]] = []
        """`mptcp_info` at each gate, when it opened."""
        self.congestion = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)

    def look(self) -> None:
        """Note how many subflows there are and whether it is MPTCP."""
        try:
            raw = self.socket.getsockopt(SOL_MPTCP, MPTCP_INFO, _INFO.size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.ENOTCONN):
                raise
            if error.errno != errno.ENOTCONN:  # a plain TCP socket, also from an MPTCP listener
                self.fallback = True
                self.subflows = max(self.subflows, 1)
            return
        info = _INFO.unpack(raw.ljust(_INFO.size, b"\0"))
        self.subflows = max(self.subflows, 1 + info[_INFO_SUBFLOWS])
        self.fallback = bool(info[_INFO_FLAGS] & FLAG_FALLBACK)

    def info(self) -> dict[str, int]:
        """The whole of `mptcp_info`, without the prefix; empty for plain TCP."""
        try:
            raw = self.socket.getsockopt(SOL_MPTCP, MPTCP_INFO, _INFO.size)
        except OSError:
            return {}
        return dict(zip(_INFO_NAMES, _INFO.unpack(raw.ljust(_INFO.size, b"\0")), strict=True))

    def send(self, count: int) -> None:
        source = self.ledger.source
        end = source.sent + count
        while source.sent < end:
            self.socket.sendall(source.take(end - source.sent))

    def receive(self, count: int | None) -> None:
        """`count` bytes, or all up to the peer's end."""
        buffer = bytearray(4 * CHUNK)
        view = memoryview(buffer)
        sink = self.ledger.sink
        end = None if count is None else sink.received + count
        while end is None or sink.received < end:
            room = len(buffer) if end is None else min(len(buffer), end - sink.received)
            taken = self.socket.recv_into(view[:room])
            if not taken:
                if end is not None:
                    raise EOFError(f"the peer ended after {sink.received} bytes")
                return
            if sink.put(view[:taken]):
                self.look()

    def both(self, send: int, receive: int | None) -> None:
        """Send in a thread while receiving here; `receive` None: both to the end."""
        failure: list[OSError] = []

        def sender() -> None:
            try:
                self.send(send)
                if receive is None:
                    self.socket.shutdown(socket.SHUT_WR)
            except OSError as error:
                failure.append(error)

        thread = threading.Thread(target=sender, daemon=True)
        thread.start()
        self.receive(receive)
        thread.join()
        if failure:
            raise failure[0]

    def step(self, name: str, *arguments: Any) -> None:
        match name:
            case "exchange":
                self.both(arguments[0], None)
            case "trade":
                self.both(arguments[0], arguments[0])
            case "send":
                self.send(arguments[0])
            case "receive":
                self.receive(arguments[0])
            case "eof":
                self.socket.shutdown(socket.SHUT_WR)
            case "until_eof":
                self.receive(None)
            case "gate":
                self.look()
                say("gate")
                sys.stdin.readline()
                self.gates.append(self.info())
            case "abort":
                linger = struct.pack("ii", 1, 0)
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.socket.close()
            case "error":
                self.receive(None)
                raise AssertionError("the connection ended in good order")
            case _:
                raise ValueError(f"no such step: {name}")

    def play(self, script: list[list[Any]]) -> None:
        try:
            self.look()
            for name, *arguments in script:
                self.step(name, *arguments)
                if name != "abort":
                    self.look()
        except OSError as error:
            self.ledger.error = type(error).__name__
        finally:
            self.socket.close()


def open_socket(spec: dict[str, Any], family: int) -> socket.socket:
    """A socket of the wanted protocol, with its congestion control."""
    protocol = IPPROTO_MPTCP if spec.get("protocol", "mptcp") == "mptcp" else 0
    sock = socket.socket(family, socket.SOCK_STREAM, protocol)
    wanted = spec.get("congestion", "cubic").encode()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, wanted)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.settimeout(_PATIENCE_S)
    return sock


def serve(spec: dict[str, Any]) -> tuple[socket.socket, socket.socket]:
    """The listener and the connection it has accepted, on any address of either family.

    The wildcard, and open to the end: a join to another address needs a listener there as well.
    """
    listener = open_socket(spec, socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", spec["port"]))
    listener.listen()
    say("ready")
    accepted, _ = listener.accept()
    accepted.settimeout(_PATIENCE_S)
    return listener, accepted


def connect(spec: dict[str, Any]) -> socket.socket:
    """A dual-stack socket: it can join over either family."""
    host = spec["host"]
    sock = open_socket(spec, socket.AF_INET6)
    try:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if spec.get("local"):
            sock.bind((mapped(spec["local"]), 0))
        sock.connect((mapped(host), spec["port"]))
    except BaseException:
        sock.close()
        raise
    return sock


def mapped(host: str) -> str:
    """An address for a socket of both families."""
    return host if ":" in host else f"::ffff:{host}"


def main() -> None:
    spec = json.loads(sys.argv[1])
    with contextlib.ExitStack() as closing:
        try:
            if spec["role"] == "server":
                listener, sock = serve(spec)
                closing.enter_context(listener)
            else:
                sock = connect(spec)
        except OSError as error:
            say("done", error=type(error).__name__)
            return
        connection = Connection(sock, spec)
        connection.play(spec["script"])
    say(
        "done",
        **connection.ledger.result(),
        subflows=connection.subflows,
        fallback=connection.fallback,
        gates=connection.gates,
        congestion=connection.congestion.rstrip(b"\0").decode(),
    )


if __name__ == "__main__":
    main()
