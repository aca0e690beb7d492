"""The heap of lazy deadlines: design rule 6, bounded timers, whatever a policy does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mptcp.config import MILLISECOND
from mptcp.tcp.state import NEVER
from mptcp.timers import TimerHeap


class Policy:
    """Something that arms its timer as `act` says."""

    def __init__(self, act: Callable[[Policy, int], None]) -> None:
        self.heap_deadline = NEVER
        self.deadline = 0
        self.act = act
        self.fired: list[int] = []

    def next_deadline(self) -> int:
        return self.deadline

    def handle_timeout(self, now: int) -> None:
        self.fired.append(now)
        assert len(self.fired) < 100
        self.act(self, now)


def test_a_deadline_that_has_passed_fires_once_a_pass() -> None:
    """It is armed again from within its own call, and fires a millisecond later."""
    heap = TimerHeap()

    def again(policy: Policy, now: int) -> None:
        policy.deadline = now - 5
        heap.rearm(policy)

    policy = Policy(again)
    heap.rearm(policy)
    for now in (10, 10 + MILLISECOND - 1, 10 + MILLISECOND):
        heap.run(now)
    assert policy.fired == [10, 10 + MILLISECOND]
    assert heap.next() == 10 + 2 * MILLISECOND


def test_two_that_arm_each_other_end() -> None:
    """Neither fires twice at one time."""
    heap = TimerHeap()
    policies: list[Policy] = []

    def other(policy: Policy, now: int) -> None:
        for one in policies:
            one.deadline = now
            heap.rearm(one)

    policies += [Policy(other), Policy(other)]
    for policy in policies:
        heap.rearm(policy)
    heap.run(7)
    assert [policy.fired for policy in policies] == [[7], [7]]
    assert len(heap) <= 4


def test_what_raises_is_armed_again_and_the_others_go_on() -> None:
    """An error in one policy must not stop its own timer for good, nor those behind it."""
    heap = TimerHeap()

    def fails(policy: Policy, now: int) -> None:
        if len(policy.fired) < 3:
            raise ZeroDivisionError
        policy.deadline = NEVER

    def done(policy: Policy, now: int) -> None:
        policy.deadline = NEVER

    sick, sound = Policy(fails), Policy(done)
    heap.rearm(sick)
    heap.rearm(sound)
    with pytest.raises(ZeroDivisionError):
        heap.run(5)
    assert heap.next() == 0  # the other is still due
    heap.run(5)
    assert sound.fired == [5]
    with pytest.raises(ZeroDivisionError):
        heap.run(5 + MILLISECOND)
    heap.run(5 + 2 * MILLISECOND)
    assert len(sick.fired) == 3
    assert heap.next() == NEVER
