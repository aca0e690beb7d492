"""Where every network is, as seen from a router: fewest hops, then the order of `connect`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from mptcp.sim.direction import Direction
from mptcp.sim.host import SimHost
from mptcp.sim.router import Router


def find_routes(router: Router) -> None:
    """Give the router a route to each network that can be reached over routers and middleboxes."""
    table: dict[tuple[bytes, int], Direction] = {}
    seen: set[object] = {router}
    waiting: deque[tuple[Direction, Direction]] = deque((d, d) for d in router.out.values())
    while waiting:
        direction, first = waiting.popleft()
        for prefix in direction.prefixes:
            table.setdefault(prefix, first)
        node = direction.target
        if isinstance(node, SimHost) or node in seen:
            continue
        seen.add(node)
        waiting.extend((onward, first) for onward in _onward(direction))
    router.found_routes([(*prefix, first) for prefix, first in table.items()])


def _onward(direction: Direction) -> Iterator[Direction]:
    """The directions that leave where this one ends, but for the way back."""
    for number, onward in direction.target.out.items():
        if number != direction.interface_id:
            yield onward
