"""64 MiB of random bytes both ways at once, with the kernel and with ourselves.

Without offload only IPv4 with the kernel has as much: each packet costs its time there, and the
others (16 MiB) are the same code again.

What must hold: digests equal, two subflows seen by both ends where there are two paths, the bytes
of each on its own wire, and not one counter that tells of a mismatch, a bad checksum or a fallback.

On wires without a rate limit a min-RTT scheduler may use one path only, and rightly; that both
carry their share is tested with rates.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

import pytest

from tests.interop.lab import Emulated, Lab, lab
from tests.interop.script import Script
from tests.realtime import measured

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

MIB: Final = 1 << 20
SIZE: Final = 64 * MIB
SMALLER: Final = 16 * MIB
BAD_WORDS: Final = ("DSS", "Csum", "HMac", "Fallback", "MPFail", "Infinite", "Mismatch", "NoToken")
"""In the name of an MPTcpExt counter: something that must not happen. (Duplicate data may come
from reinjection; but whatever is dropped as outside the window (NoDSSInWindow) the kernel repeats
only after its retransmission timer, 200 ms a piece.)"""

FAMILIES: Final = [(4,), (6,), (4, 4), (6, 6), (4, 6)]
OFFLOAD: Final = [
    pytest.param(True, id="offload"),
    pytest.param(False, id="plain", marks=pytest.mark.slow),
]
NAMES: Final = ["v4", "v6", "v4-v4", "v6-v6", "v4-v6"]


def amount(families: tuple[int, ...], offload: bool, kernel: bool) -> int:
    """Bytes to send each way."""
    return SIZE if offload or (kernel and 6 not in families) else SMALLER


def bad_counters(counters: dict[str, int], before: dict[str, int] | None = None) -> dict[str, int]:
    """The counters of misfortune that have moved."""
    before = before or {}
    return {
        name: value - before.get(name, 0)
        for name, value in counters.items()
        if name.startswith("MPTcpExt")
        and any(word in name for word in BAD_WORDS)
        and value != before.get(name, 0)
    }


def check_bytes(ours: dict[str, Any], theirs: dict[str, Any], size: int) -> None:
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


def check_wires(network: Lab, before: list[tuple[int, int]], report: dict[str, Any]) -> None:
    """Every subflow's bytes went over the wire of its own path, both ways.

    What is more than the payload is headers, pure ACKs (of the other way's data), and what a full
    queue of a device has lost.
    """
    total = report["sent"] + report["received"]
    for path, (after, old) in enumerate(zip(network.bytes_on_wires(), before, strict=True), 1):
        wire = [now - then for now, then in zip(after, old, strict=True)]
        local = network.near_address(path)
        payload = [report["sent_from"][local], report["received_at"][local]]
        for carried, least in zip(wire, payload, strict=True):
            assert least <= carried <= 1.3 * least + 0.05 * total, (path, wire, payload)


@pytest.mark.row(
    "I3",
    "I6",
    "I8",
    "I13",
    "I19",
    "J1",
    "J2",
    "J4",
    "J5",
    "J8",
    "D2",
    "D6",
    "D8",
    "D11",
    "D12",
    "F4",
    kernel=True,
)
@pytest.mark.parametrize("offload", OFFLOAD)
@pytest.mark.parametrize("families", FAMILIES, ids=NAMES)
@pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])
def test_with_the_kernel(families: tuple[int, ...], offload: bool, we_connect: bool) -> None:
    size = amount(families, offload, kernel=True)
    script: Script = [["exchange", size]]
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(lab(*families))
        if we_connect:
            network.signal_far_addresses()
        before = network.far.counters()
        wires = network.bytes_on_wires()
        roles = ("client", "server") if we_connect else ("server", "client")
        ends: dict[str, Any] = {}
        for role in ("server", "client"):
            if role == roles[0]:
                ends["ours"] = stack.enter_context(network.node(role, script, offload=offload))
            else:
                ends["theirs"] = stack.enter_context(network.kernel(role, script))
        ours, theirs = ends["ours"].result(), ends["theirs"].result()
        after = network.far.counters()
        check_bytes(ours, theirs, size)
        check_node(ours, network.paths)
        assert (theirs["subflows"], theirs["fallback"]) == (network.paths, False)
        assert theirs["congestion"] == "cubic"
        assert bad_counters(after, before) == {}
        joins = "MPTcpExtMPJoinAckRx" if we_connect else "MPTcpExtMPJoinSynAckRx"
        assert after[joins] - before[joins] == network.paths - 1
        check_wires(network, wires, ours)


@pytest.mark.parametrize("offload", OFFLOAD)
@pytest.mark.parametrize("families", FAMILIES, ids=NAMES)
def test_with_ourselves(families: tuple[int, ...], offload: bool) -> None:
    size = amount(families, offload, kernel=False)
    script: Script = [["exchange", size]]
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(lab(*families, far_is_ours=True))
        wires = network.bytes_on_wires()
        server = stack.enter_context(network.node("server", script, offload=offload, far=True))
        client = stack.enter_context(network.node("client", script, offload=offload))
        ours, theirs = client.result(), server.result()
        check_bytes(ours, theirs, size)
        check_node(ours, network.paths)
        check_node(theirs, network.paths)
        assert theirs["counters"].get("MPTcpExtMPJoinAckRx", 0) == network.paths - 1
        check_wires(network, wires, ours)


@pytest.mark.parametrize("peer", ["to-kernel", "from-kernel", "ourselves"])
@measured
def test_two_slow_paths_share_the_load(peer: str) -> None:
    """Of equal paths neither idles: each carries a quarter of both directions at least."""
    size = 12 * MIB
    script: Script = [["exchange", size]]
    link = Emulated(rate_bps=60_000_000, delay_us=4_000)
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(
            lab(4, 4, far_is_ours=peer == "ourselves", emulated=(link, link))
        )
        if peer == "to-kernel":
            network.signal_far_addresses()
        wires = network.bytes_on_wires()
        if peer == "from-kernel":
            ours = stack.enter_context(network.node("server", script))
            theirs = stack.enter_context(network.kernel("client", script))
        else:
            if peer == "ourselves":
                theirs = stack.enter_context(network.node("server", script, far=True))
            else:
                theirs = stack.enter_context(network.kernel("server", script))
            ours = stack.enter_context(network.node("client", script))
        report = ours.result()
        check_bytes(report, theirs.result(), size)
        check_node(report, 2)
        used = [
            (after[0] - old[0], after[1] - old[1])
            for after, old in zip(network.bytes_on_wires(), wires, strict=True)
        ]
        for direction in (0, 1):
            assert min(wire[direction] for wire in used) >= size / 4, used
