"""The policies of one connection or listener, where they are to differ from the stack's.

Scheduler, congestion control, path manager and subflow heuristics are names in their registries; a
`Config` names those of all connections, `Policies` those of one connection, or of all that a
listener accepts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mptcp.config import Config
from mptcp.heuristics import check_heuristics, heuristics
from mptcp.path_manager.base import path_managers
from mptcp.reorder import reorder_queues
from mptcp.retransmission import policies as retransmissions
from mptcp.scheduler import schedulers
from mptcp.tcp.congestion import controllers


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """Registered names; None: what the stack's `Config` says."""

    scheduler: str | None = None
    congestion_control: str | None = None
    path_manager: str | None = None
    heuristics: str | None = None
    """Rules for opening and closing subflows (`mptcp.heuristics.rules`)."""

    def applied(self, config: Config) -> Config:
        """`config` with these policies instead of its own.

        Raises ValueError, with the known names, for a name that nobody has registered.
        """
        named = replace(
            config,
            scheduler=self.scheduler or config.scheduler,
            congestion_control=self.congestion_control or config.congestion_control,
            path_manager=self.path_manager or config.path_manager,
            heuristics=self.heuristics or config.heuristics,
        )
        check(named)
        return named


def check(config: Config) -> None:
    """Raise ValueError, with the known names, for a policy that nobody has registered."""
    schedulers.get(config.scheduler)
    controllers.get(config.congestion_control)
    path_managers.get(config.path_manager)
    reorder_queues.get(config.reorder)
    retransmissions.get(config.retransmission)
    check_heuristics(config.heuristics)


def load_entry_points() -> None:
    """Register the policies that installed packages announce."""
    schedulers.load_entry_points()
    controllers.load_entry_points()
    path_managers.load_entry_points()
    reorder_queues.load_entry_points()
    retransmissions.load_entry_points()
    heuristics.load_entry_points()
