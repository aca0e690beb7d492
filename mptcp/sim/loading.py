"""Policies of one's own, from files: what goes wrong in them, in a line that tells where."""

from __future__ import annotations

import ast
import runpy
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mptcp.config import Config
from mptcp.heuristics import heuristics
from mptcp.path_manager.base import path_managers
from mptcp.registry import Registry
from mptcp.reorder import reorder_queues
from mptcp.retransmission import policies as retransmissions
from mptcp.scheduler import schedulers
from mptcp.tcp.congestion import controllers

_NAMED: dict[str, Registry[Any]] = {
    "scheduler": schedulers,
    "congestion_control": controllers,
    "path_manager": path_managers,
    "reorder": reorder_queues,
    "retransmission": retransmissions,
}
"""By field of `Config`."""


class Refused(Exception):
    """What was asked for cannot be: one line says why."""


def load(file: str) -> None:
    """Run `file`, so that it registers what it has. Raises `Refused`: where, and what is wrong."""
    if not Path(file).is_file():
        raise Refused(f"--load {file}: it is no file")
    try:
        runpy.run_path(file, run_name="loaded")
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno else ""
        why = f"{type(error).__name__}: {error.msg}"
        raise Refused(f"{error.filename or file}{line}: {why}") from None
    except (Exception, SystemExit) as error:
        raise Refused(f"{_own_line(error, [file]) or file}: {_what(error)}") from None


def blame(error: Exception, files: Iterable[str], config: Config) -> str | None:
    """Where in `files`, or in another package's policy, what went wrong in a run has its cause, and
    what it is. None: it is no fault of a policy that is not the stack's own."""
    files = list(files)
    own = [kind for kind in _registered() if _foreign(kind)]
    modules = (sys.modules.get(kind.__module__) for kind in own)
    beside = [file for module in modules if (file := getattr(module, "__file__", None))]
    place = _own_line(error, [*files, *beside])
    if place is None and isinstance(error, NotImplementedError):
        place = _without_method(error, files + beside, config)
    elif place is None and isinstance(error, TypeError):
        place = _misfit(str(error), files + beside, own)
    return None if place is None else f"{place}: {_what(error)}"


def _what(error: BaseException) -> str:
    return ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))


def _own_line(error: BaseException, files: Iterable[str]) -> str | None:
    """The innermost line of `files` that the error passed."""
    own = {Path(file).resolve(): file for file in files}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = own.get(Path(frame.filename).resolve())
        if file is not None:
            return f"{file}:{frame.lineno}"
    return None


def _without_method(error: Exception, files: Iterable[str], config: Config) -> str | None:
    """The class that was chosen and has not what its base class leaves open."""
    method = traceback.extract_tb(error.__traceback__)[-1].name
    for field, registry in _NAMED.items():
        kind = registry.get(getattr(config, field))
        if isinstance(kind, type) and _foreign(kind):
            has = next((base for base in kind.__mro__ if method in vars(base)), None)
            if has is not None and not _foreign(has) and (place := _class_line(kind, files)):
                return f"{place}: {kind.__name__} has no {method}()"
    return None


def _misfit(text: str, files: Iterable[str], own: Iterable[type]) -> str | None:
    """The method that cannot be called with what the stack gives it, which Python names first."""
    called = text.partition("(")[0]
    for kind in own:
        if called == kind.__qualname__ or called.startswith(f"{kind.__qualname__}."):
            method = vars(kind).get(called.rpartition(".")[2])
            code = getattr(method, "__code__", None)
            if code is not None:
                return f"{code.co_filename}:{code.co_firstlineno}"
            return _class_line(kind, files)
    return None


def _class_line(kind: type, files: Iterable[str]) -> str | None:
    # `inspect` finds no class of a file that was run and is no module.
    for file in files:
        try:
            tree = ast.parse(Path(file).read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue  # compiled
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
                return f"{file}:{node.lineno}"
    return None


def _registered() -> list[type]:
    """Every class in the registries."""
    every = (*_NAMED.values(), heuristics)
    kinds = (registry.get(name) for registry in every for name in registry.names())
    return [kind for kind in kinds if isinstance(kind, type)]


def _foreign(kind: type) -> bool:
    return kind.__module__.partition(".")[0] != "mptcp"
