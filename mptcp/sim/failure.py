"""What a failing run leaves behind: its seed, in the exception's notes, and a capture.

with sim.explain_failure("two paths, one cut", tmp_path):
    sim.run(60_000_000)
    assert sink.received == size
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING

from mptcp.sim.recording import MemoryRecorder

if TYPE_CHECKING:
    from mptcp.sim.network import Simulation


@contextmanager
def explain_failure(
    sim: Simulation, name: str, folder: str | PurePath | None = None
) -> Iterator[None]:
    """Add a note to any exception: `name`, the seed, the virtual time, and with `folder` (which
    must exist) where the capture is: the newest 100,000 packets of all hosts, as pcapng."""
    recorder = None
    if folder is not None:
        recorder = MemoryRecorder()
        sim.record(recorder)
    began = sim.now
    try:
        yield
    except BaseException as error:
        note = (
            f"{name}: simulation seed {sim.seed}, {(sim.now - began) / 1e6:.6f} s after its begin"
        )
        if recorder is not None and folder is not None:
            stem = re.sub(r"\W+", "-", name).strip("-")
            path = f"{folder}/{stem}-seed-{sim.seed}.pcapng"
            with open(path, "wb") as file:
                count = recorder.write(file, note)
            note += f"; {count} packets in {path}"
        error.add_note(note)
        raise
