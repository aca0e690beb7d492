"""Everything on every path: the delay of the best one, and no hole while one of them works.

For short and urgent data: n paths carry n times the bytes. A subflow takes new data when it has
sent all that others have, and passes over what the peer has acknowledged meanwhile.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from mptcp.scheduler import MinRtt, schedulers


@mypyc_attr(allow_interpreted_subclasses=True)
class Redundant(MinRtt):
    """All subflows carry all of the data."""

    def duplicates(self) -> bool:
        return True


schedulers.add("redundant", Redundant)
