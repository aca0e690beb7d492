"""Option bombs: forty bytes of anything, on every segment a forger or a peer can send."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mptcp.subflow import Subflow
from mptcp.wire.ip import parse_ip
from mptcp.wire.tcp import ACK, SYN, parse_segment
from tests.attackers.scene import ASK_PORT, SERVER, Scene, forge, segment


def noise(scene: Scene, size: int) -> bytes:
    return scene.random.randbytes(size)


def mixed(scene: Scene, size: int) -> bytes:
    """Kinds and lengths that options have, contents that they do not."""
    block = b""
    while len(block) < size:
        kind = scene.random.choice((0, 1, 2, 3, 4, 5, 6, 14, 19, 28, 29, 34, 69, 253, 254))
        length = scene.random.choice((0, 1, 2, 3, 4, 10, 12, 20, 40))
        block += bytes((kind, length)) + scene.random.randbytes(max(0, length - 2))
    return block[:size]


def experimental(scene: Scene, size: int) -> bytes:
    """MPTCP options of subtypes that nobody has defined (RFC 8684 §8: 0x9 to 0xf)."""
    block = b""
    while len(block) + 4 <= size:
        block += bytes((30, 4, scene.random.randrange(0x90, 0x100), scene.random.getrandbits(8)))
    return block


BOMBS = [
    pytest.param(noise, id="noise"),
    pytest.param(mixed, id="mixed"),
    pytest.param(experimental, id="unknown subtypes"),
    pytest.param(lambda scene, size: b"\x01" * size, id="NOPs"),
    pytest.param(lambda scene, size: bytes((30, 2)) * (size // 2), id="empty MPTCP"),
    pytest.param(lambda scene, size: bytes((254, 2)) * (size // 2), id="many"),
    pytest.param(lambda scene, size: bytes((8, size)) + bytes(size - 2), id="long timestamps"),
    pytest.param(
        lambda scene, size: bytes((5, 26)) + scene.random.randbytes(24) + b"\x01\x01", id="SACK"
    ),
]


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("at_client", [False, True], ids=["at server", "at client"])
def test_on_segments_in_the_window(bomb: Callable[[Scene, int], bytes], at_client: bool) -> None:
    """RFC 9293 §3.1, RFC 7126: options that make no sense cost the option, not the connection."""
    scene = Scene(71, openers=2, size=600_000)

    def make(subflow: Subflow) -> bytes:
        return forge(subflow, ACK, options=[bomb(scene, 28)])

    scene.every(
        1000,
        lambda: [make(subflow) for subflow in scene.subflows(of_client=at_client)],
        at_client=at_client,
    )
    scene.finish()
    assert scene.packets > 300


@pytest.mark.parametrize("bomb", BOMBS)
def test_on_syns(bomb: Callable[[Scene, int], bytes]) -> None:
    """RFC 9293 §3.10.7.2: the same on SYNs, with cookies and without: each is answered by a SYN/ACK
    that says nothing the SYN has not offered, or not at all."""
    scene = Scene(72, openers=2, size=600_000, server={"backlog": 20})
    draw = scene.random.getrandbits
    scene.every(
        1000,
        lambda: [
            segment(
                *(bytes((10, 0, 4, 9)), 1024 + draw(15), SERVER, ASK_PORT, SYN),
                seq=draw(32),
                options=[bomb(scene, 40)],
            )
        ],
    )
    scene.finish()
    for packet in scene.wire.raw:
        view = memoryview(packet)
        seg = parse_segment(view, parse_ip(view), verify_checksum=True)
        assert seg.bad_options == 0
