"""Signals at any moment, through the real command: documented exit codes, nobody left behind, the same adapter."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from statistics import median

import psutil
import pytest

from job.errors import ExitCode
from job.launch.orphans import lives
from tests.faults.real import RealRun
from tests.faults.trials import adapter_digest, journal_of, published, store_of

KILLS = {1: 30, 2: 20}  # by the number of training processes


def hit(told: "psutil.Process | subprocess.Popen[str]", number: signal.Signals) -> bool:
    """Send a signal; whether it found a living process: one that has ended may still be in the table."""
    try:
        living = lives(psutil.Process(told.pid))
        os.kill(told.pid, number)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    return living


@pytest.mark.faults
@pytest.mark.parametrize("processes", [1, 2])
def test_signals_at_random_moments(small, tmp_path, processes):
    draw = random.Random(processes)
    training = small["training"] | {"processes": processes, "epochs": 20, "save_every_steps": 3}
    config = small | {"training": training}
    whole, began = config | {"run": "whole"}, time.monotonic()
    RealRun(whole, tmp_path).finish()
    longest = (
        time.monotonic() - began
    )  # a signal may come anywhere in a run, however slow the machine is
    adapter = adapter_digest(store_of(whole))
    ends: Counter[str] = Counter()
    seconds: list[float] = []
    kills, number = 0, 0
    while kills < KILLS[processes]:
        hurt = config | {"run": f"hurt-{number}"}
        number += 1
        run, store, code = RealRun(hurt, tmp_path), store_of(hurt), None
        while code != ExitCode.DONE and kills < KILLS[processes]:
            sent = draw.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
            process = run.start()
            time.sleep(draw.uniform(0.5, longest))
            trainers = (
                run.trainers() if draw.random() < 0.3 else []
            )  # as when one runs out of memory
            told = draw.choice(trainers) if trainers else process
            began = time.monotonic()
            landed = hit(told, sent)
            code = run.end(process)
            if not landed:  # it had ended before
                assert code in (ExitCode.DONE, ExitCode.RETRY), run.said
                continue
            seconds += [time.monotonic() - began] if sent != signal.SIGKILL else []
            kills += 1
            ends[
                f"{sent.name} to {'the first' if told is process else 'a training'} process: {code}"
            ] += 1
            unheard = (
                {-sent} if told is process and (sent == signal.SIGKILL or not run.said) else set()
            )
            assert code in {ExitCode.DONE, ExitCode.RETRY} | unheard, run.said
            seen = published(store)
            assert "adapter" in seen or code != ExitCode.DONE
            assert seen.get("adapter", adapter) == adapter, (
                "a training that was stopped is no adapter"
            )
        if code != ExitCode.DONE:
            run.finish()
        assert journal_of(store)["state"] == "finished"
        assert adapter_digest(store) == adapter, hurt["run"]
    stops = {told: times for told, times in ends.items() if not told.startswith("SIGKILL")}
    heard = sum(times for told, times in stops.items() if told.endswith(f": {int(ExitCode.RETRY)}"))
    assert heard > sum(stops.values()) * 2 // 3, f"the others came when all was done: {dict(ends)}"
    print(
        f"\n{processes} processes, {kills} kills, {number} runs, all with the same adapter: {dict(ends)}"
    )
    print(
        f"from a stop signal to the end: median {median(seconds):.1f} s, at most {max(seconds):.1f} s"
    )


@pytest.mark.faults
@pytest.mark.parametrize("trainer", [0, 1])
def test_a_stop_that_one_of_two_processes_hears_stops_both_at_one_step(small, tmp_path, trainer):
    config = small | {
        "training": small["training"] | {"processes": 2, "epochs": 200, "save_every_steps": 1000}
    }
    run = RealRun(config, tmp_path)
    assert run.interrupt(2, signal.SIGTERM, trainer) == ExitCode.RETRY, run.said
    story = journal_of(store_of(config))
    assert story["state"] == "preempted"
    last = story["attempts"][0]["last_step"]
    assert published(store_of(config)).keys() == {f"checkpoints/step-{last:08d}"}, (
        "what was saved is what it stopped at"
    )


@pytest.mark.faults
def test_a_process_that_hangs_ends_the_run_with_its_stacks(small, tmp_path):
    limits = {"stall_minutes": 0.25, "upload_minutes": 0.2}
    config = small | {
        "limits": limits,
        "training": small["training"] | {"processes": 2, "epochs": 200},
    }
    run = RealRun(config, tmp_path)
    assert run.interrupt(2, signal.SIGSTOP, 1) == ExitCode.RETRY
    assert "limits.stall_minutes" in run.said
    assert "in _inner_training_loop" in run.said, "what it was doing, wherever it met the other"
