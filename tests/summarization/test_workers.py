"""Claims about the workers of one machine: who gets which GPU, and how they end together."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from job.config.commands import SummarizeConfig
from job.errors import ConfigError, ExitCode
from job.launch.processes import is_alive
from job.launch.variables import worker_variables
from job.storage.open import open_store
from job.summarization.shard import WHOLE, Claims, Shard, find_shard
from job.summarization.summarize import summarize
from job.summarization.workers import (
    Layout,
    describe_workers,
    judge_workers,
    plan_workers,
    run_workers,
)
from tests.stand_in import NO_WEIGHTS, StandInEngine, stand_in
from tests.summarization.conftest import conversation, read_lines, write_lines

ROOT = Path(__file__).parent.parent.parent
GPUS = ["0", "1", "2", "3"]
MIG = "MIG-1f0c0a2a-6a1e-5b0e-9d0c-9f6f2d6c1f11"
OTHER_MIG = "MIG-2f0c0a2a-6a1e-5b0e-9d0c-9f6f2d6c1f11"


@pytest.mark.parametrize(
    ("workers", "tensor_parallel", "gpus", "layout"),
    [
        ("auto", 1, [], Layout(1)),
        (4, 1, [], Layout(4)),
        ("auto", 1, ["0"], Layout(1, (("0",),))),
        ("auto", 1, GPUS, Layout(4, (("0",), ("1",), ("2",), ("3",)))),
        (2, 1, GPUS, Layout(2, (("0",), ("1",)))),
        ("auto", 2, GPUS, Layout(2, (("0", "1"), ("2", "3")))),
        ("auto", 4, GPUS, Layout(1, (("0", "1", "2", "3"),))),
        ("auto", 2, GPUS[:3], Layout(1, (("0", "1"),))),
        (1, 2, GPUS, Layout(1, (("0", "1"),))),
    ],
)
def test_each_worker_has_gpus_of_its_own(workers, tensor_parallel, gpus, layout):
    assert plan_workers(workers, tensor_parallel, gpus) == layout


@pytest.mark.parametrize(
    ("workers", "tensor_parallel", "gpus", "said"),
    [
        (5, 1, GPUS, "workers: 5, but 4 GPUs are visible on this machine: 4 at the most"),
        (3, 2, GPUS, r"workers: 3 with 2 GPUs each \(tensor_parallel\), but .*: 2 at the most"),
        ("auto", 2, ["0"], "tensor_parallel: 2, but 1 GPU is visible on this machine"),
        ("auto", 2, [MIG, OTHER_MIG], "tensor_parallel: 2, but this machine has MIG devices"),
    ],
)
def test_more_than_there_are_gpus_is_a_mistake(workers, tensor_parallel, gpus, said):
    with pytest.raises(ConfigError, match=said):
        plan_workers(workers, tensor_parallel, gpus)


@pytest.mark.parametrize(
    ("keys", "gpus", "text"),
    [
        ({}, [], "one for each GPU of a machine; 1 here, without a GPU"),
        ({}, GPUS, "one for each GPU of a machine; 4 here, with 4 GPUs"),
        ({"workers": 4}, [], "4 on each machine"),
        ({"workers": 2}, GPUS, "2 on each machine; 2 here, with 4 GPUs"),
        (
            {"tensor_parallel": 2},
            GPUS,
            "one for each 2 GPUs of a machine; 2 here, with 4 GPUs",
        ),
        (
            {"tensor_parallel": 2},
            ["0"],
            "one for each 2 GPUs of a machine; none here (tensor_parallel: 2, but 1 GPU is visible "
            "on this machine: take a machine with more of them, or lower it)",
        ),
    ],
)
def test_a_plan_says_how_many_workers_a_machine_starts(keys, gpus, text):
    least = {"run": "n", "input": "in", "output": "out", "adapter": "a"}
    config = SummarizeConfig.model_validate(least | keys)
    assert describe_workers(config, gpus) == text


def test_a_worker_sees_its_gpus_and_its_share_of_the_cores():
    cores = len(os.sched_getaffinity(0))
    above = {"HOME": "/h", "CUDA_VISIBLE_DEVICES": "2,3", "RECAP_GPUS": "2"}
    variables = worker_variables(above, ["3"], 2)
    assert variables["CUDA_VISIBLE_DEVICES"] == "3"
    assert variables["RECAP_GPUS"] == "1"
    assert variables["HOME"] == "/h"
    assert variables["OMP_NUM_THREADS"] == str(max(1, cores // 2))
    on_cpus = worker_variables({"OMP_NUM_THREADS": "5"}, None, 2)
    assert on_cpus["OMP_NUM_THREADS"] == "5"
    assert "CUDA_VISIBLE_DEVICES" not in on_cpus
    assert "RECAP_GPUS" not in on_cpus
    assert worker_variables({"RECAP_GPUS": "0"}, ["3"], 2)["RECAP_GPUS"] == "0"


def test_of_a_machines_workers_one_takes_a_chunk(tmp_path):
    one = find_shard("1/3", None, {"RECAP_CLAIMS": str(tmp_path)})
    other = Shard(1, 3, Claims(tmp_path))
    assert one.take(4)
    assert not other.take(4)
    assert (one.leaves(4), other.leaves(4)) == (False, True)
    assert [one.leaves(chunk) for chunk in (3, 7)] == [True, False]
    assert WHOLE.take(4)
    assert not WHOLE.leaves(4)


DONE, DATA, CONFIG, BUG, RETRY = 0, 65, 64, 70, 75


@pytest.mark.parametrize(
    ("returned", "is_stopped", "code"),
    [
        ([0, 0], False, DONE),
        ([0, 0], True, DONE),
        ([0, -9, 0, 0], False, 137),
        ([RETRY, -9], False, 137),
        ([-15, RETRY], False, 143),
        ([-11, -9, -6], False, 139),
        ([RETRY, 0], False, RETRY),
        ([-9, DATA, RETRY], False, DATA),
        ([BUG, CONFIG], False, BUG),
        ([-7, RETRY], False, 135),
        ([RETRY, -15, 0], True, RETRY),
        ([RETRY, -9], True, RETRY),
        ([RETRY, DATA], True, DATA),
        ([1, 0], False, 1),
    ],
)
def test_the_worst_end_of_a_worker_is_that_of_the_machine(returned, is_stopped, code):
    assert judge_workers(returned, {}, is_stopped).exit_code == code


def test_the_message_names_each_worker_unless_all_failed_alike():
    outcome = judge_workers([0, 65, -9], {1: "in.jsonl:3: no JSON"}, is_stopped=False)
    assert outcome.message == (
        "2 of 3 workers failed: worker 1 ended with 65 (in.jsonl:3: no JSON); worker 2 ended with "
        "137 (killed from outside, by the host or because memory ran out); what the workers "
        "committed is kept: run the same command again to resume"
    )
    at_limit = "a process was killed at the container's memory limit of 8 GiB"
    outcome = judge_workers([0, -9], {}, is_stopped=False, at_memory_limit=at_limit)
    assert f"ended with 137 ({at_limit}: give the container more" in outcome.message
    same = {0: "vLLM is not installed", 1: "vLLM is not installed"}
    assert judge_workers([64, 64], same, is_stopped=False).message == "vLLM is not installed"


# Real processes

WORKER = """
import os, signal, sys, time
from functools import partial
from pathlib import Path
import job.summarization.summarize as night
from job.cli import main
from tests.stand_in import StandInEngine, stand_in

class Engine(StandInEngine):
    is_first = True

    def generate(self, prompts, *rest):
        met = Path(os.environ["MET"])
        (met / str(os.getpid())).touch()
        while len(list(met.iterdir())) < 4:  # every worker has a chunk
            time.sleep(0.01)
        if any(b"deadly" in bytes(prompt) for prompt in prompts):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(prompts, *rest)

night.summarize = partial(night.summarize, open_with=stand_in(Engine()))
main()
"""
# Takes the next of the codes in its first argument, and ends with it.
ENDS_WITH = """
import os, sys
from pathlib import Path
for number, code in enumerate(sys.argv[1].split(",")):
    try:
        Path(os.environ["RECAP_CLAIMS"], f"end-{number}").touch(exist_ok=False)
    except FileExistsError:
        continue
    print("error: as told" if code != "0" else "done", file=sys.stderr)
    sys.exit(int(code))
"""
TELLS_SHARD = """
import os, sys
from job.summarization.shard import find_shard
shard = find_shard(sys.argv[3], None, os.environ)
claims = "claims" if shard.claims else "alone"
print(os.environ["CUDA_VISIBLE_DEVICES"], "Shard", shard, claims, file=sys.stderr)
"""
SLEEPER = """
import os, sys, time
from pathlib import Path
from job.launch.processes import die_with_parent
die_with_parent(int(os.environ["RECAP_SUPERVISOR"]))
Path(os.environ["MET"], str(os.getpid())).touch()
time.sleep(60)
"""


@pytest.fixture
def met(tmp_path, monkeypatch, places):
    """The folder in which each worker leaves a file of its process number."""
    folder = tmp_path / "met"
    folder.mkdir()
    monkeypatch.setenv("MET", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return folder


@pytest.fixture
def night(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(NO_WEIGHTS)
    texts = ["late"] * 39 + ["deadly"]
    records = [conversation(f"c{n}", text) for n, text in enumerate(texts)]
    return SummarizeConfig(
        run="night",
        input=str(write_lines(tmp_path / "in.jsonl", records)),
        output=str(tmp_path / "out"),
        model={"base": str(base)},
        chunks={"records": 2},
        workers=4,
    )


def committed(night):
    keys = [entry.key for entry in open_store(night.output).list("_chunks")]
    return [key for key in keys if key.endswith(".done.json")]


def pids_in(met, count):
    while len(found := [int(path.name) for path in met.iterdir()]) < count:
        time.sleep(0.02)
    return found


def is_running(pid):
    return psutil.pid_exists(pid) and is_alive(psutil.Process(pid))


def test_of_four_workers_one_killed_the_others_do_all_other_chunks(night, met, caplog):
    with caplog.at_level("INFO", "recap"):
        outcome = run_workers(night, WHOLE, Layout(4), [sys.executable, "-c", WORKER, "summarize"])
    assert outcome.exit_code == 128 + signal.SIGKILL
    assert outcome.message.startswith("1 of 4 workers failed: worker ")
    assert "ended with 137 (killed from outside" in outcome.message
    assert len(pids_in(met, 4)) == 4
    assert not any(map(is_running, pids_in(met, 4)))
    # The killed one had read one chunk ahead at the most.
    assert 18 <= len(committed(night)) <= 19
    workers = {record.fields["worker"] for record in caplog.records if "worker" in record.fields}
    assert workers == {0, 1, 2, 3}
    (progress,) = [each for each in caplog.records if each.getMessage() == "summarizing"]
    assert progress.fields["total"] == 40
    assert 0 < progress.fields["done"] <= 38  # the killed one has not said how far it was

    counts = summarize(night.model_copy(update={"workers": 1}), stand_in(StandInEngine()))
    assert counts.records == counts.summaries == 40
    rows = read_lines(Path(night.output, "parts", "part-00000.jsonl"))
    assert sorted(row["id"] for row in rows) == sorted(f"c{n}" for n in range(40))


def test_the_exit_code_of_real_workers_is_the_worst(night, met, caplog):
    command = [sys.executable, "-c", ENDS_WITH, "0,75,65"]
    with caplog.at_level("INFO", "recap"):
        outcome = run_workers(night, WHOLE, Layout(3), command)
    assert outcome.exit_code == ExitCode.DATA
    assert outcome.message.count("(as told)") == 2
    levels = {(each.getMessage(), each.levelname) for each in caplog.records}
    assert levels >= {("done", "WARNING"), ("error: as told", "ERROR")}


@pytest.mark.parametrize(
    "scheduler",
    [
        {"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "3"},
        {"JOB_COMPLETION_INDEX": "1", "RECAP_SHARDS": "3"},
    ],
    ids=["AWS Batch", "Kubernetes"],
)
def test_workers_share_the_shard_of_their_machine(night, met, monkeypatch, caplog, scheduler):
    for name, value in scheduler.items():
        monkeypatch.setenv(name, value)
    shard = find_shard(None, None, scheduler)
    with caplog.at_level("INFO", "recap"):
        run_workers(night, shard, Layout(2, (("0",), ("1",))), [sys.executable, "-c", TELLS_SHARD])
    told = [record.getMessage() for record in caplog.records if "Shard" in record.getMessage()]
    assert sorted(told) == ["0 Shard 1/3 claims", "1 Shard 1/3 claims"]


def test_a_stop_signal_reaches_every_worker(night, met):
    def stop():
        pids_in(met, 2)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = threading.Thread(target=stop)
    stopping.start()
    outcome = run_workers(night, WHOLE, Layout(2), [sys.executable, "-c", SLEEPER])
    stopping.join()
    assert outcome.exit_code == ExitCode.RETRY
    assert not any(map(is_running, pids_in(met, 2)))


def test_workers_die_with_a_parent_that_is_killed(night, met, tmp_path):
    code = (
        "import sys; from job.config.load import load_config; "
        "from job.storage.config_file import read_config; "
        "from job.summarization.workers import Layout, run_workers; "
        "from job.summarization.shard import WHOLE; "
        "config = load_config('summarize', read_config(sys.argv[1])); "
        "run_workers(config, WHOLE, Layout(2), [sys.executable, '-c', sys.argv[2]])"
    )
    path = tmp_path / "night.yaml"
    path.write_text(night.model_dump_json(), encoding="utf-8")
    with subprocess.Popen([sys.executable, "-c", code, str(path), SLEEPER]) as parent:
        workers = pids_in(met, 2)
        parent.kill()
    while any(map(is_running, workers)):
        time.sleep(0.02)
    assert parent.returncode == -signal.SIGKILL
