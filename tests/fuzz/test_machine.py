"""A hypothesis state machine: a stack with two subflows, and whatever a peer and a program may do.

Its rules are the operations of the fuzz targets with drawn numbers, so what fails here shrinks to
the few steps that matter. After each step the rules of `fuzz.harness` hold (RFC 9293 §3.10,
RFC 8684 §3), and in the end the stack serves a stranger and forgets the rest.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fuzz.forge import OPTIONS
from fuzz.operations import (
    TIMES,
    again,
    application,
    clock,
    fragments,
    host,
    icmp,
    merged,
    mutated,
    segment,
)
from fuzz.reader import Reader
from fuzz.states import STATES, Scene, scene_in

BYTE = st.integers(0, 255)
TAIL = st.binary(max_size=16)


class Attack(RuleBasedStateMachine):
    """See the module's text."""

    def __init__(self) -> None:
        super().__init__()
        self.scene: Scene | None = None

    @initialize(state=st.integers(0, len(STATES) - 1), variant=BYTE)
    def begin(self, state: int, variant: int) -> None:
        """Any of the states."""
        self.scene = scene_in(state, variant)

    def _do(self, operation: object, *parts: int, tail: bytes = b"") -> None:
        assert callable(operation)
        assert self.scene is not None
        operation(self.scene, Reader(bytes(parts) + tail))

    @rule(flow=BYTE, flags=BYTE, numbers=BYTE, tail=TAIL)
    def forged(self, flow: int, flags: int, numbers: int, tail: bytes) -> None:
        """A segment near the right numbers."""
        self._do(segment, flow, flags, numbers, tail=tail)

    @rule(flow=BYTE, option=st.integers(0, len(OPTIONS) - 1), tail=TAIL)
    def option(self, flow: int, option: int, tail: bytes) -> None:
        """An acknowledgement with one option."""
        self._do(segment, flow, 0, 0, 1, option, tail=tail)

    @rule(flow=BYTE, size=BYTE, bits=BYTE, more=BYTE, tail=TAIL)
    def data(self, flow: int, size: int, bits: int, more: int, tail: bytes) -> None:
        """Data with a DSS."""
        self._do(segment, flow, 0, 128, size, 1, 0, bits, more, tail=tail)

    @rule(flow=BYTE, flags=BYTE, numbers=BYTE, tail=TAIL)
    def broken(self, flow: int, flags: int, numbers: int, tail: bytes) -> None:
        """A segment with bytes changed."""
        self._do(mutated, flow, flags, numbers, tail=tail)

    @rule(flow=BYTE, gso=st.integers(0, 255), tail=TAIL)
    def coalesced(self, flow: int, gso: int, tail: bytes) -> None:
        """A segment that a device has merged."""
        self._do(merged, flow, gso, 0, 0, 0, 128, tail=tail)

    @rule(control=BYTE, which=BYTE, tail=TAIL)
    def repeated(self, control: int, which: int, tail: bytes) -> None:
        """An old packet."""
        self._do(again, control, which, tail=tail)

    @rule(flow=BYTE, tail=TAIL)
    def in_pieces(self, flow: int, tail: bytes) -> None:
        """Fragments."""
        self._do(fragments, flow, tail=tail)

    @rule(control=BYTE, which=BYTE, tail=TAIL)
    def error(self, control: int, which: int, tail: bytes) -> None:
        """ICMP."""
        self._do(icmp, control, which, tail=tail)

    @rule(which=st.integers(0, len(TIMES) - 1))
    def time(self, which: int) -> None:
        """The clock."""
        self._do(clock, which)

    @rule(connection=BYTE, call=BYTE, tail=TAIL)
    def program(self, connection: int, call: int, tail: bytes) -> None:
        """The application."""
        self._do(application, connection, call, tail=tail)

    @rule(call=BYTE, tail=TAIL)
    def interfaces(self, call: int, tail: bytes) -> None:
        """The host."""
        self._do(host, call, tail=tail)

    @invariant()
    def holds(self) -> None:
        """The rules that hold at any time."""
        if self.scene is not None:
            self.scene.wire.judge()

    def teardown(self) -> None:
        """The rules that hold in the end."""
        if self.scene is not None:
            self.scene.wire.finish()


Attack.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestAttack = Attack.TestCase
