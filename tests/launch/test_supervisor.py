"""Claims about the process above the launcher, with real processes and real signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from job.errors import ExitCode
from job.launch.outcome import Outcome, read_outcome, write_outcome
from job.launch.supervisor import launch_command, supervise

SPEAK = "from pathlib import Path; from job.launch.outcome import Outcome, write_outcome; import sys; "


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def says(code: int, message: str = "") -> str:
    return SPEAK + f"write_outcome(Path(sys.argv[1]), Outcome({code}, {message!r}))"


@pytest.mark.parametrize("code", [ExitCode.DONE, ExitCode.DATA, ExitCode.RETRY, ExitCode.FORBIDDEN])
def test_the_trainers_word_decides_whatever_the_launcher_returns(tmp_path, code):
    outcome = supervise(python(says(code, "why") + "; sys.exit(1)", tmp_path), tmp_path, 1, 10)
    assert outcome == Outcome(code, "why")


def test_a_trainer_that_dies_without_a_word_is_a_bug(tmp_path):
    outcome = supervise(python("raise SystemExit(3)"), tmp_path, 1, 10)
    assert outcome.exit_code == ExitCode.BUG
    assert "ended with 3" in outcome.message


def test_a_trainer_killed_from_outside_is_to_be_run_again(tmp_path):
    outcome = supervise(python("import os; os.kill(os.getpid(), 9)"), tmp_path, 1, 10)
    assert outcome.exit_code == ExitCode.RETRY


def test_done_needs_the_word_of_every_process(tmp_path, monkeypatch):
    write_outcome(tmp_path, Outcome(ExitCode.DONE, "done"))
    assert read_outcome(tmp_path, 2) is None
    monkeypatch.setenv("RANK", "1")
    write_outcome(tmp_path, Outcome(ExitCode.DATA, "bad row"))
    assert read_outcome(tmp_path, 2) == Outcome(ExitCode.DATA, "bad row")


LAUNCHER_THAT_LOSES_SIGNALS = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]]).wait()
"""
TRAINER = SPEAK + (
    "import signal, time; "
    "signal.signal(signal.SIGTERM, lambda *a: (write_outcome(Path(sys.argv[1]), Outcome(75, 'saved')), sys.exit(0))); "
    "Path(sys.argv[1], 'ready').write_text(str(__import__('os').getpid())); time.sleep(60)"
)
STUBBORN = (
    "import os, signal, sys, time; from pathlib import Path; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "Path(sys.argv[1], 'ready').write_text(str(os.getpid())); time.sleep(60)"
)


def supervisor(work: Path, trainer: str, grace: float) -> "subprocess.Popen[str]":
    code = (
        "import sys; from pathlib import Path; from job.launch.supervisor import supervise; "
        "o = supervise([sys.executable, '-c', sys.argv[2], sys.argv[1], sys.argv[3]], "
        "Path(sys.argv[1]), 1, float(sys.argv[4])); print(o.message); sys.exit(o.exit_code)"
    )
    command = python(code, work, LAUNCHER_THAT_LOSES_SIGNALS, trainer, grace)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def pid_when_ready(work: Path) -> int:
    ready = work / "ready"
    while not (ready.exists() and ready.read_text()):
        time.sleep(0.02)
    return int(ready.read_text())


def lives(pid: int) -> bool:
    """Whether a process still runs; one that nobody has waited for yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_reaches_the_trainer_below_a_launcher_that_loses_it(tmp_path, number):
    above = supervisor(tmp_path, TRAINER, grace=30)
    trainer = pid_when_ready(tmp_path)
    time.sleep(0.5)  # the launcher tree is looked at every 0.2 s
    os.kill(above.pid, number)
    out, _ = above.communicate()
    assert above.returncode == ExitCode.RETRY
    assert out.strip() == "saved"
    assert not lives(trainer)


def test_after_the_grace_period_nobody_is_left(tmp_path):
    above = supervisor(tmp_path, STUBBORN, grace=1)
    trainer = pid_when_ready(tmp_path)
    time.sleep(0.5)
    os.kill(above.pid, signal.SIGTERM)
    above.communicate()
    assert above.returncode == ExitCode.RETRY
    assert not lives(trainer)


def test_one_process_and_several_have_their_launchers(tmp_path):
    assert "--cpu" in launch_command(tmp_path, 1, has_gpu=False)
    assert "--cpu" not in launch_command(tmp_path, 1, has_gpu=True)
    for has_gpu in (True, False):
        command = launch_command(tmp_path, 2, has_gpu)
        assert "--multi_gpu" in command
        assert "--main_process_port" in command
