"""What the two ends of an interop test have in common: the bytes, the steps, the lines they print.

A program (`node.py` on this stack, `kernel_peer.py` on the kernel's) gets one JSON object as its
argument and prints one JSON object a line: `{"event": "ready", …}` when it listens, `{"event":
"gate"}` when it waits for a line on its standard input, `{"event": "done", …}` at its end.

A script is a list of steps, each a list of a name and arguments:

    ["exchange", n]  send n bytes and end the sending, while receiving up to the peer's end
    ["trade", n]     send n bytes while receiving n; nothing ends
    ["send", n]  ["receive", n]  ["eof"]  ["until_eof"]
    ["gate"]         print a line, wait for one
    ["subflows", n]  wait until that many have been established (nodes only)
    ["backup", address, flag]  ask for subflows from there to be backups (nodes only)
    ["lose", name, n]  lose that interface once n bytes have come (nodes only)
    ["abort"]        RST (the kernel: SO_LINGER 0)
    ["error"]        wait until the connection fails

An OSError ends the script and is reported by its class; the sums so far are reported always.
"""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from typing import Any, Final, Protocol

Script = list[list[Any]]

CHUNK: Final = 256 << 10
SAMPLE: Final = 512 << 10
"""Bytes received between two looks at the state of the connection."""


class Digest(Protocol):
    """The part of hashlib's objects that is used here."""

    def update(self, data: Any, /) -> None: ...
    def hexdigest(self) -> str: ...


class Crc32:
    """A digest that keeps up with gigabytes; it sees any loss, repetition or swap of bytes."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: Any, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def make_digest(name: str) -> Digest:
    """`sha256` or `crc32`."""
    return Crc32() if name == "crc32" else hashlib.sha256()


class Source:
    """The bytes that one end sends: random, from a seed, repeated after `period` bytes.

    A period that divides no power of two makes bytes that are 4 GiB apart differ.
    """

    def __init__(self, seed: int, period: int, digest: Digest) -> None:
        self._block = memoryview(random.Random(seed).randbytes(period))
        self._offset = 0
        self._digest = digest
        self.sent = 0

    def take(self, limit: int) -> memoryview:
        """The next bytes, at least 1 and at most `limit` and CHUNK; they count as sent."""
        start = self._offset
        piece = self._block[start : start + min(limit, CHUNK)]
        self._offset = (start + len(piece)) % len(self._block)
        self._digest.update(piece)
        self.sent += len(piece)
        return piece


class Sink:
    """What one end has received: its size and its digest."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self.received = 0
        self._sampled = 0

    def put(self, data: bytes | memoryview) -> bool:
        """Count `data`; True now and then, when it is time to look at the connection."""
        self._digest.update(data)
        self.received += len(data)
        if self.received - self._sampled >= SAMPLE:
            self._sampled = self.received
            return True
        return False


class Ledger:
    """Source, sink and outcome of one end."""

    def __init__(self, spec: dict[str, Any]) -> None:
        name = spec.get("digest", "sha256")
        self._sent = make_digest(name)
        self._received = make_digest(name)
        self.source = Source(spec["seed"], spec["period"], self._sent)
        self.sink = Sink(self._received)
        self.error: str | None = None

    def result(self) -> dict[str, Any]:
        """The part of the report that both kinds of ends share."""
        return {
            "sent": self.source.sent,
            "sent_digest": self._sent.hexdigest(),
            "received": self.sink.received,
            "received_digest": self._received.hexdigest(),
            "error": self.error,
        }


def defaults_for(seed: int) -> dict[str, Any]:
    """The part of a specification that a `Ledger` needs."""
    return {"seed": seed, "period": 1 << 20}


def say(event: str, **values: Any) -> None:
    """Print a line for the test."""
    print(json.dumps({"event": event, **values}), flush=True)
