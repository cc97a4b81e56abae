"""The connection between the supervisors of a run's nodes, by which all end with the same code.

Node 0 listens one port above the training's, and the others connect. Each sends a heartbeat every
few seconds: a cut connection shows no error, and training processes would wait for each other for
hours. Each reports the outcome of its processes; node 0 decides, and all end with its decision.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from job.errors import ConfigError, ExitCode
from job.launch.cluster import PORT_OVERRIDE, Cluster
from job.launch.outcome import Outcome, known_failure
from job.printable import printable
from job.telemetry import event, warn


@dataclass(frozen=True)
class Pace:
    """Seconds between two heartbeats, of silence until a node is lost, and for last messages.

    And seconds between two lines about nodes that are missing.
    """

    beat: float = 2.0
    silence: float = 15.0
    last_words: float = 5.0
    absence: float = 60.0


class Peers:
    """The other nodes of the run: connections to them, and the outcomes that they reported."""

    def __init__(self, cluster: Cluster, run: str, pace: Pace | None = None) -> None:
        self._cluster = cluster
        self._run = run
        self._pace = pace or Pace()
        self._changed = threading.Condition()  # held to change the two dictionaries
        self._sending = threading.Lock()
        self._connections: dict[int, socket.socket] = {}

        # By node, in the order of arrival. From node 0, it is the decision for all.
        self._outcomes: dict[int, Outcome] = {}

        self._ended = threading.Event()
        self._on_failure: Callable[[Outcome], None] = lambda _: None

    @contextmanager
    def connection(self, on_failure: Callable[[Outcome], None]) -> Iterator[None]:
        """Stay connected to the other nodes for the duration of the block.

        `on_failure` is called, on another thread, for each node that failed or is lost. Raise
        ConfigError if node 0 cannot listen.
        """
        self._on_failure = on_failure
        with self._connector() as connect:
            threading.Thread(target=connect, name="peers", daemon=True).start()
            threading.Thread(target=self._log_absent, name="absent peers", daemon=True).start()
            try:
                yield
            finally:
                self._ended.set()
                for connection in list(self._connections.values()):
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)

    def agree(self, own: Outcome) -> Outcome:
        """Report this node's outcome, block until node 0 has decided, and return the decision.

        All nodes return the same, except a node that lost node 0 and knows a failure of its own.
        """
        with self._changed:
            if self._cluster.rank == 0:
                return self._decide(own)
            return self._await_decision(own)

    def absent(self) -> str | None:
        """Return which nodes never connected, None if this node has met all that it waits for."""
        absent = self._absent()
        if not absent:
            return None
        names = ", ".join(f"node {node}" for node in absent)
        return (
            f"{names} of {self._cluster.nodes} never connected: its machine did not start within "
            "limits.rendezvous_minutes, or the network between is closed; run again"
        )

    def _absent(self) -> list[int]:
        expected = {0} if self._cluster.rank else set(range(1, self._cluster.nodes))
        with self._changed:
            return sorted(expected - self._connections.keys() - self._outcomes.keys())

    def _log_absent(self) -> None:
        """Log which nodes are missing until all have connected. The body of a thread."""
        while not self._ended.wait(self._pace.absence):
            absent = self._absent()
            if not absent:
                return
            event("waiting for nodes", nodes=absent)

    def _decide(self, own: Outcome) -> Outcome:
        """Decide, as node 0, and send the decision to all.

        The run is done if the processes of node 0 are done, since they publish. Otherwise the
        decision is the failure that explains the end.
        """
        self._outcomes[0] = own

        # An unclear outcome may be how the end of another node looks from here: wait for its cause.
        if own.cause == "unclear":
            nodes = set(range(self._cluster.nodes))
            self._changed.wait_for(
                lambda: known_failure(self._outcomes) or nodes <= self._outcomes.keys(),
                self._pace.silence + self._pace.last_words,
            )

        decision = own
        if own.exit_code != ExitCode.DONE:
            decision = known_failure(self._outcomes) or own

        self._ended.set()
        for node in self._connections:
            self._send_outcome(node, decision)

        # The others close the connection once they have the decision.
        self._changed.wait_for(lambda: not self._connections, self._pace.last_words)
        return decision

    def _await_decision(self, own: Outcome) -> Outcome:
        """Report to node 0 and wait for its decision, without limit: it may still be publishing."""
        if 0 not in self._connections and 0 not in self._outcomes:
            return own if own.exit_code != ExitCode.DONE else _lost_node(0)

        self._send_outcome(0, own)

        # If node 0 dies, its silence ends the wait: `_attend` records it as lost.
        self._changed.wait_for(lambda: 0 in self._outcomes)
        decision = self._outcomes[0]
        knows_why = own.exit_code != ExitCode.DONE and own.cause == "own"
        return own if decision == _lost_node(0) and knows_why else decision

    @contextmanager
    def _connector(self) -> Iterator[Callable[[], None]]:
        """Yield the function that connects: on node 0 it accepts connections, elsewhere it calls.

        Raise ConfigError if node 0 cannot listen.
        """
        if self._cluster.rank:
            yield self._call
            return

        port = self._cluster.port + 1
        try:
            server = socket.create_server(("", port))
        except OSError as error:
            raise ConfigError(
                f"port {port}, where the other nodes call, cannot be opened ({error}): set "
                f"{PORT_OVERRIDE} to the lower one of two free ports, the same on every node"
            ) from error
        with server:
            try:
                yield lambda: self._accept(server)
            finally:
                # Closing the socket alone would not wake the thread that blocks in `accept`.
                with suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)

    def _accept(self, server: socket.socket) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return  # the run has ended
            threading.Thread(target=self._attend, args=(connection, None), daemon=True).start()

    def _call(self) -> None:
        address = (self._cluster.address, self._cluster.port + 1)
        while not self._ended.is_set():
            try:
                connection = socket.create_connection(address, timeout=self._pace.silence)
            except OSError:
                # Node 0 is not there yet. There is no limit here: the launcher has its own.
                self._ended.wait(self._pace.beat / 2)
                continue
            self._attend(connection, 0)
            return

    def _attend(self, connection: socket.socket, node: int | None) -> None:
        """Read from a connection until it breaks or is silent for too long.

        `node` is None for a connection that node 0 accepted: its first line names the node.
        """
        with connection, connection.makefile("r", encoding="utf-8") as lines:
            connection.settimeout(self._pace.silence)
            try:
                if node is None:
                    node = self._check_greeting(json.loads(lines.readline()))
                else:
                    self._send(connection, {"run": self._run, "node": self._cluster.rank})
            except (OSError, ValueError, KeyError, TypeError):
                return  # a stranger's call

            with self._changed:
                self._connections[node] = connection
            heart = threading.Thread(target=self._send_heartbeats, args=(connection,), daemon=True)
            heart.start()

            with suppress(OSError, ValueError, TypeError):
                for message in map(json.loads, lines):
                    if not message:  # a heartbeat
                        continue
                    self._record_outcome(node, Outcome(**message))
                    if node == 0:
                        break  # nothing follows the decision
            self._record_outcome(node, _lost_node(node))

    def _check_greeting(self, greeting: dict[str, Any]) -> int:
        """Return the node that connected.

        Raise ValueError if it is not of this run, or connected already.
        """
        node: int = greeting["node"]
        is_known = node in range(1, self._cluster.nodes)
        if greeting["run"] != self._run or not is_known or node in self._connections:
            raise ValueError("not a node of this run")
        event("node is there", node=node)
        return node

    def _send_heartbeats(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while not self._ended.wait(self._pace.beat):
                self._send(connection, {})

    def _record_outcome(self, node: int, outcome: Outcome) -> None:
        """Record a node's first outcome; forget its connection at the second, or if it is lost.

        Calls `on_failure` if the first one is a failure.
        """
        with self._changed:
            is_first = node not in self._outcomes
            if is_first:
                self._outcomes[node] = outcome
            if not is_first or outcome == _lost_node(node):
                self._connections.pop(node, None)
            self._changed.notify_all()

        # Not under the lock: `on_failure` is the caller's code.
        if is_first and outcome.exit_code != ExitCode.DONE and not self._ended.is_set():
            warn("another node ended", node=node, exit_code=outcome.exit_code, why=outcome.message)
            self._on_failure(outcome)

    def _send_outcome(self, node: int, outcome: Outcome) -> None:
        with suppress(OSError, KeyError):
            content = asdict(replace(outcome, message=printable(outcome.message)))
            self._send(self._connections[node], content)

    def _send(self, connection: socket.socket, content: dict[str, object]) -> None:
        with self._sending:
            connection.sendall((json.dumps(content) + "\n").encode())


def _lost_node(node: int) -> Outcome:
    why = f"node {node} is gone: its machine, its container or the network between; run again"
    return Outcome(ExitCode.RETRY, why, silent=True)
