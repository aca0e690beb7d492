"""One HTML page of results that needs nothing beside itself: tables, verdicts, pictures inlined."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

from rich.table import Table
from rich.text import Text

from .results import Verdict, counted

_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
caption { text-align: left; font-style: italic; }
th, td { border-bottom: 1px solid #ccc; padding: .15em .7em; text-align: left; }
.right { text-align: right; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
img { max-width: 100%; }
.met::before { content: "met: "; color: #176f2c; font-weight: bold; }
.missed::before { content: "NOT met: "; color: #b3261e; font-weight: bold; }
.source, .told { color: #555; }
.told { font-size: 85%; }
"""


@dataclass(frozen=True, slots=True)
class Part:
    """What the page says of one scenario."""

    name: str
    title: str
    source: str
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    verdicts: Sequence[Verdict] = ()
    picture: bytes = b""
    """A PNG; empty for none."""
    told: str = ""
    """When, how long, on what machine."""
    failure: str = field(default="", kw_only=True)
    """Why there is nothing to show."""

    @property
    def standing(self) -> str:
        """For the table of contents."""
        if self.failure:
            return "not measured"
        if not self.verdicts:
            return "not judged"
        return f"{sum(verdict.met for verdict in self.verdicts)} of {len(self.verdicts)} met"


def _summary(parts: Sequence[Part]) -> str:
    """How many there are, what they promised, and how many promised nothing."""
    verdicts = [verdict for part in parts for verdict in part.verdicts]
    met = sum(verdict.met for verdict in verdicts)
    standings = [part.standing for part in parts]
    without = [
        f", {count} {what}"
        for what in ("not judged", "not measured")
        if (count := standings.count(what))
    ]
    kept = f"{met} of {counted(len(verdicts), 'promise')} kept"
    return f"{counted(len(parts), 'scenario')}, {kept}{''.join(without)}"


def page(parts: Sequence[Part], written: str) -> str:
    """The whole document; `written` is the time it is made at."""
    rows = "\n".join(
        f'<tr><td><a href="#{escape(part.name)}">{escape(part.name)}</a></td>'
        f"<td>{escape(part.source)}</td><td>{escape(part.title)}</td>"
        f"<td>{escape(part.standing)}</td></tr>"
        for part in parts
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n<title>Measurements</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>Measurements of this stack</h1>\n"
        f"<p>{_summary(parts)}. Written {escape(written)}.</p>\n"
        "<table>\n<tr><th>scenario</th><th>stands beside</th><th>what</th><th>promises</th></tr>\n"
        f"{rows}\n</table>\n" + "".join(_section(part) for part in parts) + "</body>\n</html>\n"
    )


def _section(part: Part) -> str:
    lines = [f'<h2 id="{escape(part.name)}">{escape(part.name)}: {escape(part.title)}</h2>']
    if part.source:
        lines.append(f'<p class="source">Stands beside: {escape(part.source)}</p>')
    if part.failure:
        lines.append(f"<p><strong>Not measured:</strong> {escape(part.failure)}</p>")
    if part.verdicts:
        judged = (
            f'<li class="{"met" if verdict.met else "missed"}">{escape(verdict.promise)}</li>'
            for verdict in part.verdicts
        )
        lines.append(f"<ul>{''.join(judged)}</ul>")
    if part.picture:
        data = base64.b64encode(part.picture).decode("ascii")
        lines.append(f'<p><img alt="{escape(part.title)}" src="data:image/png;base64,{data}"></p>')
    lines += [_table(table) for table in part.tables]
    lines += [f"<p>{escape(note)}</p>" for note in part.notes]
    if part.told:
        lines.append(f'<p class="told">Measured {escape(part.told)}</p>')
    return "<section>\n" + "\n".join(lines) + "\n</section>\n"


def _table(table: Table) -> str:
    sides = [' class="right"' if column.justify == "right" else "" for column in table.columns]
    head = "".join(
        f"<th{side}>{_plain(column.header)}</th>"
        for side, column in zip(sides, table.columns, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(f"<td{side}>{_plain(cell)}</td>" for side, cell in zip(sides, cells, strict=True))
        + "</tr>"
        for cells in zip(*(column.cells for column in table.columns), strict=True)
    )
    caption = f"<caption>{_plain(table.title)}</caption>" if table.title else ""
    return f'<div class="scroll"><table>{caption}\n<tr>{head}</tr>\n{body}\n</table></div>'


def _plain(cell: object) -> str:
    """A cell's text, escaped."""
    return escape(cell.plain if isinstance(cell, Text) else str(cell))
