"""Signals to the real command at any moment.

Each run ends with a documented exit code, leaves no process behind, and resumes to the same
adapter.
"""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import psutil
import pytest

from job.errors import ExitCode
from job.launch.processes import is_alive
from tests.faults.real import RealRun
from tests.faults.trials import adapter_digest, journal_of, published_folders, store_of

KILLS = {1: 30, 2: 20}  # by the number of training processes
SIGNALS = [signal.SIGTERM, signal.SIGTERM, signal.SIGKILL, signal.SIGINT]


def hit(target: "psutil.Process | subprocess.Popen[str]", number: signal.Signals) -> bool:
    """Send a signal, and return True if the process was alive.

    One that has ended may still be in the process table.
    """
    try:
        still_runs = is_alive(psutil.Process(target.pid))
        os.kill(target.pid, number)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    return still_runs


@dataclass
class Tally:
    """The signals that hit a living process."""

    kills: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    seconds_to_the_end: list[float] = field(default_factory=list)  # of stop signals

    def share_of_retries(self) -> float:
        """Return the share of the stop signals that ended with RETRY, and not when all was done."""
        stops = {end: times for end, times in self.ends.items() if not end.startswith("SIGKILL")}
        retry = f": {int(ExitCode.RETRY)}"
        retries = sum(times for end, times in stops.items() if end.endswith(retry))
        return retries / sum(stops.values())


def run_and_hit(run: RealRun, draw: random.Random, longest: float, tally: Tally) -> int:
    """Start a run, send one of its processes a signal at a random moment; return its exit code."""
    sent = draw.choice(SIGNALS)
    process = run.start()
    time.sleep(draw.uniform(0.5, longest))

    # Now and then only a training process, as when it runs out of memory.
    trainers = run.trainers() if draw.random() < 0.3 else []
    target = draw.choice(trainers) if trainers else process
    began = time.monotonic()
    has_hit = hit(target, sent)
    code = run.end(process)
    if not has_hit:
        assert code in (ExitCode.DONE, ExitCode.RETRY), run.log
        return code

    tally.kills += 1
    if sent != signal.SIGKILL:
        tally.seconds_to_the_end.append(time.monotonic() - began)
    which = "the first" if target is process else "a training"
    tally.ends[f"{sent.name} to {which} process: {code}"] += 1
    allowed = {ExitCode.DONE, ExitCode.RETRY}
    if target is process and (sent == signal.SIGKILL or not run.log):
        allowed.add(-sent)  # it had no time to install its handlers
    assert code in allowed, run.log
    return code


@pytest.mark.faults
@pytest.mark.parametrize("processes", [1, 2])
def test_signals_at_random_moments(small, tmp_path, processes):
    draw = random.Random(processes)
    training = small["training"] | {"processes": processes, "epochs": 20, "save_every_steps": 3}
    limits = {"max_silent_attempts": None}  # three kills within the first steps prove nothing
    config: dict[str, Any] = small | {"training": training, "limits": limits}
    whole = config | {"run": "whole"}
    began = time.monotonic()
    RealRun(whole, tmp_path).finish()
    longest = time.monotonic() - began  # of this machine, so a signal may come anywhere in a run
    adapter = adapter_digest(store_of(whole))

    tally = Tally()
    runs = 0
    while tally.kills < KILLS[processes]:
        hurt = config | {"run": f"hurt-{runs}"}
        runs += 1
        run = RealRun(hurt, tmp_path)
        store = store_of(hurt)
        code = None
        while code != ExitCode.DONE and tally.kills < KILLS[processes]:
            code = run_and_hit(run, draw, longest, tally)
            published = published_folders(store)
            assert "adapter" in published or code != ExitCode.DONE
            assert published.get("adapter", adapter) == adapter, "only a finished run has one"
        if code != ExitCode.DONE:
            run.finish()
        assert journal_of(store)["state"] == "finished"
        assert adapter_digest(store) == adapter, hurt["run"]

    ends = dict(tally.ends)
    assert tally.share_of_retries() > 2 / 3, f"the others came when all was done: {ends}"
    counts = f"{processes} processes, {tally.kills} kills, {runs} runs"
    print(f"\n{counts}, all with the same adapter: {ends}")
    seconds = tally.seconds_to_the_end
    times = f"median {median(seconds):.1f} s, at most {max(seconds):.1f} s"
    print(f"from a stop signal to the end: {times}")


@pytest.mark.faults
@pytest.mark.parametrize("trainer", [0, 1])
def test_a_stop_signal_to_one_of_two_processes_stops_both_alike(small, tmp_path, trainer):
    training = small["training"] | {"processes": 2, "epochs": 200, "save_every_steps": 1000}
    config = small | {"training": training}
    run = RealRun(config, tmp_path)
    assert run.interrupt(2, signal.SIGTERM, trainer) == ExitCode.RETRY, run.log
    journal = journal_of(store_of(config))
    assert journal["state"] == "preempted"
    last = journal["attempts"][0]["last_step"]
    committed = published_folders(store_of(config))
    assert committed.keys() == {f"checkpoints/step-{last:08d}"}, "the step at which it stopped"


@pytest.mark.faults
def test_a_process_that_hangs_ends_the_run_with_its_stacks(small, tmp_path):
    training = small["training"] | {"processes": 2, "epochs": 200}
    limits = {"stall_minutes": 0.25, "upload_minutes": 0.2}
    run = RealRun(small | {"limits": limits, "training": training}, tmp_path)
    assert run.interrupt(2, signal.SIGSTOP, 1) == ExitCode.RETRY
    assert "limits.stall_minutes" in run.log
    assert "in _inner_training_loop" in run.log, "the stack of the one that waits"
