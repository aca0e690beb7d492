"""One transfer in virtual time with policies given by name: `python -m mptcp.sim --help`.

To try a scheduler, congestion controller, path manager or any other setting of one's own against
those there are, without a program around it: `--load FILE` runs a Python file, which registers what
it has; installed packages announce theirs as entry points.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from typing import Any, NoReturn

from mptcp.config import Config
from mptcp.policies import load_entry_points
from mptcp.sim.apps import Bulk, Sink
from mptcp.sim.loading import Refused, blame, load
from mptcp.sim.network import Simulation

PROGRAM = "python -m mptcp.sim"
PATHS = ["30/5", "30/40"]
LIMIT_US = 600_000_000
MOST_MBIT = 1_000_000
MOST_MS = LIMIT_US // 1000
FORM = "use MBIT/MS or MBIT/MS/PERCENT, such as 30/5 or 30/40/1"
POLICIES = ("scheduler", "congestion_control", "path_manager", "heuristics")

MISCHOSEN = ("SchedulerChoiceNotReady", "SchedulerWaitsForNothing", "SchedulerChoiceSilent")
"""Counters of what a scheduler should not do."""


class Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """See `ArgumentParser`."""
        self.exit(2, f"{self.prog}: {message}\n")


def parse_path(text: str) -> tuple[int, int, float]:
    """`MBIT/MS` or `MBIT/MS/PERCENT`: bits a second, one-way µs, loss."""

    def refuse(why: str) -> NoReturn:
        raise argparse.ArgumentTypeError(f"{text}: {why}: {FORM}")

    parts = text.split("/")
    if not 2 <= len(parts) <= 3:
        refuse("there is no delay" if len(parts) == 1 else f"{len(parts)} parts are too many")
    numbers = []
    for part in parts:
        try:
            numbers.append(float(part))
        except ValueError:
            numbers.append(math.nan)
        if not math.isfinite(numbers[-1]):
            refuse(f"{part!r} is no number")
    rate, delay, loss = (*numbers, 0.0)[:3]
    if not 1e-6 <= rate <= MOST_MBIT:
        refuse(f"a rate of {parts[0]} Mbit/s is not from 0.000001 to {MOST_MBIT}")
    if not 0 <= delay <= MOST_MS:
        refuse(f"a delay of {parts[1]} ms is not from 0 to {MOST_MS}")
    if not 0 <= loss < 100:
        refuse(f"a loss of {parts[2]} % is not from 0 to below 100")
    return round(rate * 1e6), round(delay * 1e3), loss / 100


def parse_setting(text: str) -> tuple[str, Any]:
    """`FIELD=VALUE` of `Config`."""
    name, equals, given = text.partition("=")
    fields = {field.name: field for field in dataclasses.fields(Config)}
    if not equals or name not in fields:
        why = f"Config has no field {name!r}" if equals else "there is no value"
        raise argparse.ArgumentTypeError(
            f"{text}: {why}: use FIELD=VALUE, such as scheduler=minrtt (mptcp/config.py has all)"
        )
    try:
        value = parse_value(str(fields[name].type), given, fields[name].default)
        Config(**{name: value})
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None
    return name, value


def parse_value(kind: str, text: str, default: Any) -> Any:
    """A value of a field of this type. Raises ValueError."""
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{text!r} is no truth value: use true or false")
        return text.lower() == "true"
    if kind == "int":
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"{text!r} is no whole number: use one such as {default}") from None
    if not kind.startswith("tuple"):
        return text
    example = ",".join(map(str, default or (2, 1)))
    try:
        numbers = tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise ValueError(f"{text!r} is no list of whole numbers: use {example} or so") from None
    if default and len(numbers) != len(default):
        raise ValueError(
            f"it takes {len(default)} numbers, not {len(numbers)}: use {example} or so"
        )
    return numbers


def parse_size(text: str) -> int:
    """A number of bytes to send."""
    try:
        size = int(text)
    except ValueError:
        size = 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text}: it is no whole number of bytes: use 1 or more")
    return size


def arguments(given: list[str]) -> argparse.Namespace:
    """What the command line asks for; exits with a line for what it cannot mean."""
    parser = Parser(prog=PROGRAM, description="Send data over paths in virtual time.")
    parser.add_argument("--load", metavar="FILE", action="append", default=[], help="run it first")
    for policy in POLICIES:
        option = f"--{policy.replace('_', '-')}"
        parser.add_argument(option, metavar="NAME", help="of the sender, by name")
    parser.add_argument(
        "--set", metavar="FIELD=VALUE", action="append", default=[], type=parse_setting,
        help="any field of Config",
    )  # fmt: skip
    parser.add_argument(
        "--path", metavar="MBIT/MS[/PERCENT]", action="append", default=[], type=parse_path,
        help=f"rate, one-way delay, loss; again for each path (default: {' and '.join(PATHS)})",
    )  # fmt: skip
    parser.add_argument(
        "--bytes", type=parse_size, default=5_000_000, help="how much (default: 5000000)"
    )
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(given)


def configured(asked: argparse.Namespace) -> Config:
    """The sender's configuration, once the policies are loaded that it may name."""
    changes = dict(asked.set)
    changes |= {name: value for name in POLICIES if (value := getattr(asked, name)) is not None}
    return Config(**changes)


def build(asked: argparse.Namespace, config: Config) -> Simulation:
    """Two hosts, the sender first, and the paths between them. Raises `Refused`."""
    try:
        sim = Simulation(asked.seed)
        a, b = sim.host("a", config), sim.host("b")
        for number, (rate, delay, loss) in enumerate(asked.path or map(parse_path, PATHS), 1):
            sim.connect(
                a, f"10.0.{number}.1/24", b, f"10.0.{number}.2/24", rate_bps=rate, delay_us=delay,
                loss=loss, queue_bytes=max(rate * 2 * delay // 8_000_000, 50_000),
            )  # fmt: skip
    except ValueError as error:
        raise Refused(str(error)) from None
    return sim


def transfer(sim: Simulation, size: int) -> bool:
    """Run it and print what happened; whether all of it came."""
    a, b = sim.hosts
    sink = Sink(b)
    start = sim.now
    bulk = Bulk(a, "10.0.1.2", size=size)
    # A subflow that ends takes its figures along: look while it is there.
    sent: dict[int, int] = {}

    def done() -> bool:
        if bulk.connection is not None:
            for subflow in bulk.connection.subflows:
                if subflow.path_index:  # 0: it is not open yet
                    sent[subflow.path_index] = subflow.bytes_sent
        return sink.received >= size

    whole = sim.run(LIMIT_US, until=done)
    for index, count in sorted(sent.items()):
        print(f"path {index}: {count} bytes")
    print(f"{sink.received} bytes in {(sim.now - start) / 1e3:.0f} ms")
    for name in MISCHOSEN:
        if a.stack.counters[name]:
            print(f"{name}: {a.stack.counters[name]}")
    return whole


def run(asked: argparse.Namespace) -> int:
    """See `main`."""
    config = Config()
    try:
        load_entry_points()
        for file in asked.load:
            load(file)
        config = configured(asked)
        return 0 if transfer(build(asked, config), asked.bytes) else 1
    except Exception as error:
        why = str(error) if isinstance(error, Refused) else blame(error, asked.load, config)
        if why is None:
            raise
        print(f"{PROGRAM}: {why}", file=sys.stderr)
        return 2


def main(given: list[str]) -> int:
    """Run it and print a line for each path. 1: not all of it came in time; 2: what was asked for
    cannot be, or a policy fails; 130: interrupted."""
    try:
        return run(arguments(given))
    except KeyboardInterrupt:
        print("mptcp.sim: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
