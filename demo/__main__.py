"""`python -m demo [--peer ours|kernel] [--size MB] [--output DIR]`; `make demo` runs it.

Exit status: 0 all promises kept, 1 one was missed or the transfer failed, 2 it could not run (one
line says why), 128 + n ended by signal n (130: Ctrl-C).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from demo.interrupts import Interrupted, Interrupts


def _size(text: str) -> int:
    try:
        megabytes = float(text)
    except ValueError:
        megabytes = 0.0
    if not 10 <= megabytes <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not within 10 to 1000")
    return int(megabytes * 1_000_000)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="demo",
        description="A file crosses two paths between two hosts, loses one path and goes on.",
    )
    parser.add_argument(
        "--peer",
        choices=("ours", "kernel"),
        default="ours",
        help="what host b, the server, is: mptcpd (default) or the Linux kernel's MPTCP",
    )
    parser.add_argument(
        "--size",
        type=_size,
        default=100_000_000,
        metavar="MB",
        help="of the file, 10 to 1000 (default 100); below 60 the path is down for less than 3 s",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo-out"),
        metavar="DIR",
        help="for captures, configurations and logs (default demo-out)",
    )
    return parser.parse_args()


def main() -> int:
    """Run the demonstration; its exit status."""
    interrupts = Interrupts()
    options = _arguments()
    # Loaded only now: a Ctrl-C during the import is answered too.
    from demo import hosts, scenario, show
    from mptcp.tun.emulator import EmulatorError
    from mptcp.tun.netns import enter_user_namespace

    try:
        interrupts.check()  # a new program would not know of it
        enter_user_namespace()
        interrupts.check()
        kept = scenario.run(
            scenario.Options(options.peer == "kernel", options.size, options.output), interrupts
        )
    except Interrupted as interrupted:
        show.tell("interrupted; everything is taken down")
        return interrupted.status
    except hosts.TransferError as error:
        show.complain(f"FAILED: {error}")
        return 1
    except (hosts.DemoError, EmulatorError, OSError, ValueError) as error:
        show.complain(str(error))
        return 2
    if not kept:
        show.complain("a promise was missed: see above")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
