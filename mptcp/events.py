"""What a `Stack` tells its driver through `poll_event()`.

Events of one connection come in the order of what happened: `Connected` or `Accepted` first,
`Closed` last and once. `Readable` and `Writable` are edges: after `Readable` read until `recv()`
returns nothing; after `Writable` the send buffer has room for a third of what it holds, or an
eighth and nothing to send.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mptcp.errors import ConnectionEnd, FallbackReason

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.stack import Listener
    from mptcp.subflow import Subflow


@dataclass(frozen=True, slots=True)
class Connected:
    """An active open has succeeded; data may flow."""

    connection: MetaSocket


@dataclass(frozen=True, slots=True)
class Accepted:
    """A listener has a new connection."""

    listener: Listener
    connection: MetaSocket


@dataclass(frozen=True, slots=True)
class Readable:
    """Data, or the end of the peer's data (`connection.eof`), is waiting."""

    connection: MetaSocket


@dataclass(frozen=True, slots=True)
class Writable:
    """A send buffer that was full has room again."""

    connection: MetaSocket


@dataclass(frozen=True, slots=True)
class FellBack:
    """The connection is plain TCP from now on (RFC 8684 §3.7)."""

    connection: MetaSocket
    reason: FallbackReason


@dataclass(frozen=True, slots=True)
class SubflowEstablished:
    """A subflow can carry data."""

    connection: MetaSocket
    subflow: Subflow


@dataclass(frozen=True, slots=True)
class Urgent:
    """The peer has urgent data; `connection.urgent_left` says how far ahead (RFC 9293 §3.8.5)."""

    connection: MetaSocket


@dataclass(frozen=True, slots=True)
class DeliveryProblem:
    """`r1_retries` time-outs in a row on a subflow (RFC 1122 §4.2.3.5, R1); sending goes on."""

    connection: MetaSocket
    subflow: Subflow


@dataclass(frozen=True, slots=True)
class SubflowClosed:
    """A subflow is gone; `end` says why, `reason` is the MP_TCPRST code if one came."""

    connection: MetaSocket
    subflow: Subflow
    end: ConnectionEnd
    reason: int | None


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is over. Nothing more comes for it."""

    connection: MetaSocket
    end: ConnectionEnd


Event = (
    Connected
    | Accepted
    | Readable
    | Writable
    | FellBack
    | SubflowEstablished
    | Urgent
    | DeliveryProblem
    | SubflowClosed
    | Closed
)
