"""The simulator's command line in a process of its own: what it loads registers itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m mptcp.sim` with these arguments."""
    return subprocess.run(
        [sys.executable, "-m", "mptcp.sim", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
