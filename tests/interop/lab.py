"""Networks for interop tests, and the programs in them.

    near: stack 10.1.i.2 -- TUN ti -- kernel 10.1.i.1 | 10.2.i.1 vi
                                                       ||          i = 1, 2: the paths
    far:                 kernel peer, or router 10.2.i.2 wi
                         10.3.i.1 -- TUN ti -- stack 10.3.i.2      where this stack is at both ends

IPv6 alike: fd01:i::/64, fd02:i::/64, fd03:i::/64; a path has addresses of one family only.
Both namespaces route by source address, so that a packet stays on the path of its source and two
paths are really two.

Everything lives in the two namespaces and goes with them: devices, addresses, rules and programs.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from mptcp.tun.emulator import LinkEmulator, PathEnd, PathSpec
from mptcp.tun.netns import Namespace
from tests.interop.script import Script, defaults_for

PORT: Final = 5001
witnesses: Final[list[Callable[[Lab], contextlib.AbstractContextManager[None]]]] = []
"""Who watches the labs that are made from now on."""
PATIENCE_S: Final = 60.0
_ROOT: Final = Path(__file__).parents[2]


def address(network: int, path: int, family: int, host: int) -> str:
    """An address of the plan above: `network` 1 near, 2 between, 3 far."""
    return f"10.{network}.{path}.{host}" if family == 4 else f"fd0{network}:{path}::{host}"


def prefix_length(family: int) -> int:
    """Of every network of the plan."""
    return 24 if family == 4 else 64


def network_of(network: int, path: int, family: int) -> str:
    """A network of the plan, as "net/length"."""
    return f"{address(network, path, family, 0)}/{prefix_length(family)}"


class Program:
    """A node or a kernel peer at work: lines of JSON out, lines in."""

    def __init__(self, namespace: Namespace, module: str, spec: dict[str, Any]) -> None:
        self.name = f"{module} in {namespace.label}"
        self._errors = os.memfd_create("complaints")
        self._buffer = b""
        self.process: subprocess.Popen[bytes] = namespace.run(
            [sys.executable, "-W", "default", "-m", f"tests.interop.{module}", json.dumps(spec)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def expect(self, event: str, patience: float = PATIENCE_S) -> dict[str, Any]:
        """The next line, which must be that event. Raises AssertionError."""
        line = self._line(time.monotonic() + patience)
        values = cast("dict[str, Any]", json.loads(line)) if line else {}
        if values.get("event") != event:
            self._fail(f"said {line.decode()} instead of {event!r}")
        return values

    def _line(self, deadline: float) -> bytes:
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while b"\n" not in self._buffer:
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([fd], [], [], wait)[0]:
                self._fail("says nothing: out of patience")
            more = os.read(fd, 1 << 16)
            if not more:
                break
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _fail(self, why: str) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        raise AssertionError(f"{self.name} {why}\n{self.complaints()}")

    def complaints(self) -> str:
        """What it has written to its standard error."""
        return os.pread(self._errors, 1 << 20, 0).decode(errors="replace")

    def go_on(self) -> None:
        """Let it through the gate it waits at."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def result(self, patience: float = PATIENCE_S) -> dict[str, Any]:
        """Its report; it has ended well and without a word of complaint."""
        values = self.expect("done", patience)
        code = self.process.wait(10.0)
        complaints = self.complaints()
        assert (code, complaints) == (0, ""), f"{self.name} ended with {code}:\n{complaints}"
        return values

    def close(self) -> None:
        """End it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        os.close(self._errors)


@dataclass(frozen=True)
class Emulated:
    """Properties of an emulated path, both directions."""

    rate_bps: int
    delay_us: int
    queue_bytes: int | None = None
    """None: a bandwidth-delay product."""


class Lab:
    """The two namespaces, wired for the given paths; `families` has one entry (4, 6) per path."""

    def __init__(
        self,
        families: tuple[int, ...],
        far_is_ours: bool = False,
        emulated: tuple[Emulated, ...] = (),
    ) -> None:
        self.families = families
        self.far_is_ours = far_is_ours
        self._closing = contextlib.ExitStack()
        self.emulator: LinkEmulator | None = None
        with contextlib.ExitStack() as undo:
            undo.push(self._closing)
            self.near = self._closing.enter_context(Namespace.create("near"))
            self.far = self._closing.enter_context(Namespace.create("far"))
            self.near.enable_forwarding()
            if far_is_ours:
                self.far.enable_forwarding()
            if emulated:
                self._emulate(emulated)
            for path, family in enumerate(families, 1):
                self._wire(path, family)
            self.far.set_mptcp_limits(subflows=4, add_addr_accepted=4)
            undo.pop_all()

    def _emulate(self, emulated: tuple[Emulated, ...]) -> None:
        paths = [
            PathSpec(
                name=str(path),
                a=PathEnd(device=f"v{path}", namespace=self.near),
                b=PathEnd(device=f"w{path}", namespace=self.far),
                rate_bps=link.rate_bps,
                delay_us=link.delay_us,
                queue_bytes=link.queue_bytes,
                seed=path,
            )
            for path, link in enumerate(emulated, 1)
        ]
        self.emulator = self._closing.enter_context(LinkEmulator.start(paths))

    def _wire(self, path: int, family: int) -> None:
        """A path: the veth, and routes by source address on both sides."""
        length = prefix_length(family)
        here, there = (address(2, path, family, host) for host in (1, 2))
        if self.emulator is None:
            self.near.veth(self.far, f"v{path}", f"w{path}")
        self.near.add_addresses(f"v{path}", [f"{here}/{length}"])
        self.far.add_addresses(f"w{path}", [f"{there}/{length}"])
        default = "default" if family == 4 else "default6"
        near_net = network_of(1, path, family)
        far_net = (
            network_of(3, path, family) if self.far_is_ours else f"{there}/{8 * len_of(family)}"
        )
        self.near.add_route(default, via=there, device=f"v{path}", table=path)
        self.near.add_source_rule(near_net, path, priority=100 + path)
        self.far.add_route(default, via=here, device=f"w{path}", table=path)
        self.far.add_source_rule(far_net, path, priority=100 + path)
        # How the far kernel chooses its own source address.
        self.far.add_route(near_net, via=here, device=f"w{path}")

    @property
    def paths(self) -> int:
        return len(self.families)

    def near_address(self, path: int = 1) -> str:
        """The near stack's address on a path."""
        return address(1, path, self.families[path - 1], 2)

    def far_address(self, path: int = 1) -> str:
        """The far end's address on a path: its kernel's, or its stack's."""
        network = 3 if self.far_is_ours else 2
        return address(network, path, self.families[path - 1], 2)

    def signal_far_addresses(self) -> None:
        """Have the far kernel announce the addresses of its other paths (ADD_ADDR)."""
        if self.far_is_ours:
            return
        for path in range(2, self.paths + 1):
            self.far.add_mptcp_endpoint(self.far_address(path), flags=("signal",))

    @contextlib.contextmanager
    def node(
        self,
        role: str,
        script: Script,
        *,
        offload: bool = True,
        far: bool = False,
        **options: Any,
    ) -> Iterator[Program]:
        """This stack as a program, at the near end or at the far one."""
        network = 3 if far else 1
        interfaces = [
            [f"t{path}", f"{address(network, path, family, 2)}/{prefix_length(family)}", offload]
            for path, family in enumerate(self.families, 1)
        ]
        spec = {
            **defaults(role, script, seed=1 + far),
            "host": self.near_address() if far else self.far_address(),
            "interfaces": interfaces,
            **options,
        }
        with contextlib.closing(Program(self.far if far else self.near, "node", spec)) as program:
            if role == "server":
                program.expect("ready")
            yield program

    @contextlib.contextmanager
    def kernel(self, role: str, script: Script, **options: Any) -> Iterator[Program]:
        """The far kernel as a program."""
        spec = {**defaults(role, script, seed=7), "host": self.near_address(), **options}
        with contextlib.closing(Program(self.far, "kernel_peer", spec)) as program:
            if role == "server":
                program.expect("ready")
            yield program

    def bytes_on_wires(self) -> list[tuple[int, int]]:
        """Bytes the near side has sent and received on the wire of each path."""
        rows = self.near.call(_device_table)
        return [rows[f"v{path}"] for path in range(1, self.paths + 1)]

    def close(self) -> None:
        """Take everything away."""
        self._closing.close()


def len_of(family: int) -> int:
    """Bytes of an address."""
    return 4 if family == 4 else 16


def defaults(role: str, script: Script, seed: int) -> dict[str, Any]:
    """The part of a specification that every program has."""
    return {"role": role, "port": PORT, "script": script, **defaults_for(seed)}


def _device_table() -> dict[str, tuple[int, int]]:
    """Bytes sent and received by each interface of this thread's namespace."""
    table = {}
    with open("/proc/thread-self/net/dev", encoding="ascii") as lines:
        for line in list(lines)[2:]:
            name, _, values = line.partition(":")
            fields = values.split()
            table[name.strip()] = (int(fields[8]), int(fields[0]))
    return table


@contextlib.contextmanager
def lab(
    *families: int, far_is_ours: bool = False, emulated: tuple[Emulated, ...] = ()
) -> Iterator[Lab]:
    """A network for one test; `witnesses` record it."""
    made = Lab(families, far_is_ours, emulated)
    try:
        with contextlib.ExitStack() as watching:
            for witness in witnesses:
                watching.enter_context(witness(made))
            yield made
    finally:
        made.close()
