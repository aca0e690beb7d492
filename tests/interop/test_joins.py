"""Who joins whom: addresses announced, used and withdrawn by the kernel and by us."""

from __future__ import annotations

import contextlib
from typing import Final

import pytest

from mptcp.path_manager import builtin
from tests.interop.driver import Host, drive
from tests.interop.lab import PORT, lab
from tests.interop.script import Script
from tests.interop.test_transfers import bad_counters, check_bytes

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("witnessed")]

MIB: Final = 1 << 20


@pytest.mark.row("A2", "A4", kernel=True)
def test_an_address_that_comes_before_the_first_dss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel announces right after the handshake: the join need not wait for anything else."""
    monkeypatch.setattr(builtin, "GRACE_US", 60_000_000)
    script: Script = [["trade", 1000], ["receive", MIB - 1000], ["until_eof"]]
    with (
        lab(4, 4) as network,
        contextlib.closing(Host(network, MIB)) as ours,
    ):
        network.signal_far_addresses()
        with network.kernel("server", script):
            ours.stack.connect(network.far_address(), PORT)
            drive([ours], lambda: len(ours.subflows) == 2, patience=10.0)


@pytest.mark.row("J1", "J2", "J5", kernel=True)
def test_the_kernel_joins_from_its_second_address() -> None:
    """An endpoint with the flag `subflow`: from there to our first address."""
    ours: Script = [["trade", 1000], ["subflows", 2], ["send", 1000], ["exchange", 4 * MIB]]
    theirs: Script = [["trade", 1000], ["receive", 1000], ["exchange", 4 * MIB]]
    with lab(4, 4) as network:
        network.far.add_mptcp_endpoint(network.far_address(2), flags=("subflow",))
        with (
            network.node("server", ours, config={"announce_addresses": False}) as node,
            network.kernel("client", theirs) as peer,
        ):
            near, far = node.result(), peer.result()
    assert (near["error"], far["error"]) == (None, None)
    assert near["received_digest"] == far["sent_digest"]
    assert far["received_digest"] == near["sent_digest"]
    pairs = {(flow["local"], flow["remote"]) for flow in near["info"]["subflows"]}
    assert pairs == {("10.1.1.2", "10.2.1.2"), ("10.1.1.2", "10.2.2.2")}
    assert bad_counters(near["counters"]) == {}


@pytest.mark.row("A2", "A4", "A5", kernel=True)
def test_full_mesh_to_the_kernel() -> None:
    """Every pair of two addresses each: four subflows, and the kernel counts them alike."""
    ours: Script = [["trade", 1000], ["subflows", 4], ["send", 1000], ["exchange", 4 * MIB]]
    theirs: Script = [["trade", 1000], ["receive", 1000], ["exchange", 4 * MIB]]
    with lab(4, 4) as network:
        network.signal_far_addresses()
        before = network.far.counters()
        with (
            network.kernel("server", theirs) as peer,
            network.node("client", ours, config={"path_manager": "fullmesh"}) as node,
        ):
            near, far = node.result(), peer.result()
        after = network.far.counters()
    assert (near["error"], far["error"]) == (None, None)
    assert near["received_digest"] == far["sent_digest"]
    assert far["received_digest"] == near["sent_digest"]
    assert (near["ever"], far["subflows"]) == (4, 4)
    assert len({(flow["local"], flow["remote"]) for flow in near["info"]["subflows"]}) == 4
    assert bad_counters(near["counters"]) == {}
    assert bad_counters(after, before) == {}


@pytest.mark.row("A8", kernel=True)
@pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])
def test_the_kernel_withdraws_an_address(we_connect: bool) -> None:
    """RFC 8684 §3.4.2: our keep-alive is answered, so the kernel, who withdraws the address, closes
    the subflow itself; the connection goes on over the other."""
    ours: Script = [["trade", 1000], ["subflows", 2], ["gate"], ["exchange", 4 * MIB]]
    theirs: Script = [["trade", 1000], ["gate"], ["exchange", 4 * MIB]]
    with lab(4, 4) as network, contextlib.ExitStack() as stack:
        flags = ("signal",) if we_connect else ("subflow",)
        network.far.add_mptcp_endpoint(network.far_address(2), flags=flags, endpoint_id=9)
        if we_connect:
            peer = stack.enter_context(network.kernel("server", theirs))
            node = stack.enter_context(network.node("client", ours))
        else:
            # Else the kernel would join that one from the same endpoint as well.
            alone = {"announce_addresses": False}
            node = stack.enter_context(network.node("server", ours, config=alone))
            peer = stack.enter_context(network.kernel("client", theirs))
        for program in (node, peer):
            program.expect("gate")
        network.far.delete_mptcp_endpoint(9)
        for program in (node, peer):
            program.go_on()
        near = node.result()
        check_bytes(near, peer.result(), 4 * MIB + 1000)
    assert near["counters"]["MPTcpExtRmAddr"] == 1
    # Our second address may have joined the kernel's first one then, and may end in its own way.
    assert near["closed"][0] == "CLOSED"
    assert bad_counters(near["counters"]) == {}
