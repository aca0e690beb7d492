"""A case between a host of ours and the kernel's MPTCP, in namespaces and in real time.

    side A: kernel 10.0.i.1 ── link i [ emulator, boxes ] ── 10.0.i.2 kernel :side B
    ours, on one side: 10.1.i.2 ─ TUN ti ─ [that side's kernel routes]

The kernel's end announces its second address; the box's forward begins at side A. Everything is
made for one run and goes with it.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

from mptcp.tun.emulator import LinkEmulator, PathEnd, PathSpec
from mptcp.tun.middlebox import box_spec
from mptcp.tun.netns import Namespace

from ..nodes import Node
from .cases import DELAY_US, PAUSE_S, RATE_BPS, TRAFFIC, Case, Traffic
from .node import PATIENCE_S
from .result import Result, Seen, judge

_SETTINGS: Final = {"net.ipv4.conf.all.rp_filter": 0, "net.ipv4.conf.default.rp_filter": 0}


def run(
    case: Case,
    ours: str = "a",
    opener: str = "a",
    traffic: Traffic = TRAFFIC[0],
    seed: int = 1,
) -> Result:
    """Run a case with our stack on side `ours`; side `opener` connects.

    Raises BenchError, DeviceError, OSError when the network cannot be made.
    """
    with ExitStack() as stack:
        sides = {side: stack.enter_context(Namespace.create(side)) for side in "ab"}
        for namespace in sides.values():
            for name, value in _SETTINGS.items():
                namespace.sysctl(name, value)
            namespace.sysctl("net.mptcp.checksum_enabled", int(case.checksum))
            namespace.set_mptcp_limits(subflows=2, add_addr_accepted=2)
        sides[ours].enable_forwarding()
        emulator = stack.enter_context(LinkEmulator.start(_paths(case, sides, seed, ours)))
        theirs = "b" if ours == "a" else "a"
        for path in range(1, case.paths + 1):
            sides[theirs].add_route(f"10.1.{path}.0/24", device=f"p{path}")
            if path > 1:
                host = 1 if theirs == "a" else 2
                sides[theirs].add_mptcp_endpoint(f"10.0.{path}.{host}", flags=("signal",))
        kernel_host = "10.0.1.1" if theirs == "a" else "10.0.1.2"
        specs = {
            side: {
                "stack": "ours" if side == ours else "kernel",
                "case": case.key,
                "traffic": traffic.name,
                "role": "client" if side == opener else "server",
                "host": kernel_host if side == ours else "10.1.1.2",
                "interfaces": [
                    (f"t{path}", f"10.1.{path}.2/24", f"10.0.{path}.0/24")
                    for path in range(1, case.paths + 1)
                ],
            }
            for side in "ab"
        }
        server, client = ("b", "a") if opener == "a" else ("a", "b")
        nodes: dict[str, Node] = {}
        for side in (server, client):
            nodes[side] = node = Node(
                sides[side],
                f"{specs[side]['stack']} at {side}",
                [json.dumps(specs[side])],
                module="boxes.node",
            )
            stack.callback(node.close)
            if side == server:
                node.line(PATIENCE_S)
            began = time.monotonic()
        patience = PATIENCE_S + PAUSE_S + 10.0
        told = {side: nodes[side].line(patience) for side in (client, server)}
        seconds = time.monotonic() - began
        counters = emulator.box_counters(f"p{case.boxed}")
    watched = counters.pop(0 if ours == "a" else -1)
    result = _result(case, told[ours], told[theirs], seconds, counters)
    result.reasons = [int(name[7:]) for name in watched if name.startswith("reason ")]
    result.received = told["a"]["received"] + told["b"]["received"]
    result.digest = f"{told[client]['digest']} {told[server]['digest']}"
    return result


def _paths(case: Case, sides: dict[str, Namespace], seed: int, ours: str) -> list[PathSpec]:
    """The links; a box that only watches stands next to our stack."""
    watch = box_spec("watch")
    boxes = (watch, *case.boxes) if ours == "a" else (*case.boxes, watch)
    paths = []
    for path in range(1, case.paths + 1):
        spec = PathSpec(
            name=f"p{path}",
            a=_end(path, 1, sides["a"]),
            b=_end(path, 2, sides["b"]),
            rate_bps=RATE_BPS,
            delay_us=DELAY_US,
            queue_bytes=64_000,
            seed=seed,
        )
        if path == case.boxed:
            spec = replace(spec, boxes=boxes, loss=case.loss)
        paths.append(spec)
    return paths


def _end(path: int, host: int, namespace: Namespace) -> PathEnd:
    address = f"10.0.{path}.{host}/24"
    return PathEnd(device=f"p{path}", addresses=(address,), namespace=namespace)


def _result(
    case: Case,
    ours: dict[str, Any],
    kernel: dict[str, Any],
    seconds: float,
    counters: list[dict[str, int]],
) -> Result:
    seen = Seen(**ours["seen"])
    trouble = ours["trouble"] or kernel["trouble"]
    whole = ours["whole"] and kernel["whole"]
    outcome = None if trouble else judge(case, [seen], [seen.fallback, kernel["fallback"]])
    if not trouble and not whole:
        trouble = "not all bytes arrived, or not the right ones"
    elif not trouble and outcome is None:
        trouble = f"ours {seen.why or 'stayed MPTCP'}, kernel fallback {kernel['fallback']}"
    return Result(outcome, whole, seconds, seen.reasons, counters, trouble)
