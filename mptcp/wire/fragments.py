"""Reassembly of IP fragments, IPv4 (RFC 791 §3.2) and IPv6 (RFC 8200 §4.5), bounded in memory.

TCP avoids fragments (DF set, path MTU discovery), so this serves what middleboxes do to packets on
their way. Rules:

- Overlapping fragments condemn the datagram, all of it, with the fragments still to come
  (RFC 5722 §4 for IPv6). The same is done for IPv4, where RFC 791 would let the later one win: no
  honest sender overlaps, and the ambiguity is a known way past firewalls. An exact copy of a
  fragment is not an overlap (RFC 8200 §4.5) but the network's duplicate, and is ignored.
- A condemned datagram is remembered until its time is up, so that the rest of it falls too.
- What strangers can make us store is bounded in bytes, overhead included, and in datagrams;
  beyond, the oldest datagram is given up. Times are microseconds of a monotonic clock.
"""

from typing import Final

from mptcp.wire.checksum import ones_sum
from mptcp.wire.ip import IpHeader

_OVERHEAD: Final = 128
"""Charged for each fragment and each datagram besides its bytes: what the objects take, roughly."""

_MAX_DATAGRAM: Final = 65535
_MAX_FRAGMENTS: Final = 256
"""In one datagram, since each new one is compared with all; 64 KiB in 576-byte packets need 119."""

_NOT_ECT: Final = 0
_CE: Final = 3


class _Datagram:
    """The fragments of one datagram so far."""

    __slots__ = ("charge", "condemned", "deadline", "ecn", "first", "parts", "received", "total")

    def __init__(self, deadline: int) -> None:
        self.deadline = deadline
        self.parts: dict[int, bytes] = {}
        """Data by offset; disjoint."""
        self.received = 0
        self.total: int | None = None
        """Length of the data, known from the last fragment."""
        self.first: tuple[bytes, int, int] | None = None
        """Of the fragment at 0: the header to repeat, where its next-header byte is, its value."""
        self.ecn = 0
        """A bit for each ECN codepoint seen."""
        self.charge = _OVERHEAD
        self.condemned = False


class Reassembler:
    """Collects fragments until a datagram is complete.

    `max_bytes` and `max_datagrams` bound what is kept, `timeout_us` how long (RFC 8200 §4.5 says 60
    seconds; 30 are what Linux gives IPv4). Counters: `reassembled`; datagrams given up because they
    `timed_out`, `overlapped`, were `malformed` or had to be `evicted` for others.
    """

    def __init__(
        self,
        max_bytes: int = 262_144,
        max_datagrams: int = 64,
        timeout_us: int = 30_000_000,
    ) -> None:
        """Make an empty one; ValueError unless the bounds are at least 1."""
        if max_bytes < 1 or max_datagrams < 1:
            raise ValueError("a bound below 1")
        self._max_bytes = max_bytes
        self._max_datagrams = max_datagrams
        self._timeout_us = timeout_us
        # In the order of arrival, so of deadlines too.
        self._datagrams: dict[tuple[bytes, bytes, int, int], _Datagram] = {}
        self.bytes_held = 0
        """What is charged against `max_bytes` now."""
        self.reassembled = 0
        self.timed_out = 0
        self.overlapped = 0
        self.malformed = 0
        self.evicted = 0

    def add(self, now: int, packet: memoryview, ip: IpHeader) -> bytes | None:
        """Take a fragment (`ip.is_fragment`); return the datagram it completes, as one packet.

        The packet has the header of the first fragment without the fragmentation, IPv4 checksum
        made anew. The bytes taken are copied. Also forgets what has expired.
        """
        self.expire(now)
        # RFC 8200 §4.5: in IPv6 addresses and identification identify the datagram; the next header
        # is that of the first fragment. In IPv4 the protocol takes part (RFC 791 §3.2).
        key = (ip.src, ip.dst, ip.identification, ip.protocol if ip.version == 4 else -1)
        datagram = self._datagrams.get(key)
        if datagram is None:
            datagram = _Datagram(now + self._timeout_us)
            self._datagrams[key] = datagram
            self.bytes_held += datagram.charge
            if len(self._datagrams) > self._max_datagrams:
                self._evict_oldest()
        if datagram.condemned:
            return None

        start = ip.fragment_offset
        data = bytes(packet[ip.fragment_data_offset : ip.end])
        end = start + len(data)
        if (
            not data
            or (ip.more_fragments and len(data) & 7)
            or ip.fragment_header_offset + end > _MAX_DATAGRAM
            or len(datagram.parts) == _MAX_FRAGMENTS
        ):
            # RFC 8200 §4.5: discard the fragment; the datagram can then never be complete.
            self.malformed += 1
            self._condemn(datagram)
            return None
        if datagram.parts.get(start) == data and ip.more_fragments == (end != datagram.total):
            return None
        if self._overlaps(datagram, start, end, ip.more_fragments):
            self.overlapped += 1
            self._condemn(datagram)
            return None

        if not ip.more_fragments:
            datagram.total = end
        if start == 0:
            datagram.first = (
                bytes(packet[: ip.fragment_header_offset]),
                ip.fragment_next_header_at,
                ip.protocol,
            )
            self._charge(datagram, ip.fragment_header_offset)
        datagram.parts[start] = data
        datagram.received += len(data)
        datagram.ecn |= 1 << (ip.tos & 3)
        self._charge(datagram, len(data) + _OVERHEAD)
        if datagram.received == datagram.total and datagram.first is not None:
            if datagram.ecn >> _CE & 1 and datagram.ecn >> _NOT_ECT & 1:
                # RFC 3168 §5.3: a mark must not be lost, nor be given to a packet that is not ECT.
                self.malformed += 1
                self._condemn(datagram)
                return None
            self._forget(key)
            self.reassembled += 1
            return _join(datagram.first, datagram, ip.version)
        while self.bytes_held > self._max_bytes:
            self._evict_oldest()
        return None

    def next_deadline(self) -> int | None:
        """Return when `expire` will next have something to do; None when nothing is held."""
        for datagram in self._datagrams.values():
            return datagram.deadline
        return None

    def expire(self, now: int) -> None:
        """Forget the datagrams whose time is up; calling it early or often does nothing.

        A simulated router would send time exceeded (code 1) here; a host may be silent.
        """
        while self._datagrams:
            key = next(iter(self._datagrams))
            datagram = self._datagrams[key]
            if datagram.deadline > now:
                return
            self._forget(key)
            if not datagram.condemned:
                self.timed_out += 1

    def __len__(self) -> int:
        """Return how many datagrams are held, condemned ones included."""
        return len(self._datagrams)

    @staticmethod
    def _overlaps(datagram: _Datagram, start: int, end: int, more: bool) -> bool:
        """Tell whether the data in [start, end) contradicts what has come before."""
        total = datagram.total
        if total is not None and (end > total or not more):
            return True
        for other, data in datagram.parts.items():
            if start < other + len(data) and other < end:
                return True
            if not more and other >= end:
                return True
        return False

    def _charge(self, datagram: _Datagram, amount: int) -> None:
        datagram.charge += amount
        self.bytes_held += amount

    def _condemn(self, datagram: _Datagram) -> None:
        self._charge(datagram, _OVERHEAD - datagram.charge)
        datagram.parts.clear()
        datagram.first = None
        datagram.condemned = True

    def _forget(self, key: tuple[bytes, bytes, int, int]) -> None:
        self.bytes_held -= self._datagrams.pop(key).charge

    def _evict_oldest(self) -> None:
        self._forget(next(iter(self._datagrams)))
        self.evicted += 1


def _join(first: tuple[bytes, int, int], datagram: _Datagram, version: int) -> bytes:
    """Return the datagram as one packet without fragmentation."""
    header = bytearray(first[0])
    data = b"".join([datagram.parts[offset] for offset in sorted(datagram.parts)])
    congestion = datagram.ecn >> _CE & 1
    if version == 4:
        if congestion:
            header[1] |= _CE
        header[2:4] = (len(header) + len(data)).to_bytes(2, "big")
        header[6:8] = b"\0\0"
        header[10:12] = b"\0\0"
        header[10:12] = (-ones_sum(header) % 0xFFFF).to_bytes(2, "big")
    else:
        if congestion:
            header[1] |= _CE << 4
        header[4:6] = (len(header) - 40 + len(data)).to_bytes(2, "big")
        header[first[1]] = first[2]
    return bytes(header) + data
