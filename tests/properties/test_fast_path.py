"""The fast paths and the general ones end in the same state, packet for packet.

Two stacks get the same calls: packets, time-outs, the program's own. One takes the shortcuts
(header prediction in segment input, option blocks packed at once), its twin the long way through
RFC 9293 §3.10.7.4. After each call both must have sent the same bytes, reported the same events,
and hold the same state, down to the last variable of every connection.
"""

from __future__ import annotations

import enum
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

import pytest
from hypothesis import given, settings

from mptcp import subflow
from mptcp.config import Config
from mptcp.events import Event
from mptcp.stack import Offload, Stack
from mptcp.tcp import input as segment_input
from mptcp.tcp.host import Interface, Transmit
from soak import session
from soak.scenario import Scenario, Side
from tests.properties.strategies import scenarios

pytestmark = pytest.mark.interpreted

ATOMS = (int, float, str, bytes, bool, type(None), type, enum.Enum, FunctionType, ModuleType)
CALLABLE = (MethodType, BuiltinMethodType)


@contextmanager
def long_way() -> Iterator[None]:
    """Without the shortcuts."""
    module: Any = subflow
    prepared = module.prepared_options
    segment_input.header_prediction = False
    module.prepared_options = lambda *_: None
    try:
        yield
    finally:
        segment_input.header_prediction = True
        module.prepared_options = prepared


def variables(thing: object) -> dict[str, object]:
    """Every attribute an object holds, slots and all."""
    found: dict[str, object] = dict(getattr(thing, "__dict__", {}))
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(thing, name):
                found[name] = getattr(thing, name)
    # Where the twins' harness has put itself between a program and its connection.
    return {name: value for name, value in found.items() if not isinstance(value, FunctionType)}


def difference(a: object, b: object, where: str, seen: dict[int, int]) -> str:
    """Where two object graphs differ; "" when they are the same shape with the same values."""
    if id(a) in seen:
        return "" if seen[id(a)] == id(b) else f"{where}: another object"
    if type(a) is not type(b):
        return f"{where}: {a!r} and {b!r}"
    if isinstance(a, ATOMS):
        return "" if a == b else f"{where}: {a!r} and {b!r}"
    if isinstance(a, CALLABLE):
        return ""
    if isinstance(a, memoryview):
        return "" if a == b else f"{where}: {len(a)} bytes differ"
    seen[id(a)] = id(b)
    pairs: list[tuple[object, object, str]]
    if isinstance(a, random.Random):
        assert isinstance(b, random.Random)
        return "" if a.getstate() == b.getstate() else f"{where}: entropy"
    if isinstance(a, dict | Counter):
        assert isinstance(b, dict)
        # Keys that are objects stand in the order in which they came.
        if len(a) != len(b):
            return f"{where}: {sorted(map(str, set(a) ^ set(b)))}"
        pairs = []
        for (name, x), (key, y) in zip(sorted_items(a), sorted_items(b), strict=True):
            pairs += [(name, key, f"{where} key {name!r}"), (x, y, f"{where}[{name!r}]")]
    elif isinstance(a, set | frozenset):
        assert isinstance(b, set | frozenset)
        pairs = [
            (x, y, where) for x, y in zip(sorted(map(str, a)), sorted(map(str, b)), strict=False)
        ]
        if len(a) != len(b):
            return f"{where}: {len(a)} and {len(b)} items"
    elif isinstance(a, list | tuple | deque):
        assert isinstance(b, list | tuple | deque)
        if len(a) != len(b):
            return f"{where}: {len(a)} and {len(b)} items"
        pairs = [(x, y, f"{where}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True))]
    elif isinstance(a, bytearray):
        return "" if a == b else f"{where}: bytes differ"
    else:
        mine, other = variables(a), variables(b)
        if set(mine) != set(other):
            return f"{where}: {set(mine) ^ set(other)}"
        pairs = [(mine[name], other[name], f"{where}.{name}") for name in mine]
    for x, y, at in pairs:
        found = difference(x, y, at, seen)
        if found:
            return found
    return ""


def sorted_items(values: dict[Any, Any]) -> list[tuple[Any, Any]]:
    """The items of a dictionary in an order of their own."""
    try:
        return sorted(values.items(), key=lambda item: item[0])
    except TypeError:
        return list(values.items())


class Twins(Stack):
    """A stack that passes every call on to its twin, which goes the long way, and compares."""

    compared = 0
    whole = 0

    def __init__(self, config: Config, entropy: Callable[[int], bytes], **others: Any) -> None:
        seed = int.from_bytes(entropy(8), "big")
        given = others.pop("isn", None)
        drawn: deque[int] = deque()

        def isn(key: bytes) -> int:
            drawn.append(given(key))
            return drawn[-1]

        super().__init__(config, random.Random(seed).randbytes, isn=given and isn, **others)
        self.twin = Stack(
            config,
            random.Random(seed).randbytes,
            isn=given and (lambda key: drawn.popleft()),
            **others,
        )
        self.pairs: dict[object, Any] = {}
        self.copies: dict[int, Interface] = {}

    def same(self, *, always: bool = False) -> None:
        """Compare everything (all of it every few calls, it is big)."""
        Twins.compared += 1
        if not always and Twins.compared % 5:
            return
        Twins.whole += 1
        mine, other = dict(self.__dict__), dict(self.twin.__dict__)
        del mine["twin"], mine["pairs"], mine["copies"]
        for one in (mine, other):
            del one["entropy"], one["_isn_override"]
        # An object of one stack refers to its host: that is where the two graphs are one another.
        found = difference(mine, other, "stack", {id(self): id(self.twin)})
        assert not found, found

    def meta(self, mine: Any) -> Any:
        """The twin of a connection."""
        return self.pairs[mine]

    def interface_up(self, now: int, interface: Interface) -> None:
        super().interface_up(now, interface)
        if interface.id not in self.twin.book.interfaces:
            # The same object each time it comes up: connections that are over still refer to it.
            copy = self.copies.setdefault(
                interface.id,
                Interface(
                    interface.id,
                    interface.name,
                    mtu=interface.mtu,
                    offload=interface.offload,
                    addresses=list(interface.addresses),
                ),
            )
            with long_way():
                self.twin.interface_up(now, copy)

    def interface_down(self, now: int, interface_id: int) -> None:
        super().interface_down(now, interface_id)
        with long_way():
            self.twin.interface_down(now, interface_id)
        self.same()

    def connect(self, remote: str | bytes, port: int, **others: Any) -> Any:
        mine = super().connect(remote, port, **others)
        with long_way():
            self.pairs[mine] = self.twin.connect(remote, port, **others)
        follow(self, mine)
        return mine

    def listen(self, port: int, *others: Any, **more: Any) -> Any:
        self.twin.listen(port, *others, **more)
        return super().listen(port, *others, **more)

    def handle_packet(
        self, now: int, interface: int, packet: memoryview, offload: Offload | None = None
    ) -> None:
        copy = memoryview(bytes(packet))
        super().handle_packet(now, interface, packet, offload)
        with long_way():
            self.twin.handle_packet(now, interface, copy, offload)
        self.same()

    def handle_timeout(self, now: int) -> None:
        super().handle_timeout(now)
        with long_way():
            self.twin.handle_timeout(now)
        self.same()

    def poll_timeout(self) -> int | None:
        mine = super().poll_timeout()
        assert mine == self.twin.poll_timeout()
        return mine

    def poll_transmit(self, now: int) -> Transmit | None:
        mine = super().poll_transmit(now)
        with long_way():
            other = self.twin.poll_transmit(now)
        assert (mine is None) == (other is None)
        if mine is not None and other is not None:
            assert mine.packet() == other.packet()
            for name in ("interface", "gso_type", "gso_size", "csum_start"):
                assert getattr(mine, name) == getattr(other, name)
        return mine

    def poll_event(self) -> Event | None:
        mine = super().poll_event()
        other = self.twin.poll_event()
        assert type(mine) is type(other)
        if mine is not None and other is not None and mine.connection not in self.pairs:
            self.pairs[mine.connection] = other.connection
            follow(self, mine.connection)
        return mine


def follow(twins: Twins, connection: Any) -> None:
    """Have the program's calls on a connection reach its twin too."""
    twin = twins.pairs[connection]
    inside = False  # a connection calls some of these by itself

    def both(name: str) -> Callable[..., Any]:
        mine = getattr(connection, name)
        other = getattr(twin, name)

        def call(*arguments: Any) -> Any:
            nonlocal inside
            if inside:
                return mine(*arguments)
            # What a program writes it may overwrite later; so each gets a copy.
            copies = [bytes(a) if isinstance(a, bytearray) else a for a in arguments]
            inside = True
            result = mine(*arguments)
            inside = False
            with long_way():
                assert other(*copies) == result
            return result

        return call

    for name in ("send", "recv", "shutdown", "close", "abort"):
        setattr(connection, name, both(name))


def run_twins(monkeypatch: pytest.MonkeyPatch, scenario: Scenario) -> None:
    """Run a session in which both hosts have a twin."""
    with monkeypatch.context() as patch:
        patch.setattr(session, "Stack", Twins)
        run = session.Session(scenario)
        try:
            run.run(0, 0)
        except AssertionError as error:
            raise AssertionError(f"{error}\nin {scenario.to_line()}") from error
        for host in run.network.hosts:
            assert isinstance(host.stack, Twins)
            host.stack.same(always=True)


@pytest.mark.parametrize("mptcp", [False, True])
@pytest.mark.parametrize("offload", [False, True])
def test_a_quiet_network(monkeypatch: pytest.MonkeyPatch, mptcp: bool, offload: bool) -> None:
    """RFC 9293 §3.10.7.4 in full against its prediction, where prediction nearly always holds."""
    taken = {"short": 0}
    short = segment_input._established

    def count(*arguments: Any) -> None:
        taken["short"] += segment_input.header_prediction
        short(*arguments)

    monkeypatch.setattr(segment_input, "_established", count)
    side = Side(mptcp=mptcp, offload=offload, size=60_000)
    before = Twins.compared, Twins.whole
    run_twins(
        monkeypatch,
        Scenario(seed=3, drop=0, corrupt=0, duplicate=0, late=0, client=side, server=side),
    )
    assert taken["short"] > 50
    assert Twins.compared - before[0] > 150
    assert Twins.whole - before[1] > 30


@settings(max_examples=12, deadline=None)
@given(scenario=scenarios(most=8_000))
def test_a_hostile_network(scenario: Scenario) -> None:
    """The same where segments are lost, late, repeated and marked, with whatever options."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        run_twins(monkeypatch, scenario)
    assert Twins.whole


def test_the_comparison_sees_a_difference() -> None:
    """The judge itself: one variable of one connection is enough."""
    scenario = Scenario(late=0, drop=0, corrupt=0, duplicate=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "Stack", Twins)
        run = session.Session(scenario)
        stack = run.network.hosts[0].stack
        assert isinstance(stack, Twins)
        meta = stack.connect(run.network.hosts[1].interfaces[1].addresses[0][0], session.PORT)
        stack.same(always=True)
        meta.subflows[0].snd.cc.cwnd += 1
        with pytest.raises(AssertionError, match=r"cwnd: \d+ and \d+"):
            stack.same(always=True)
