"""The targets by name, and where their inputs are.

`fuzz/corpus/NAME.txt` keeps inputs in the repository, one a line in hexadecimal; `build/fuzz` has
what runs make: `corpus/NAME/` and, of what was found, `found/NAME-crash-…`.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
KEPT: Final = Path(__file__).parent / "corpus"
WORK: Final = Path("build") / "fuzz"
"""Relative: the command that replays a find stays short."""
MODULES: Final = {"stack": "fuzz.operations", "wire": "fuzz.parsers"}

Target = Callable[[bytes], object]


def target(name: str) -> Target:
    """The function that plays an input; `name` is one of `MODULES`, or a module with a `run`.

    Raises ValueError when there is none of that name.
    """
    try:
        module = importlib.import_module(MODULES.get(name, name))
        found: Target = module.run
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no target {name!r}: use one of {', '.join(MODULES)}") from error
    return found


def kept(name: str) -> list[bytes]:
    """The inputs that the repository keeps."""
    file = KEPT / f"{name}.txt"
    if not file.exists():
        return []
    return [bytes.fromhex(line) for line in file.read_text(encoding="ascii").split()]


def keep(name: str, inputs: list[bytes]) -> None:
    """Make `inputs` what the repository keeps."""
    KEPT.mkdir(exist_ok=True)
    lines = sorted(data.hex() for data in set(inputs))
    (KEPT / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="ascii")


def folder(name: str, inputs: list[bytes]) -> Path:
    """The folder of a target's inputs, with these in it."""
    place = ROOT / WORK / "corpus" / name
    place.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        file = place / hashlib.sha1(data, usedforsecurity=False).hexdigest()
        if not file.exists():
            file.write_bytes(data)
    return place
