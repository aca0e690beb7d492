"""The text of `Config.heuristics` and what it means.

    rules    name or name:argument, separated by commas: "after-bytes:14600,after-rtts:2"
    table    ports=rules, separated by semicolons: "80=after-bytes:100000; *=at-once"

The port is the service's (the server's); the first entry that fits holds, and a port in no entry
gets `config.DEFAULT_HEURISTICS`. A subflow may be opened as soon as one rule says so; rules that
only close do not count for that, so that with nothing but them paths are used at once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from mptcp.config import DEFAULT_HEURISTICS
from mptcp.heuristics.base import Heuristic, heuristics

_EVERY: Final = "*"


def parse(text: str, port: int) -> list[Heuristic]:
    """New heuristics for a connection to `port`. Raises ValueError that says what is wrong."""
    return [_one(name, argument) for name, argument in _rules_for(text, port)]


def check(text: str) -> None:
    """Raise ValueError if any entry of `text` is not understood or names what nobody has."""
    for _, _, rules in _table(text):
        for name, argument in rules:
            _one(name, argument)


def _one(name: str, argument: str) -> Heuristic:
    factory = heuristics.get(name)
    try:
        return factory(argument)
    except ValueError as error:
        raise ValueError(f"heuristic {name} {error}") from None


def opens_itself(rule: Heuristic) -> bool:
    """Whether a heuristic has a say in opening."""
    return type(rule).opens is not Heuristic.opens


def closes_some(rule: Heuristic) -> bool:
    """Whether a heuristic has a say in closing."""
    return type(rule).closes is not Heuristic.closes


Rules = tuple[tuple[str, str], ...]


@lru_cache(maxsize=64)
def _rules_for(text: str, port: int) -> Rules:
    for low, high, rules in _table(text):
        if low <= port <= high:
            return rules
    return _rules(DEFAULT_HEURISTICS)


@lru_cache(maxsize=64)
def _table(text: str) -> tuple[tuple[int, int, Rules], ...]:
    if "=" not in text:
        return ((0, 65535, _rules(text)),)
    table = []
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        ports, equals, rules = entry.partition("=")
        if not equals:
            raise ValueError(f"heuristics: {entry!r} is not ports=rules")
        low, high = _ports(ports.strip())
        table.append((low, high, _rules(rules)))
    return tuple(table)


def _ports(text: str) -> tuple[int, int]:
    if text == _EVERY:
        return 0, 65535
    first, _, last = text.partition("-")
    try:
        low, high = int(first), int(last or first)
    except ValueError:
        low, high = 0, 0
    if not 1 <= low <= high <= 65535:
        raise ValueError(f"heuristics: {text!r} is not a port, a range such as 1-1023, or *")
    return low, high


def _rules(text: str) -> Rules:
    rules = []
    for rule in text.split(","):
        name, _, argument = rule.strip().partition(":")
        if not name:
            raise ValueError(f"heuristics: {text.strip()!r} names an empty rule")
        rules.append((name.strip(), argument.strip()))
    return tuple(rules)
