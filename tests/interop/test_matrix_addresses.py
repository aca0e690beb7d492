"""Interop matrix: ADD_ADDR with a port, removal in the middle of a transfer, full mesh, both ways.

RFC 8684 §3.4.1 (the port of an announced address), §3.4.2 (REMOVE_ADDR).
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Final

import pytest

from tests.interop.lab import Emulated, Lab, lab
from tests.interop.script import Script
from tests.interop.test_transfers import bad_counters, check_bytes

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("witnessed")]

MIB: Final = 1 << 20
OTHER_PORT: Final = 7000
OURS: Final[Script] = [["trade", 1000], ["subflows", 2], ["send", 1000], ["exchange", 2 * MIB]]
THEIRS: Final[Script] = [["trade", 1000], ["receive", 1000], ["exchange", 2 * MIB]]
SLOW: Final = Emulated(rate_bps=30_000_000, delay_us=2_000, queue_bytes=8 * MIB)
"""Nothing is lost in it: the kernel sends REMOVE_ADDR once."""
WHO = pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])


def play(
    network: Lab, ours: Script, theirs: Script, *, we_connect: bool, **options: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The reports of both ends."""
    with contextlib.ExitStack() as stack:
        if we_connect:
            peer = stack.enter_context(network.kernel("server", theirs))
            node = stack.enter_context(network.node("client", ours, **options))
        else:
            node = stack.enter_context(network.node("server", ours, **options))
            peer = stack.enter_context(network.kernel("client", theirs))
        return node.result(), peer.result()


def check(near: dict[str, Any], far: dict[str, Any]) -> None:
    """Each has what the other sent (ours sends 1000 bytes more), and nothing went wrong."""
    assert (near["error"], far["error"]) == (None, None)
    assert (near["received"], far["received"]) == (2 * MIB + 1000, 2 * MIB + 2000)
    assert near["received_digest"] == far["sent_digest"]
    assert far["received_digest"] == near["sent_digest"]
    assert bad_counters(near["counters"]) == {}


@pytest.mark.row("A2", "A5", kernel=True)
def test_the_kernel_announces_a_port() -> None:
    """Its second address is told with a port, and there our join goes."""
    with lab(4, 4) as network:
        second = network.far_address(2)
        network.far.add_mptcp_endpoint(second, flags=("signal",), port=OTHER_PORT)
        before = network.far.counters()
        near, far = play(network, OURS, THEIRS, we_connect=True)
        after = network.far.counters()
    check(near, far)
    remotes = {(flow[1], flow[2]) for flow in near["flows"]}
    assert (second, OTHER_PORT) in remotes
    joined = after["MPTcpExtMPJoinPortAckRx"] - before["MPTcpExtMPJoinPortAckRx"]
    assert joined == 1


@pytest.mark.row("A2", "A5", kernel=True)
@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_we_announce_a_port(family: int) -> None:
    """The kernel joins at the port we have told; with IPv6 the option leaves no room beside
    timestamps (RFC 8684 §3.4.1: 30 bytes)."""
    with lab(family, family) as network:
        before = network.far.counters()
        near, far = play(
            network, OURS, THEIRS, we_connect=False, config={"announce_port": OTHER_PORT}
        )
        after = network.far.counters()
        second = network.near_address(2)
    check(near, far)
    assert {flow[0] for flow in near["flows"]} == {network.near_address(1), second}
    assert after["MPTcpExtPortAdd"] - before["MPTcpExtPortAdd"] >= 1
    ports = {(flow["local"], flow["local_port"]) for flow in near["info"]["subflows"]}
    assert (second, OTHER_PORT) in ports


@pytest.mark.row("A8", kernel=True)
@WHO
def test_the_kernel_loses_an_address_mid_transfer(we_connect: bool) -> None:
    """Its endpoint is deleted while both paths carry data: REMOVE_ADDR; all bytes arrive."""
    script: Script = [["exchange", 6 * MIB]]
    with lab(4, 4, emulated=(SLOW, SLOW)) as network, contextlib.ExitStack() as stack:
        flags = ("signal",) if we_connect else ("subflow",)
        network.far.add_mptcp_endpoint(network.far_address(2), flags=flags, endpoint_id=9)
        if we_connect:
            peer = stack.enter_context(network.kernel("server", script))
            node = stack.enter_context(network.node("client", script))
        else:
            alone = {"announce_addresses": False}
            node = stack.enter_context(network.node("server", script, config=alone))
            peer = stack.enter_context(network.kernel("client", script))
        deadline = time.monotonic() + 20
        # What we send to an address of another path leaves by the path of our own.
        while max(network.bytes_on_wires()[1]) < MIB // 2:
            assert time.monotonic() < deadline, network.bytes_on_wires()
            time.sleep(0.02)
        network.far.delete_mptcp_endpoint(9)
        near = node.result()
        check_bytes(near, peer.result(), 6 * MIB)
    assert near["counters"]["MPTcpExtRmAddr"] >= 1
    assert min(carried for _, _, _, *both in near["flows"] for carried in both) > 0
    assert bad_counters(near["counters"]) == {}


@pytest.mark.row("A8", kernel=True)
@WHO
def test_we_lose_an_address_mid_transfer(we_connect: bool) -> None:
    """Our interface goes while both paths carry data: the kernel hears REMOVE_ADDR, whether the
    address was announced by ADD_ADDR or by an MP_JOIN from it; all bytes arrive."""
    size = 6 * MIB
    ours: Script = [["trade", 1000], ["subflows", 2], ["lose", "t2", MIB], ["exchange", size]]
    theirs: Script = [["trade", 1000], ["exchange", size]]
    with lab(4, 4, emulated=(SLOW, SLOW)) as network:
        if we_connect:
            network.signal_far_addresses()
        before = network.far.counters()
        near, far = play(network, ours, theirs, we_connect=we_connect)
        after = network.far.counters()
    check_bytes(near, far, size + 1000)
    assert "INTERFACE_LOST" in near["closed"]
    assert near["counters"]["MPTcpExtRmAddrTx"] == 1
    assert after["MPTcpExtRmAddr"] - before["MPTcpExtRmAddr"] == 1
    assert bad_counters(near["counters"]) == {}


def test_the_kernels_full_mesh() -> None:
    """Its endpoints with the flag `fullmesh`: from each address to each of ours, four subflows."""
    ours: Script = [["trade", 1000], ["subflows", 4], ["send", 1000], ["exchange", 2 * MIB]]
    with lab(4, 4) as network:
        for path in (1, 2):
            network.far.add_mptcp_endpoint(
                network.far_address(path), flags=("subflow", "fullmesh"), endpoint_id=path
            )
        near, far = play(network, ours, THEIRS, we_connect=False)
    check(near, far)
    pairs = {(flow["local"], flow["remote"]) for flow in near["info"]["subflows"]}
    assert len(pairs) == 4
    assert far["subflows"] == 4
