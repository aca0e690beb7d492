"""The link emulator: emulated links between network namespaces, run by a process of their own.

Each path joins two TUN devices, which may live in different namespaces:

    kernel A -- device a -- [ forward: Link ] -> device b -- kernel B
                         <- [ backward: Link ]

With middleboxes (`PathSpec.boxes`) a packet that has crossed its link goes through them and then
to the device at the end; what they send the other way goes to the device it came from. By their
times, that is as if they stood anywhere on the link.

The devices have no offload, so that a packet on the link is a packet of at most the MTU. This
module is the parent's side: it opens the devices where they belong, hands their descriptors to the
child (`emulator_loop.py`) and controls it with lines of JSON over a socket pair. The child ends
when that socket closes, so it cannot outlive its parent; the devices go with the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from .closing import Closing
from .device import TunDevice
from .interface import Configured, configure_interface
from .linkem import LinkChange, LinkStats
from .linux import in_namespace
from .middlebox import BoxSpec, make_chain
from .netns import Namespace

Direction = Literal["forward", "backward", "both"]

_DEFAULT_QUEUE_PACKETS: Final = 100
_LEAST_QUEUE_PACKETS: Final = 10
# Packets waiting in the device for the emulator to read them: large, for the limit is the link's
# queue.
_TXQUEUELEN: Final = 4096
_ANSWER_S: Final = 10.0
_STOP_S: Final = 2.0


class EmulatorError(RuntimeError):
    """The emulator's process did not start, refused a change, or has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathEnd:
    """One end of a path: a TUN device, the namespace it is in, and the kernel's addresses on it."""

    device: str
    addresses: tuple[str, ...] = ()  # "ip/prefix"
    namespace: Namespace | int | None = None  # a descriptor if int; None: the caller's

    @property
    def namespace_fd(self) -> int | None:
        return self.namespace.fd if isinstance(self.namespace, Namespace) else self.namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSpec:
    """A path and the properties both its directions start with."""

    name: str
    a: PathEnd
    b: PathEnd
    rate_bps: int = 0  # bits of IP packets per second; 0: unlimited
    delay_us: int = 0  # one way
    loss: float = 0.0  # 0 to 1, each packet on its own
    queue_bytes: int | None = None  # None: see queue_limit()
    rtt_us: int | None = None  # what the default queue is sized for; None: twice the delay
    seed: int = 0  # of whatever is random
    mtu: int = 1500  # of the devices
    forward: LinkChange | None = None  # what else the direction from a to b has
    backward: LinkChange | None = None
    boxes: tuple[BoxSpec, ...] = ()  # middleboxes, that next to end a first

    def queue_limit(self) -> int:
        """The queue in bytes.

        As given, else one bandwidth-delay product but at least 10 packets, else (no delay) 100
        packets.
        """
        if self.queue_bytes is not None:
            return self.queue_bytes
        rtt_us = 2 * self.delay_us if self.rtt_us is None else self.rtt_us
        product = self.rate_bps * rtt_us // 8_000_000
        if product == 0:
            return _DEFAULT_QUEUE_PACKETS * self.mtu
        return max(product, _LEAST_QUEUE_PACKETS * self.mtu)

    def initial(self) -> tuple[LinkChange, LinkChange]:
        """The properties of both directions as changes to fresh links. Raises ValueError for a bad
        one."""
        both = LinkChange(
            rate_bps=self.rate_bps,
            delay_us=self.delay_us,
            queue_bytes=self.queue_limit(),
            loss=self.loss,
        )
        return both.merged(self.forward), both.merged(self.backward)


class LinkEmulator(Closing):
    """Controls a running emulator, from any thread; use it as a context manager."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        configured: list[Configured],
        log: Callable[[str], None] | None,
    ) -> None:
        self._process = process
        self._control = control
        self._answers = control.makefile("r", encoding="utf-8")
        self._configured = configured
        self._log = log
        self._lock = threading.Lock()

    @classmethod
    def start(cls, paths: Sequence[PathSpec], log: Callable[[str], None] | None = None) -> Self:
        """Create the devices, bring them up with their addresses and start forwarding.

        `log` is called with one line for every change made later.
        Raises DeviceError, EmulatorError, ValueError.
        """
        if len({path.name for path in paths}) != len(paths):
            raise ValueError("two paths have the same name")
        with contextlib.ExitStack() as closing, contextlib.ExitStack() as undo:
            configured: list[Configured] = []
            descriptors: list[int] = []
            setup = []
            for path in paths:
                initial = [asdict(change) for change in path.initial()]
                make_chain(path.boxes)  # rather refused here than in the child
                pair = []
                for end in (path.a, path.b):
                    fd, done = in_namespace(end.namespace_fd, _open_end, end, path.mtu)
                    closing.callback(os.close, fd)
                    undo.callback(done.remove)
                    configured.append(done)
                    descriptors.append(fd)
                    pair.append(fd)
                setup.append(
                    {
                        "name": path.name,
                        "devices": pair,
                        "link": initial,
                        "seed": path.seed,
                        "boxes": [asdict(box) for box in path.boxes],
                    }
                )
            control, process = _spawn(descriptors)
            emulator = cls(process, control, configured, log)
            try:
                emulator._ask({"op": "start", "paths": setup})
            except BaseException:
                emulator.close()
                raise
            undo.pop_all()
            # The child has its own descriptors; ours are closed here: the devices go with the
            # child.
            return emulator

    @property
    def pid(self) -> int:
        """The emulator's process id."""
        return self._process.pid

    def set(
        self,
        path: str,
        *,
        down: bool | None = None,
        rate: int | None = None,
        delay: int | None = None,
        loss: float | None = None,
        queue: int | None = None,
        change: LinkChange | None = None,
        direction: Direction = "both",
    ) -> None:
        """Change a path while it runs; in effect on return.

        `rate` in bit/s (0: unlimited), `delay` in µs one way, `loss` 0 to 1, `queue` in bytes;
        `down` loses silently what is on the link and whatever comes; `change` has all else that a
        link can do. "forward" is from end a to end b.
        Raises ValueError for a bad value, EmulatorError for an unknown path or a dead emulator.
        """
        named = LinkChange(rate_bps=rate, delay_us=delay, queue_bytes=queue, loss=loss, down=down)
        changes = named.merged(change).given()
        if direction not in ("forward", "backward", "both"):
            raise ValueError(f"direction {direction!r} is not forward, backward or both")
        self._ask({"op": "set", "path": path, "direction": direction, "change": changes})
        if self._log is not None:
            words = " ".join(f"{name}={value}" for name, value in changes.items())
            self._log(f"path {path} {direction}: {words}")

    def stats(self) -> dict[str, dict[str, LinkStats]]:
        """The counters: path -> "forward" and "backward" -> LinkStats. Raises EmulatorError."""
        answer = self._ask({"op": "stats"})
        return {
            name: {direction: LinkStats(**counters) for direction, counters in both.items()}
            for name, both in answer["stats"].items()
        }

    def box_counters(self, path: str) -> list[dict[str, int]]:
        """What each middlebox of a path has done, by its own names. Raises EmulatorError."""
        counters: list[dict[str, int]] = self._ask({"op": "boxes", "path": path})["boxes"]
        return counters

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            try:
                self._control.sendall(json.dumps(request).encode() + b"\n")
                line = self._answers.readline()
            except (OSError, ValueError) as error:
                raise EmulatorError(f"the link emulator does not answer: {error}") from error
        if not line:
            raise EmulatorError("the link emulator has ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EmulatorError(answer["error"])
        return answer

    def close(self) -> None:
        """End the emulator; its devices vanish. May be called twice."""
        self._answers.close()
        self._control.close()  # what tells the child to end
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        while self._configured:
            self._configured.pop().remove()


def _open_end(end: PathEnd, mtu: int) -> tuple[int, Configured]:
    """Open and set up one end, in its namespace; the descriptor and what to undo."""
    with TunDevice(end.device, mtu=mtu, offload=False, vnet_header=False) as device:
        configured = configure_interface(
            device.name, mtu=mtu, addresses=end.addresses, txqueuelen=_TXQUEUELEN
        )
        return device.detach(), configured


def _spawn(descriptors: list[int]) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    control, childs = socket.socketpair()
    control.settimeout(_ANSWER_S)
    # This package may be found only through this program's own search path: hand it on.
    package = __package__ or "tun"
    root = str(Path(__file__).absolute().parents[package.count(".") + 1])
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with childs:
        process = subprocess.Popen(
            [sys.executable, "-m", f"{package}.emulator_loop", str(childs.fileno())],
            pass_fds=[childs.fileno(), *descriptors],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": search},
        )
    return control, process
