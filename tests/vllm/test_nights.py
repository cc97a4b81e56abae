"""Claims about nights on vLLM: the real command in its own process, stopped and killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from job.config.commands import SummarizeConfig
from job.conversations.record import Conversation
from job.inference.vllm_engine import VllmEngine
from job.prompt.encode import Encoder
from job.storage.folders import verify_folder
from job.summarization.summarize import summarize
from job.summarization.summarizer import Summarizer, fetch_digests
from tests.summarization.conftest import conversation, read_lines, results_below, write_lines
from tests.vllm.engines import MIN_SAME_SHARE, SETTINGS, Watched, over

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]
GRACE_SECONDS = 30  # between a scheduler's SIGTERM and its SIGKILL


def settings(tmp_path: Path, adapter: Path, **keys: Any) -> dict[str, Any]:
    return {
        "run": "night",
        "input": str(tmp_path / "in.jsonl"),
        "output": str(tmp_path / "out"),
        "adapter": str(adapter),
        "model": {"dtype": "float32"},
        "generation": {"max_new_tokens": 24},
        "limits": {"max_reject_fraction": 1},
    } | keys


def command(tmp_path: Path, content: dict[str, Any]) -> list[str]:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return [sys.executable, "-m", "job", "summarize", str(path)]


def finish(tmp_path: Path, content: dict[str, Any]) -> list[dict[str, Any]]:
    """Run to the end, and return the log: each line is JSON."""
    done = subprocess.run(command(tmp_path, content), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def records(count: int) -> list[dict[str, Any]]:
    return [conversation(f"c{n}", "late " * (n % 9 + 1), f"parcel {n}") for n in range(count)]


def outcomes_of(folder: Path) -> dict[str, dict[str, Any]]:
    lines = read_lines(
        folder / "parts" / "part-00000.jsonl", folder / "rejects" / "part-00000.jsonl"
    )
    found = {line["id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def test_both_engines_leave_the_same_records_with_their_name(adapter, tmp_path):
    write_lines(tmp_path / "in.jsonl", [*records(60), "{broken", conversation("empty", " ")])
    found, logged = {}, {}
    for name, keys in {
        "vllm": {"engine": "vllm"},
        "transformers": {"engine": "transformers"},
        "merged": {"adapter_weights": "merged"},  # auto
    }.items():
        content = settings(
            tmp_path, adapter, output=str(tmp_path / name), chunks={"records": 20}, **keys
        )
        log = finish(tmp_path, content)
        logged[name] = next(line for line in log if line["message"] == "engine")
        found[name] = outcomes_of(tmp_path / name)
        engines = verify_folder(tmp_path / name).extra["engines"]
        assert engines == {logged[name]["engine"]: 4}
    assert logged["vllm"]["engine"] == logged["merged"]["engine"] == "vllm 0.32.0"
    assert logged["merged"]["why"] == "it is installed and can serve the model"
    wanted = found["transformers"]
    for name in ("vllm", "merged"):
        ours = found[name]
        assert list(ours) == list(wanted)
        assert [line.get("reason") for line in ours.values()] == [
            line.get("reason") for line in wanted.values()
        ]
        same = sum(ours[id].get("summary") == wanted[id].get("summary") for id in ours)
        assert same >= MIN_SAME_SHARE * len(ours)
    digests = {
        name: [line.get("digest") for line in lines.values()] for name, lines in found.items()
    }
    assert digests["vllm"] == digests["transformers"] != digests["merged"]


@contextmanager
def running(tmp_path: Path, content: dict[str, Any]) -> Iterator["subprocess.Popen[bytes]"]:
    """The real command, once it has committed the first of its chunks."""
    process = subprocess.Popen(
        command(tmp_path, content), stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        while not any((tmp_path / "out").glob("_chunks/*/*/*.done.json")):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.communicate()


def left_of(session: int) -> list[str]:
    """Return the command lines of a session's processes; zombies do not count."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_night_ends_in_time_with_all_processes_and_resumes(adapter, tmp_path, sent):
    write_lines(tmp_path / "in.jsonl", records(1200))
    content = settings(tmp_path, adapter, engine="vllm", chunks={"records": 100})
    with running(tmp_path, content) as process:
        process.send_signal(sent)
        code = process.wait(GRACE_SECONDS)
        assert code == (75 if sent == signal.SIGTERM else -signal.SIGKILL)
        assert left_of(process.pid) == []
    assert results_below(tmp_path / "out") == []
    log = finish(tmp_path, content)
    assert next(line for line in log if line["message"] == "to do")["done_before"] > 0
    assert sorted(outcomes_of(tmp_path / "out")) == sorted(f"c{n}" for n in range(1200))


def test_many_small_chunks_take_hardly_more_steps_than_one(engine, fetched, adapter, tmp_path):
    """A step serves all running prompts. An engine that runs empty after each chunk needs more."""
    write_lines(tmp_path / "in.jsonl", records(1200))
    keys = {"chunks": {"records": 100}}
    config = SummarizeConfig.model_validate(settings(tmp_path, adapter, **keys))

    def summarizer(ours: VllmEngine) -> Summarizer:
        digests = fetch_digests(config, tmp_path)
        encoder = Encoder(fetched.prompt, fetched.tokenizer, ours.context_tokens - 24)
        return Summarizer(ours, encoder, fetched.prompt.cleaning, digests, "vllm")

    by_chunks = Watched(engine._engine)
    counts = summarize(config, lambda *_: summarizer(over(engine, by_chunks)))
    assert counts.records == 1200
    assert by_chunks.added == 1200
    assert len(results_below(tmp_path / "out")) == 5
    at_once, unaware = Watched(engine._engine), Watched(engine._engine)
    prompts = prompts_of(config, summarizer(engine))
    over(engine, at_once).generate(prompts, SETTINGS)
    for start in range(0, 1200, 100):
        over(engine, unaware).generate(prompts[start : start + 100], SETTINGS)
    print(
        f"steps: {by_chunks.steps} by chunks, {at_once.steps} at once, "
        f"{unaware.steps} without looking ahead"
    )
    assert by_chunks.steps <= 1.05 * at_once.steps
    assert unaware.steps > 1.5 * at_once.steps


def prompts_of(config: SummarizeConfig, summarizer: Summarizer) -> list[list[int]]:
    from job.conversations.read import read_conversations
    from job.summarization.inputs import find_night_inputs

    encoder = replace(summarizer.encoder, max_tokens=400)
    found = []
    for record in read_conversations(find_night_inputs(config).files, config.data):
        assert isinstance(record, Conversation)
        found.append(encoder.encode(record).ids)
    return found


def refused(tmp_path: Path, content: dict[str, Any]) -> str:
    """Return the log of a run that a mistake in the config ends, before it has any result."""
    done = subprocess.run(command(tmp_path, content), capture_output=True, text=True, timeout=600)
    assert done.returncode == 64, done.stderr
    assert results_below(tmp_path / "out") == []
    return done.stderr


def test_base_that_generates_nan_is_a_mistake_in_the_config(vllm_base, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    shutil.copytree(vllm_base, tmp_path / "base")
    broken = AutoModelForCausalLM.from_pretrained(vllm_base)
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    broken.save_pretrained(tmp_path / "base")
    write_lines(tmp_path / "in.jsonl", records(5))
    keys = {"model": {"base": str(tmp_path / "base")}, "engine": "vllm"}
    content = settings(tmp_path, tmp_path) | {"adapter": None} | keys
    log = refused(tmp_path, content)
    assert "model.dtype: the base cannot compute in it" in log
    assert "each of the first 5 conversations (FloatingPointError: NaNs detected in logits" in log


def test_context_that_does_not_fit_into_memory_is_shortened(vllm_base, tmp_path):
    shutil.copytree(vllm_base, tmp_path / "base")
    path = tmp_path / "base" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 1 << 21}))
    write_lines(tmp_path / "in.jsonl", records(5))
    base = {"base": str(tmp_path / "base"), "dtype": "float32"}
    content = settings(tmp_path, tmp_path) | {"adapter": None, "model": base, "engine": "vllm"}
    insisting = content | {"generation": {"max_new_tokens": 24, "max_input_tokens": (1 << 21) - 24}}
    log = refused(tmp_path, insisting)
    assert "engine: vllm does not start (" in log
    assert "lower generation.max_input_tokens" in log
    warning = next(
        line
        for line in finish(tmp_path, content)
        if line["message"].startswith("vLLM has a shorter context")
    )
    assert 1000 < warning["tokens"] < warning["of"] == 1 << 21
    assert len(outcomes_of(tmp_path / "out")) == 5
