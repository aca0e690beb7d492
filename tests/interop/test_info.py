"""What we tell of a connection agrees with what the kernel tells of the other end of it.

Asked at both ends while the connection is open and nothing is on its way: `connection.info()` and
`Stack.mib()` here; there `getsockopt(MPTCP_INFO)` (`ss -M` may be too old for the kernel and leave
out half of it), `ss -Mi`, `ss -ti` and `nstat`.

What cannot be compared, and why: segments (a device merges them, and each end counts what it sees),
RTTs and windows (each end has its own), retransmissions (a segment that came twice was sent twice,
but one that was lost is counted by its sender alone: there are none on this network without loss,
but a busy machine may delay an ACK beyond a time-out, so what was received twice must have been
sent again, not the reverse).
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import Any, Final

import pytest

from mptcp.tun.netns import Namespace
from tests.interop.lab import lab
from tests.interop.script import Script

pytestmark = pytest.mark.netns

SIZE: Final = 1 << 20
SETTLED_S: Final = 0.5
"""The last ACKs may be delayed."""
PEER_OF: Final = {
    "MPTcpExtMPCapableSYNTX": "MPTcpExtMPCapableSYNRX",
    "MPTcpExtMPJoinSynTx": "MPTcpExtMPJoinSynRx",
    "MPTcpExtAddAddrTx": "MPTcpExtAddAddr",
    "MPTcpExtEchoAddTx": "MPTcpExtEchoAdd",
    "MPTcpExtRmAddrTx": "MPTcpExtRmAddr",
    "MPTcpExtMPFailTx": "MPTcpExtMPFailRx",
    "MPTcpExtMPFastcloseTx": "MPTcpExtMPFastcloseRx",
    "MPTcpExtMPPrioTx": "MPTcpExtMPPrioRx",
    "MPTcpExtInfiniteMapTx": "MPTcpExtInfiniteMapRx",
}
"""What one end sends, the other receives: true here, where nothing is lost."""
SAME: Final = ("MPTcpExtMPCurrEstab", "TcpCurrEstab")


def ss(namespace: Namespace, *arguments: str) -> list[str]:
    """What `ss` prints in a namespace: a line for each socket."""
    return namespace.output(["ss", "-H", "-O", "-n", "-i", *arguments]).splitlines()


def figures(text: str) -> dict[str, str]:
    """The `name:value` pairs of one line of ss."""
    return dict(re.findall(r"(\w+):(\S+)", text))


def agree(ours: dict[str, Any], theirs: dict[str, int]) -> None:
    """Two `mptcp_info` of one connection, seen from its two ends."""
    kernel = ours["mptcp_info"]
    # A token is what the peer names us by.
    assert theirs["token"] == ours["remote_token"]
    assert theirs["subflows"] == kernel["subflows"]
    assert theirs["subflows_total"] == kernel["subflows_total"]
    assert theirs["bytes_sent"] == theirs["bytes_acked"] == kernel["bytes_received"] == SIZE
    assert theirs["bytes_received"] == kernel["bytes_sent"] == kernel["bytes_acked"] == SIZE
    # We count data sequence numbers on where those of the wire wrap.
    wrap = 1 << 64
    assert theirs["rcv_nxt"] == kernel["snd_una"] % wrap == kernel["write_seq"] % wrap
    assert theirs["snd_una"] == theirs["write_seq"] == kernel["rcv_nxt"] % wrap
    assert theirs["csum_enabled"] == kernel["csum_enabled"]
    assert theirs["flags"] == kernel["flags"]
    assert theirs["add_addr_signal"] == kernel["add_addr_accepted"]
    assert kernel["add_addr_signal"] == theirs["add_addr_accepted"]


def agree_on_subflow(flow: dict[str, Any], line: str) -> None:
    """A subflow of ours, and what `ss -ti` says of its other end."""
    here = flow["tcp_info"]
    there = figures(line)
    received = int(there["bytes_received"])
    acked = int(there["bytes_acked"])
    resent = int(there.get("bytes_retrans", "0"))
    assert received == here["bytes_acked"] == here["bytes_sent"] - here["bytes_retrans"]
    # The kernel counts the SYN of a subflow that it has opened.
    assert acked - here["bytes_received"] in (0, 1)
    assert int(there["bytes_sent"]) - resent == here["bytes_received"]
    # Options that both ends agreed to.
    assert there["wscale"] == f"{here['rcv_wscale']},{here['snd_wscale']}"
    (ids,) = re.findall(r"token:\w+\(id:(\d+)\)/\w+\(id:(\d+)\)", line)
    assert (int(ids[0]), int(ids[1])) == (flow["local_id"], flow["remote_id"])


@pytest.mark.parametrize("we_connect", [True, False], ids=["to-kernel", "from-kernel"])
def test_figures_of_a_transfer_agree(we_connect: bool) -> None:
    """Two subflows, a mebibyte each way, then both ends are asked (issue 4, "To build" 2)."""
    ours: Script = [["trade", 1000], ["subflows", 2], ["trade", SIZE - 1000], ["gate"], ["gate"]]
    theirs: Script = [["trade", 1000], ["trade", SIZE - 1000], ["gate"], ["gate"]]
    alone = {"announce_addresses": False}
    with lab(4, 4) as network, contextlib.ExitStack() as stack:
        before = network.far.counters()
        if we_connect:
            network.signal_far_addresses()
            peer = stack.enter_context(network.kernel("server", theirs))
            node = stack.enter_context(network.node("client", ours))
        else:
            network.far.add_mptcp_endpoint(network.far_address(2), flags=("subflow",))
            node = stack.enter_context(network.node("server", ours, config=alone))
            peer = stack.enter_context(network.kernel("client", theirs))
        for program in (node, peer):
            program.expect("gate")
        time.sleep(SETTLED_S)
        connections = ss(network.far, "-M")
        sockets = ss(network.far, "-t")
        after = network.far.counters()
        for program in (node, peer):
            program.go_on()  # it looks at itself then
            program.expect("gate")
        for program in (node, peer):
            program.go_on()
        report = node.result()
        theirs_at_gate = peer.result()["gates"][0]
    at_gate = report["gates"][0]
    assert (report["error"], at_gate["info"]["fallback"]) == (None, False)
    agree(at_gate["info"], theirs_at_gate)
    (connection,) = [figures(line) for line in connections if line.startswith("ESTAB")]
    assert int(connection["token"], 16) == at_gate["info"]["remote_token"]
    flows = {
        f"{f['remote']}:{f['remote_port']} {f['local']}:{f['local_port']}": f
        for f in at_gate["info"]["subflows"]
    }
    seen = 0
    for line in sockets:
        if line.startswith("ESTAB"):
            ends = re.sub(r"\[::ffff:|\]", "", " ".join(line.split()[3:5]))
            agree_on_subflow(flows[ends], line)
            seen += 1
    assert seen == len(flows) == 2
    here = at_gate["counters"]
    there = {name: after.get(name, 0) - before.get(name, 0) for name in after}
    for tx, rx in PEER_OF.items():
        assert here.get(tx, 0) == there.get(rx, 0), (tx, here.get(tx), there.get(rx))
        assert there.get(tx, 0) == here.get(rx, 0), (rx, here.get(rx), there.get(tx))
    for name in SAME:
        assert here[name] == there[name], name
    assert here["TcpRetransSegs"] >= there.get("TcpExtTCPDSACKOldSent", 0)
