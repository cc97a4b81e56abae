"""Claims about `recap train`, through the real command: launcher, 4-bit base, TRL, storage."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from job.errors import ExitCode
from tests.faults.s3_proxy import FaultyS3
from tests.faults.trials import logged, on_tensorboard, store_of
from tests.html_page import parse

pytestmark = pytest.mark.usefixtures("places")
QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def command(config: Path) -> list[str]:
    return [sys.executable, "-m", "job", "train", str(config)]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def folder_digest(folder: Path) -> dict[str, str]:
    from job.storage.folders import sha256_file

    return {
        str(file.relative_to(folder)): sha256_file(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_a_run_leaves_an_adapter_that_loads_anywhere(
    config, write_config, base_folder, poisoned, recap
):
    path = write_config(config)
    done = subprocess.run(
        command(path), capture_output=True, text=True, check=False,
        env=os.environ | QUIET, cwd=poisoned,
    )  # fmt: skip
    assert done.returncode == ExitCode.DONE, done.stderr
    assert [*poisoned.glob("*.imported")] == [], "nothing is imported from the current folder"
    run = Path(config["output"]) / "tiny"
    adapter = run / "adapter"

    manifest = read_json(adapter / "manifest.json")
    assert {*manifest["files"], "manifest.json"} == set(folder_digest(adapter))
    for name in (
        "adapter_model.safetensors",
        "adapter_config.json",
        "prompt.json",
        "seen_tokens.json",
        "evaluation.json",
        "README.md",
    ):
        assert name in manifest["files"]
    # The report has texts of conversations. An adapter goes to places where they may not go.
    texts = [
        (folder / "evaluation.json").read_text("utf-8") for folder in (run / "report", adapter)
    ]
    assert ["restart" in text for text in texts] == [True, False]
    pickled = [name for name in manifest["files"] if name.endswith((".bin", ".pt", ".pth"))]
    assert not pickled, "safetensors only"
    assert read_json(adapter / "adapter_config.json")["base_model_name_or_path"] == str(base_folder)
    assert manifest["extra"]["base"]["uri"] == str(base_folder)

    journal = read_json(run / "run.json")
    assert journal["state"] == "finished"
    assert journal["attempts"][0]["last_step"] == 24
    assert journal["facts"]["data"]["train"]["rows"] == 48
    phases = ("plan", "import", "prepare", "load", "first_step")
    assert all(journal["facts"]["timings"][f"{phase}_seconds"] >= 0 for phase in phases)
    assert done.stderr.count('"message": "phases"') == 1
    left = [json.loads(line) for line in done.stderr.splitlines() if '"time left"' in line]
    assert left[0]["steps"] > left[-1]["steps"] == left[-1]["evaluations"] == 0
    assert left[-1]["seconds"] == left[-1]["scoring"] > 0, "samples predict the scores"
    weights = journal["facts"]["weights"]
    assert (weights["quantization"], weights["in_4_bits"]) == ("nf4-double", 81_920)
    assert (run / "config.yaml").exists()
    report = (run / "report" / "report.html").read_text("utf-8")
    assert "81,920 of 123,200 parameters were in 4 bits" in report
    planned = _cells_of(report, "plan")
    assert planned["Optimizer steps"] == ["24", "24"]
    assert planned["Tokens"][0] == planned["Tokens"][1] != "0"
    assert planned["Peak memory"][0] == "not asked"
    assert planned["Peak memory"][1].endswith(" GiB")
    assert sorted(folder.name for folder in (run / "checkpoints").iterdir()) == [
        "step-00000020",
        "step-00000024",
    ]
    _tensorboard_has_everything(run / "tensorboard")
    _peft_loads(adapter)

    again = recap("train", path)
    assert again.code == ExitCode.DONE
    assert "already" in again.err
    assert read_json(run / "run.json") == journal, "a finished run started again does nothing"

    other = recap("train", path, "--set", "lora.r=8")
    assert other.code == ExitCode.OUTPUT
    assert "lora.r: 4 there, 8 here" in other.err


def _cells_of(report: str, id: str) -> dict[str, list[str]]:
    """Return the cells of the table in the section of this id, by the head of their row."""
    (section,) = [each for each in parse(report).all() if each.attributes.get("id") == id]
    rows = [row for row in section.all("tr") if row.all("td")]
    return {row.all("th")[0].text: [cell.text for cell in row.all("td")] for row in rows}


def _tensorboard_has_everything(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    assert {
        "train/loss",
        "train/learning_rate",
        "train/gradient_norm",
        "train/tokens_per_second",
        "train/memory_gib",
        "validation/loss",
        "scores/rougeL/tuned",
        "scores/rougeL/lead-2",
    } <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("train/loss")] == list(range(1, 25))
    assert [e.step for e in events.Scalars("validation/loss")] == [10, 20, 24]
    assert any(tag.startswith("samples/") for tag in events.Tags()["tensors"])
    final = EventAccumulator(str(folder / "final"))
    final.Reload()
    assert {"final/rougeL", "final/validation_loss"} <= set(final.Tags()["scalars"])
    assert "_hparams_/session_start_info" in final.summary_metadata


def _peft_loads(adapter: Path) -> None:
    import torch
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(str(adapter), dtype=torch.float32)
    assert model(input_ids=torch.tensor([[0, 5, 6]])).logits.shape[:2] == (1, 3)


@pytest.mark.quality  # the whole command twice; kills in one process are in tests/faults
def test_a_preempted_run_ends_like_one_that_was_never_stopped(
    config, write_config, tmp_path, trials
):
    # Means of steps on both sides of the interruption.
    config["training"] |= {"optimizer": "paged_adamw_32bit", "log_every_steps": 3}
    config["training"] |= {"max_steps": 14}
    whole = config | {"output": str(tmp_path / "whole")}
    trials.finish(whole)

    config["training"]["save_every_steps"] = 4
    path = write_config(config)
    process = subprocess.Popen(
        command(path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | QUIET,
    )
    run = Path(config["output"]) / "tiny"
    while not (run / "checkpoints" / "step-00000004" / "manifest.json").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate()
    assert process.returncode == ExitCode.RETRY, log
    assert not (run / "adapter").exists()
    assert read_json(run / "run.json")["state"] == "preempted"

    # The newest checkpoint is damaged: it is skipped, and the one before it serves.
    newest = sorted((run / "checkpoints").iterdir())[-1]
    weights = newest / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    code, log = trials.run(config)
    assert code == ExitCode.DONE, log
    assert "passed over" in log
    assert len(read_json(run / "run.json")["attempts"]) == 2

    name = "adapter/adapter_model.safetensors"
    assert (run / name).read_bytes() == (tmp_path / "whole" / "tiny" / name).read_bytes()
    assert logged(store_of(config)) == logged(store_of(whole)), "and every logged number"


@pytest.mark.faults  # half a minute: a plan, a launcher and two ranks load the libraries
def test_two_processes_train_from_s3_to_s3_and_to_the_hub(
    config, write_config, base_folder, s3, hub, tmp_path
):
    from job.config.sections import StorageSection
    from job.model.fetch import fetch_adapter, read_adapter
    from job.storage.folders import read_manifest
    from job.storage.open import open_store

    store = open_store(s3.uri)
    for file in base_folder.iterdir():
        store.upload(file, f"base/{file.name}")
    for split in ("train", "validation"):
        store.upload(Path(config["data"][split]), f"data/{split}.jsonl")
        config["data"][split] = f"{s3.uri}/data/{split}.jsonl"
    config |= {
        "model": {"base": f"{s3.uri}/base"},
        "output": f"{s3.uri}/runs",
        "publish": {"hub": "org/tiny", "verify": False},
    }
    config["training"] |= {"processes": 2, "max_steps": 4, "optimizer": "adamw_torch"}
    config["evaluation"]["max_conversations"] = 2
    requests: list[str] = []

    def note(request: Any) -> None:
        requests.append(f"{request.method} {request.path.partition('?')[0]}")

    # A proxy without faults, which sees the requests.
    with FaultyS3(s3.endpoint).running() as between:
        between.reset(after=note)
        done = subprocess.run(
            command(write_config(config)), capture_output=True, text=True, check=False,
            env=os.environ | {"AWS_ENDPOINT_URL": between.endpoint},
        )  # fmt: skip
    assert done.returncode == ExitCode.DONE, done.stderr
    read = requests.count(f"GET /{s3.bucket}/data/train.jsonl")
    assert read == 1, "by the plan: the training, each of its processes, finds what that has read"
    assert hub.token not in done.stdout + done.stderr

    journal = json.loads(store.read("runs/tiny/run.json"))
    assert journal["state"] == "finished"
    assert journal["facts"]["processes"] == 2
    curve = on_tensorboard(store_of(config), "train/loss")
    assert [step for step, _ in curve] == [1, 2, 3, 4], "one curve, whole"
    manifest = read_manifest(store, "runs/tiny/adapter")
    assert manifest.extra["base"]["uri"] == f"{s3.uri}/base"
    pushed = hub.repositories["models/org/tiny"]
    assert pushed.private
    assert len(pushed.commits) == 1
    assert set(manifest.files) <= set(pushed.files)
    adapter = read_adapter("org/tiny", StorageSection())
    folder = fetch_adapter(adapter, tmp_path / "elsewhere")
    assert (folder / "adapter_model.safetensors").exists()
    assert adapter.base == manifest.extra["base"]


def test_rows_that_are_all_too_long_end_the_run(config, trials):
    config["training"]["max_tokens"] = 150
    code, log = trials.run(config)
    assert code == ExitCode.DATA, log
    assert "no row is left in train: none of its" in log
    assert "fits into training.max_tokens (150)" in log


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_training_process_does_not_begin_without_its_gpu(config, trials):
    code, log = trials.run(config, RECAP_GPUS="required")
    assert code in (ExitCode.CONFIG, ExitCode.RETRY)  # which, depends on torch's build
    assert "RECAP_GPUS=required" in log
    assert not Path(config["output"]).exists()
