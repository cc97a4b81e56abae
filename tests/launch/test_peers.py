"""Claims about the connection of two supervisors, with real sockets, processes and signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from job.errors import ConfigError, ExitCode
from job.launch.cluster import LOOPBACK, Cluster
from job.launch.outcome import End, Outcome, judge
from job.launch.peers import Pace, Peers

STEADY = Pace(beat=0.05, silence=60, last_words=0.5)  # a slow machine is not taken for a silent one
QUICK = Pace(beat=0.05, silence=0.5, last_words=0.5)
DONE = Outcome(ExitCode.DONE, "done")
DATA = Outcome(ExitCode.DATA, "bad row")
BROKEN = Outcome(ExitCode.BUG, "RuntimeError: connection closed by peer", "unclear")
BUG = Outcome(ExitCode.BUG, "KeyError: 'loss'")
STOPPED = Outcome(ExitCode.RETRY, "stopped by a signal, with step 7 committed", "signal")
STOPPED_TOO = Outcome(ExitCode.RETRY, "stopped by a signal at step 7", "signal")


def free_port() -> int:
    """Return a port whose successor is free too."""
    while True:
        with socket.socket() as first, socket.socket() as second, suppress(OSError, OverflowError):
            first.bind(("", 0))
            port: int = first.getsockname()[1]
            second.bind(("", port + 1))
            return port


class Pair:
    """The connected peers of two nodes, and the failures that each heard of."""

    def __init__(self, run: str = "tiny") -> None:
        port = free_port()
        clusters = [Cluster(2, 0, LOOPBACK, port), Cluster(2, 1, LOOPBACK, port)]
        self.peers = [Peers(cluster, run, STEADY) for cluster in clusters]
        self.heard: list[list[Outcome]] = [[], []]
        self._open = ExitStack()

    def __enter__(self) -> "Pair":
        for peers, heard in zip(self.peers, self.heard, strict=True):
            self._open.enter_context(peers.connection(heard.append))
        while not all(peers._connections for peers in self.peers):
            threading.Event().wait(0.01)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def agree(self, own: list[Outcome], first: int = 0) -> list[Outcome]:
        """Let each node's processes end with its outcome, node `first` first; return decisions."""
        found: dict[int, Outcome] = {}
        threads = []
        for node in (first, 1 - first):
            threads.append(
                threading.Thread(
                    target=lambda n=node: found.update({n: self.peers[n].agree(own[n])}),
                    daemon=True,
                )
            )
            threads[-1].start()
            threads[-1].join(timeout=0.1)
        for thread in threads:
            thread.join()
        return [found[0], found[1]]


def test_both_are_done_when_node_0_is():
    with Pair() as pair:
        assert pair.agree([DONE, DONE], first=1) == [DONE, DONE]
    assert pair.heard == [[], []]


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_failure_that_says_why_decides_for_both(first):
    with Pair() as pair:
        assert pair.agree([DATA, STOPPED] if first == 0 else [STOPPED, DATA], first) == [DATA, DATA]


@pytest.mark.parametrize("first", [0, 1])
def test_what_broke_here_because_of_the_other_node_does_not_decide(first):
    with Pair() as pair:
        assert pair.agree([DATA, BROKEN], first) == [DATA, DATA]
    with Pair() as pair:
        assert pair.agree([BROKEN, DATA], first) == [DATA, DATA]


@pytest.mark.parametrize("first", [0, 1])
def test_a_bug_of_one_node_decides_over_its_effects_on_the_other(first):
    stopped_after = [[BUG, STOPPED]] if first == 0 else [[STOPPED, BUG]]
    for ended in (*stopped_after, [BUG, BROKEN], [BROKEN, BUG]):
        with Pair() as pair:
            assert pair.agree(ended, first) == [BUG, BUG]


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_stops_that_of_node_0_decides_as_it_commits(first):
    with Pair() as pair:
        assert pair.agree([STOPPED, STOPPED_TOO], first) == [STOPPED, STOPPED]


def test_a_node_that_ends_after_the_decision_is_not_missed():
    with Pair() as pair:
        assert pair.peers[0].agree(DONE) == DONE
        assert pair.peers[1].agree(STOPPED) == DONE
    assert pair.heard[0] == []


def test_a_bug_on_both_is_a_bug():
    with Pair() as pair:
        assert pair.agree([BROKEN, BROKEN]) == [BROKEN, BROKEN]


@pytest.mark.parametrize("node", [0, 1])
def test_a_node_that_dies_makes_a_retry_of_what_looks_like_a_bug(node):
    with Pair() as pair:
        pair.peers[1 - node]._connections[node].shutdown(socket.SHUT_RDWR)
        assert pair.peers[node].agree(BROKEN).exit_code == ExitCode.RETRY
        while not pair.heard[node]:
            threading.Event().wait(0.01)
        assert pair.heard[node][0].exit_code == ExitCode.RETRY


def test_a_silent_node_is_lost_though_the_connection_is_open():
    port = free_port()
    peers = Peers(Cluster(2, 0, LOOPBACK, port), "tiny", QUICK)
    missed = threading.Event()
    with (
        peers.connection(lambda word: missed.set()),
        socket.create_connection((LOOPBACK, port + 1)) as silent,
    ):
        silent.sendall(json.dumps({"run": "tiny", "node": 1}).encode() + b"\n")
        assert missed.wait(60)
        decision = peers.agree(BROKEN)
    assert "node 1 is gone" in decision.message
    assert decision.silent


def test_a_stranger_is_not_listened_to():
    with Pair() as pair:
        port = pair.peers[0]._cluster.port + 1
        for hello in (
            {"run": "other", "node": 1},
            {"run": "tiny", "node": 1},
            {"run": "tiny", "node": 7},
            [],
            "GET /",
        ):
            with socket.create_connection((LOOPBACK, port)) as stranger:
                stranger.sendall(f"{json.dumps(hello)}\n{json.dumps(asdict(DATA))}\n".encode())
                # The connection is reset if something in it was left unread.
                with suppress(ConnectionResetError):
                    assert stranger.recv(1) == b""
        assert pair.agree([DONE, DONE]) == [DONE, DONE]


def test_a_port_that_is_taken_is_reported_with_its_remedy():
    port = free_port()
    peers = Peers(Cluster(2, 0, LOOPBACK, port), "tiny", QUICK)
    refused = pytest.raises(ConfigError, match="set RECAP_MAIN_PORT")
    with socket.create_server(("", port + 1)), refused, peers.connection(lambda _: None):
        pass


NODE = """
import sys, threading
from pathlib import Path
from job.launch.cluster import Cluster
from job.launch.peers import Pace, Peers
from job.launch.supervisor import supervise
work, rank, port, code = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
peers = Peers(Cluster(2, rank, "127.0.0.1", port), "tiny", Pace(beat=0.1, silence=2, last_words=1))
def note_connection():
    while not peers._connections:
        threading.Event().wait(0.02)
    (work / "connected").write_text("")
threading.Thread(target=note_connection, daemon=True).start()
outcome = supervise([sys.executable, "-c", code, str(work)], work, 1, 0.2, peers=peers)
print(outcome.message)
sys.exit(outcome.exit_code)
"""
WAITS = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # like a process inside a collective
Path(sys.argv[1], "ready").write_text("")
time.sleep(600)
"""
FAILS = """
import sys, time
from pathlib import Path
from job.launch.outcome import Outcome, write_outcome
while not Path(sys.argv[1], "fail").exists():
    time.sleep(0.02)
write_outcome(Path(sys.argv[1]), Outcome(65, "bad row"))
"""


def wait_for(path: Path) -> None:
    while not path.exists():
        threading.Event().wait(0.02)


def node(work: Path, rank: int, port: int, code: str) -> "subprocess.Popen[str]":
    work.mkdir()
    return subprocess.Popen(
        [sys.executable, "-c", NODE, str(work), str(rank), str(port), code],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_on_one_node_ends_the_other_that_ignores_signals(tmp_path, failing):
    port = free_port()
    nodes = [node(tmp_path / str(n), n, port, FAILS if n == failing else WAITS) for n in (0, 1)]
    wait_for(tmp_path / str(1 - failing) / "ready")
    (tmp_path / str(failing) / "fail").write_text("")
    messages = [process.communicate()[0].strip() for process in nodes]
    assert [process.returncode for process in nodes] == [ExitCode.DATA, ExitCode.DATA]
    assert messages == ["bad row", "bad row"]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_node_whose_supervisor_is_killed_ends_the_other_with_a_retry(tmp_path, killed):
    port = free_port()
    nodes = [node(tmp_path / str(n), n, port, WAITS) for n in (0, 1)]
    for n in (0, 1):
        wait_for(tmp_path / str(n) / "ready")
        wait_for(tmp_path / str(n) / "connected")
    os.kill(nodes[killed].pid, signal.SIGKILL)
    message = nodes[1 - killed].communicate()[0]
    assert nodes[1 - killed].returncode == ExitCode.RETRY
    assert f"node {killed} is gone" in message
    for process in left(tmp_path):
        process.kill()
    nodes[killed].communicate()


def left(folder: Path) -> list[psutil.Process]:
    """Return the processes that a killed supervisor left. Unlike training processes, they wait."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if str(folder) in " ".join(process.info["cmdline"] or []):
            found.append(process)
    return found


def test_nodes_that_met_are_not_absent():
    with Pair() as pair:
        assert [peers.absent() for peers in pair.peers] == [None, None]


def test_a_node_that_never_comes_is_named(caplog):
    pace = Pace(beat=0.05, silence=0.5, last_words=0.5, absence=0.01)
    peers = Peers(Cluster(3, 0, LOOPBACK, free_port()), "tiny", pace)
    caplog.set_level("INFO", logger="recap")
    with peers.connection(lambda _: None):
        while not caplog.records:
            threading.Event().wait(0.01)
        assert str(peers.absent()).startswith("node 1, node 2 of 3 never connected")
    assert caplog.records[0].fields == {"nodes": [1, 2]}
    lonely = Peers(Cluster(2, 1, LOOPBACK, free_port()), "tiny", pace)
    assert str(lonely.absent()).startswith("node 0 of 2 never connected")


def test_launchers_that_wait_in_vain_say_for_whom():
    end = End(1, processes=1, several=True, stop_asked=False, absent_nodes="node 1 never came")
    assert judge({}, end) == Outcome(ExitCode.RETRY, "node 1 never came")
