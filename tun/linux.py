"""Linux calls that Python 3.11 lacks (setns, unshare, timerfd) and threads that use them.

Network namespaces belong to threads in Linux, not to processes: a thread may enter another
namespace while the rest of the program stays where it is, and what it opens there (sockets, TUN
devices, child processes) stays there. Every crossing of a namespace in this package is such a
short-lived thread.

Nothing here keeps state.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar, cast

CLONE_NEWNET: Final = 0x40000000

_CLOCK_MONOTONIC: Final = 1
_TFD_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME: Final = 1
_NS_PER_SECOND: Final = 1_000_000_000

_libc: Final = ctypes.CDLL(None, use_errno=True)

P = ParamSpec("P")
T = TypeVar("T")


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def setns(fd: int) -> None:
    """Move the calling thread into the network namespace `fd` refers to. Raises OSError."""
    _check(_libc.setns(fd, CLONE_NEWNET), "setns")


def unshare_network() -> None:
    """Give the calling thread a new, empty network namespace. Raises OSError."""
    _check(_libc.unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET)")


def open_current_namespace() -> int:
    """A descriptor of the calling thread's network namespace; it keeps the namespace alive."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def in_thread(func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `func` in a thread of its own and return (or raise) what it returns (or raises).

    Used where the caller's thread must not change: entering namespaces, and pyroute2, whose
    synchronous calls run an event loop and are refused inside a running one.
    """
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(func(*args, **kwargs))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body, name="mptcp-tun", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return cast("T", outcome[0])


def in_namespace(fd: int | None, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `in_thread`, inside the network namespace `fd` (None: the caller's own namespace)."""

    def body() -> T:
        if fd is not None:
            setns(fd)
        return func(*args, **kwargs)

    return in_thread(body)


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class TimerFd:
    """A one-shot timer on the monotonic clock, as a descriptor for epoll.

    Unlike epoll's own time-out it is exact to some 10 µs, not to a millisecond.
    """

    __slots__ = ("_fd", "_settime", "_spec", "_value")

    def __init__(self) -> None:
        self._fd = _check(
            _libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC), "timerfd_create"
        )
        spec = _TimerSpec()
        self._spec = ctypes.byref(spec)  # a reference that keeps `spec` alive
        self._value = spec.value
        self._settime = _libc.timerfd_settime

    def fileno(self) -> int:
        return self._fd

    def arm(self, deadline_ns: int) -> None:
        """Fire once at `deadline_ns` of time.monotonic_ns(); at once when that has passed."""
        # A zero value would disarm the timer instead of firing it.
        seconds, nanoseconds = divmod(max(deadline_ns, 1), _NS_PER_SECOND)
        self._value.seconds = seconds
        self._value.nanoseconds = nanoseconds
        _check(self._settime(self._fd, _TFD_TIMER_ABSTIME, self._spec, None), "timerfd_settime")

    def clear(self) -> None:
        """Take the expiry back, so that the descriptor is no longer readable."""
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
