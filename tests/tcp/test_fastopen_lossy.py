"""Fast Open over links that lose: RFC 7413 §4.2.2, RFC 8684 appendix B: every byte, once, in order.

Two stacks in virtual time; what is lost comes from the seed.
"""

from __future__ import annotations

import random

import pytest

from mptcp.events import Accepted
from mptcp.meta_socket import MetaSocket
from mptcp.sim.network import Simulation


@pytest.mark.parametrize("mptcp", [False, True], ids=["tcp", "mptcp"])
@pytest.mark.parametrize("seed", range(12))
def test_every_byte_once(mptcp: bool, seed: int) -> None:
    """Requests in SYNs, answers before the handshake is complete, half of all packets lost at
    first: what arrives is what was sent."""
    sim = Simulation(seed=seed)
    draw = random.Random(seed)
    client = sim.host("client", mptcp=mptcp, fast_open_retry_us=1_000_000)
    server = sim.host("server", mptcp=mptcp, fast_open=64, syn_cookies="never")
    sim.connect(client, "10.0.0.1/24", server, "10.0.0.2/24", rate_bps=10_000_000, delay_us=20_000)
    accepted: dict[int, MetaSocket] = {}
    received: dict[MetaSocket, bytes] = {}
    answer = draw.randbytes(5000)

    def serve() -> None:
        for event in server.events:
            if isinstance(event, Accepted):
                accepted.setdefault(event.connection.fendpoint.remote_port, event.connection)
        server.events.clear()
        for connection in accepted.values():
            first = connection not in received
            received[connection] = received.get(connection, b"") + connection.recv()
            if first:
                connection.send(answer)
                connection.shutdown()

    server.stack.listen(80)
    taken = client.stack.counters
    for turn in range(5):
        request = draw.randbytes(draw.choice((1, 700, 1400, 4000)))
        # The first brings a cookie, the last shows that nothing of the trouble is left.
        until = sim.now + (0 if turn in (0, 4) else 1_500_000)
        sim.tap = lambda now, host, packet, until=until: now >= until or draw.random() > 0.5
        before = taken["TcpExtTCPFastOpenActive"]
        connection = client.stack.connect("10.0.0.2", 80, data=request, fast_open=True)
        connection.shutdown()
        got = b""

        def done(connection: MetaSocket = connection) -> bool:
            nonlocal got
            serve()
            got += connection.recv()
            peer = accepted.get(connection.fendpoint.local_port)
            return connection.eof and peer is not None and peer.eof

        assert sim.run(120_000_000, until=done), f"seed {seed}, {turn}: nothing more comes"
        assert got == answer
        peer = accepted[connection.fendpoint.local_port]
        assert received[peer] == request
        assert connection.fallback is peer.fallback
        sim.run(20_000_000)
    assert taken["TcpExtTCPFastOpenCookieReqd"] == 1
    assert taken["TcpExtTCPFastOpenActive"] == before + 1
    assert connection.fallback is not mptcp
