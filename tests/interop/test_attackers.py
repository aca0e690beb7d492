"""Attackers on the road between the kernel and us: scapy's packets at our engine, and a transfer of
the kernel's MPTCP goes on as if nothing was (RFC 8684 §5, RFC 5961, RFC 5927, RFC 4987)."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import pytest

from tests.interop.lab import PORT, Program, lab
from tests.interop.script import Script
from tests.interop.test_transfers import check_bytes

pytestmark = pytest.mark.netns

SIZE: Final = 48 << 20

BLIND: Final = {
    "syn": "TcpOutRsts",
    "join": "MPTcpExtMPJoinNoTokenFound",
    "blind_reset": "",
    "blind_syn": "TcpExtTCPSYNChallenge",
    "blind_close": "",
    "blind_error": "TcpExtOutOfWindowIcmps",
}
"""Attacks of those who see nothing, and the counter that tells of each; those that are dropped
without a word have none."""
READING: Final = {
    "window_reset": "TcpExtTCPChallengeACK",
    "close": "",
    "address": "MPTcpExtAddAddrHMacFailure",
    "data_ack": "MPTcpExtInvalidDataAck",
    "bomb": "",
    "error": "",
}
"""Of those who read along on the path."""


@pytest.mark.row("I1", "A3", kernel=True)
@pytest.mark.parametrize("attacks", [BLIND, READING], ids=["blind", "reading along"])
@pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])
def test_a_transfer_beside_an_attacker(attacks: dict[str, str], we_connect: bool) -> None:
    """The digests are equal, the connection is MPTCP to its end, and counters tell of it."""
    script: Script = [["trade", 1000], ["gate"], ["exchange", SIZE]]
    with lab(4, 4) as network, contextlib.ExitStack() as stack:
        network.near.sysctl("net.ipv4.conf.all.rp_filter", 0)
        network.near.sysctl("net.ipv4.conf.default.rp_filter", 0)
        network.signal_far_addresses()
        spec = {
            "attacks": list(attacks),
            "host": network.near_address(),
            "port": PORT,
            "peer": network.far_address(),
            "wire": "v1",
        }
        attacker = stack.enter_context(contextlib.closing(Program(network.near, "attacker", spec)))
        attacker.expect("ready")
        fields: dict[str, Any] = {"backlog": 8}
        options: dict[str, Any] = {"config": fields}
        if we_connect:
            peer = stack.enter_context(network.kernel("server", script))
            node = stack.enter_context(network.node("client", script, **options))
        else:
            node = stack.enter_context(network.node("server", script, **options))
            peer = stack.enter_context(network.kernel("client", script))
        for program in (node, peer):
            program.expect("gate")
        attacker.expect("attacking")  # some rounds while nobody moves, and the numbers stand still
        for program in (node, peer):
            program.go_on()
        near, far = node.result(), peer.result()
        attacker.go_on()
        sent = attacker.result()["sent"]
    check_bytes(near, far, SIZE + 1000)
    assert not near["info"]["fallback"]
    assert far["fallback"] is False
    assert all(sent[name] for name in attacks)
    for name, counter in attacks.items():
        if counter:
            assert near["counters"].get(counter, 0) > 0, f"{name}: {near['counters']}"
