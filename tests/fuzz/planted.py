"""A target with a fault, by which the tests see that faults are found and can be replayed."""

from __future__ import annotations

from mptcp.wire.errors import ParseError
from mptcp.wire.mptcp_options import parse_mptcp_option


def run(data: bytes) -> None:
    """Raises IndexError for some options that parse."""
    try:
        option = parse_mptcp_option(bytes((30, len(data) % 254 + 2)) + data[: len(data) % 254])
    except ParseError:
        return
    if option is not None:
        raise IndexError(f"planted: {type(option).__name__}")
