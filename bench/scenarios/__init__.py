"""The scenarios: importing this package registers them all, in the order of `list`."""

from .goodput import Goodput
from .micro import Micro

__all__ = ["Goodput", "Micro"]
