"""Line numbers for the keys of a TOML text, which tomllib does not keep.

tomllib stays the only parser: the text is cut into statements (a statement ends at the first line
end after which tomllib accepts it), each is parsed by itself, and the keys found are noted with
the line it starts on. Needed only to word an error, so simplicity beats speed.
"""

from __future__ import annotations

import tomllib
from typing import Any

Path = tuple[str | int, ...]


class LineIndex:
    """Key paths of one valid TOML text to line numbers, counted from 1."""

    def __init__(self, text: str) -> None:
        """Index `text`, which tomllib must accept as a whole. Raises TOMLDecodeError otherwise."""
        self._lines: dict[Path, int] = {(): 1}
        self._tables: dict[Path, int] = {}
        prefix: Path = ()
        pending = ""
        start = 0
        for number, line in enumerate(text.split("\n"), 1):
            if not pending:
                bare = line.strip()
                if not bare or bare.startswith("#"):
                    continue
                if bare.startswith("["):
                    prefix = self._enter(tomllib.loads(line), number)
                    continue
                start = number
            pending += line + "\n"
            try:
                values = tomllib.loads(pending)
            except tomllib.TOMLDecodeError:
                continue  # an array or a text that goes on on the next line
            self._note(prefix, values, start)
            pending = ""
        if pending:
            tomllib.loads(pending)

    def find(self, path: Path) -> int:
        """The line of the longest known beginning of `path`."""
        while path not in self._lines:
            path = path[:-1]
        return self._lines[path]

    def _enter(self, header: dict[str, Any], number: int) -> Path:
        """The path of the table that a `[header]` or `[[header]]` line opens."""
        path: Path = ()
        level: Any = header
        while isinstance(level, dict) and level:
            (key, level), *_ = level.items()
            path += (key,)
            if isinstance(level, list):
                self._lines.setdefault(path, number)
                index = self._tables.get(path, 0)
                self._tables[path] = index + 1
                path += (index,)
                break
            if path in self._tables:  # [a.b] after [[a]] belongs to the last a
                path += (self._tables[path] - 1,)
        self._lines[path] = number
        return path

    def _note(self, prefix: Path, value: Any, number: int) -> None:
        items: list[tuple[str | int, Any]]
        if isinstance(value, dict):
            items = list(value.items())
        elif isinstance(value, list):
            items = list(enumerate(value))
        else:
            return
        for key, inner in items:
            path = (*prefix, key)
            self._lines.setdefault(path, number)
            self._note(path, inner, number)
