"""`mptcpctl monitor`: the daemon's event stream, one line an event, until Ctrl-C.

A daemon that ends or is started anew is waited for: one line on standard error says so, and the
stream goes on when there is one again. What happened in between is not in it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from mptcp.daemon.messages import DaemonError, decode, encode, to_exception, unavailable

RETRY_S: Final = 0.2
_PATIENCE_S: Final = 10.0
_ORDER: Final = (
    *("saddr", "sport", "daddr", "dport", "loc_id", "rem_id", "backup", "interface"),
    *("server_side", "error", "reset_reason", "reset_flags", "reason", "count"),
)


def monitor(path: str, *, as_json: bool) -> int:
    """Print events until interrupted; returns the exit status.

    Raises OSError, with one line, when there is no daemon in the beginning.
    """
    try:
        sock = _connect(path)
        while True:
            with sock:
                for event in _events(sock):
                    print(json.dumps(event) if as_json else line_of(event), flush=True)
            print(f"mptcpctl: mptcpd at {path} is gone; waiting for it", file=sys.stderr)
            sock = _connect_again(path)
    except KeyboardInterrupt:
        return 0


def line_of(event: dict[str, Any]) -> str:
    """An event for people: time, type, token, then what else it says."""
    at = float(event["unix_time"])
    stamp = time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1e6):06d}"
    words = [stamp, f"[{event['event']}]"]
    if "token" in event:
        words.append(f"token={event['token']:08x}")
    if "number" in event:
        words.append(f"number={event['number']}")
    for name in _ORDER:
        if name in event:
            value = event[name]
            if isinstance(value, bool):
                value = int(value)
            elif name == "error":
                value = os.strerror(value)
            words.append(f"{name}={json.dumps(value) if ' ' in str(value) else value}")
    return " ".join(words)


def _connect(path: str) -> socket.socket:
    """A socket on which the stream has begun. Raises OSError, with one line."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_PATIENCE_S)
        sock.connect(path)
        sock.sendall(encode({"op": "monitor"}))
        reply = bytearray()
        while not reply.endswith(b"\n"):
            data = sock.recv(1)  # what follows are events
            if not data:
                raise DaemonError(f"mptcpd at {path} hung up; see its log")
            reply += data
        message = decode(reply)
        if message.get("ok") is not True:
            raise to_exception(message)
        sock.settimeout(None)
        return sock
    except BaseException as error:
        sock.close()
        if isinstance(error, DaemonError) or not isinstance(error, OSError | ValueError):
            raise
        if isinstance(error, ValueError):
            raise DaemonError(f"what runs at {path} is no mptcpd of this project") from None
        raise unavailable(path, error) from None


def _connect_again(path: str) -> socket.socket:
    while True:
        time.sleep(RETRY_S)
        try:
            return _connect(path)
        except OSError:
            continue


def _events(sock: socket.socket) -> Iterator[dict[str, Any]]:
    """What comes until the daemon hangs up."""
    buffer = bytearray()
    while True:
        try:
            data = sock.recv(1 << 16)
        except ConnectionResetError:
            return
        if not data:
            return
        buffer += data
        *lines, rest = buffer.split(b"\n")
        buffer = bytearray(rest)
        for line in lines:
            yield decode(line)
