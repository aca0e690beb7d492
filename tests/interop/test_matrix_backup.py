"""Interop matrix: backup subflows, asked for by either side, when joining and later.

RFC 8684 §3.2 (the B flag of MP_JOIN), §3.3.8 (MP_PRIO): whoever is asked sends by that subflow only
while no other works; it says nothing of the other direction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.interop.lab import Lab, lab
from tests.interop.script import Script
from tests.interop.test_transfers import bad_counters, check_bytes

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("witnessed")]

MIB: Final = 1 << 20
FEW: Final = 400_000
"""What may go by a backup, a tenth of all: what either end repeats at the connection's level takes
an idle subflow."""
WHO = pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])


def play(
    network: Lab,
    ours: Script,
    theirs: Script,
    *,
    we_connect: bool,
    meanwhile: Callable[[], object] | None = None,
    **options: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The reports of both ends; `meanwhile` is called while both wait at their gates."""
    with contextlib.ExitStack() as stack:
        if we_connect:
            peer = stack.enter_context(network.kernel("server", theirs))
            node = stack.enter_context(network.node("client", ours, **options))
        else:
            node = stack.enter_context(network.node("server", ours, **options))
            peer = stack.enter_context(network.kernel("client", theirs))
        if meanwhile is not None:
            for program in (node, peer):
                program.expect("gate")
            meanwhile()
            for program in (node, peer):
                program.go_on()
        return node.result(), peer.result()


def carried(report: dict[str, Any], column: int, path: int, *, local: bool) -> int:
    """Bytes sent (column 3) or received (4) by the subflows of a path's address."""
    prefix = f"10.{1 if local else 2}.{path}."
    return sum(
        int(flow[column]) for flow in report["flows"] if flow[0 if local else 1].startswith(prefix)
    )


def mesh_of_two(network: Lab, we_connect: bool, *flags: str) -> None:
    """The kernel's second address gives the second subflow, whoever connects."""
    which = "signal" if we_connect else "subflow"
    network.far.add_mptcp_endpoint(network.far_address(2), flags=(which, *flags), endpoint_id=9)


OURS: Final[Script] = [["trade", 1000], ["subflows", 2], ["gate"], ["exchange", 4 * MIB]]
THEIRS: Final[Script] = [["trade", 1000], ["gate"], ["exchange", 4 * MIB]]
TOTAL: Final = 4 * MIB + 1000


@pytest.mark.row("D17", kernel=True)
@WHO
def test_the_kernel_joins_a_backup(we_connect: bool) -> None:
    """The B flag of its MP_JOIN: we send nothing there while the other works."""
    with lab(4, 4) as network:
        mesh_of_two(network, we_connect, "backup")
        alone = {"announce_addresses": False}
        near, far = play(network, OURS, THEIRS, we_connect=we_connect, meanwhile=int, config=alone)
    check_bytes(near, far, TOTAL)
    assert near["ever"] == 2
    assert [flow["backup"] for flow in near["info"]["subflows"]] == [False, True]
    assert carried(near, 3, 2, local=False) <= FEW
    assert carried(near, 3, 1, local=False) >= TOTAL
    assert bad_counters(near["counters"]) == {}


@pytest.mark.row("D17", kernel=True)
@WHO
def test_the_kernel_says_backup_later(we_connect: bool) -> None:
    """MP_PRIO: the subflow has been a regular one, and is a backup from then on."""
    with lab(4, 4) as network:
        mesh_of_two(network, we_connect)
        change = ["ip", "mptcp", "endpoint", "change", "id", "9", "backup"]
        before = network.far.counters()
        near, far = play(
            network,
            OURS,
            THEIRS,
            we_connect=we_connect,
            meanwhile=lambda: network.far.output(change),
            config={"announce_addresses": False},
        )
        after = network.far.counters()
    check_bytes(near, far, TOTAL)
    assert after["MPTcpExtMPPrioTx"] - before["MPTcpExtMPPrioTx"] >= 1
    assert near["counters"]["MPTcpExtMPPrioRx"] >= 1
    assert carried(near, 3, 2, local=False) <= FEW
    assert bad_counters(near["counters"]) == {}


@pytest.mark.row("D17", kernel=True)
@WHO
def test_we_join_a_backup(we_connect: bool) -> None:
    """The B flag of our MP_JOIN, or of our answer to the kernel's: the kernel keeps off it."""
    with lab(4, 4) as network:
        if we_connect:
            network.signal_far_addresses()
        near, far = play(network, OURS, THEIRS, we_connect=we_connect, meanwhile=int, backup=["t2"])
    check_bytes(near, far, TOTAL)
    assert near["ever"] == 2
    assert carried(near, 4, 2, local=True) <= FEW
    assert bad_counters(near["counters"]) == {}


@pytest.mark.row("D17", kernel=True)
@WHO
def test_we_say_backup_later(we_connect: bool) -> None:
    """Our MP_PRIO for a subflow that has been a regular one."""
    ours = [*OURS[:2], ["backup", "10.1.2.2", True], *OURS[2:]]
    with lab(4, 4) as network:
        if we_connect:
            network.signal_far_addresses()
        before = network.far.counters()
        near, far = play(network, ours, THEIRS, we_connect=we_connect, meanwhile=int)
        after = network.far.counters()
    check_bytes(near, far, TOTAL)
    assert near["counters"]["MPTcpExtMPPrioTx"] == 1
    assert after["MPTcpExtMPPrioRx"] - before["MPTcpExtMPPrioRx"] == 1
    assert carried(near, 4, 2, local=True) <= FEW
    assert bad_counters(near["counters"]) == {}


@pytest.mark.row("D17", kernel=True)
def test_a_backup_carries_on_when_the_other_is_lost() -> None:
    """RFC 8684 §3.3.8: that is what it is for; both directions of both ends."""
    size = 16 * MIB
    ours: Script = [*OURS[:3], ["lose", "t1", MIB], ["exchange", size]]
    theirs: Script = [*THEIRS[:2], ["exchange", size]]
    with lab(4, 4) as network:
        network.signal_far_addresses()
        near, far = play(network, ours, theirs, we_connect=True, meanwhile=int, backup=["t2"])
    check_bytes(near, far, size + 1000)
    assert carried(near, 4, 2, local=True) > MIB
