"""One transfer in virtual time with policies given by name: `python -m mptcp.sim --help`.

To try a scheduler, congestion controller, path manager or any other setting of one's own against
those there are, without a program around it: `--load FILE` runs a Python file, which registers what
it has; installed packages announce theirs as entry points.
"""

from __future__ import annotations

import argparse
import dataclasses
import runpy
import sys
from pathlib import Path
from typing import Any

from mptcp.config import Config
from mptcp.policies import load_entry_points
from mptcp.sim.apps import Bulk, Sink
from mptcp.sim.network import Simulation

PATHS = ["30/5", "30/40"]
LIMIT_US = 600_000_000


def parse_path(text: str) -> tuple[int, int, float]:
    """`MBIT/MS` or `MBIT/MS/PERCENT`: bits a second, one-way µs, loss. Raises ValueError."""
    rate, delay, *loss = (float(part) for part in text.split("/"))
    if len(loss) > 1 or rate < 0 or delay < 0 or not 0 <= sum(loss) < 100:
        raise ValueError(text)
    return round(rate * 1e6), round(delay * 1e3), sum(loss) / 100


def parse_setting(text: str) -> tuple[str, Any]:
    """`FIELD=VALUE` of `Config`. Raises ValueError."""
    name, _, value = text.partition("=")
    kinds = {field.name: str(field.type) for field in dataclasses.fields(Config)}
    kind = kinds.get(name)
    if kind is None:
        raise ValueError(f"{name} is no field of Config")
    if kind == "bool":
        return name, {"true": True, "false": False}[value.lower()]
    if kind == "int":
        return name, int(value)
    if kind.startswith("tuple"):
        return name, tuple(int(part) for part in value.split(",") if part)
    return name, value


def arguments(given: list[str]) -> argparse.Namespace:
    """What the command line asks for; exits with a line for what it cannot mean."""
    parser = argparse.ArgumentParser(
        prog="python -m mptcp.sim", description="Send data over paths in virtual time."
    )
    parser.add_argument("--load", metavar="FILE", action="append", default=[], help="run it first")
    for policy in ("scheduler", "congestion-control", "path-manager", "heuristics"):
        parser.add_argument(f"--{policy}", metavar="NAME", help="of the sender, by name")
    parser.add_argument(
        "--set", metavar="FIELD=VALUE", action="append", default=[], help="any field of Config"
    )
    parser.add_argument(
        "--path", metavar="MBIT/MS[/PERCENT]", action="append", default=[],
        help=f"rate, one-way delay, loss; again for each path (default: {' and '.join(PATHS)})",
    )  # fmt: skip
    parser.add_argument("--bytes", type=int, default=5_000_000, help="how much (default: 5000000)")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(given)


def main(given: list[str]) -> int:
    """Run it and print a line for each path. 2: what was asked for cannot be."""
    asked = arguments(given)
    try:
        load_entry_points()
        for file in asked.load:
            if not Path(file).is_file():
                raise ValueError(f"{file} is no file")
            runpy.run_path(file, run_name="loaded")
        changes = dict(parse_setting(text) for text in asked.set)
        for name in ("scheduler", "congestion_control", "path_manager", "heuristics"):
            if getattr(asked, name) is not None:
                changes[name] = getattr(asked, name)
        links = [parse_path(text) for text in asked.path or PATHS]
        sim = Simulation(asked.seed)
        a, b = sim.host("a", Config(**changes)), sim.host("b")
    except (ValueError, KeyError) as error:
        print(f"python -m mptcp.sim: {error}", file=sys.stderr)
        return 2
    for number, (rate, delay, loss) in enumerate(links, 1):
        sim.connect(
            a, f"10.0.{number}.1/24", b, f"10.0.{number}.2/24", rate_bps=rate, delay_us=delay,
            loss=loss, queue_bytes=max(rate * 2 * delay // 8_000_000, 50_000),
        )  # fmt: skip
    sink = Sink(b)
    start = sim.now
    size: int = asked.bytes
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
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
