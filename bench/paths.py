"""A path of the TCP measurements: the same description for the simulator and for the emulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mptcp.tun.linkem import LinkChange

MBIT: Final = 1_000_000
_LEAST_QUEUE_PACKETS: Final = 32


@dataclass(frozen=True, slots=True)
class Cell:
    """One path: rate, RTT without queueing, loss and reordering of the data's direction."""

    rate_bps: int
    rtt_us: int
    loss: float = 0.0
    """Of each packet on its own, 0 to 1."""
    reorder: float = 0.0
    """The share of packets that are held back and overtaken, 0 to 1."""
    mtu: int = 1500
    jitter_us: int = 0
    """Extra delay of each packet, uniform from 0 to this, in order."""

    @property
    def key(self) -> str:
        """Short name: loss and reordering in percent, RTT in ms."""
        extra = f"-reorder{100 * self.reorder:g}" if self.reorder else ""
        return f"loss{100 * self.loss:g}-rtt{self.rtt_us // 1000}{extra}"

    @property
    def label(self) -> str:
        """What people read."""
        extra = f", {100 * self.reorder:g} % reordered" if self.reorder else ""
        return f"{100 * self.loss:g} % loss, {self.rtt_us // 1000} ms{extra}"

    @property
    def queue_bytes(self) -> int:
        """One bandwidth-delay product, at least 32 packets."""
        product = self.rate_bps * self.rtt_us // 8_000_000
        return max(product, _LEAST_QUEUE_PACKETS * self.mtu)

    @property
    def reorder_us(self) -> int:
        """How long a packet is held back: an eighth of the RTT, at least 1 ms.

        Less than the quarter that RACK waits for by itself (RFC 8985 §6.2 step 4), so that
        reordering need not cost anything.
        """
        return max(self.rtt_us // 8, 1000)


def forward_change(cell: Cell) -> LinkChange:
    """What makes a plain link the cell's, in the direction of the data."""
    jitter = cell.jitter_us or None
    if cell.reorder:
        return LinkChange(
            loss=cell.loss,
            reorder=cell.reorder,
            reorder_us=cell.reorder_us,
            jitter_us=jitter,
        )
    return LinkChange(loss=cell.loss, jitter_us=jitter)
