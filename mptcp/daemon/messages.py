"""What goes over the control socket: one JSON object a line, both ways, and where the socket is.

A request is `{"op": NAME, …}`; its reply `{"ok": true, …}` or
`{"ok": false, "errno": NUMBER, "error": TEXT}`. Descriptors travel as SCM_RIGHTS with the line
that announces them. Shared by the daemon, `mptcpctl` and the client library; imports little,
because programs that only connect through the daemon load it.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
from pathlib import Path
from typing import Any, Final

from mptcp.errors import MptcpError

MAX_REQUEST: Final = 8192
"""Longest line a client may send, bytes, its newline included."""
MAX_REPLY: Final = 64 << 20
"""Longest line a client accepts from the daemon (a status of very many connections)."""
FOLDER: Final = "mptcp-us"
"""Folder of the socket. Distributions package another program called mptcpd, which has
/etc/mptcpd: nothing of ours has that name on disk."""
SYSTEM_SOCKET: Final = f"/run/{FOLDER}/control"

_ERRNO_OF: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (ConnectionRefusedError, errno.ECONNREFUSED),
    (ConnectionResetError, errno.ECONNRESET),
    (ConnectionAbortedError, errno.ECONNABORTED),
    (BrokenPipeError, errno.EPIPE),
    (TimeoutError, errno.ETIMEDOUT),
    (PermissionError, errno.EACCES),
    (ValueError, errno.EINVAL),
)


class DaemonError(MptcpError, OSError):
    """The daemon cannot be reached or does not answer as it should; one line, how to mend it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)


def own_socket_path() -> str:
    """Where a daemon started by this user puts its socket unless told otherwise.

    Root: /run/mptcp-us/control. Others, and root of a user namespace, who may not write there:
    $XDG_RUNTIME_DIR/mptcp-us/control, and without that variable root's place, whose refusal then
    says what to do.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and (os.geteuid() != 0 or not _system_folder_is_writable()):
        return f"{runtime}/{FOLDER}/control"
    return SYSTEM_SOCKET


def _system_folder_is_writable() -> bool:
    folder = Path(SYSTEM_SOCKET).parent
    return os.access(folder if folder.exists() else folder.parent, os.W_OK)


def find_socket_path() -> str:
    """The socket a client should use: of this user's own daemon if there, else the system's.

    In this order: $XDG_RUNTIME_DIR/mptcp-us/control if there is such a file, /run/mptcp-us/control.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        own = f"{runtime}/{FOLDER}/control"
        if Path(own).exists():
            return own
    return SYSTEM_SOCKET


def encode(message: dict[str, Any]) -> bytes:
    """One line, newline included."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes | bytearray) -> dict[str, Any]:
    """The object in a line. Raises ValueError, whatever the bytes are."""
    try:
        message = json.loads(bytes(line))
    except RecursionError:  # "[[[[…": the parser recurses
        raise ValueError("the JSON is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("the line is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the line is no JSON: {error.msg} at byte {error.pos}") from None
    if not isinstance(message, dict):
        raise ValueError('a request is a JSON object such as {"op": "status"}')
    return message


def errno_of(error: BaseException) -> int:
    """The errno that stands for `error`; EIO when nothing fits better."""
    for kind, number in _ERRNO_OF:
        if isinstance(error, kind):
            return number
    number = getattr(error, "errno", None) or errno.EIO
    return number if number > 0 else errno.EHOSTUNREACH  # getaddrinfo's numbers are negative


def text_of(error: BaseException) -> str:
    """`error` in one line, never empty."""
    text = str(getattr(error, "strerror", None) or error)
    return " ".join(text.split()) or type(error).__name__


def error_reply(error: BaseException) -> dict[str, Any]:
    """The reply for a request that failed with `error`."""
    return {"ok": False, "errno": errno_of(error), "error": text_of(error)}


def to_exception(message: dict[str, Any]) -> OSError:
    """The error of a reply or an end message; errno picks the class (ConnectionRefusedError …)."""
    number = message.get("errno")
    return OSError(number if isinstance(number, int) else errno.EIO, str(message.get("error", "")))


def unavailable(path: str, error: OSError) -> DaemonError:
    """The error for a daemon that cannot be reached at `path`."""
    if isinstance(error, PermissionError):
        return DaemonError(
            f"no right to use {path}: become a member of its group ([daemon] group), or use sudo"
        )
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return DaemonError(
            f"no mptcpd of this project runs at {path}: start one (mptcpd --config FILE.toml), "
            "or name its socket"
        )
    return DaemonError(f"mptcpd at {path} cannot be reached: {text_of(error)}")


def receive_with_descriptors(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Up to `size` bytes and the descriptors that came along, close-on-exec. Raises OSError.

    When this process may open no more of them, [-1, -1] stands for the pair that was lost.

    Not socket.recv_fds: that one ignores its flags, so a child started meanwhile would inherit
    the descriptors.
    """
    descriptors = array.array("i")
    data, ancillary, flags, _address = sock.recvmsg(
        size, socket.CMSG_SPACE(16 * descriptors.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            usable = len(content) - len(content) % descriptors.itemsize
            descriptors.frombytes(content[:usable])
    if flags & socket.MSG_CTRUNC:
        for descriptor in descriptors:
            os.close(descriptor)
        return data, [-1, -1]
    return data, list(descriptors)
