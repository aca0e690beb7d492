"""Middleboxes, in virtual or in real time: NATs, firewalls, proxies and what they do to segments.

The simulator (`Simulation.middlebox`) and the link emulator (`PathSpec.boxes`) use the same
classes; `boxes` has them by name, `box_spec(name, **parameters)` names one in a configuration.
`docs/middleboxes.md` lists them.
"""

from . import nat as _nat
from . import options as _options
from . import proxy as _proxy
from . import resegment as _resegment
from . import sequence as _sequence
from .base import (
    Box,
    BoxSpec,
    Chain,
    FlowTable,
    OneWay,
    box_spec,
    boxes,
    make_box,
    make_chain,
    register,
)
from .packet import TcpPacket

_IMPORTED_FOR_WHAT_THEY_REGISTER = (_nat, _options, _proxy, _resegment, _sequence)

__all__ = [
    "Box",
    "BoxSpec",
    "Chain",
    "FlowTable",
    "OneWay",
    "TcpPacket",
    "box_spec",
    "boxes",
    "make_box",
    "make_chain",
    "register",
]
