"""64 MiB of random bytes both ways at once: with the kernel in both roles, and with ourselves.

What must hold: digests equal, two subflows seen by both ends where there are two paths, both wires
used, and not one counter that tells of a mismatch, a bad checksum or a fallback.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

import pytest

from tests.interop.lab import Lab, lab
from tests.interop.script import Script

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

MIB: Final = 1 << 20
SIZE: Final = 64 * MIB
EXCHANGE: Final[Script] = [["exchange", SIZE]]
LEAST_SHARE: Final = 0.02
"""Of the bytes of a direction that every wire of two carries: far more than signalling needs."""
BAD_WORDS: Final = ("DSS", "Csum", "HMac", "Fallback", "MPFail", "Infinite", "Mismatch", "NoToken")
"""In the name of an MPTcpExt counter: something that must not happen. (Duplicate data and packets
outside the window may: reinjection.)"""
HARMLESS: Final = ("MPTcpExtNoDSSInWindow",)

FAMILIES: Final = [(4,), (6,), (4, 4), (6, 6), (4, 6)]
NAMES: Final = ["v4", "v6", "v4-v4", "v6-v6", "v4-v6"]


def bad_counters(counters: dict[str, int], before: dict[str, int] | None = None) -> dict[str, int]:
    """The counters of misfortune that have moved."""
    before = before or {}
    return {
        name: value - before.get(name, 0)
        for name, value in counters.items()
        if name.startswith("MPTcpExt")
        and name not in HARMLESS
        and any(word in name for word in BAD_WORDS)
        and value != before.get(name, 0)
    }


def check_bytes(ours: dict[str, Any], theirs: dict[str, Any], size: int = SIZE) -> None:
    """Each end has received what the other one has sent, all of it, and neither saw an error."""
    assert (ours["error"], theirs["error"]) == (None, None)
    assert (ours["sent"], theirs["sent"]) == (size, size)
    assert (theirs["received"], theirs["received_digest"]) == (size, ours["sent_digest"])
    assert (ours["received"], ours["received_digest"]) == (size, theirs["sent_digest"])


def check_node(report: dict[str, Any], paths: int) -> None:
    """Our end saw MPTCP with a subflow per path, and nothing went wrong."""
    info = report["info"]
    assert not info["fallback"], info["fallback_reason"]
    assert len(info["subflows"]) == paths
    assert len({subflow["interface"] for subflow in info["subflows"]}) == paths
    assert len({subflow["local"] for subflow in info["subflows"]}) == paths
    assert report["ever"] == paths
    assert bad_counters(report["counters"]) == {}


def check_wires(network: Lab, before: list[tuple[int, int]], size: int = SIZE) -> None:
    """The wires together carried the data, and each of them its share, both ways.

    Half as much again is for headers, pure ACKs, and what a full queue of a device has lost.
    """
    used = [
        tuple(now - then for now, then in zip(network.bytes_on(path), old, strict=True))
        for path, old in enumerate(before, 1)
    ]
    for direction in (0, 1):
        carried = [wire[direction] for wire in used]
        assert size <= sum(carried) <= 1.5 * size, used
        assert min(carried) >= LEAST_SHARE * size / len(used), used


@pytest.mark.parametrize("offload", [True, False], ids=["offload", "plain"])
@pytest.mark.parametrize("families", FAMILIES, ids=NAMES)
@pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])
def test_with_the_kernel(families: tuple[int, ...], offload: bool, we_connect: bool) -> None:
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(lab(*families))
        if we_connect:
            network.signal_far_addresses()
        before = network.far.counters()
        wires = [network.bytes_on(path + 1) for path in range(network.paths)]
        roles = ("client", "server") if we_connect else ("server", "client")
        ends: dict[str, Any] = {}
        for role in ("server", "client"):
            if role == roles[0]:
                ends["ours"] = stack.enter_context(network.node(role, EXCHANGE, offload=offload))
            else:
                ends["theirs"] = stack.enter_context(network.kernel(role, EXCHANGE))
        ours, theirs = ends["ours"].result(), ends["theirs"].result()
        after = network.far.counters()
        check_bytes(ours, theirs)
        check_node(ours, network.paths)
        assert (theirs["subflows"], theirs["fallback"]) == (network.paths, False)
        assert theirs["congestion"] == "cubic"
        assert bad_counters(after, before) == {}
        joins = "MPTcpExtMPJoinAckRx" if we_connect else "MPTcpExtMPJoinSynAckRx"
        assert after[joins] - before[joins] == network.paths - 1
        check_wires(network, wires)


@pytest.mark.parametrize("offload", [True, False], ids=["offload", "plain"])
@pytest.mark.parametrize("families", FAMILIES, ids=NAMES)
def test_with_ourselves(families: tuple[int, ...], offload: bool) -> None:
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(lab(*families, far_is_ours=True))
        wires = [network.bytes_on(path + 1) for path in range(network.paths)]
        server = stack.enter_context(network.node("server", EXCHANGE, offload=offload, far=True))
        client = stack.enter_context(network.node("client", EXCHANGE, offload=offload))
        ours, theirs = client.result(), server.result()
        check_bytes(ours, theirs)
        check_node(ours, network.paths)
        check_node(theirs, network.paths)
        assert theirs["counters"].get("MPTcpExtMPJoinAckRx", 0) == network.paths - 1
        check_wires(network, wires)
