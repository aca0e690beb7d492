"""A slice of the fuzzing: kept inputs and first ones, and what hypothesis makes up.

The rules are those of `fuzz.harness` and `fuzz.parsers`; RFC 9293 §3.10.7 and RFC 8684 §3 leave no
input without an answer, and RFC 9293 §3.1 (options "MUST be prepared to handle an illegal option
length") none that harms.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import operations, parsers
from fuzz.harness import FuzzWire, Violation
from fuzz.operations import OPERATIONS
from fuzz.reader import Reader, Writer
from fuzz.seeds import recorded, seeds
from fuzz.states import STATES, scene_in
from fuzz.targets import KEPT, MODULES, kept
from mptcp.errors import ConnectionEnd
from mptcp.events import Closed, Readable
from tests.options import Mss

KEPT_BYTES = 400 << 10
A_SLICE = 400
"""Kept inputs that a run of the tests plays: seconds, not minutes."""


@pytest.mark.parametrize("name", MODULES)
def test_inputs_hold(name: str) -> None:
    """Every seed, and a slice of what is kept: RFC 9293 §3.10.7, RFC 8684 §3."""
    play = {"stack": operations.run, "wire": parsers.run}[name]
    made, old = seeds(name), kept(name)
    assert made
    for data in made[:: 1 + len(made) // A_SLICE] + old[:: 1 + len(old) // A_SLICE]:
        play(data)


def test_the_kept_inputs_are_few() -> None:
    """The repository keeps no more than is worth reading."""
    files = list(KEPT.glob("*.txt"))
    assert {file.stem for file in files} == set(MODULES)
    assert sum(file.stat().st_size for file in files) < KEPT_BYTES
    assert all(kept(name) for name in MODULES)


@settings(max_examples=60, deadline=None)
@given(
    state=st.integers(0, len(STATES) - 1),
    variant=st.integers(0, 255),
    operations_=st.binary(max_size=120),
)
def test_any_bytes_in_any_state(state: int, variant: int, operations_: bytes) -> None:
    """RFC 9293 §3.10.7, RFC 8684 §3: an answer to everything, harm by nothing."""
    operations.run(bytes((state, variant)) + operations_)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_for_the_parsers(data: bytes) -> None:
    """RFC 9293 §3.1, RFC 8684 §3: `ParseError` and nothing else."""
    parsers.run(data)


@pytest.mark.parametrize("number", range(len(STATES)), ids=[name for name, _, _ in STATES])
def test_each_state_is_reached(number: int) -> None:
    """RFC 9293 §3.3.2: what a state's name says is so (in both variants of checksums)."""
    name, _, with_mptcp = STATES[number]
    for variant in (0, 2):
        scene = scene_in(number, variant)
        states = {c.state.name for c in scene.wire.stack.connections.values()}
        word = name.split()[0].replace("-", "_")
        if word in ("LISTEN", "no"):
            assert not states
        elif word.isupper() and word not in ("MP_FAIL", "FASTCLOSE"):
            levels = with_mptcp and word not in ("SYN_SENT", "SYN_RECEIVED", "ESTABLISHED")
            # The data level's states; a subflow itself goes on until both have ended.
            assert levels or states == {word}
        if word in ("two", "retransmitting", "closed", "holes"):
            assert len(states) == 1
            assert len(scene.wire.stack.connections) == 2
        if word in ("fallback", "infinite", "MP_FAIL"):
            assert scene.connection is not None
            assert scene.connection.fallback
        if word == "FASTCLOSE":
            assert scene.connection is not None
            assert scene.connection.ended is ConnectionEnd.ABORTED
            assert scene.wire.stack.counters["MPTcpExtMPFastcloseTx"] >= 1


def test_a_recorded_exchange_is_whole() -> None:
    """RFC 8684 §3.1-§3.3: the recordings really open, join, carry data and close when replayed."""
    scene = operations.run(next(recorded()))
    counters = scene.wire.stack.counters
    for name in ("MPCapableSYNRX", "MPJoinSynRx", "MPJoinAckRx"):
        assert counters[f"MPTcpExt{name}"] == 1
    assert ConnectionEnd.CLOSED in scene.wire.known.values()


def test_reader_and_writer() -> None:
    """An input is read as it was written; an empty one decides for zeros."""
    reader = Reader(Writer().u8(7, 1).u16(513).raw(b"abc").value())
    assert (reader.u8(), reader.u8(), reader.u16()) == (7, 1, 513)
    assert reader.take(3) == b"abc"
    assert not reader
    assert (reader.u8(), reader.u32(), reader.delta(), reader.size()) == (0, 0, 0, 0)
    assert [Reader(bytes([n])).delta() for n in (0, 1, 0x77, 0x78, 0xEF)] == [0, 1, 119, -120, -1]


# -- the rules themselves ------------------------------------------------------------------------


def test_an_event_after_the_end_is_a_violation() -> None:
    """docs/stack-api.md: `Closed` is a connection's last event."""
    scene = scene_in([name for name, _, _ in STATES].index("ESTABLISHED"), 0)
    wire, connection = scene.wire, scene.connection
    assert connection is not None
    wire.known[connection] = ConnectionEnd.RESET
    wire.events.append(Readable(connection))
    with pytest.raises(Violation, match="after the end"):
        wire.flush()
    wire.events.clear()
    wire.known.clear()
    wire.events.append(Closed(connection, ConnectionEnd.RESET))
    with pytest.raises(Violation, match="nobody knows"):
        wire.flush()


def test_a_connection_that_vanishes_is_a_violation() -> None:
    """docs/stack-api.md: every connection that was opened is told to be over."""
    scene = scene_in([name for name, _, _ in STATES].index("ESTABLISHED plain"), 0)
    assert scene.connection is not None
    scene.wire.stack.metas.discard(scene.connection)
    with pytest.raises(Violation, match="without a word"):
        scene.wire.judge()


def test_too_much_memory_is_a_violation() -> None:
    """The bounds of the configuration, as `soak.bounds` reads them."""
    scene = scene_in([name for name, _, _ in STATES].index("ESTABLISHED"), 0)
    assert scene.connection is not None
    scene.connection.rx.unread = scene.connection.rx.buffer + 1
    with pytest.raises(Violation, match="receive buffer"):
        scene.wire.judge()


def test_what_is_left_after_an_hour_is_a_violation() -> None:
    """A token that nothing frees."""
    scene = scene_in(0, 0)
    stack = scene.wire.stack
    other = scene_in([name for name, _, _ in STATES].index("ESTABLISHED"), 0)
    assert other.connection is not None
    stack.tokens[1] = other.connection
    with pytest.raises(Violation, match="still"):
        scene.wire.finish()


def test_a_stack_that_serves_nobody_is_a_violation() -> None:
    """A listener that does not answer."""
    scene = scene_in(0, 0)
    scene.wire.stack.interface_down(scene.wire.now, 1)
    with pytest.raises(AssertionError):
        scene.wire._serve()


def test_a_bad_packet_out_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9293 §3.1: the checksum of what the stack sends is right."""
    scene = scene_in([name for name, _, _ in STATES].index("ESTABLISHED"), 0)
    wire = scene.wire
    assert scene.connection is not None
    scene.connection.send(b"x" * 100)
    transmit = wire.stack.poll_transmit(wire.now)
    assert transmit is not None
    transmit.header[-1] ^= 1  # type: ignore[index]
    with pytest.raises(Violation, match="the stack sent"):
        wire._sent(transmit)


def test_every_operation_can_be_drawn() -> None:
    """The low nibble of a byte names an operation."""
    assert len(OPERATIONS) == 16
    assert isinstance(scene_in(0, 0).wire, FuzzWire)
    assert Mss(1).emit()
