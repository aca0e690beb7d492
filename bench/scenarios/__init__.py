"""The scenarios: importing this package registers them all, in the order of `list`."""

from . import goodput, micro

__all__ = ["goodput", "micro"]
