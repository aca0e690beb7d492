"""mptcpd: the command.

    mptcpd --config FILE.toml [--check] [--log-level LEVEL]

Exit status: 0 after SIGTERM or SIGINT and after a --check that found nothing; 2 when the command
line or the configuration is wrong; 1 when the machine says no (rights, address in use, …). Each
such end is one line on standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final

import mptcp
from mptcp.daemon.configuration import ConfigurationError, Settings, load
from mptcp.daemon.rules import EngineLike
from mptcp.daemon.service import Daemon
from mptcp.errors import MptcpError

LEVELS: Final = ("debug", "info", "warning", "error")
OK: Final = 0
FAILED: Final = 1
MISUSED: Final = 2

log = logging.getLogger("mptcp.daemon")


def build_engine(settings: Settings) -> EngineLike:
    """The engine that `settings` describe, not started. Raises ValueError or OSError."""
    interfaces = [
        mptcp.Interface(
            table.name,
            table.address,
            mtu=table.mtu,
            offload=table.offload,
            routes=table.routes,
            backup=table.backup,
        )
        for table in settings.interface
    ]
    return mptcp.Engine(interfaces, settings.stack_config(), pcap=settings.daemon.pcap)


def main(
    argv: Sequence[str] | None = None,
    *,
    engine_factory: Callable[[Settings], EngineLike] = build_engine,
) -> int:
    """Run mptcpd with the arguments `argv`; returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        settings = load(options.config)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return MISUSED
    if options.check:
        print(f"{options.config}: nothing wrong")
        return OK
    _configure_logging(options.log_level or settings.daemon.log_level)
    _raise_descriptor_limit()
    try:
        mptcp.run(_run(settings, engine_factory))
    except (OSError, ValueError, MptcpError) as error:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("the whole story", exc_info=True)
        text = " ".join(str(getattr(error, "strerror", None) or error).split())
        print(f"mptcpd: {text}", file=sys.stderr)
        return FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):  # a second signal
        print("mptcpd: ended by a signal, not in order", file=sys.stderr)
        return FAILED
    return OK


async def _run(settings: Settings, engine_factory: Callable[[Settings], EngineLike]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def on_signal() -> None:
        if stop.is_set():  # somebody is in a hurry
            task.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await Daemon(settings, engine_factory(settings)).run(stop)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _configure_logging(level: str) -> None:
    # Libraries log at debug level what nobody asked for: "debug" is meant for our own lines.
    others = logging.ERROR if level == "error" else logging.WARNING
    logging.basicConfig(
        level=others, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("mptcp").setLevel(level.upper())


def _raise_descriptor_limit() -> None:
    """A connection takes up to two descriptors; the soft limit of 1024 is for select()'s sake."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mptcpd",
        description="Multipath TCP in user space: proxies, and connections for local programs.",
    )
    parser.add_argument("--config", required=True, metavar="FILE.toml", help="configuration")
    parser.add_argument("--check", action="store_true", help="check the configuration and end")
    parser.add_argument("--log-level", choices=LEVELS, help="instead of the configuration's")
    parser.add_argument("--version", action="version", version=f"mptcpd {mptcp.__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
