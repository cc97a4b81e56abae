"""A real night of four workers on one machine, of which one or all are killed or stopped."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from job.storage.folders import verify_folder
from tests.faults.real import RealRun
from tests.summarization.conftest import conversation, read_lines, results_below, write_lines

pytestmark = pytest.mark.faults
RECORDS = 2400
COMMITTED = "_chunks/*/*/*.done.json"


@pytest.fixture
def config(base_folder: Path, tmp_path: Path, places: Path) -> dict[str, Any]:
    records = [conversation(f"c{n}", "late " * (n % 9 + 1)) for n in range(RECORDS)]
    return {
        "run": "night",
        "input": str(write_lines(tmp_path / "in.jsonl", records)),
        "output": str(tmp_path / "out"),
        "model": {"base": str(base_folder)},
        "generation": {"max_new_tokens": 3},
        "chunks": {"records": 60},
        "limits": {"max_reject_fraction": 1},
        "cost_per_hour": 3600,
        "workers": 4,
    }


def committed(config: dict[str, Any]) -> int:
    return len(list(Path(config["output"]).glob(COMMITTED)))


def start(run: RealRun, config: dict[str, Any]) -> "subprocess.Popen[str]":
    """Start the night, and return once each of its workers may have committed a chunk."""
    before = committed(config)
    process = run.start()
    while committed(config) < before + config["workers"]:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    return process


def test_a_night_of_four_workers_survives_each_kind_of_end(config, tmp_path):
    run = RealRun(config, tmp_path, "summarize")

    process = start(run, config)
    os.kill(run.workers()[1].pid, signal.SIGKILL)
    code = run.end(process)
    assert code == 128 + signal.SIGKILL, run.log
    assert "error: 1 of 4 workers failed: worker" in run.log
    # The others go on: what is missing is what the killed one had taken, with what it read ahead.
    after_one_kill = committed(config)
    assert after_one_kill >= RECORDS // 60 - 4
    assert results_below(Path(config["output"])) == []

    # Another limit of tokens is another night, which begins anew.
    again = config | {"generation": {"max_new_tokens": 4}, "output": str(tmp_path / "again")}
    run = RealRun(again, tmp_path, "summarize")
    for sent, wanted in {
        signal.SIGTERM: ExitCode.RETRY,
        signal.SIGINT: ExitCode.RETRY,
        signal.SIGKILL: -signal.SIGKILL,
    }.items():
        process = start(run, again)
        process.send_signal(sent)
        assert run.end(process) == wanted, run.log
        assert results_below(Path(again["output"])) == []

    for content in (config, again):
        # Another number of workers finds all that was committed.
        kept = committed(content)
        run = RealRun(content | {"workers": 2}, tmp_path, "summarize")
        run.finish()
        assert f'"done_before": {kept}' in run.log
        out = Path(content["output"])
        files = [out / folder / "part-00000.jsonl" for folder in ("parts", "rejects")]
        ids = [row["id"] for row in read_lines(*files)]
        assert sorted(ids) == sorted(f"c{n}" for n in range(RECORDS))
        facts = verify_folder(out).extra
        # Of each second of a machine, some were shared by four workers and some by two.
        assert facts["seconds"] / 4 < facts["cost"] < facts["seconds"] / 2
