"""Things that a `with` block closes."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closing:
    """Base of a class whose `close()` ends it: used as a context manager, it is closed at the end,
    whatever happens inside."""

    __slots__ = ()

    def close(self) -> None:
        """End it; again does nothing."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
