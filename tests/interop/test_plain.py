"""Peers without MPTCP: plain TCP, never an error (RFC 8684 §3.7), and no second subflow."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import pytest

from tests.interop.lab import lab
from tests.interop.script import Script
from tests.interop.test_transfers import check_bytes

pytestmark = pytest.mark.netns

SIZE: Final = 8 << 20
EXCHANGE: Final[Script] = [["exchange", SIZE]]


@pytest.mark.row("I16", kernel=True)
@pytest.mark.parametrize("enabled", [0, 1], ids=["disabled", "plain-socket"])
@pytest.mark.parametrize("families", [(4, 4), (6, 6)], ids=["v4", "v6"])
@pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])
def test_a_kernel_without_mptcp(families: tuple[int, ...], enabled: int, we_connect: bool) -> None:
    """`net.mptcp.enabled=0` on the peer, and a program there that asks for TCP only."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(lab(*families))
        network.far.sysctl("net.mptcp.enabled", enabled)
        ends: dict[str, Any] = {}
        for role in ("server", "client"):
            if (role == "client") == we_connect:
                ends["ours"] = stack.enter_context(network.node(role, EXCHANGE))
            else:
                ends["theirs"] = stack.enter_context(network.kernel(role, EXCHANGE, protocol="tcp"))
        ours, theirs = ends["ours"].result(), ends["theirs"].result()
        check_bytes(ours, theirs, SIZE)
        info = ours["info"]
        assert info["fallback"]
        assert "MP_CAPABLE" in info["fallback_reason"]
        assert ours["ever"] == 1
        assert "MPTcpExtMPJoinSynTx" not in ours["counters"]


@pytest.mark.row("I16", kernel=True)
@pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])
def test_mptcp_is_off_here(we_connect: bool) -> None:
    """The kernel's MPTCP socket falls back when this stack speaks TCP only."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(lab(4, 4))
        ends: dict[str, Any] = {}
        for role in ("server", "client"):
            if (role == "client") == we_connect:
                ends["ours"] = stack.enter_context(
                    network.node(role, EXCHANGE, config={"mptcp": False})
                )
            else:
                ends["theirs"] = stack.enter_context(network.kernel(role, EXCHANGE))
        ours, theirs = ends["ours"].result(), ends["theirs"].result()
        check_bytes(ours, theirs, SIZE)
        assert (ours["info"]["fallback"], theirs["fallback"]) == (True, True)
        assert ours["ever"] == 1
