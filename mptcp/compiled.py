"""Whether the protocol core runs compiled, and what belongs to it.

`make compiled` translates the modules below with mypyc into `build/compiled` of a source tree; they
run about two and a half times as fast. The sources stay the reference: they run where nothing was
compiled, and the tests are for both.

Invariants
  * A source newer than what was compiled from the sources is never hidden by it: then all of the
    core runs from its sources again, until the next `make compiled`.
  * `MPTCP_COMPILED=0` in the environment asks for the sources, `MPTCP_COMPILED=1` insists on the
    compiled core. An installed wheel built under `MPTCP_COMPILE=1` has it in place.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

PACKAGES: Final = ("schedulers", "tcp", "wire")
MODULES: Final = (
    "accepting",
    "answers",
    "arrival",
    "blackholes",
    "buffers",
    "cloning",
    "coupled_cc",
    "data_queues",
    "data_states",
    "delivery",
    "dispatcher",
    "early",
    "fallback",
    "fastclose",
    "joining",
    "mapping",
    "membership",
    "meta_socket",
    "opening",
    "receiving",
    "removal",
    "reorder",
    "reorder_shortcuts",
    "reorder_variants",
    "retransmission",
    "retransmit_queue",
    "scheduler",
    "send_order",
    "sending_view",
    "signals",
    "stack",
    "stateless",
    "subflow",
    "subflow_input",
    "subflow_options",
    "subflow_output",
    "tcp_path",
    "timers",
    "tuning",
    "unmapped",
    "wvegas",
)
GROUP: Final = "mptcp_core"
"""mypyc puts the code itself into one library, `mptcp_core__mypyc`."""


def sources(package: Path) -> list[Path]:
    """The files that are compiled, of the package in this folder."""
    single = [package / f"{name}.py" for name in MODULES]
    whole = [file for name in PACKAGES for file in (package / name).glob("*.py")]
    return sorted(single + whole)


def use(search_path: list[str]) -> None:
    """Put the compiled core before the sources on the package's search path, if it is to be used.

    Raises ImportError when MPTCP_COMPILED=1 and there is none, or an old one.
    """
    asked = os.environ.get("MPTCP_COMPILED", "")
    if asked == "0":
        return
    package = Path(search_path[0])
    folder = package.parent / "build" / "compiled"
    library = folder / f"{GROUP}__mypyc{EXTENSION_SUFFIXES[0]}"
    try:
        built = library.stat().st_mtime
        fresh = all(file.stat().st_mtime <= built for file in sources(package))
    except FileNotFoundError:
        fresh = False
    if fresh:
        sys.path.append(str(folder))
        search_path.insert(0, str(folder / "mptcp"))
    elif asked == "1":
        raise ImportError(f"{folder} has no core newer than the sources: make compiled")


def is_compiled() -> bool:
    """Whether the core that runs is compiled."""
    from mptcp import stack

    return not str(stack.__file__).endswith(".py")
