"""Policies by name: schedulers, congestion controllers, path managers, retransmission policies,
out-of-order queues, rules for opening and closing subflows.

A policy class registers itself with a decorator; third parties announce theirs as entry points,
which the engine loads (reading package metadata is I/O, so the core never does it by itself).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to factories of one kind of policy."""

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._factories: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator: make the policy available as `name` (the last registration wins)."""

        def decorate(factory: T) -> T:
            self.add(name, factory)
            return factory

        return decorate

    def add(self, name: str, factory: T) -> None:
        """As `register`, without a decorator: mypyc makes a slow class of one that has any."""
        self._factories[name] = factory

    def unregister(self, name: str) -> None:
        """Take a policy away again (tests). Raises KeyError for an unknown name."""
        del self._factories[name]

    def get(self, name: str) -> T:
        """The factory called `name`. Raises ValueError that lists the known names."""
        try:
            return self._factories[name]
        except KeyError:
            known = ", ".join(sorted(self._factories))
            raise ValueError(f"unknown {self.kind} {name!r}: use one of {known}") from None

    def names(self) -> list[str]:
        """Registered names in order."""
        return sorted(self._factories)

    def load_entry_points(self) -> None:
        """Register what installed packages announce under this registry's entry-point group."""
        for point in entry_points(group=self.group):
            if point.name not in self._factories:
                self._factories[point.name] = point.load()
