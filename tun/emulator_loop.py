"""The link emulator's process: forwards packets between descriptors, controlled by a socket.

One epoll loop over the devices, a timerfd and the control socket. Packets are read and written in
batches; the links (`linkem`) keep exact time, so that a late wake-up delays packets but never
changes the rate. Under load, wake-ups are at least `_GRAIN_NS` apart, which bounds both the cost
and the lateness. Needs no rights: the descriptors come open from the parent, by their numbers.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import asdict
from typing import Any, Final

from .linkem import Link, LinkChange
from .linux import TimerFd
from .middlebox import BoxSpec, Chain, make_chain
from .middlebox.base import NEVER

_BATCH: Final = 64  # packets read from one device before the others have their turn
_GRAIN_NS: Final = 250_000
# A core that has slept long wakes late (0.2 ms measured on a virtual machine), one that has not
# within some 30 µs. So a long wait is cut in two, the second part short.
_LONG_NS: Final = 1_000_000
_EARLY_NS: Final = 250_000
_READ_SIZE: Final = 65_600
_NICENESS: Final = -10  # the links' timing is what everything else is measured by
_DIRECTIONS: Final = {"forward": (0,), "backward": (1,), "both": (0, 1)}


class _Wire:
    """One direction: where packets come from, the link they cross, where they go."""

    __slots__ = ("chain", "forward", "link", "sink", "source")

    def __init__(
        self, source: int, sink: int, link: Link, chain: Chain | None, forward: bool
    ) -> None:
        self.source = source
        self.sink = sink
        self.link = link
        self.chain = chain
        """The middleboxes of the path, None without any; both directions have the same."""
        self.forward = forward

    def collect(self, now: int) -> None:
        """Read what has come, at most a batch."""
        source, enqueue = self.source, self.link.enqueue
        for _ in range(_BATCH):
            try:
                packet = os.read(source, _READ_SIZE)
            except OSError:
                return  # nothing more, or the device has gone or is down
            enqueue(now, packet)

    def deliver(self, now: int) -> int:
        """Write what is due; how many packets that was."""
        due = self.link.dequeue(now)
        if self.chain is not None:
            for packet in due:
                self._pass_on(self.chain.process(now // 1000, packet, self.forward))
            return len(due)
        sink = self.sink
        for packet in due:
            try:
                os.write(sink, packet)
            except OSError:
                self.link.stats.drops_refused += 1
        return len(due)

    def run_boxes(self, now: int) -> int:
        """Let the middleboxes do what is due; when they want to be called again, 0 for never."""
        if self.chain is None or not self.forward:
            return 0
        if self.chain.next_deadline() * 1000 <= now:
            self._pass_on(self.chain.handle_timeout(now // 1000))
        deadline = self.chain.next_deadline()
        return deadline * 1000 if deadline < NEVER else 0

    def _pass_on(self, outputs: list[tuple[bool, bytes]]) -> None:
        for forward, packet in outputs:
            try:
                os.write(self.sink if forward == self.forward else self.source, packet)
            except OSError:
                self.link.stats.drops_refused += 1


class _Emulator:
    """The loop and its state."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.pending = b""  # of the control socket: an unfinished line
        self.paths: dict[str, tuple[_Wire, _Wire]] = {}
        self.wires: dict[int, _Wire] = {}  # by the descriptor they read
        self.timer = TimerFd()
        self.poller = select.epoll()
        self.poller.register(control, select.EPOLLIN)
        self.poller.register(self.timer, select.EPOLLIN)

    def run(self) -> None:
        """Forward until the control socket closes."""
        wires, timer, control = self.wires, self.timer.fileno(), self.control.fileno()
        poll, clock = self.poller.poll, time.monotonic_ns
        armed = 0
        while True:
            for descriptor, events in poll():
                wire = wires.get(descriptor)
                if wire is not None:
                    wire.collect(clock())
                    if events & select.EPOLLERR:  # the device was deleted: do not spin on it
                        self.poller.unregister(descriptor)
                elif descriptor == timer:
                    self.timer.clear()
                    armed = 0
                elif descriptor == control and not self.listen():
                    return
            deadline, delivered = 0, 0
            for wire in wires.values():
                now = clock()
                delivered += wire.deliver(now)
                due = wire.link.next_deadline()
                if due is not None and (due < deadline or not deadline):
                    deadline = due
                if wire.chain is not None:
                    due = wire.run_boxes(now)
                    if due and (due < deadline or not deadline):
                        deadline = due
            if not deadline:
                continue
            if delivered:
                deadline = max(deadline, now + _GRAIN_NS)
            elif deadline - now > _LONG_NS:
                deadline -= _EARLY_NS
            # A timer that is set too early costs one wake-up, less than setting it anew each time.
            if not armed or deadline < armed:
                self.timer.arm(deadline)
                armed = deadline

    def listen(self) -> bool:
        """Obey the control socket; False when the parent has closed it."""
        received = self.control.recv(1 << 20)
        if not received:
            return False
        *lines, self.pending = (self.pending + received).split(b"\n")
        for line in lines:
            try:
                answer = self.obey(json.loads(line))
            except (LookupError, OSError, TypeError, ValueError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            self.control.sendall(json.dumps(answer).encode() + b"\n")
        return True

    def obey(self, request: dict[str, Any]) -> dict[str, Any]:
        now = time.monotonic_ns()
        if request["op"] == "start":
            for path in request["paths"]:
                self.add_path(path)
            return {}
        if request["op"] == "set":
            if request["path"] not in self.paths:
                raise ValueError(f"there is no path {request['path']!r}: {list(self.paths)}")
            change = LinkChange(**request["change"])
            for direction in _DIRECTIONS[request["direction"]]:
                self.paths[request["path"]][direction].link.change(now, change)
            return {}
        if request["op"] == "stats":
            return {
                "stats": {
                    name: {
                        "forward": asdict(forward.link.snapshot(now)),
                        "backward": asdict(backward.link.snapshot(now)),
                    }
                    for name, (forward, backward) in self.paths.items()
                }
            }
        if request["op"] == "boxes":
            chain = self.paths[request["path"]][0].chain
            return {"boxes": [box.counters for box in chain.boxes] if chain is not None else []}
        raise ValueError(f"unknown operation {request['op']!r}")

    def add_path(self, path: dict[str, Any]) -> None:
        left, right = path["devices"]
        there, back = (LinkChange(**change) for change in path["link"])
        # Each direction draws its mishaps from a sequence of its own.
        specs = [BoxSpec(**box) for box in path["boxes"]]
        chain = make_chain(specs, path["seed"]) if specs else None
        forward = _Wire(left, right, Link(there, seed=f"{path['seed']} forward"), chain, True)
        backward = _Wire(right, left, Link(back, seed=f"{path['seed']} backward"), chain, False)
        self.paths[path["name"]] = (forward, backward)
        for wire in (forward, backward):
            os.set_blocking(wire.source, False)
            self.wires[wire.source] = wire
            self.poller.register(wire.source, select.EPOLLIN)


def main() -> None:
    """Run on the control socket whose descriptor is the first argument."""
    # Ctrl-C reaches the whole process group; the parent decides when the links go.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # only with the right to
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    emulator = _Emulator(socket.socket(fileno=int(sys.argv[1])))
    # Nothing here makes reference cycles, and a collection would show as a pause on every link.
    gc.disable()
    emulator.run()


if __name__ == "__main__":
    main()
