"""Claims about the process above the launcher, with real processes and real signals."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from job.errors import ConfigError, ExitCode
from job.launch.cluster import ALONE, Cluster
from job.launch.outcome import End, Outcome, judge, keep_room, read_outcomes, write_outcome
from job.launch.spot import SpotNotice, has_notice, notice_url, spot_watch
from job.launch.supervisor import launch_command, supervise

IMPORTS = (
    "from pathlib import Path; from job.launch.outcome import Outcome, write_outcome; import sys; "
)


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def writes(code: int, message: str = "") -> str:
    return IMPORTS + f"write_outcome(Path(sys.argv[1]), Outcome({code}, {message!r}))"


@pytest.mark.parametrize("code", [ExitCode.DONE, ExitCode.DATA, ExitCode.RETRY, ExitCode.FORBIDDEN])
def test_the_written_outcome_decides_whatever_the_launcher_returns(tmp_path, code):
    outcome = supervise(python(writes(code, "why") + "; sys.exit(1)", tmp_path), tmp_path, 1, 10)
    assert outcome == Outcome(code, "why")


def test_a_trainer_that_dies_without_an_outcome_is_a_bug(tmp_path):
    outcome = supervise(python("raise SystemExit(3)"), tmp_path, 1, 10)
    assert outcome.exit_code == ExitCode.BUG
    assert "ended with 3" in outcome.message


def test_a_trainer_killed_from_outside_is_to_be_run_again(tmp_path):
    outcome = supervise(python("import os; os.kill(os.getpid(), 9)"), tmp_path, 1, 10)
    assert outcome.exit_code == ExitCode.RETRY
    assert outcome.silent


def test_return_code_1_is_a_kill_below_a_launcher_and_a_bug_without_one(tmp_path):
    assert supervise(python("raise SystemExit(1)"), tmp_path, 2, 10).exit_code == ExitCode.RETRY
    assert supervise(python("raise ImportError"), tmp_path, 1, 10).exit_code == ExitCode.BUG


DONE = Outcome(ExitCode.DONE, "done")
DATA = Outcome(ExitCode.DATA, "bad row")
BUG = Outcome(ExitCode.BUG, "KeyError: 'loss'")
BROKEN = Outcome(ExitCode.BUG, "RuntimeError: connection closed by peer", "unclear")
STOPPED = Outcome(ExitCode.RETRY, "stopped by a signal, with step 7 committed", "signal")
STOPPED_TOO = Outcome(ExitCode.RETRY, "stopped by a signal at step 7", "signal")
ASKED = True
UNASKED = False
KILLED = "a training process was killed from outside"
SILENT = "before the training processes could say"
ENDS = {
    "all are done": ({0: DONE, 1: DONE}, UNASKED, (0, "done")),
    "done needs the outcome of every process": ({0: DONE}, UNASKED, (75, KILLED)),
    "the first failure of its own": ({1: DATA, 0: BUG}, UNASKED, (65, "bad row")),
    "a bug, though the launcher then stopped the other": (
        {0: BUG, 1: STOPPED},
        UNASKED,
        (70, "KeyError"),
    ),
    "a bug, though the other was killed before it wrote": ({1: BUG}, UNASKED, (70, "KeyError")),
    "a possible bug, before the stop": (
        {0: BROKEN, 1: STOPPED},
        UNASKED,
        (70, "RuntimeError"),
    ),
    "a stop that broke the other": ({1: STOPPED, 0: BROKEN}, UNASKED, (75, "stopped")),
    "a stop that was asked for": ({0: BROKEN, 1: STOPPED}, ASKED, (75, "stopped")),
    "a failure of its own while stopping": ({1: STOPPED, 0: DATA}, ASKED, (65, "bad row")),
    "of two stops, that of the first process": (
        {1: STOPPED_TOO, 0: STOPPED},
        ASKED,
        (75, "step 7 committed"),
    ),
    "the death of one decides over what it broke": ({0: BROKEN}, UNASKED, (75, KILLED)),
    "the death of one decides over the stop that the launcher sent to the other": (
        {0: STOPPED},
        UNASKED,
        (75, KILLED),
    ),
    "all broke, and nobody knows why": ({0: BROKEN, 1: BROKEN}, UNASKED, (70, "RuntimeError")),
    "nobody wrote after a stop": ({}, ASKED, (75, SILENT)),
}


@pytest.mark.parametrize("case", ENDS)
def test_the_outcome_of_two_processes(case):
    outcomes, asked, (code, message) = ENDS[case]
    judged = judge(outcomes, End(returned=1, processes=2, several=True, stop_asked=asked))
    assert judged.exit_code == code
    assert message in judged.message


def test_outcomes_are_read_in_the_order_in_which_they_were_written(tmp_path, monkeypatch):
    for rank, outcome in (("1", STOPPED_TOO), ("10", DATA), ("0", STOPPED)):
        monkeypatch.setenv("RANK", rank)
        write_outcome(tmp_path, outcome)
        time.sleep(0.01)  # a file system's clock may tick 250 times a second
    assert list(read_outcomes(tmp_path).items()) == [(1, STOPPED_TOO), (10, DATA), (0, STOPPED)]


LAUNCHER_THAT_LOSES_SIGNALS = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]]).wait()
"""
TRAINER = """
import os, signal, sys, time
from pathlib import Path
from job.launch.outcome import Outcome, write_outcome
work = Path(sys.argv[1])
def stop(*_):
    SAVE
    write_outcome(work, Outcome(75, "saved"))
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
(work / "ready").write_text(str(os.getpid()))
time.sleep(60)
"""
SLOW_TRAINER = TRAINER.replace("SAVE", "time.sleep(0.5)")
TRAINER = TRAINER.replace("SAVE", "pass")
STUBBORN = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path(sys.argv[1], "ready").write_text(str(os.getpid()))
time.sleep(60)
"""


SUPERVISOR = """
import sys
from pathlib import Path
from job.launch.supervisor import supervise
work, launcher, trainer, grace = sys.argv[1:]
command = [sys.executable, "-c", launcher, work, trainer]
outcome = supervise(command, Path(work), 1, float(grace))
print(outcome.message)
sys.exit(outcome.exit_code)
"""


def supervisor(work: Path, trainer: str, grace: float) -> "subprocess.Popen[str]":
    command = python(SUPERVISOR, work, LAUNCHER_THAT_LOSES_SIGNALS, trainer, grace)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def pid_when_ready(work: Path) -> int:
    ready = work / "ready"
    while not (ready.exists() and ready.read_text()):
        time.sleep(0.02)
    return int(ready.read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_reaches_the_trainer_below_a_launcher_that_loses_it(tmp_path, number):
    above = supervisor(tmp_path, TRAINER, grace=30)
    trainer = pid_when_ready(tmp_path)
    time.sleep(0.3)  # the supervisor looks for new processes every 0.2 s
    os.kill(above.pid, number)
    out, _ = above.communicate()
    assert above.returncode == ExitCode.RETRY
    assert out.strip() == "saved"
    assert not psutil.pid_exists(trainer)


LAUNCHER_THAT_KILLS = """
import signal, subprocess, sys
trainer = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]])
signal.signal(signal.SIGTERM, lambda *_: (trainer.kill(), sys.exit(1)))
sys.exit(trainer.wait())
"""


def test_a_launcher_of_several_gets_no_stop_signal_as_it_would_kill(tmp_path):
    def stop_when_ready():
        pid_when_ready(tmp_path)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = threading.Thread(target=stop_when_ready)
    stopping.start()
    outcome = supervise(python(LAUNCHER_THAT_KILLS, tmp_path, SLOW_TRAINER), tmp_path, 2, 30)
    stopping.join()
    assert outcome == Outcome(ExitCode.RETRY, "saved")


SIGNALLED_WHILE_IT_LOGS = """
import io, os, signal, sys
from pathlib import Path
from job.launch.supervisor import supervise
from job.telemetry import configure_logging
class Terminal(io.RawIOBase):
    def writable(self):
        return True
    signals = [signal.SIGTERM]
    def write(self, line):
        if self.signals:
            os.kill(os.getpid(), self.signals.pop())
        return len(line)
configure_logging(io.TextIOWrapper(io.BufferedWriter(Terminal()), line_buffering=True))
outcome = supervise([sys.executable, "-c", sys.argv[2], sys.argv[1]], Path(sys.argv[1]), 1, 30)
print(outcome.message)
sys.exit(outcome.exit_code)
"""


def test_a_signal_while_a_stop_is_logged_changes_nothing(tmp_path):
    command = python(SIGNALLED_WHILE_IT_LOGS, tmp_path, TRAINER)
    above = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pid_when_ready(tmp_path)
    os.kill(above.pid, signal.SIGTERM)
    out, log = above.communicate()
    assert (above.returncode, out.strip()) == (ExitCode.RETRY, "saved"), log


def test_orphans_that_end_leave_the_process_table_while_the_run_goes_on(tmp_path):
    orphaning = (
        "import pathlib, psutil, subprocess, sys, time\n"
        "start = ['sh', '-c', 'sleep 0.1 & echo $!']\n"
        "pid = int(subprocess.run(start, stdout=subprocess.PIPE, text=True).stdout)\n"
        "for _ in range(200):\n"
        "    time.sleep(0.05)\n"
        "    if not psutil.pid_exists(pid): break\n"
        "else: sys.exit(3)\n"
    )
    assert (
        supervise(python(orphaning + writes(ExitCode.DONE), tmp_path), tmp_path, 1, 10).exit_code
        == ExitCode.DONE
    )


def test_after_the_grace_period_nobody_is_left(tmp_path):
    above = supervisor(tmp_path, STUBBORN, grace=0.3)
    trainer = pid_when_ready(tmp_path)
    time.sleep(0.3)
    os.kill(above.pid, signal.SIGTERM)
    above.communicate()
    assert above.returncode == ExitCode.RETRY
    assert not psutil.pid_exists(trainer)


def test_one_process_is_started_directly_and_several_by_accelerate(tmp_path):
    for has_gpu in (True, False):
        assert "accelerate.commands.launch" not in launch_command(tmp_path, 1, has_gpu, ALONE, 30)
        command = launch_command(tmp_path, 2, has_gpu, ALONE, 30)
        assert "accelerate.commands.launch" in command
        assert "--multi_gpu" in command
        assert "--main_process_port" in command


def test_on_several_nodes_one_process_each_goes_through_the_launcher_too(tmp_path):
    command = launch_command(tmp_path, 1, False, Cluster(2, 1, "10.0.0.7", 29500), 7.5)
    wanted = {
        "--num_machines": "2",
        "--num_processes": "2",
        "--machine_rank": "1",
        "--main_process_ip": "10.0.0.7",
        "--main_process_port": "29500",
        "--rdzv_conf": "timeout=450",
    }
    for name, value in wanted.items():
        assert command[command.index(name) + 1] == value


def test_variables_for_other_launchers_do_not_reach_ours(tmp_path, monkeypatch):
    for name in ("PET_NPROC_PER_NODE", "PET_RDZV_BACKEND", "RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.setenv(name, "7")
    read = (
        "import os\n"
        "others = ('RANK', 'WORLD_SIZE', 'MASTER_ADDR')\n"
        "seen = [n for n in os.environ if n.startswith('PET_') or n in others]\n"
    )
    write = "write_outcome(Path(sys.argv[1]), Outcome(75, ','.join(seen)))"
    command = python(read + IMPORTS + write, tmp_path)
    assert supervise(command, tmp_path, 1, 10) == Outcome(ExitCode.RETRY, "")


def test_a_process_that_lost_its_parent_is_found_and_ended(tmp_path):
    # The daemon's parent, a shell, ends at once.
    start = ["sh", "-c", '"$0" -c "$1" "$2" &', sys.executable, STUBBORN, str(tmp_path)]
    ready = str(tmp_path / "ready")
    orphaning = (
        f"import pathlib, subprocess, time\n"
        f"subprocess.run({start!r}, start_new_session=True)\n"
        f"while not pathlib.Path({ready!r}).exists(): time.sleep(0.02)\n"
    )
    outcome = supervise(python(orphaning + writes(ExitCode.DONE), tmp_path), tmp_path, 1, 10)
    assert outcome.exit_code == ExitCode.DONE
    assert not psutil.pid_exists(pid_when_ready(tmp_path))


def test_a_full_disk_has_room_for_the_outcome_that_it_is_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        keep_room(disk)
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        write_outcome(disk, Outcome(ExitCode.OUTPUT, "no room: " + "why " * 1000))
        assert read_outcomes(disk)[0].exit_code == ExitCode.OUTPUT
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


class Metadata(BaseHTTPRequestHandler):
    """EC2's instance metadata: a token first, then the notice once `reclaimed` is set.

    While `trouble` is set, the answer is not HTTP.
    """

    def do_PUT(self):
        self._answer(200, b"token")

    def do_GET(self):
        if self.server.trouble.is_set():
            self.wfile.write(b"what?\r\n\r\n")
            return
        asked_well = self.headers.get("X-aws-ec2-metadata-token") == "token"
        self._answer(
            200 if asked_well and self.server.reclaimed.is_set() else 404,
            b'{"action": "terminate"}',
        )

    def _answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def metadata() -> Iterator[ThreadingHTTPServer]:
    """The service, with `reclaimed` and `trouble` to set and the `url` of its notice."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    server.reclaimed = threading.Event()
    server.trouble = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/latest/meta-data/spot/instance-action"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_spot_notice_stops_once_and_silence_and_nonsense_never(tmp_path):
    stopped = threading.Event()
    with metadata() as service, spot_watch(SpotNotice(service.url, every=0.01), stopped.set):
        assert not stopped.wait(0.1)
        service.trouble.set()
        assert not stopped.wait(0.1)
        service.trouble.clear()
        service.reclaimed.set()
        assert stopped.wait(60)
    assert not has_notice(service.url)


ODD_TOKENS = [
    b"ok\n",
    b"\xff\xfe",
    b"a\r\nX-Forged: yes",
    b"",
    b"a b\x00",
    b"x" * (1 << 20),
    "\u2028".encode(),
]


@pytest.mark.parametrize("token", ODD_TOKENS, ids=lambda token: repr(token[:12]))
def test_a_notice_is_seen_whatever_the_service_returns_as_a_token(token):
    with odd_service({"/latest/api/token": (200, token), "/notice": (200, b"go")}) as (url, asked):
        stopped = threading.Event()
        with spot_watch(SpotNotice(f"{url}/notice", every=0.01), stopped.set):
            assert stopped.wait(60)
    given = {
        headers.get("X-aws-ec2-metadata-token") for path, headers in asked if path == "/notice"
    }
    assert given == ({"ok"} if token == b"ok\n" else {"x" * 4096} if len(token) > 4096 else {None})
    assert not [headers for _, headers in asked if "X-Forged" in headers]


def test_the_watch_sends_its_token_to_no_address_in_an_answer():
    answers = {
        "/latest/api/token": (200, b"secret"),
        "/notice": (302, b"/internal"),
        "/internal": (200, b"go"),
    }
    with odd_service(answers) as (url, asked):
        assert not has_notice(f"{url}/notice")
        assert [path for path, _ in asked] == ["/latest/api/token", "/notice"]
    answers = {
        "/latest/api/token": (307, b"/internal"),
        "/notice": (404, b""),
        "/internal": (200, b"go"),
    }
    with odd_service(answers) as (url, asked):
        assert not has_notice(f"{url}/notice")
        assert [path for path, _ in asked] == ["/latest/api/token", "/notice"]


@pytest.mark.parametrize(
    "url", ["http://[", "http://", "http://127.0.0.1:notaport/x", "http://a b/"]
)
def test_an_impossible_url_is_silence(url):
    assert not has_notice(url)


@contextmanager
def odd_service(answers):
    """Serve status and body by path, where a redirect's body is its target.

    Yields the service's URL, and the list of paths and headers that were requested.
    """
    asked = []

    class Odd(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers))
            status, body = answers[self.path]
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", body.decode())
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):  # nobody reads on
                self.wfile.write(body)

        do_PUT = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_the_url_of_a_spot_notice_is_the_configs_or_the_environments():
    there = {"RECAP_SPOT_NOTICE": "http://169.254.169.254/spot"}
    assert notice_url(None, {}) is None
    assert notice_url(None, {"RECAP_SPOT_NOTICE": ""}) is None
    assert notice_url(None, there) == there["RECAP_SPOT_NOTICE"]
    assert notice_url("http://localhost/here", there) == "http://localhost/here"
    with pytest.raises(ConfigError, match="RECAP_SPOT_NOTICE is 'yes' in the environment"):
        notice_url(None, {"RECAP_SPOT_NOTICE": "yes"})


def test_a_spot_notice_ends_a_run_as_a_signal_does(tmp_path):
    def reclaim_when_ready(service):
        pid_when_ready(tmp_path)
        service.reclaimed.set()

    with metadata() as service:
        reclaiming = threading.Thread(target=reclaim_when_ready, args=(service,))
        reclaiming.start()
        notice = SpotNotice(service.url, every=0.05)
        outcome = supervise(python(TRAINER, tmp_path), tmp_path, 1, 30, notice)
        reclaiming.join()
    assert outcome == Outcome(ExitCode.RETRY, "saved")
    assert not psutil.pid_exists(pid_when_ready(tmp_path))
