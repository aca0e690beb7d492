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


class FallbackReason(enum.Enum):
    """Why a connection is plain TCP (RFC 8684 §3.1, §3.7); the value says it in one line."""

    DISABLED = "MPTCP is off in the configuration"
    BLACKHOLE = "SYNs with MP_CAPABLE have been lost on the way to this address"
    SYN_WITHOUT_OPTION = "the SYN carried no usable MP_CAPABLE"
    SYN_ACK_WITHOUT_OPTION = "the SYN/ACK carried no usable MP_CAPABLE"
    THIRD_ACK_WITHOUT_OPTION = "the third packet carried no usable MP_CAPABLE"
    SYN_UNANSWERED = "SYNs with MP_CAPABLE were not answered"
    TOKEN_TAKEN = "the token of the key in a SYN cookie was taken before it came back"
    SIMULTANEOUS_OPEN = "both ends have sent a SYN"
    ACK_WITHOUT_DSS = "data was acknowledged without a DSS"
    DATA_WITHOUT_MAPPING = "data arrived without a mapping"
    INFINITE_MAPPING = "the peer sent an infinite mapping"
    CHECKSUM_FAILED = "a DSS checksum was wrong on the only subflow"
    MP_FAIL_RECEIVED = "the peer reported a checksum failure (MP_FAIL)"


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
