"""Jobs in virtual time, spread over the processors; and children that Ctrl-C leaves to us."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C inside takes effect at the end; what is started inside never hears it.

    Ctrl-C reaches the whole group, also a child that has not yet said it does not want it. For the
    main thread only.
    """
    # Blocked for the children, who inherit that. It is not enough for us: numpy's threads take the
    # signal in our stead, and Python raises in the main thread all the same.
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda signum, frame: held.append(signum))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)


def _ignore_interrupts() -> None:
    """In each child of the pool: it is ended, and has nothing to say about it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _numbered(item: tuple[int, Callable[[Job], Result], Job]) -> tuple[int, Result]:
    place, function, job = item
    return place, function(job)


def spread(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    done: Callable[[int], None] = lambda count: None,
) -> list[Result]:
    """`function` of every job, in their order; `done` is told how many there are after each.

    The function stands at the top of a module, and it and the jobs can be pickled. Put the long
    jobs first. What a job raises, this raises; the processes are gone on return, however it ends.
    """
    results: dict[int, Result] = {}
    workers = min(len(jobs), len(os.sched_getaffinity(0)))
    if not workers:
        return []
    items = [(place, function, job) for place, job in enumerate(jobs)]
    with contextlib.ExitStack() as stack:
        # It is started with the first child otherwise, and unblocks SIGINT here for all of them.
        resource_tracker.ensure_running()
        with interrupts_held():
            # Not forked: the terminal's progress bar has a thread here.
            made = multiprocessing.get_context("spawn").Pool(workers, _ignore_interrupts)
            pool = stack.enter_context(made)
        for place, result in pool.imap_unordered(_numbered, items):
            results[place] = result
            done(len(results))
    return [results[place] for place in range(len(jobs))]
