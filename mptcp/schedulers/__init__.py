"""The schedulers that come with the stack, by name; `minrtt` is in `mptcp.scheduler`.

| name | what the next chunk goes to |
|---|---|
| `timedistance` | the ready subflow of the lowest RTT; none too slow for the end (thesis §4.3.6) |
| `minrtt` | the ready subflow of the lowest RTT, always (Linux's old default) |
| `roundrobin` | the ready subflows in turn |
| `weighted` | the ready subflow that lags most behind its share |
| `backup` | the first path; another only when it has failed |
| `overflow` | the first path; the next only while those before it are full |
| `redundant` | every subflow: all of them carry all of the data |
| `lookahead` | as `minrtt`, but a slow path gets what lies further back in the queue (fig. 4.8) |
| `daps` | each path gets the stretch that arrives in order there (Kuhn et al. 2014) |
| `ecf` | the fast path, waited for where that completes earlier (Lim et al. 2017) |
| `blest` | the fast path, waited for where the window would fill (Ferlin et al. 2016) |
| `handover`, `interactive`, `aggregate` | Apple's service types |
"""

from mptcp.schedulers import (
    blest,
    daps,
    ecf,
    lookahead,
    redundant,
    services,
    spare,
    timedistance,
    turns,
)

__all__ = [
    "blest",
    "daps",
    "ecf",
    "lookahead",
    "redundant",
    "services",
    "spare",
    "timedistance",
    "turns",
]
