"""Subflow heuristics: when a connection gets more subflows, and when it loses one (thesis §4.6)."""

from mptcp.heuristics import closing, opening
from mptcp.heuristics.base import Flow, FlowPath, Heuristic, heuristics
from mptcp.heuristics.rules import check as check_heuristics

__all__ = ["Flow", "FlowPath", "Heuristic", "check_heuristics", "heuristics"]

BUILT_IN = (closing, opening)
"""Modules whose import registers the heuristics that a `Config` may name."""
