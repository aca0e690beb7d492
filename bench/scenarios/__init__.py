"""The scenarios: importing this package registers them all, in the order of `list`."""

from .fairness import Fairness
from .goodput import Goodput
from .micro import Micro
from .middleboxes import Middleboxes
from .simulator import Simulator
from .synflood import SynFlood
from .tcp import Tcp

__all__ = ["Fairness", "Goodput", "Micro", "Middleboxes", "Simulator", "SynFlood", "Tcp"]
