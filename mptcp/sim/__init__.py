"""Virtual time: hosts, links and networks in which the unchanged stack runs deterministically."""

from mptcp.sim.network import Direction, SimHost, Simulation

__all__ = ["Direction", "SimHost", "Simulation"]
