"""What a middlebox is, and the table of all classes by name.

A box does no I/O: packets and the time (integer microseconds, never going back) come in, packets
go out, and its chances come from the generator it was given. The simulator and the link emulator
use the same objects. Boxes act on packets as a wire carries them, of at most the MTU:
super-segments have to be cut before (the emulator's devices have no offload, simulated hosts cut
their chunks).

A class is registered by `@register`, its `name` is what configurations say, its keyword arguments
are the parameters: plain values that JSON knows. `make_box` refuses what is unknown or out of range
with a ValueError.
"""

from __future__ import annotations

import inspect
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, TypeVar

from .packet import Flow, TcpPacket

NEVER: Final = 1 << 62
MAX_FLOWS: Final = 1024

Outputs = list[tuple[bool, bytes]]
"""Packets that go on: (whether forward, packet)."""

Segments = Iterable[tuple[bool, TcpPacket]]


class Box:
    """Base class: lets everything pass. Override `segment`, or `process` for more than TCP."""

    name: ClassVar[str] = ""

    def __init__(self, *, rng: random.Random) -> None:
        self.rng = rng
        self.counters: dict[str, int] = {}
        """What the box has done, by names of its class."""

    def process(self, now: int, packet: bytes, forward: bool) -> Outputs:
        """What becomes of a packet that arrives at `now`, on its way forward or not."""
        segment = TcpPacket.read(packet)
        if segment is None:
            return [(forward, packet)]
        if not segment.intact:
            self.count("damaged")
            return []  # written again it would look sound; nobody would have taken it anyway
        return [(way, out.write()) for way, out in self.segment(now, segment, forward)]

    def segment(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """What becomes of a TCP segment, which may be changed: (whether forward, segment) each."""
        return [(forward, segment)]

    def next_deadline(self) -> int:
        """When `handle_timeout` is to be called; NEVER while nothing waits."""
        return NEVER

    def handle_timeout(self, now: int) -> Outputs:
        """Do what is due; may be called early."""
        return []

    def count(self, what: str) -> None:
        """Add one to a counter."""
        self.counters[what] = self.counters.get(what, 0) + 1


class OneWay(Box):
    """A box that acts on what goes one way, or both."""

    def __init__(self, *, rng: random.Random, direction: str = "both") -> None:
        """`direction`: "forward", "backward" or "both"."""
        super().__init__(rng=rng)
        check_choice("direction", direction, ("forward", "backward", "both"))
        self._ways = {"forward": (True,), "backward": (False,), "both": (True, False)}[direction]

    def segment(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """See `Box`."""
        if forward not in self._ways:
            return [(forward, segment)]
        return self.act(now, segment, forward)

    def act(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """`segment`, for the chosen ways."""
        return [(forward, segment)]


T = TypeVar("T")


class FlowTable(Generic[T]):
    """What a box remembers of flows: a bounded number, the one unused for longest goes first."""

    __slots__ = ("_entries", "_limit", "_make")

    def __init__(self, make: Callable[[], T], limit: int = MAX_FLOWS) -> None:
        self._entries: OrderedDict[Flow, T] = OrderedDict()
        self._make = make
        self._limit = limit

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, flow: Flow) -> T | None:
        """The entry of a flow, if there is one."""
        entry = self._entries.get(flow)
        if entry is not None:
            self._entries.move_to_end(flow)
        return entry

    def entry(self, flow: Flow) -> T:
        """The entry of a flow, made if there is none."""
        entry = self.get(flow)
        if entry is None:
            if len(self._entries) >= self._limit:
                self._entries.popitem(last=False)
            entry = self._entries[flow] = self._make()
        return entry

    def fresh(self, flow: Flow) -> T:
        """A new entry for a flow, as a SYN begins one."""
        self.drop(flow)
        return self.entry(flow)

    def drop(self, flow: Flow) -> None:
        """Forget a flow."""
        self._entries.pop(flow, None)

    def values(self) -> Iterable[T]:
        """All entries."""
        return self._entries.values()


class Chain(Box):
    """Boxes in a row: forward through the first one first."""

    def __init__(self, boxes: Sequence[Box]) -> None:
        super().__init__(rng=random.Random(0))
        self.boxes = list(boxes)

    def process(self, now: int, packet: bytes, forward: bool) -> Outputs:
        """See `Box`."""
        return self._through(now, forward, packet, 0 if forward else len(self.boxes) - 1)

    def _through(self, now: int, forward: bool, packet: bytes, at: int) -> Outputs:
        if not 0 <= at < len(self.boxes):
            return [(forward, packet)]
        return self._onward(now, self.boxes[at].process(now, packet, forward), at)

    def _onward(self, now: int, outputs: Outputs, at: int) -> Outputs:
        return [
            end
            for way, packet in outputs
            for end in self._through(now, way, packet, at + 1 if way else at - 1)
        ]

    def next_deadline(self) -> int:
        """See `Box`."""
        return min((box.next_deadline() for box in self.boxes), default=NEVER)

    def handle_timeout(self, now: int) -> Outputs:
        """See `Box`."""
        outputs: Outputs = []
        for at, box in enumerate(self.boxes):
            if box.next_deadline() <= now:
                outputs += self._onward(now, box.handle_timeout(now), at)
        return outputs


boxes: dict[str, type[Box]] = {}
"""All classes by name."""

B = TypeVar("B", bound=type[Box])


def register(box: B) -> B:
    """Class decorator: enter a class into `boxes`. Raises ValueError for a taken name."""
    if not box.name or box.name in boxes:
        raise ValueError(f"the name {box.name!r} of {box.__name__} is missing or taken")
    boxes[box.name] = box
    return box


@dataclass(frozen=True, slots=True)
class BoxSpec:
    """A box to be made, as configurations name it: plain values, they cross a socket as JSON."""

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)


def box_spec(name: str, **parameters: Any) -> BoxSpec:
    """A checked `BoxSpec`. Raises ValueError as `make_box` does."""
    spec = BoxSpec(name, parameters)
    make_box(spec)
    return spec


def make_box(spec: BoxSpec, seed: object = 0) -> Box:
    """Make a box. Raises ValueError for an unknown name or parameter, or one out of its range."""
    kind = boxes.get(spec.name)
    if kind is None:
        raise ValueError(f"no middlebox {spec.name!r}: there are {', '.join(boxes)}")
    known = set(inspect.signature(kind).parameters) - {"rng"}
    strange = [name for name in spec.parameters if name not in known]
    if strange:
        raise ValueError(
            f"{spec.name} has no parameter {strange[0]!r}: there are {', '.join(sorted(known))}"
        )
    try:
        return kind(rng=random.Random(f"{seed} {spec.name}"), **spec.parameters)
    except TypeError as error:
        raise ValueError(f"{spec.name}: {error}") from error


def make_chain(specs: Sequence[BoxSpec], seed: object = 0) -> Chain:
    """Boxes in a row, each with a generator of its own. Raises ValueError."""
    return Chain([make_box(spec, f"{seed} {number}") for number, spec in enumerate(specs)])


def check_range(name: str, value: object, low: int, high: int) -> None:
    """Raise ValueError unless `value` is a whole number in the range."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} = {value!r} is not a whole number in {low}..{high}")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} = {value!r}: use one of {', '.join(choices)}")
