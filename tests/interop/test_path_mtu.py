"""A path whose middle carries less than its ends: by ICMP and without, with a kernel."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import pytest

from tests.interop.lab import Lab, lab
from tests.interop.script import Script
from tests.interop.test_transfers import check_bytes

pytestmark = pytest.mark.netns

SIZE: Final = 2 << 20
MIDDLE: Final = 1290
"""More than an IPv6 link's least, so that falling to the base and searching are told apart."""
EXCHANGE: Final[Script] = [["gate"], ["exchange", SIZE]]


def narrow(network: Lab, *, silent: bool) -> None:
    """Let the kernel in the middle forward at most `MIDDLE` bytes both ways, and not say so."""
    near, family = network.near, network.families[0]
    ip = ["ip", f"-{family}", "route", "replace"]
    there = network.far_address()
    mtu = ["mtu", "lock", str(MIDDLE)]
    near.output([*ip, "default", "via", there, "dev", "v1", "table", "1", *mtu])
    for table in ("main", "1"):  # what the middle itself sends is routed by its source as well
        near.output([*ip, network.near_address(), "dev", "t1", "table", table, *mtu])
    if silent:
        near.output(
            [
                "nft",
                "add table inet silence; "
                "add chain inet silence output { type filter hook output priority 0; }; "
                "add rule inet silence output icmp type destination-unreachable drop; "
                "add rule inet silence output icmpv6 type packet-too-big drop",
            ]
        )
        # So that the kernel's own half of the transfer passes as well.
        network.far.sysctl("net.ipv4.tcp_mtu_probing", 1)


@pytest.mark.parametrize(
    ("family", "offload", "silent"),
    [(4, True, False), (6, False, False), (4, False, True), (6, True, True)],
    ids=["icmp-offload-v4", "icmp-plain-v6", "black-hole-plain-v4", "black-hole-offload-v6"],
)
def test_narrow_middle(family: int, offload: bool, silent: bool) -> None:
    """RFC 1191 §6.4, RFC 8201 §5.4 when routers tell; RFC 4821 §7.7 when they do not."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(lab(family))
        ends: dict[str, Any] = {
            "theirs": stack.enter_context(network.kernel("server", EXCHANGE, congestion="reno")),
            "ours": stack.enter_context(network.node("client", EXCHANGE, offload=offload)),
        }
        for program in ends.values():
            program.expect("gate")
        narrow(network, silent=silent)
        for program in ends.values():
            program.go_on()
        ours, theirs = ends["ours"].result(), ends["theirs"].result()
    check_bytes(ours, theirs, SIZE)
    counters = ours["counters"]
    (mtu,) = ours["path_mtus"]
    if silent:
        assert counters["TcpMtuBlackHoles"] == 1
        assert MIDDLE - 16 < mtu <= MIDDLE
    else:
        assert (mtu, counters["TcpPathMtuReduced"]) == (MIDDLE, 1)
        assert "TcpMtuBlackHoles" not in counters
