"""Interop matrix: checksums of either side, the kernel's SYN cookies, the C flag.

RFC 8684 §3.1 (A and C flags), §3.3.1 (the DSS checksum), RFC 4987 §3.6 (cookies).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.interop.lab import lab
from tests.interop.script import Script
from tests.interop.test_matrix_addresses import OURS, THEIRS, check, play
from tests.interop.witness import TSHARK, ask

pytestmark = pytest.mark.netns

MIB: Final = 1 << 20
WHO = pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])


@pytest.mark.row("I9", "I14", "D3", kernel=True)
@WHO
@pytest.mark.parametrize("ours_asks", [True, False], ids=["ours-asks", "kernel-asks"])
def test_checksums(witnessed: list[Path], we_connect: bool, ours_asks: bool) -> None:
    """Either side asks for them, both send and verify them, on every mapping."""
    with lab(4, 4) as network:
        if not ours_asks:
            network.far.sysctl("net.mptcp.checksum_enabled", 1)
        if we_connect:
            network.signal_far_addresses()
        near, far = play(
            network, OURS, THEIRS, we_connect=we_connect, config={"checksum": ours_asks}
        )
        counters = network.far.counters()
    check(near, far)
    assert counters["MPTcpExtDataCsumErr"] == 0
    if TSHARK is None:
        return
    mapped = "tcp.options.mptcp.dseqnpresent.flag == 1 && tcp.options.mptcp.datalvllen > 0"
    sizes = [
        int(flags, 16)
        for (options,) in ask(witnessed[0], mapped, "tcp.options", checksums=False)
        for flags in re.findall(r"1e(..)20", options)
    ]
    # RFC 8684 §3.3: a DSS of 64-bit numbers, with its mapping and the checksum.
    assert sizes.count(28) > 20
    assert 26 not in sizes


def test_syn_cookies_of_the_kernel(witnessed: list[Path]) -> None:
    """`tcp_syncookies=2`: it keeps no state for our SYN, and MPTCP comes about all the same, with
    a second subflow by our MP_JOIN."""
    with lab(4, 4) as network:
        network.far.sysctl("net.ipv4.tcp_syncookies", 2)
        network.signal_far_addresses()
        near, far = play(network, OURS, THEIRS, we_connect=True)
        counters = network.far.counters()
    check(near, far)
    assert near["ever"] == 2
    assert not near["info"]["fallback"]
    assert counters["TcpExtSyncookiesSent"] >= 1
    assert counters["TcpExtSyncookiesRecv"] >= 1


@pytest.mark.row("I11", kernel=True)
def test_the_kernel_forbids_joins_to_its_first_address(witnessed: list[Path]) -> None:
    """`allow_join_initial_addr_port=0`: the C flag. We join the announced address only."""
    script: Script = [["trade", 1000], ["subflows", 2], ["send", 1000], ["exchange", 2 * MIB]]
    with lab(4, 4) as network:
        network.far.sysctl("net.mptcp.allow_join_initial_addr_port", 0)
        network.signal_far_addresses()
        near, far = play(
            network, script, THEIRS, we_connect=True, config={"path_manager": "fullmesh"}
        )
    check(near, far)
    first = network.far_address(1)
    assert [flow[1] for flow in near["flows"]].count(first) == 1
    assert {flow[1] for flow in near["flows"]} == {first, network.far_address(2)}


@pytest.mark.row("I11", kernel=True)
def test_we_forbid_joins_to_our_first_address(witnessed: list[Path]) -> None:
    """The C flag of our SYN/ACK: the kernel's second address joins our announced one, as its first
    does, and neither our first."""
    with lab(4, 4) as network:
        network.far.add_mptcp_endpoint(network.far_address(2), flags=("subflow",), endpoint_id=9)
        near, far = play(
            network,
            OURS,
            THEIRS,
            we_connect=False,
            config={"allow_join_initial_addr_port": False},
        )
        first = network.near_address(1)
        second = network.near_address(2)
    check(near, far)
    assert [flow[0] for flow in near["flows"]].count(first) == 1
    assert second in {flow[0] for flow in near["flows"]}
    if TSHARK is not None:
        barred = "tcp.options.mptcp.nomoresubflows.flag == 1 && tcp.flags.syn == 1"
        assert ask(witnessed[0], barred, "frame.number", checksums=False)


@pytest.mark.usefixtures("witnessed")
def test_our_syn_cookies() -> None:
    """`syn_cookies="always"`: no state for the kernel's SYN, and MPTCP comes about all the same,
    with a second subflow by its MP_JOIN."""
    with lab(4, 4) as network:
        near, far = play(network, OURS, THEIRS, we_connect=False, config={"syn_cookies": "always"})
    check(near, far)
    assert near["ever"] == 2
    assert not near["info"]["fallback"]
    assert near["counters"]["TcpExtSyncookiesSent"] >= 1
    assert near["counters"]["TcpExtSyncookiesRecv"] >= 1
