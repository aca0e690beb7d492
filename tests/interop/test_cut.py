"""A path is cut in the middle of a transfer, comes back, and is used again; every byte arrives.

Two emulated paths, so that the cut is silent (nobody is told) and the rates leave time for it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.interop.lab import Emulated, Lab, lab
from tests.interop.script import Script
from tests.interop.test_transfers import bad_counters, check_bytes

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(90)]

MIB: Final = 1 << 20
SIZE: Final = 28 * MIB
LINK: Final = Emulated(rate_bps=50_000_000, delay_us=5_000)
BEFORE_THE_CUT: Final = 4 * MIB
DURING_THE_CUT: Final = 4 * MIB
AFTER_THE_CUT: Final = MIB
SENDS: Final[Script] = [["send", SIZE], ["eof"], ["until_eof"]]
RECEIVES: Final[Script] = [["until_eof"], ["eof"]]


def carried(network: Lab, path: int) -> int:
    """Bytes that have come through the emulated path, both ways."""
    assert network.emulator is not None
    both = network.emulator.stats()[str(path)]
    return both["forward"].bytes + both["backward"].bytes


def wait_for(what: Callable[[], bool], patience: float = 30.0) -> None:
    """Look every 10 ms until it is so. Raises AssertionError out of patience."""
    end = time.monotonic() + patience
    pause = threading.Event()
    while not what():
        assert time.monotonic() < end, "out of patience"
        pause.wait(0.01)


def cut_and_restore(network: Lab, path: int) -> int:
    """Cut when data flows, restore after the other path has moved on; what `path` had carried."""
    assert network.emulator is not None
    other = 3 - path
    wait_for(lambda: min(carried(network, path), carried(network, other)) >= BEFORE_THE_CUT / 2)
    network.emulator.set(str(path), down=True)
    start = carried(network, other)
    wait_for(lambda: carried(network, other) - start >= DURING_THE_CUT)
    before = carried(network, path)
    network.emulator.set(str(path), down=False)
    return before


@pytest.mark.row("D10", "D15", kernel=True)
@pytest.mark.parametrize(
    ("peer", "we_send", "path"),
    [
        ("to-kernel", True, 1),
        ("to-kernel", False, 2),
        ("from-kernel", True, 2),
        ("from-kernel", False, 1),
        ("ourselves", True, 1),
    ],
)
def test_a_cut_path(peer: str, we_send: bool, path: int) -> None:
    ours_script, their_script = (SENDS, RECEIVES) if we_send else (RECEIVES, SENDS)
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(
            lab(4, 4, far_is_ours=peer == "ourselves", emulated=(LINK, LINK))
        )
        before = network.far.counters()
        if peer == "from-kernel":
            ours = stack.enter_context(network.node("server", ours_script))
            theirs = stack.enter_context(network.kernel("client", their_script))
        else:
            network.signal_far_addresses()
            if peer == "ourselves":
                theirs = stack.enter_context(network.node("server", their_script, far=True))
            else:
                theirs = stack.enter_context(network.kernel("server", their_script))
            ours = stack.enter_context(network.node("client", ours_script))
        carried_at_return = cut_and_restore(network, path)
        near, far = ours.result(), theirs.result()
        check_direction(near, far, we_send)
        assert carried(network, path) - carried_at_return >= AFTER_THE_CUT
        assert bad_counters(near["counters"]) == {}
        assert bad_counters(network.far.counters(), before) == {}


def check_direction(near: dict[str, Any], far: dict[str, Any], we_send: bool) -> None:
    """Everything that one end has sent, the other one has."""
    sender, receiver = (near, far) if we_send else (far, near)
    assert (near["error"], far["error"]) == (None, None)
    assert (sender["sent"], receiver["received"]) == (SIZE, SIZE)
    assert receiver["received_digest"] == sender["sent_digest"]
    assert not near["info"]["fallback"]


def test_a_subflow_that_died_is_opened_again() -> None:
    """Cut for longer than its retries: the path manager joins again when the path has returned."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(lab(4, 4, emulated=(LINK, LINK)))
        network.signal_far_addresses()
        assert network.emulator is not None
        theirs = stack.enter_context(network.kernel("server", RECEIVES))
        config = {"subflow_retries": 1, "rejoin_delay_us": 100_000}
        ours = stack.enter_context(network.node("client", SENDS, config=config))
        wait_for(lambda: min(carried(network, 1), carried(network, 2)) >= BEFORE_THE_CUT / 2)
        network.emulator.set("2", down=True)
        start = carried(network, 1)
        # Two time-outs of 200 and 400 ms and more: the other path moves some MiB meanwhile.
        wait_for(lambda: carried(network, 1) - start >= 8 * MIB)
        before = carried(network, 2)
        network.emulator.set("2", down=False)
        near, far = ours.result(), theirs.result()
        check_direction(near, far, we_send=True)
        assert near["closed"][0] == "TIMED_OUT"
        assert near["ever"] == 3
        assert carried(network, 2) - before >= AFTER_THE_CUT


@pytest.mark.parametrize("path", [1, 2])
@pytest.mark.parametrize("peer", ["kernel", "ourselves"])
def test_a_link_that_goes_down(peer: str, path: int) -> None:
    """Here the routers know, and answer by ICMP: that must not end more than the path."""
    size = 16 * MIB
    script: Script = [["trade", MIB], ["gate"], ["exchange", size]]
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(lab(4, 6, far_is_ours=peer == "ourselves"))
        network.signal_far_addresses()
        if peer == "ourselves":
            theirs = stack.enter_context(network.node("server", script, far=True))
        else:
            theirs = stack.enter_context(network.kernel("server", script))
        ours = stack.enter_context(network.node("client", script))
        for program in (ours, theirs):
            program.expect("gate")
        network.near.set_link(f"v{path}", up=False)
        for program in (ours, theirs):
            program.go_on()
        check_bytes(ours.result(), theirs.result(), MIB + size)
