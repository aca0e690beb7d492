"""One session: connections between two hosts through a hostile network until it has seen enough.

The first connection ends as the scenario says; more follow on the same two stacks, which begin
to end gracefully, until the session has moved `min_bytes` and met `min_events` network events. In
the end the network is calm, and everything must be over and forgotten.
"""

from __future__ import annotations

from itertools import count
from random import Random

from mptcp import keys
from mptcp.addressing import parse_prefix
from mptcp.config import Config
from mptcp.errors import ConnectionEnd
from mptcp.events import Accepted, Event
from mptcp.meta_socket import MetaSocket
from mptcp.stack import Stack
from soak.bounds import Peaks, check
from soak.network import Events, Host, Network
from soak.program import LONGEST, Failure, Program, state, verdict
from soak.scenario import Scenario, Side

MINUTE = 60_000_000
PATIENCE_US = 120 * MINUTE
MAX_CONNECTIONS = 12
PORT = 80


class Result:
    """Figures of a session that held."""

    __slots__ = ("bytes", "connections", "errors", "events", "peaks", "unheard", "virtual_us")

    def __init__(self, events: Events, peaks: Peaks) -> None:
        self.bytes = 0
        """Read by both programs, all connections together."""
        self.connections = 0
        self.errors = 0
        """Connections that ended with an error on either side (abort, early close, loss of an
        interface)."""
        self.unheard = 0
        """Connections over which all was said and heard but the last acknowledgement."""
        self.events = events
        self.peaks = peaks
        self.virtual_us = 0


class Session:
    """Two hosts, and the programs on them."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.dice = Random(scenario.seed + 1)
        hosts = (
            Host("client", self._stack(scenario.client)),
            Host("server", self._stack(scenario.server)),
        )
        self.network = Network(scenario, hosts, Random(scenario.seed))
        for number in range(1, scenario.paths + 1):
            if scenario.ipv6:
                addresses = (f"fd00:0:0:{number}::1/64", f"fd00:0:0:{number}::2/64")
            else:
                addresses = (f"10.0.{number}.1/24", f"10.0.{number}.2/24")
            self.network.add_path(number, (parse_prefix(addresses[0]), parse_prefix(addresses[1])))
        self.result = Result(self.network.events, Peaks())
        self.network.check = self._check
        self.client: Program | None = None
        self.server: Program | None = None
        self.programs: dict[MetaSocket, Program] = {}
        self.lost_interface = False
        hosts[0].on_event = self._client_event
        hosts[1].on_event = self._server_event
        self.listener = hosts[1].stack.listen(PORT)

    def _stack(self, side: Side) -> Stack:
        scenario = self.scenario
        config = Config(
            mptcp=side.mptcp,
            sack=side.sack,
            timestamps=side.timestamps,
            window_scaling=side.window_scaling,
            nodelay=side.nodelay,
            checksum=side.checksum,
            ecn=side.ecn,
            congestion_control=side.congestion_control,
            scheduler=side.scheduler,
            retransmission=side.retransmission,
            reorder=side.reorder,
            heuristics=side.heuristics,
            opportunistic_retransmission=side.repeats,
            repeat_tail=side.repeats,
            receive_buffer=side.receive_buffer,
            send_buffer=side.send_buffer,
            # So that no handshake is given up while one side takes itself as connected.
            syn_retries=10,
            synack_retries=10,
        )
        isn, idsn = scenario.isn, scenario.idsn
        calls = count()
        return Stack(
            config,
            Random(self.dice.getrandbits(48)).randbytes,
            now=1_000_000,
            # One each, as RFC 6528 has it, or what is left of a connection belongs to the next.
            isn=None if isn is None else lambda key: isn - 1009 * next(calls) & 0xFFFFFFFF,
            # Both ends must agree on what follows from a key.
            idsn=None
            if idsn is None
            else lambda key: (keys.idsn(key) & 0xFFF) + idsn & 0xFFFFFFFFFFFFFFFF,
        )

    def _check(self, host: Host) -> None:
        check(host.stack, self.result.peaks)

    # -- events ----------------------------------------------------------------------------------

    def _client_event(self, event: Event) -> None:
        program = self.programs.get(event.connection)
        if program is not None:
            program.on_event(event)

    def _server_event(self, event: Event) -> None:
        if isinstance(event, Accepted):
            client, server = self.client, self.server
            assert client is not None
            assert server is not None
            assert client.connection is not None
            ports = (event.connection.fendpoint.remote_port, client.connection.fendpoint.local_port)
            if server.connection is not None or ports[0] != ports[1]:
                raise Failure(f"a connection nobody opened: {event}, ports {ports}")
            server.connection = event.connection
            client.peer = server
            self.programs[event.connection] = server
        program = self.programs.get(event.connection)
        if program is not None:
            program.on_event(event)

    # -- the run ---------------------------------------------------------------------------------

    def run(self, min_bytes: int, min_events: int) -> Result:
        """Raises `Failure` when a property does not hold."""
        result = self.result
        network = self.network
        scenario = self.scenario
        self._plan_changes()
        while True:
            result.connections += 1
            number = result.connections
            # What is still missing decides how much the later connections carry.
            more = max(
                min_bytes - result.bytes,
                self.scenario.mtu * (min_events - network.events.total),
                1000,
            )
            self._connection(number, more)
            if result.bytes >= min_bytes and network.events.total >= min_events:
                break
            if number == MAX_CONNECTIONS:
                raise Failure(f"{result.bytes} bytes and {network.events.total} events only")
        network.calm_at = network.now
        for path in range(1, scenario.paths + 1):
            for host in network.hosts:
                network.restore_interface(host, path)
                host.ways[path].down = False
        network.run(network.now + 30 * MINUTE, lambda: False)
        for host in network.hosts:
            stack = host.stack
            if stack.connections or stack.metas or stack.tokens or stack.poll_timeout() is not None:
                raise Failure(f"{host.name} keeps {stack.connections} {stack.metas}")
            if any(listener.half_open for listener in stack.listeners.values()):
                raise Failure(f"{host.name} keeps half-open connections")
        result.virtual_us = network.now
        return result

    def _plan_changes(self) -> None:
        dice, network, scenario = self.dice, self.network, self.scenario
        at = network.now
        for _ in range(scenario.cuts):
            at += dice.randrange(1, 40 * scenario.delay_us + 100_000)
            path = dice.randrange(1, scenario.paths + 1)
            network.at(at, lambda path=path: network.set_down(path, True))  # type: ignore[misc]
            at += dice.randrange(1, 3_000_000)
            network.at(at, lambda path=path: network.set_down(path, False))  # type: ignore[misc]
        for _ in range(scenario.interface_losses):
            at += dice.randrange(1, 40 * scenario.delay_us + 100_000)
            path = dice.randrange(1, scenario.paths + 1)
            host = network.hosts[dice.randrange(2)]
            network.at(at, lambda host=host, path=path: self._lose(host, path))  # type: ignore[misc]
            at += dice.randrange(1, 3_000_000)
            network.at(
                at,
                lambda host=host, path=path: network.restore_interface(host, path),  # type: ignore[misc]
            )

    def _lose(self, host: Host, path: int) -> None:
        self.lost_interface = True
        self.network.lose_interface(host, path)

    def _program(self, name: str, side: Side, number: int, more: int) -> Program:
        ending = side.ending if number == 1 else "shutdown"
        # A later connection makes up for what is missing, in one direction.
        size = (
            side.size if number == 1 else more if (number % 2 == 0) == (name == "client") else 500
        )
        program = Program(
            name, side, min(size, LONGEST), self.dice.randrange(LONGEST), ending, self.network.at
        )
        program.now = lambda: self.network.now
        return program

    def _connection(self, number: int, more: int) -> None:
        network, scenario = self.network, self.scenario
        hosts = network.hosts
        # A host without its interface cannot even try.
        for path in range(1, scenario.paths + 1):
            for host in hosts:
                network.restore_interface(host, path)
        client = self.client = self._program("client", scenario.client, number, more)
        server = self.server = self._program("server", scenario.server, number, more)
        server.peer = client
        self.lost_interface = False
        # With time-outs that double, a storm that lasts could outlast anyone's patience.
        network.calm_at = network.now + MINUTE
        path = self.dice.randrange(1, scenario.paths + 1)
        remote = hosts[1].interfaces[path].addresses[0][0]
        client.connection = hosts[0].stack.connect(remote, PORT)
        self.programs = {client.connection: client}
        if client.ending != "shutdown" and scenario.client.ending_at >= 0:
            # It may strike before the connection is open.
            network.at(network.now + scenario.client.ending_at, client.finish)

        def over() -> bool:
            if client.end is None:
                return False
            if server.connection is None:
                # It may yet be accepted by what is on its way.
                return not self.listener.half_open and not network.in_flight
            return server.end is not None

        limit = network.now + PATIENCE_US
        while not network.run(network.now + MINUTE, over) and network.now < limit:
            # One side is gone and the other has not heard of it (its RST was lost): it will when
            # it sends (RFC 9293 §3.5.1).
            if client.end is not None:
                server.poke()
            elif server.end is not None:
                client.poke()
        if not over():
            raise Failure("the connection did not end")
        real = server if server.connection is not None else None
        verdict(client, real)
        self.result.bytes += client.read + server.read
        if client.end is ConnectionEnd.CLOSED and server.end is ConnectionEnd.CLOSED:
            return
        graceful = client.ending == server.ending == "shutdown" and not self.lost_interface
        if graceful and client.complete and server.complete:
            # The last ACK never arrived, and TIME-WAIT was over before (RFC 9293 §3.6): nobody
            # can know that all is well when the other has gone.
            self.result.unheard += 1
        elif graceful:
            raise Failure("an error though nobody aborted and the network never gave up")
        else:
            self.result.errors += 1

    def report(self) -> str:
        """Where both programs are."""
        return f"at {self.network.now} us; {state(self.client)}; {state(self.server)}"


def run(scenario: Scenario, *, min_bytes: int = 0, min_events: int = 0) -> Result:
    """Run one session. Raises `Failure` with the line that replays it."""
    session = Session(scenario)
    try:
        return session.run(min_bytes, min_events)
    except Exception as error:
        raise Failure(
            f"{type(error).__name__}: {error}\n{session.report()}\n"
            f"replay: python -m soak --replay '{scenario.to_line()}'"
        ) from error
