"""5 GiB on one path in each direction: across the 4 GiB wrap of TCP's sequence numbers, and of the
32-bit part of the data sequence numbers.

The bytes are a random block repeated, of a length that divides no power of two: what is 4 GiB apart
differs. They are made and summed on the way, and never stored.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

import pytest

from tests.interop.lab import lab
from tests.interop.script import Script
from tests.interop.test_transfers import bad_counters

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(180)]

SIZE: Final = 5 << 30
SENDS: Final[Script] = [["send", SIZE], ["eof"], ["until_eof"]]
RECEIVES: Final[Script] = [["until_eof"], ["eof"]]
OPTIONS: Final[dict[str, Any]] = {"digest": "crc32", "period": (16 << 20) + 43}
PATIENCE_S: Final = 150.0


@pytest.mark.parametrize("we_send", [True, False], ids=["to-kernel", "from-kernel"])
def test_five_gigabytes(we_send: bool) -> None:
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(lab(4))
        before = network.far.counters()
        server = network.kernel("server", RECEIVES if we_send else SENDS, **OPTIONS)
        theirs = stack.enter_context(server)
        client = network.node("client", SENDS if we_send else RECEIVES, **OPTIONS)
        ours = stack.enter_context(client)
        near, far = ours.result(PATIENCE_S), theirs.result(PATIENCE_S)
        sender, receiver = (near, far) if we_send else (far, near)
        assert (near["error"], far["error"]) == (None, None)
        assert (sender["sent"], receiver["received"]) == (SIZE, SIZE)
        assert receiver["received_digest"] == sender["sent_digest"]
        assert not near["info"]["fallback"]
        assert bad_counters(near["counters"]) == {}
        assert bad_counters(network.far.counters(), before) == {}
