"""What is measured in real time comes before what else the machine does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_AUTOGROUP: Final = Path("/proc/self/autogroup")
NICENESS: Final = -10
"""The link emulator's, in whose process the kernel's TCP works: see `emulated`."""


@contextlib.contextmanager
def preferred() -> Iterator[None]:
    """Let this session's processes come before other sessions', if there is the right to.

    Where the kernel groups processes by session (sched(7), "The autogroup feature"), niceness
    decides within a session only: beside a busy one, that of the emulator would be worth nothing.
    """
    before = ""
    with contextlib.suppress(OSError):
        before = _AUTOGROUP.read_text(encoding="ascii").rpartition("nice ")[2].strip()
        _AUTOGROUP.write_text(str(NICENESS), encoding="ascii")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if before:
                _AUTOGROUP.write_text(before, encoding="ascii")
