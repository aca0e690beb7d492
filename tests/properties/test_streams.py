"""What TCP promises (RFC 9293 §2.2, §3.8): every byte, in order, or an error to both programs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mptcp.errors import ConnectionEnd
from soak.program import Failure, Program, verdict
from soak.scenario import Scenario, Side
from soak.session import run
from tests.properties.strategies import scenarios


@settings(max_examples=120, deadline=None)
@given(scenario=scenarios())
def test_all_in_order_or_an_error_to_both(scenario: Scenario) -> None:
    """RFC 9293 §3.8, RFC 8684 §3.3: through loss, delay, reordering, duplication and corruption,
    with whatever ending on either side. A failure prints the command that replays it."""
    run(scenario)


@settings(max_examples=60, deadline=None)
@given(scenario=scenarios(endings=st.just("shutdown"), interface_losses=0))
def test_half_closes_deliver_everything(scenario: Scenario) -> None:
    """RFC 9293 §3.6: where nobody aborts, both streams arrive whole and both ends close."""
    result = run(scenario)
    assert result.errors == 0
    assert result.bytes == scenario.client.size + scenario.server.size


@pytest.mark.parametrize("paths", [1, 2, 3])
def test_more_follow_on_the_same_stacks(paths: int) -> None:
    """RFC 9293 §3.6.1: what an aborted connection leaves behind does not disturb the next."""
    scenario = Scenario(
        seed=paths, paths=paths, client=Side(ending="abort", ending_at=20_000), server=Side()
    )
    result = run(scenario, min_bytes=100_000)
    assert result.connections > 1
    assert result.bytes >= 100_000


def test_a_run_is_a_function_of_its_line() -> None:
    """The line that a failure prints says all: same events, same bytes, same virtual time."""
    scenario = Scenario.from_seed(7)
    again = Scenario.from_line(scenario.to_line())
    assert again == scenario
    first, second = run(scenario, min_events=50), run(again, min_events=50)
    for name in ("dropped", "corrupted", "duplicated", "late", "changes", "delivered"):
        assert getattr(first.events, name) == getattr(second.events, name)
    assert (first.bytes, first.virtual_us) == (second.bytes, second.virtual_us)
    other = run(replace(scenario, seed=8), min_events=50)
    assert other.virtual_us != first.virtual_us


def programs() -> tuple[Program, Program]:
    """Two programs that moved 1000 bytes from the first to the second, and ended well."""
    first, second = (
        Program(name, Side(), 1000, 0, "shutdown", lambda at, action: None)
        for name in ("client", "server")
    )
    first.peer, second.peer = second, first
    first.sent = second.read = 1000
    for program in (first, second):
        program.done_writing = program.closed = program.eof = True
        program.end = ConnectionEnd.CLOSED
    return first, second


def test_the_model_accepts_a_good_end() -> None:
    """The judge itself: all delivered, all told."""
    verdict(*programs())


def test_the_model_sees_bytes_lost_in_silence() -> None:
    """RFC 1122 §4.2.2.13: a writer whose bytes were thrown away must not hear that all is well."""
    first, second = programs()
    second.read, second.end, second.eof = 900, ConnectionEnd.ABORTED, False
    with pytest.raises(Failure, match="ended well"):
        verdict(first, second)
    first.end = ConnectionEnd.RESET
    verdict(first, second)


def test_the_model_sees_a_reader_left_alone() -> None:
    """A reader that did not close by itself and got less than was written needs an error."""
    first, second = programs()
    first.end = ConnectionEnd.RESET
    second.read, second.closed = 900, False
    with pytest.raises(Failure, match="server ended well with 900 of 1000"):
        verdict(first, second)
    second.end = ConnectionEnd.TIMED_OUT
    verdict(first, second)


def test_the_model_sees_an_answer_of_nobody() -> None:
    """A client that wrote to nobody cannot have ended well."""
    first, _ = programs()
    with pytest.raises(Failure, match="nobody"):
        verdict(first, None)
