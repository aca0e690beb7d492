"""First inputs, made by code: recorded exchanges of two stacks, and each option in many states.

A recorded exchange is an input whose operations are the very packets that another stack has sent:
a stack under test draws from a seed, so the same packets meet the same keys and numbers again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from fuzz.forge import OPTIONS, Draft
from fuzz.operations import OPERATIONS, TIMES, again, application, clock, icmp, operate, raw
from fuzz.reader import Reader, Writer
from fuzz.states import SERVER_PORT, STATES, scene_in
from mptcp.addressing import parse_prefix
from mptcp.config import Config
from mptcp.events import Connected
from mptcp.meta_socket import MetaSocket
from mptcp.stack import Stack
from mptcp.tcp.host import Interface

NAMES: Final = tuple(name for name, _, _ in STATES)
RAW, CLOCK, CALL, ICMP, AGAIN = map(OPERATIONS.index, (raw, clock, application, icmp, again))
SEND, RECEIVE, SHUTDOWN, CLOSE, ABORT = 0, 2, 4, 5, 6


class Recording:
    """A client stack that talks to the stack under test, operation by operation."""

    def __init__(self, variant: int = 0, **settings: object) -> None:
        self.writer = Writer().u8(NAMES.index("LISTEN"), variant)
        self.scene = scene_in(NAMES.index("LISTEN"), variant)
        config = Config(pacing=False, nodelay=True, **settings)  # type: ignore[arg-type]
        self.client = Stack(config, random.Random(2).randbytes, now=self.scene.wire.now)
        self.scene.wire.tap = self._answer
        ipv6 = self.scene.variant.ipv6
        for number, prefix in enumerate(("fd00::2/64" if ipv6 else "10.0.0.2/24", "10.0.1.2/24")):
            path = Interface(number + 1, f"p{number}", addresses=[parse_prefix(prefix)])
            self.client.interface_up(self.scene.wire.now, path)
        server = "fd00::1" if ipv6 else "10.0.0.1"
        self.connection: MetaSocket = self.client.connect(server, SERVER_PORT)
        self.connected = False
        self.pump()

    def _answer(self, interface: int, packet: bytes) -> None:
        self.client.handle_packet(self.scene.wire.now, interface, memoryview(packet))

    def do(self, *operation: int, data: bytes = b"") -> None:
        """An operation, recorded and done."""
        whole = bytes(operation) + data
        self.writer.raw(whole)
        operate(self.scene, Reader(whole))

    def pump(self) -> None:
        """Carry over what the client has to say, and the answers."""
        while (transmit := self.client.poll_transmit(self.scene.wire.now)) is not None:
            packet = bytes(transmit.packet())
            control = len(packet) >> 8 | (transmit.interface - 1) << 4
            self.do(RAW, control, len(packet) & 255, data=packet)
        while (event := self.client.poll_event()) is not None:
            self.connected |= isinstance(event, Connected)

    def wait(self, microseconds: int) -> None:
        """Let both clocks run."""
        self.do(CLOCK, TIMES.index(microseconds))
        self.client.handle_timeout(self.scene.wire.now)
        self.pump()

    def call(self, which: int, *arguments: int) -> None:
        """A call of the server's application."""
        self.do(CALL, 0, which, *arguments)
        self.pump()

    def talk(self, size: int = 200) -> None:
        """Data both ways, read at both ends."""
        self.connection.send(bytes(size))
        self.pump()
        self.call(SEND, 9)
        self.call(RECEIVE, 15)
        self.connection.recv()
        self.wait(40_000)

    def value(self) -> bytes:
        """The input. Raises AssertionError when the exchange has not come about."""
        assert self.connected
        return self.writer.value()


def recorded() -> Iterator[bytes]:
    """Exchanges from the handshake to the end."""
    settings: tuple[tuple[int, dict[str, object]], ...] = (
        (0, {}),
        (1, {"mptcp": False}),
        (2, {"checksum": True}),
        (32, {}),
        (64, {"mptcp": False}),
        (64, {}),
    )
    for variant, changes in settings:
        for end in ("client", "server", "abort", "lost"):
            recording = Recording(variant, **changes)
            recording.talk()
            recording.wait(40_000)
            recording.wait(40_000)
            recording.talk()
            if end == "client":
                recording.connection.shutdown()
                recording.pump()
            elif end == "abort":
                recording.connection.abort()
                recording.pump()
            elif end == "lost":
                recording.client.interface_down(recording.scene.wire.now, 1)
                recording.pump()
                recording.wait(1_000_000)
            recording.call(SHUTDOWN)
            recording.connection.shutdown()
            recording.pump()
            recording.wait(200_000)
            yield recording.value()


def forged() -> Iterator[bytes]:
    """Each option in each of some states; data, acknowledgements, time and calls in every one."""
    states = ("LISTEN", "SYN-SENT", "ESTABLISHED", "two subflows", "join sent")
    for state in states:
        for number in range(len(OPTIONS)):
            for flags in (0, 6) if state in ("LISTEN", "SYN-SENT") else (0,):
                writer = Writer().u8(NAMES.index(state), 1)
                writer.u8(0, 0, flags, 128, 4, 1, number).raw(bytes(24)).u8(CLOCK, 3)
                yield writer.value()
    for index in range(len(STATES)):
        for variant in (0, 2):
            writer = Writer().u8(index, variant)
            writer.u8(0, 0, 0, 128, 9, 1, 0, 0, 0)  # data with its DSS
            writer.u8(0, 1, 0, 128, 4, 1, 0, 4, 0)  # and with a DATA_FIN
            writer.u8(CALL, 0, SEND, 8, CALL, 0, RECEIVE, 15, CLOCK, 4)
            writer.u8(0, 0, 3, 0, 0)  # FIN
            writer.u8(AGAIN, 3, 0, ICMP, 0, 0, CALL, 0, CLOSE, CLOCK, 6)
            yield writer.value()


def wire_inputs() -> Iterator[bytes]:
    """Packets of a recorded exchange and options as they are, for the parsers."""
    recording = Recording(0)
    packets: list[bytes] = []
    recording.scene.wire.tap = lambda interface, packet: packets.append(packet)
    recording.talk()
    for packet in [*packets[:8], *recording.scene.wire.injected]:
        yield b"\0" + packet[:200]
    scene = scene_in(NAMES.index("two subflows"), 0)
    draft = Draft(scene.first, 1, bytes(100))
    for number, make in enumerate(OPTIONS):
        for fill in (0, 1, 0x3F):
            whole = make(Reader(bytes([fill]) * 40), draft)
            if whole[0] == 30:
                yield b"\x60" + whole[2:]
            yield b"\0" + packets[0][:20] + bytes([number]) + whole


def seeds(name: str) -> list[bytes]:
    """The first inputs of a target."""
    if name == "stack":
        return [*recorded(), *forged()]
    if name == "wire":
        return list(wire_inputs())
    return [b"seed"]
