"""ECN with a kernel: negotiated both ways, and a mark on the way slows either sender (RFC 3168)."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import pytest

from tests.interop.lab import Lab, lab
from tests.interop.script import Script
from tests.interop.test_transfers import check_bytes

pytestmark = pytest.mark.netns

SIZE: Final = 6 << 20
EXCHANGE: Final[Script] = [["exchange", SIZE]]


def mark(network: Lab) -> None:
    """Let the kernel in the middle mark some of the ECT packets, as a router with AQM does."""
    ip = "ip" if network.families[0] == 4 else "ip6"
    network.near.output(
        [
            "nft",
            "add table inet marks; "
            "add chain inet marks forward { type filter hook forward priority 0; }; "
            # By direction: whoever sends first would have all the marks of a short transfer.
            + "; ".join(
                f"add rule inet marks forward {ip} {end} {network.far_address()} {ip} ecn ect0 "
                f"limit rate 50/second {ip} ecn set ce"
                for end in ("saddr", "daddr")
            ),
        ]
    )


@pytest.mark.parametrize(
    ("family", "offload", "we_connect"),
    [(4, True, True), (6, False, True), (6, True, False), (4, False, False)],
    ids=["to-kernel-offload-v4", "to-kernel-plain-v6", "from-offload-v6", "from-plain-v4"],
)
def test_marks(family: int, offload: bool, we_connect: bool) -> None:
    """RFC 3168 §6.1.2, §6.1.3: each end echoes the marks it gets and heeds the other's echo."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(lab(family))
        mark(network)
        # 1: the kernel offers it, 2: it agrees; the same of ours is "on" and "passive".
        network.far.sysctl("net.ipv4.tcp_ecn", 2 if we_connect else 1)
        config = {"ecn": "on" if we_connect else "passive"}
        before = network.far.counters()
        ends: dict[str, Any] = {}
        for role in ("server", "client"):
            if (role == "client") == we_connect:
                ends["ours"] = stack.enter_context(
                    network.node(role, EXCHANGE, offload=offload, config=config)
                )
            else:
                ends["theirs"] = stack.enter_context(
                    network.kernel(role, EXCHANGE, congestion="reno")
                )
        ours, theirs = ends["ours"].result(), ends["theirs"].result()
        after = network.far.counters()
    check_bytes(ours, theirs, SIZE)
    assert ours["ecn"] == [True]
    assert ours["counters"]["IpExtInCEPkts"] > 0, "marks came and were echoed"
    assert ours["counters"]["TcpEcnReductions"] > 0, "the kernel's echo was heeded"
    delivered = "TcpExtTCPDeliveredCE"
    assert after.get(delivered, 0) > before.get(delivered, 0), "the kernel got our echo"
