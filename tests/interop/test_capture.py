"""tshark reads a transfer over two paths: an independent opinion of what is on the wire."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from tests.interop.lab import lab
from tests.interop.script import Script
from tests.interop.test_transfers import check_node
from tests.interop.witness import TCPDUMP, TSHARK, ask, capture

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(TSHARK is None, reason="tshark is not installed"),
    pytest.mark.skipif(TCPDUMP is None, reason="tcpdump is not installed"),
]

SIZE: Final = 2 << 20
THEIRS: Final[Script] = [["trade", 1000], ["receive", 1000], ["exchange", SIZE]]
OURS: Final[Script] = [["trade", 1000], ["subflows", 2], ["send", 1000], ["exchange", SIZE]]
"""The kernel takes no more subflows once its program has ended its sending: it has to wait."""
MP_CAPABLE: Final = "0"
MP_JOIN: Final = "1"
DSS: Final = "2"
ADD_ADDR: Final = "3"


def check_both(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """The transfer that was captured is a good one."""
    assert (ours["error"], theirs["error"]) == (None, None)
    assert (ours["sent"], theirs["sent"]) == (SIZE + 2000, SIZE + 1000)
    assert theirs["received_digest"] == ours["sent_digest"]
    assert ours["received_digest"] == theirs["sent_digest"]
    check_node(ours, 2)


def subtypes(rows: list[list[str]]) -> Counter[str]:
    """How many packets carry each kind of MPTCP option."""
    return Counter(kind for row in rows for kind in set(re.findall(r"\d+", row[0])))


@pytest.mark.parametrize("families", [(4, 4), (6, 6)], ids=["v4-v4", "v6-v6"])
@pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])
def test_tshark_finds_no_fault(tmp_path: Path, families: tuple[int, ...], we_connect: bool) -> None:
    target = tmp_path / "two-paths.pcap"
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(lab(*families))
        if we_connect:
            network.signal_far_addresses()
        with capture(network.far, target):
            # Without offload, what is on the wire is what we wrote, checksums included.
            if we_connect:
                theirs = stack.enter_context(network.kernel("server", THEIRS))
                ours = stack.enter_context(network.node("client", OURS, offload=False))
            else:
                ours = stack.enter_context(network.node("server", OURS, offload=False))
                theirs = stack.enter_context(network.kernel("client", THEIRS))
            report = ours.result()
            check_both(report, theirs.result())
        source = "ip.src" if families[0] == 4 else "ipv6.src"
        from_us = " || ".join(f"{source} == {network.near_address(path)}" for path in (1, 2))
    assert ask(target, "_ws.malformed", "frame.number") == []
    by_us = ask(target, f"tcp && ({from_us})", "tcp.options.mptcp.subtype")
    by_kernel = ask(target, f"tcp && !({from_us})", "tcp.options.mptcp.subtype")
    faults = ask(
        target,
        f"({from_us}) && (_ws.expert.severity == error || tcp.checksum.status == Bad)",
        "frame.number",
        "_ws.expert.message",
    )
    assert faults == []
    seen_of_us, seen_of_kernel = subtypes(by_us), subtypes(by_kernel)
    # Client: SYN and third ACK (and the first data); server: SYN/ACK.
    assert seen_of_us[MP_CAPABLE] >= (2 if we_connect else 1)
    assert seen_of_kernel[MP_CAPABLE] >= (1 if we_connect else 2)
    # The client joins: SYN and third ACK.
    assert seen_of_us[MP_JOIN] >= (2 if we_connect else 1)
    assert seen_of_kernel[MP_JOIN] >= (1 if we_connect else 2)
    # The last packets may still be in tcpdump's buffer when it ends.
    assert seen_of_us[DSS] >= SIZE / 1460 / 2
    assert seen_of_kernel[DSS] >= SIZE / 65536 / 2
    # The server announces and the client echoes.
    assert seen_of_us[ADD_ADDR] >= 1
    assert seen_of_kernel[ADD_ADDR] >= 1
    # RFC 8684 §3.3: what belongs to an MPTCP connection carries one of its options, always.
    assert (
        ask(
            target,
            f"({from_us}) && tcp && !tcp.options.mptcp.subtype && !tcp.flags.reset",
            "frame.number",
        )
        == []
    )
