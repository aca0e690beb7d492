"""The errors an application can see, and why a connection ended.

Bytes from a peer never raise through the stack: a bad packet is dropped, answered or reset as
the RFCs say, and counted. What is left is misuse by the caller (`LocalError` and its kin) and
the end of a connection (`ConnectionEnd`, carried by the `Closed` event).
"""

from __future__ import annotations

import enum


class MptcpError(Exception):
    """Base of every error this package raises on purpose."""


class LocalError(MptcpError):
    """The caller asked for something that cannot be done; the text says how to mend it."""


class NoRouteError(LocalError, OSError):
    """No interface of the stack leads to the destination."""


class AddressInUseError(LocalError, OSError):
    """Another listener already owns the address and port."""


class NotConnectedError(LocalError):
    """The connection is not in a state that allows the call."""


class ConnectionEnd(enum.Enum):
    """Why a connection is over."""

    CLOSED = "closed by both sides"
    REFUSED = "the peer refused the connection (RST)"
    RESET = "the peer reset the connection"
    TIMED_OUT = "the peer did not answer"
    ABORTED = "aborted by this side"
    FAST_CLOSED = "the peer closed at once (MP_FASTCLOSE)"
    UNREACHABLE = "the network reports the destination as unreachable"
    NO_SUBFLOW = "every subflow was lost and none came back in time"
    PROTOCOL = "the peer broke the protocol"
    INTERFACE_LOST = "the interface went away"

    def to_exception(self, hint: str = "") -> OSError | None:
        """The OSError an asyncio program expects for this end; None for a clean close.

        `hint` is what the network last said (`MetaSocket.last_soft_error`), for a time-out.
        """
        match self:
            case ConnectionEnd.CLOSED:
                return None
            case ConnectionEnd.REFUSED:
                return ConnectionRefusedError(self.value)
            case ConnectionEnd.TIMED_OUT | ConnectionEnd.NO_SUBFLOW:
                return TimeoutError(f"{self.value} ({hint})" if hint else self.value)
            case ConnectionEnd.ABORTED:
                return ConnectionAbortedError(self.value)
            case ConnectionEnd.UNREACHABLE | ConnectionEnd.INTERFACE_LOST:
                return OSError(113, self.value)
            case _:
                return ConnectionResetError(self.value)
