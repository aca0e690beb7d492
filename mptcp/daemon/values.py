"""Texts of the configuration file that stand for something: times, endpoints, file modes.

Each parser raises ValueError with one line: what is wrong; how to mend it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final, NamedTuple

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|µs|ms|s|min)")
_UNITS: Final = {"us": 1, "µs": 1, "ms": 1_000, "s": 1_000_000, "min": 60_000_000}
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})")


class Endpoint(NamedTuple):
    """A host (address or name) and a TCP port (1 to 65535)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_duration(value: Any) -> int:
    """Microseconds from "200ms", "1.5 s", "2min", "40us", or from a whole number of them."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"{value} is negative; a time is 0 or more microseconds")
        return value
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            f'{show(value)} is no time; write e.g. "200ms", "1.5s", "2min" or whole microseconds'
        )
    return round(float(found[1]) * _UNITS[found[2]])


def format_duration(microseconds: int) -> str:
    """The shortest exact text that `parse_duration` reads back."""
    for unit in ("min", "s", "ms"):
        if microseconds and microseconds % _UNITS[unit] == 0:
            return f"{microseconds // _UNITS[unit]}{unit}"
    return f"{microseconds}us"


def parse_endpoint(value: Any) -> Endpoint:
    """An Endpoint from "host:port", IPv6 addresses in brackets: "[fd00::1]:80"."""
    if not isinstance(value, str):
        raise ValueError(f'{show(value)} is no endpoint; write e.g. "127.0.0.1:8080"')
    host, colon, port = value.rpartition(":")
    if not colon or not host:
        raise ValueError(f'{show(value)} lacks host or port; write e.g. "127.0.0.1:8080"')
    if host.startswith("[") and host.endswith("]"):
        host = str(parse_address(host[1:-1]))
    elif ":" in host:
        raise ValueError(f'{show(value)} is ambiguous; put IPv6 in brackets, e.g. "[fd00::1]:8080"')
    elif re.fullmatch(r"[\d.]+", host):
        host = str(parse_address(host))
    elif _HOST_NAME.fullmatch(host) is None:
        raise ValueError(f"{show(host)} is neither an address nor a host name; check its spelling")
    if not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 65535:
        raise ValueError(f"port {show(port)} is out of range; use 1 to 65535")
    return Endpoint(host, int(port))


def parse_address(value: Any) -> str:
    """An IP address in its usual form."""
    if not isinstance(value, str):
        raise ValueError(f'{show(value)} is no address; write e.g. "10.9.1.2"')
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(
            f'{show(value)} is no IP address; write e.g. "10.9.1.2" or "fd00::2"'
        ) from None


def parse_route(value: Any) -> str:
    """A prefix such as "10.0.0.0/8", host bits cleared."""
    try:
        if not isinstance(value, str):
            raise ValueError
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise ValueError(f'{show(value)} is no prefix; write e.g. "10.0.0.0/8" or "::/0"') from None


def parse_mode(value: Any) -> int:
    """Permission bits from "0660" (octal in a text) or 0o660."""
    if isinstance(value, str) and re.fullmatch(r"(0o?)?[0-7]{3}", value):
        return int(value[-3:], 8)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
        return value
    # A plain 660 is the likely slip; it is above 0o777, so it cannot pass for a mode.
    decimal = f'"0{value}"' if re.fullmatch("[0-7]{3}", str(value)) else '"0660"'
    raise ValueError(f"{show(value)} is no file mode; write e.g. {decimal}")


def show(value: Any) -> str:
    """`value` as the reader wrote it, more or less, and short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."
