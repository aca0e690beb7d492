"""Virtual time: hosts, links and networks in which the unchanged stack runs deterministically.

`docs/simulator.md` is the guide.
"""

from mptcp.sim.apps import Bulk, Requests, Responder, Sink
from mptcp.sim.direction import Direction
from mptcp.sim.host import SimHost
from mptcp.sim.middlebox import Middlebox, StripOption, Way
from mptcp.sim.network import Path, Simulation
from mptcp.sim.router import Router
from mptcp.sim.series import Series
from mptcp.sim.topology import dumbbell
from mptcp.tun.linkem import LinkChange, lte_trace
from mptcp.tun.middlebox import box_spec

__all__ = [
    "Bulk",
    "Direction",
    "LinkChange",
    "Middlebox",
    "Path",
    "Requests",
    "Responder",
    "Router",
    "Series",
    "SimHost",
    "Simulation",
    "Sink",
    "StripOption",
    "Way",
    "box_spec",
    "dumbbell",
    "lte_trace",
]
