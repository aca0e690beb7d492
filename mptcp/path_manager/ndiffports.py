"""The path manager `ndiffports`: several subflows over the first pair of addresses.

Where routers spread load by ports (ECMP, thesis §5.4) they may take different ways; at a shared
bottleneck they show what coupled congestion control is for (thesis §5.3). `Config.ndiffports`
says how many there are, the first one included. Other addresses, ours or the peer's, are not used.

What happens to a lost subflow is `builtin`'s: its path is offered again after a while.
"""

from __future__ import annotations

from mptcp.path_manager.base import EndpointId, path_managers
from mptcp.path_manager.builtin import BuiltinPathManager


@path_managers.register("ndiffports")
class NdiffportsPathManager(BuiltinPathManager):
    """See the module's text."""

    def _update(self, now: int) -> None:
        transport = self.transport
        if not self.ready or not transport.is_client:
            return
        end = transport.fendpoint
        present = any(address == end.local for _, address in transport.local_addresses())
        # RFC 8684 §3.1: after C=1 no further subflow to the first address; §3.4.2: nor to one that
        # the peer has removed.
        if present and 0 in self.remote and not transport.no_join_initial:
            rows = sum(
                (path.endpoint.local, path.endpoint.remote) == (end.local, end.remote)
                for path in self.paths.values()
            )
            for _ in range(rows, min(self.config.ndiffports, self.config.max_subflows)):
                self._add(EndpointId(end.local, 0, end.remote, end.remote_port), 0, 0)
        transport.paths_changed()
