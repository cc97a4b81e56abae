"""Signals at any moment, through the real command: documented exit codes, nobody left behind, the same adapter."""

import random
import signal
import time
from collections import Counter

import pytest

from job.errors import ExitCode
from tests.faults.real import RealRun
from tests.faults.trials import adapter_digest, journal_of, published, store_of

KILLS = 50
SECONDS = {1: 12.0, 2: 18.0}  # about what a whole run takes


@pytest.mark.faults
@pytest.mark.parametrize("processes", [1, 2])
def test_signals_at_random_moments(small, tmp_path, processes):
    draw = random.Random(processes)
    training = small["training"] | {"processes": processes, "epochs": 20, "save_every_steps": 3}
    config = small | {"training": training}
    whole = config | {"run": "whole"}
    RealRun(whole, tmp_path).finish()
    ends: Counter[str] = Counter()
    kills, number = 0, 0
    while kills < KILLS // 2:
        hurt = config | {"run": f"hurt-{number}"}
        number += 1
        run, store, code = RealRun(hurt, tmp_path), store_of(hurt), None
        while code != ExitCode.DONE and kills < KILLS // 2:
            sent = draw.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
            process = run.start()
            time.sleep(draw.uniform(0.5, SECONDS[processes]))
            process.send_signal(sent)
            code = run.end(process)
            kills += 1
            ends[f"{sent.name}: {code}"] += 1
            assert code in (ExitCode.DONE, ExitCode.RETRY, -signal.SIGKILL, -sent), run.said
            assert ("adapter" in published(store)) or code != ExitCode.DONE
        if code != ExitCode.DONE:
            run.finish()
        assert journal_of(store)["state"] == "finished"
        assert adapter_digest(store) == adapter_digest(store_of(whole)), hurt["run"]
    print(f"\n{processes} processes, {kills} kills, {number} runs, all with the same adapter: {dict(ends)}")
