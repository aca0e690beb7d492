"""One direction of an emulated link, in virtual or in real time.

The simulator (`mptcp.sim`) and the link emulator (`emulator_loop.py`) use the same `Link`; what it
does to packets is set by a `LinkChange` and counted in its `LinkStats`.
"""

from .change import Aqm, LinkChange, LinkStats
from .impair import Damaged
from .link import Link
from .trace import lte_trace, parse_mahimahi

__all__ = ["Aqm", "Damaged", "Link", "LinkChange", "LinkStats", "lte_trace", "parse_mahimahi"]
