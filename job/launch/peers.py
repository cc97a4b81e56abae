"""The line between the supervisors of a run's nodes: who is still there, and how the run ends for all of them.

Node 0 listens one port above the training's, the others call it. Each says something every few seconds, so that a node
that is gone is missed soon: a cut link tells nothing, and training processes wait for each other for hours. Each tells
how its processes ended; node 0 decides, and all end with the same code. Knows nothing of processes or signals.
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
    """Seconds between two signs of life, of silence after which a node is gone, and for last words to arrive."""

    beat: float = 2.0
    silence: float = 15.0
    last_words: float = 5.0


class Peers:
    """What this node knows of the others."""

    def __init__(self, cluster: Cluster, run: str, pace: Pace | None = None) -> None:
        self._cluster, self._run, self._pace = cluster, run, pace or Pace()
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._lines: dict[int, socket.socket] = {}
        self._words: dict[int, Outcome] = {}  # by node, in the order in which they came; from node 0 it is the decision
        self._ended = threading.Event()
        self._on_failure: Callable[[Outcome], None] = lambda _: None

    @contextmanager
    def talking(self, on_failure: Callable[[Outcome], None]) -> Iterator[None]:
        """Within the block the line is open; `on_failure` hears of each other node that failed or is gone."""
        self._on_failure = on_failure
        with self._server() as talk:
            threading.Thread(target=talk, name="peers", daemon=True).start()
            try:
                yield
            finally:
                self._ended.set()
                for line in list(self._lines.values()):
                    with suppress(OSError):
                        line.shutdown(socket.SHUT_RDWR)

    def agree(self, own: Outcome) -> Outcome:
        """How the run ends for every node, where it ended so on this one."""
        with self._changed:
            return self._decide(own) if self._cluster.rank == 0 else self._follow(own)

    def _decide(self, own: Outcome) -> Outcome:
        """Node 0: done if its own processes are done, as they publish; else the failure that says why."""
        self._words[0] = own
        if own.cause == "unclear":  # it may be what the end of others looks like from here
            others = set(range(self._cluster.nodes))
            waits = self._pace.silence + self._pace.last_words
            self._changed.wait_for(lambda: known_failure(self._words) or others <= self._words.keys(), waits)
        decision = own if own.exit_code == ExitCode.DONE else known_failure(self._words) or own
        self._ended.set()
        for node in self._lines:
            self._say(node, decision)
        # The others hang up when they have heard it.
        self._changed.wait_for(lambda: not self._lines, self._pace.last_words)
        return decision

    def _follow(self, own: Outcome) -> Outcome:
        """Other nodes: as node 0 decides. It may still be publishing, so its silence alone ends the waiting."""
        if 0 not in self._lines and 0 not in self._words:
            return own if own.exit_code != ExitCode.DONE else _gone(0)
        self._say(0, own)
        self._changed.wait_for(lambda: 0 in self._words)
        decided = self._words[0]
        knows_why = own.exit_code != ExitCode.DONE and own.cause == "own"
        return own if decided == _gone(0) and knows_why else decided

    @contextmanager
    def _server(self) -> Iterator[Callable[[], None]]:
        """What opens the lines: on node 0 it takes calls, on the others it calls."""
        if self._cluster.rank:
            yield self._call
            return
        port = self._cluster.port + 1
        try:
            server = socket.create_server(("", port))
        except OSError as error:
            raise ConfigError(
                f"port {port}, where the other nodes call, cannot be opened ({error}): set {PORT_OVERRIDE} to the "
                "lower one of two free ports, the same on every node"
            ) from error
        with server:
            try:
                yield lambda: self._listen(server)
            finally:
                with suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)  # closing alone would not wake who waits for calls

    def _listen(self, server: socket.socket) -> None:
        while not self._ended.is_set():
            try:
                line, _ = server.accept()
            except OSError:
                return  # the run has ended
            threading.Thread(target=self._attend, args=(line, None), daemon=True).start()

    def _call(self) -> None:
        place = self._cluster.address, self._cluster.port + 1
        while not self._ended.is_set():
            try:
                line = socket.create_connection(place, timeout=self._pace.silence)
            except OSError:
                self._ended.wait(self._pace.beat / 2)  # not there yet: how long to wait for it is the launcher's affair
                continue
            self._attend(line, 0)
            return

    def _attend(self, line: socket.socket, node: int | None) -> None:
        """Stay on a line until it breaks or falls silent; who called says first who it is."""
        with line, line.makefile("r", encoding="utf-8") as said:
            line.settimeout(self._pace.silence)
            try:
                if node is None:
                    node = self._greeted(json.loads(said.readline()))
                else:
                    self._send(line, {"run": self._run, "node": self._cluster.rank})
            except (OSError, ValueError, KeyError, TypeError):
                return  # somebody else's call
            with self._changed:
                self._lines[node] = line
            threading.Thread(target=self._beat, args=(line,), daemon=True).start()
            with suppress(OSError, ValueError, TypeError):
                for word in map(json.loads, said):
                    if word:
                        self._hear(node, Outcome(**word))
                        if node == 0:
                            break  # the decision is the last word
            self._hear(node, _gone(node))

    def _greeted(self, hello: dict[str, Any]) -> int:
        node: int = hello["node"]
        if hello["run"] != self._run or node not in range(1, self._cluster.nodes) or node in self._lines:
            raise ValueError("not a node of this run")
        event("node is there", node=node)
        return node

    def _beat(self, line: socket.socket) -> None:
        with suppress(OSError):
            while not self._ended.wait(self._pace.beat):
                self._send(line, {})

    def _hear(self, node: int, word: Outcome) -> None:
        with self._changed:
            is_news = node not in self._words
            if is_news:
                self._words[node] = word
            if not is_news or word == _gone(node):
                self._lines.pop(node, None)
            self._changed.notify_all()
        if is_news and word.exit_code != ExitCode.DONE and not self._ended.is_set():
            warn("another node ended", node=node, exit_code=word.exit_code, why=word.message)
            self._on_failure(word)

    def _say(self, node: int, word: Outcome) -> None:
        with suppress(OSError, KeyError):
            self._send(self._lines[node], asdict(replace(word, message=printable(word.message))))

    def _send(self, line: socket.socket, content: dict[str, object]) -> None:
        with self._sending:
            line.sendall((json.dumps(content) + "\n").encode())


def _gone(node: int) -> Outcome:
    return Outcome(ExitCode.RETRY, f"node {node} is gone: its machine, its container or the network between; run again")
