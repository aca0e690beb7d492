"""REMOVE_ADDR received: a path is asked before it is given up (RFC 8684 §3.4.2).

The option says that an address is gone, and anyone who can guess numbers could say so. So each
subflow of the address is sent a keep-alive (RFC 1122 §4.2.3.6), twice if need be; one that is
answered stays, to be closed by who sent the option, and one that is not is reset.

That something was heard is read from the count of unanswered probes, which every acceptable ACK
clears: nothing is looked at per packet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mptcp.errors import ConnectionEnd
from mptcp.tcp.state import NEVER, State
from mptcp.wire.mptcp_options import RST_UNSPECIFIED, MpTcprst

if TYPE_CHECKING:
    from mptcp.subflow import Subflow

PROBES: Final = 2
"""One RTO apart; the second is for a lost first."""


class _Check:
    """A subflow that is being asked."""

    __slots__ = ("deadline", "left", "subflow")

    def __init__(self, subflow: Subflow, deadline: int) -> None:
        self.subflow = subflow
        self.deadline = deadline
        self.left = PROBES - 1


class Removal:
    """The checks of one connection; `deadline` is the earliest."""

    __slots__ = ("_checks", "deadline")

    def __init__(self) -> None:
        self._checks: list[_Check] = []
        self.deadline = NEVER

    def ask(self, subflow: Subflow, now: int) -> None:
        """The peer says that the address of `subflow` is gone."""
        if any(check.subflow is subflow for check in self._checks):
            return
        if subflow.state in (State.SYN_SENT, State.SYN_RECEIVED):
            subflow.abort(MpTcprst(RST_UNSPECIFIED).emit(), ConnectionEnd.UNREACHABLE)
            return
        self._checks.append(_Check(subflow, _probe(subflow, now)))
        self._find_deadline()

    def handle_timeout(self, now: int) -> None:
        """See who has answered."""
        for check in list(self._checks):
            subflow = check.subflow
            if subflow.closed or not subflow.probes_unanswered:
                self._checks.remove(check)
            elif now >= check.deadline and check.left:
                check.left -= 1
                check.deadline = _probe(subflow, now)
            elif now >= check.deadline:
                self._checks.remove(check)
                subflow.abort(MpTcprst(RST_UNSPECIFIED).emit(), ConnectionEnd.UNREACHABLE)
        self._find_deadline()

    def _find_deadline(self) -> None:
        self.deadline = min((check.deadline for check in self._checks), default=NEVER)


def _probe(subflow: Subflow, now: int) -> int:
    """Ask the peer for an ACK; returns when it should have come."""
    subflow.probes_unanswered += 1
    subflow.probe_pending = True
    subflow.host.counters["TcpExtTCPKeepAlive"] += 1
    subflow.host.mark_ready(subflow)
    return now + subflow.snd.rtt.rto
