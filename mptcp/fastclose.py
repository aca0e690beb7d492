"""The end of a connection at once: MP_FASTCLOSE in its two forms (RFC 8684 §3.5).

Form R resets every subflow with the option and keeps nothing. Form A sends it on an ACK of one
subflow, resets the others, and waits on that one for a RST (FASTCLOSE_WAIT): the option is repeated
after each retransmission time-out, `REPEATS` times, and then goes with a RST after all, as in form
R. For the application the connection is over in either form when it begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mptcp.errors import ConnectionEnd
from mptcp.tcp.state import State
from mptcp.wire.mptcp_options import MpFastclose

if TYPE_CHECKING:
    from mptcp.meta_socket import MetaSocket
    from mptcp.subflow import Subflow

REPEATS: Final = 3
"""RECOMMENDED by §3.5."""

_SYNCHRONIZED: Final = (
    State.ESTABLISHED,
    State.CLOSE_WAIT,
    State.FIN_WAIT_1,
    State.FIN_WAIT_2,
)


def fast_close(meta: MetaSocket, now: int) -> None:
    """Tell the peer that the connection is over, by `Config.fast_close`'s form."""
    options = b""
    waiting: Subflow | None = None
    if not meta.fallback and meta.remote_key:
        options = MpFastclose(meta.remote_key).emit()
        meta.stack.counters["MPTcpExtMPFastcloseTx"] += 1
        if meta.config.fast_close == "ack":
            able = [s for s in meta.subflows if s.state in _SYNCHRONIZED and s.fully_established]
            waiting = min(able, key=lambda s: (s.stale, s.srtt), default=None)
    for subflow in list(meta.subflows):
        if subflow is not waiting:
            plain = waiting is not None or not subflow.mptcp
            subflow.abort(b"" if plain else options)
    if waiting is not None:
        waiting.fast_close = FastCloseWait()
        waiting.fast_close.send(waiting, options, now)


class FastCloseWait:
    """FASTCLOSE_WAIT of one subflow."""

    __slots__ = ("_options", "_sent")

    def __init__(self) -> None:
        self._options = b""
        self._sent = 0

    def send(self, subflow: Subflow, options: bytes, now: int) -> None:
        """The option on an ACK; nothing else is repeated on this subflow any more."""
        self._options = options
        self._sent += 1
        subflow.snd.stop_timers()
        subflow.controls.clear()
        subflow.controls.append(options)
        subflow.upper_deadline = now + subflow.snd.rtt.rto
        subflow.host.rearm(subflow)
        subflow.host.mark_ready(subflow)

    def on_timeout(self, subflow: Subflow, now: int) -> None:
        """No RST has come."""
        if self._sent <= REPEATS:
            subflow.snd.rtt.back_off()
            subflow.host.counters["MPTcpExtMPFastcloseTx"] += 1
            self.send(subflow, self._options, now)
        else:
            subflow.abort(self._options, ConnectionEnd.TIMED_OUT)
