"""The states of a TCP connection (RFC 9293 §3.3.2), under their RFC names."""

from __future__ import annotations

import enum
from typing import Final

NEVER: Final = 1 << 62
"""A deadline that does not come; an int so that deadlines compare without None checks."""


class State(enum.Enum):
    """RFC 9293 §3.3.2. LISTEN is not here: a listener is not a connection (see `stack`)."""

    CLOSED = 0
    SYN_SENT = 1
    SYN_RECEIVED = 2
    ESTABLISHED = 3
    FIN_WAIT_1 = 4
    FIN_WAIT_2 = 5
    CLOSE_WAIT = 6
    CLOSING = 7
    LAST_ACK = 8
    TIME_WAIT = 9


# Tuples, not sets: membership compares identities first, while an Enum hashes in Python code.

CAN_SEND: Final = (State.ESTABLISHED, State.CLOSE_WAIT)
"""States in which new data may be queued (RFC 9293 §3.10.2)."""
FLUSHING: Final = (
    State.ESTABLISHED,
    State.CLOSE_WAIT,
    State.FIN_WAIT_1,
    State.CLOSING,
    State.LAST_ACK,
)
"""States in which data or a FIN may still be in flight from this side."""
CAN_RECEIVE: Final = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2)
"""States in which payload is taken (RFC 9293 §3.10.7.4, seventh)."""
