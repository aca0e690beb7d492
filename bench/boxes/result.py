"""What was seen of a case, and what that amounts to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from .cases import Case, Outcome


@dataclass(slots=True)
class Seen:
    """What one end of ours saw; paths are numbered from 1."""

    fallback: bool
    opened: list[tuple[int, bool]]
    """Subflows that were there: (path, whether its MPTCP was confirmed)."""
    broken: list[int]
    """Paths of subflows that ended, and not in good order."""
    reasons: list[int] = field(default_factory=list)
    """MP_TCPRST reason codes that this end sent or got."""
    why: str = ""
    """Of the fallback."""


@dataclass(slots=True)
class Result:
    """What came of a case."""

    outcome: Outcome | None
    """None: the connection ended badly, or never opened."""
    whole: bool
    """All bytes arrived, both ways."""
    seconds: float
    reasons: list[int] = field(default_factory=list)
    """MP_TCPRST reason codes that were seen."""
    counters: list[dict[str, int]] = field(default_factory=list)
    """What each box did."""
    trouble: str = ""
    """What went wrong, one line."""
    received: int = 0
    """Bytes that both applications got."""
    digest: str = ""
    """SHA-256 of what the client got, and of what the server got: the beginnings."""

    def met(self, case: Case) -> bool:
        """Whether it is what the RFC asks."""
        told = case.reason is None or case.reason in self.reasons
        return self.outcome in case.expected and self.whole and told


def digest(got: bytes) -> str:
    """The beginning of the SHA-256."""
    return hashlib.sha256(got).hexdigest()[:12]


def judge(case: Case, ends: list[Seen], fallback: list[bool]) -> Outcome | None:
    """What the ends of ours saw of a connection that ended well; `fallback` is of both ends.

    None when the two differ about the fallback.
    """
    if all(fallback):
        return Outcome.FELL_BACK
    if any(fallback):
        return None
    joined = [sure for end in ends for path, sure in end.opened if path == case.boxed]
    broken = [path for end in ends for path in end.broken if path == case.boxed]
    if not joined or (broken and not any(joined)):
        return Outcome.NOT_JOINED
    if not broken:
        return Outcome.KEPT
    return Outcome.RESET if case.paths > 1 else Outcome.REVIVED
