"""What a scenario is, and the table of all of them.

A scenario is one small class in one file under `scenarios/`, decorated with `@scenario`; importing
`scenarios` fills the table. It gets `Options` and a `Progress` callback and returns a `Report`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from .results import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class BenchError(Exception):
    """A measurement cannot be made: one line that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asked for. None leaves the choice to the scenario."""

    quick: bool = False
    """One short run: does it work, not how fast is it."""
    runs: int | None = None
    """Runs of each case in real time, at least 1."""
    seeds: int | None = None
    """Seeds of each point in virtual time, at least 1; they count from 1."""
    seconds: float | None = None
    """Length of one measurement after its warm-up, more than 0."""
    only: tuple[str, ...] = ()
    """Keys of the cases to run; empty: all."""
    profile: Path | None = None
    """Folder for cProfile statistics of our own processes."""


class Progress(Protocol):
    """Told before each step: what comes, how many steps are done, how many there are."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


class Scenario(Protocol):
    """One measurement that can be asked for by name."""

    name: str
    summary: str
    """One line for `list`."""
    needs_rights: bool
    """Whether it makes network namespaces and TUN devices."""
    source: str
    """The figure that it stands beside, "thesis fig. 5.2"; empty: none, and no part of `report`."""

    def cases(self) -> list[str]:
        """The keys that `--only` may name."""

    def run(self, options: Options, progress: Progress) -> Report:
        """Measure. Raises BenchError, or OSError for a missing right."""


@runtime_checkable
class Draws(Protocol):
    """A scenario that has a picture of its report."""

    def draw(self, report: Report, figure: Figure) -> None:
        """Draw `report`, this run's or one that was read from a file, into an empty figure."""


scenarios: dict[str, Scenario] = {}
"""All scenarios by name, in the order of their registration."""

S = TypeVar("S", bound=Callable[[], Scenario])


def scenario(factory: S) -> S:
    """Class decorator: enter an instance into `scenarios`. Raises ValueError for a taken name."""
    instance = factory()
    if instance.name in scenarios:
        raise ValueError(f"two scenarios are called {instance.name}")
    scenarios[instance.name] = instance
    return factory
