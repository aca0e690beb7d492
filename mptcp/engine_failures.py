"""Errors of ours in the engine: counted, told of without a flood, and survived.

A kind is where it happened and the type of the exception. The first of a kind is logged with its
traceback; after that a kind has a line in `INTERVAL_US` at most, with the count. The counter
`EngineErrors` beside the stack's own tells of all of them.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

INTERVAL_US: Final = 10_000_000
MAX_KINDS: Final = 64
"""Kinds that are told apart; more are counted and not logged."""

logger = logging.getLogger("mptcp.engine")


class FailureLog:
    """What has gone wrong in one engine."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._kinds: dict[tuple[str, str], list[int]] = {}
        """For each kind how often it came, and when it was last logged, µs."""

    def note(self, what: str, error: Exception, now: int) -> None:
        """`error` was raised while `what` was handled."""
        self._counters["EngineErrors"] += 1
        name = type(error).__name__
        kind = self._kinds.get((what, name))
        if kind is None:
            if len(self._kinds) < MAX_KINDS:
                self._kinds[what, name] = [1, now]
                logger.error("error while handling %s", what, exc_info=error)
            return
        kind[0] += 1
        if now - kind[1] >= INTERVAL_US:
            kind[1] = now
            logger.error("error while handling %s: %s (%d so far)", what, name, kind[0])
