"""What a person sees: a live table on a terminal, plain lines anywhere else.

Nothing here measures; it draws what it is given. On something that is no terminal no control
character is written.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from demo.judgement import Finding
from demo.network import PathPlan

_LINE_US: Final = 1_000_000  # between two lines where there is no terminal
_BAR: Final = 18  # the whole table fits 80 columns
_MARKS: Final = {True: ("ok", "green"), False: ("MISSED", "bold red"), None: ("", "")}


class Display:
    """One run's output."""

    def __init__(self, paths: Sequence[PathPlan], size: int) -> None:
        self.paths = paths
        self.size = size  # of the file, bytes
        self.console = Console(highlight=False, soft_wrap=True)
        self.live: Live | None = None
        self.next_line = 0

    def say(self, text: str) -> None:
        """One line."""
        if self.live is None and not self.console.is_terminal:
            print(text, flush=True)
        else:
            self.console.print(text, markup=False)

    @contextlib.contextmanager
    def transfer(self) -> Iterator[None]:
        """While the file crosses."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, auto_refresh=False) as self.live:
            try:
                yield
            finally:
                self.live.refresh()
        self.live = None

    def progress(
        self, elapsed: int, total: int, rates: Sequence[float], up: Sequence[bool]
    ) -> None:
        """The state now: µs since the start, bytes delivered, bit/s and state of each path."""
        if self.live is not None:
            self.live.update(self._table(elapsed, total, rates, up), refresh=True)
        elif elapsed >= self.next_line:
            self.next_line = elapsed - elapsed % _LINE_US + _LINE_US
            states = "  ".join(
                f"{path.name} {'up  ' if is_up else 'DOWN'} {rate / 1e6:5.1f} Mbit/s"
                for path, rate, is_up in zip(self.paths, rates, up, strict=True)
            )
            self.say(f"{elapsed / 1e6:5.1f} s  {total / 1e6:6.1f} MB  {states}")

    def _table(self, elapsed: int, total: int, rates: Sequence[float], up: Sequence[bool]) -> Group:
        table = Table.grid(padding=(0, 2))
        table.add_column(min_width=6)
        table.add_column(min_width=4)
        table.add_column(width=_BAR)
        table.add_column(justify="right", min_width=12)
        table.add_column(style="dim", no_wrap=True)
        for path, rate, is_up in zip(self.paths, rates, up, strict=True):
            table.add_row(
                path.name,
                Text("up", "green") if is_up else Text("DOWN", "bold red"),
                ProgressBar(path.rate_bps, min(rate, path.rate_bps), width=_BAR),
                f"{rate / 1e6:.1f} Mbit/s",
                f"of {path.description}",
            )
        table.add_row(
            "file",
            "",
            ProgressBar(self.size, total, width=_BAR, complete_style="cyan"),
            f"{total / 1e6:.1f} MB",
            f"of {self.size / 1e6:.1f} MB, {elapsed / 1e6:.1f} s",
        )
        return Group(table)

    def result(self, findings: Sequence[Finding]) -> None:
        """The findings, each with its mark."""
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            mark, style = _MARKS[finding.kept]
            line = Text(f"  {finding.name:<{width}}  {finding.text}")
            if mark:
                line.append("  ").append(mark, style)
            if self.console.is_terminal:
                self.console.print(line)
            else:
                print(line.plain, flush=True)


def tell(text: str) -> None:
    """One line on standard output, if anybody still reads there."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def complain(text: str) -> None:
    """One line on standard error."""
    print(f"demo: {' '.join(text.split())}", file=sys.stderr, flush=True)
