"""One process of coverage-guided fuzzing: `python -m fuzz.worker TARGET [libFuzzer's arguments]`.

atheris instruments the protocol core as it is imported (from the sources: nobody can watch the
compiled one) and hands inputs to the target until the time is over or something escapes.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    os.environ["MPTCP_COMPILED"] = "0"
    import atheris

    with atheris.instrument_imports(include=["mptcp"]):
        from fuzz.targets import target

        play = target(sys.argv[1])

    def one(data: bytes) -> None:
        play(data)

    atheris.Setup([sys.argv[0], *sys.argv[2:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
