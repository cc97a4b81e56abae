"""Claims about a base whose weights several processes share. On a CPU they stand for GPUs."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from job.errors import ConfigError
from job.inference.choose import choose
from job.inference.serving import ServingWish
from job.launch.processes import is_alive
from job.storage.folders import verify_folder
from tests.summarization.conftest import conversation, read_lines, write_lines
from tests.vllm.conftest import HEADS
from tests.vllm.engines import MIN_SAME_SHARE, SECTION, SETTINGS

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]
SECONDS_TO_END = 120  # one that is still importing ends when it has imported recap's extension


def start(tmp_path: Path, name: str, **keys: Any) -> "subprocess.Popen[bytes]":
    content = {
        "run": "night",
        "input": str(tmp_path / "in.jsonl"),
        "output": str(tmp_path / name),
        "model": {"dtype": "float32"},
        "generation": {"max_new_tokens": 24},
        "chunks": {"records": 20},
        "limits": {"max_reject_fraction": 1},
        "engine": "vllm",
    }
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content | keys), encoding="utf-8")
    command = [sys.executable, "-m", "job", "summarize", str(path)]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def summaries_of(folder: Path) -> list[str]:
    return [row["summary"] for row in read_lines(folder / "parts" / "part-00000.jsonl")]


def test_two_processes_that_share_a_base_answer_as_one(adapter, tmp_path):
    records = [conversation(f"c{n}", "late " * (n % 9 + 1), f"parcel {n}") for n in range(60)]
    write_lines(tmp_path / "in.jsonl", records)
    for name, number in {"shared": 2, "alone": 1}.items():
        process = start(tmp_path, name, adapter=str(adapter), tensor_parallel=number)
        _, log = process.communicate()
        assert process.returncode == 0, log
    shared = summaries_of(tmp_path / "shared")
    alone = summaries_of(tmp_path / "alone")
    same = sum(one == other for one, other in zip(shared, alone, strict=True))
    assert same >= MIN_SAME_SHARE * len(alone) > 40
    assert verify_folder(tmp_path / "shared").extra["engines"] == {"vllm 0.32.0": 3}


def wait_for_no(processes: list[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while left := [process for process in processes if is_alive(process)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("when", ["loading", "summarizing"])
def test_no_process_outlives_a_night_that_is_stopped_or_killed(adapter, tmp_path, sent, when):
    records = [conversation(f"c{n}", "late " * (n % 9 + 1)) for n in range(20_000)]
    write_lines(tmp_path / "in.jsonl", records)
    process = start(tmp_path, "out", adapter=str(adapter), tensor_parallel=2)
    night = psutil.Process(process.pid)
    # The worker, the tracker of its shared memory, and two processes of vLLM.
    while len(night.children(recursive=True)) < 4:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    if when == "summarizing":
        while not any((tmp_path / "out").glob("_chunks/*/*/*.done.json")):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.05)
    below = night.children(recursive=True)
    process.send_signal(sent)
    process.communicate()
    assert process.returncode == (75 if sent == signal.SIGTERM else -signal.SIGKILL)
    wait_for_no(below, SECONDS_TO_END)


def test_heads_that_cannot_be_shared_are_refused_with_the_numbers_that_can(fetched):
    assert choose(fetched, ServingWish(SECTION, SETTINGS, tensor_parallel=HEADS)) == (
        "vllm",
        "only it shares the weights among GPUs",
    )
    message = "tensor_parallel: 3 needs vLLM, and the 2 attention heads .* one of 1, 2$"
    with pytest.raises(ConfigError, match=message):
        choose(fetched, ServingWish(SECTION, SETTINGS, tensor_parallel=3))
