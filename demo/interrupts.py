"""Ctrl-C and SIGTERM as something the program asks for, where it can be cleaned up after.

An exception raised in the middle of anything could leave half of it behind; a flag that is looked
at between two steps, and that ends every wait, cannot. Imports nothing heavy: it is in force before
the rest of the program is loaded.
"""

from __future__ import annotations

import signal
import socket
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """The run was told to stop; `status` is the exit status a shell expects."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.status = 128 + signum


class Interrupts:
    """Takes over the signals, for good: one object per program, in its main thread."""

    def __init__(self) -> None:
        self._signum = 0
        # Wakes whoever selects on it, as a signal by itself does not end a select (PEP 475).
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for signum in SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._signum = self._signum or signum

    def fileno(self) -> int:
        """Readable once a signal has come."""
        return self._read.fileno()

    def check(self) -> None:
        """Raise Interrupted if the program has been told to stop."""
        if self._signum:
            raise Interrupted(self._signum)
