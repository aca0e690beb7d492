"""A download by a program that knows only TCP: `fetch.py URL FILE`.

Standard library, kernel sockets, HTTP. It reports what it got as lines of JSON on standard output:
`{"t": µs, "bytes": n}` some twenty times a second, `{"gap": µs, "t": µs}` for each time nothing
came for longer than 50 ms (`t` is when the gap ended), `{"done": n, "t": µs}` last. Times are the
monotonic clock's, which every process of the machine shares.
Exit status 1, with one line on standard error, when the download fails.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
import urllib.parse

SAMPLE_US = 50_000
GAP_US = 50_000
PATIENCE_S = 30.0
READ_SIZE = 1 << 16


def now_us() -> int:
    return time.monotonic_ns() // 1000


def say(**values: int) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def fetch(url: str, path: str) -> None:
    """Download `url` into the file `path`. Raises OSError, http.client.HTTPException."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port or 80, timeout=PATIENCE_S
    )
    last = reported = now_us()
    total = 0
    say(t=last, bytes=0)
    connection.request("GET", parts.path)
    response = connection.getresponse()
    if response.status != 200:
        raise http.client.HTTPException(f"the server answers {response.status} {response.reason}")
    with open(path, "wb") as file:
        # read1: what is there, at most; read() would wait for the whole block and hide the gaps.
        while block := response.read1(READ_SIZE):
            now = now_us()
            total += len(block)
            if now - last >= GAP_US:
                say(gap=now - last, t=now)
            if now - reported >= SAMPLE_US:
                say(t=now, bytes=total)
                reported = now
            last = now
            file.write(block)
    if response.length:
        raise http.client.HTTPException(f"the server stopped {response.length} bytes too early")
    say(t=last, bytes=total)
    say(done=total, t=last)


def main() -> int:
    try:
        fetch(sys.argv[1], sys.argv[2])
    except (OSError, http.client.HTTPException) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
