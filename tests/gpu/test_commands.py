"""Claims about whole commands on GPUs: what is logged of them, and several that share a base."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from job.errors import ExitCode
from tests.tiny import make_base

ROOT = Path(__file__).parents[2]
THINGS = ["phone", "parcel", "refund", "flight", "invoice", "router", "booking"]


def write_jsonl(path: Path, numbers: range) -> str:
    lines = []
    for number in numbers:
        thing = THINGS[number % len(THINGS)]
        turns = [
            {"role": "customer", "text": f"My {thing} {number} has not come since {number * 7}."},
            {"role": "agent", "text": f"Sorry! Tell me the code {number * 13} of the {thing}."},
        ]
        summary = f"{thing} {number} is late."
        lines.append(json.dumps({"id": f"c{number}", "turns": turns, "summaries": [summary]}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def config(tmp_path: Path, places: Path) -> dict[str, Any]:
    make_base(tmp_path / "base")
    return {
        "run": "gpu",
        "model": {"base": str(tmp_path / "base"), "quantization": "nf4-double"},
        "data": {
            "train": write_jsonl(tmp_path / "train.jsonl", range(16)),
            "validation": write_jsonl(tmp_path / "validation.jsonl", range(100, 104)),
        },
        "output": str(tmp_path / "runs"),
        "training": {"max_steps": 4, "evaluate_every_steps": 2, "sample_summaries": 1},
        "generation": {"max_new_tokens": 8},
        "evaluation": {"max_conversations": 4, "bootstrap_samples": 100},
        "publish": {"verify": False},
    }


Done = subprocess.CompletedProcess[str]


def recap(command: str, content: dict[str, Any], folder: Path, **environment: str) -> Done:
    path = folder / f"{command}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "job", command, str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
        check=False,
    )


def losses_in(log: str) -> list[float]:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line["loss"] for line in lines if line.get("message") == "step"]


def test_a_base_is_trained_and_the_adapter_summarizes(config, tmp_path):
    trained = recap("train", config, tmp_path)
    assert trained.returncode == ExitCode.DONE, trained.stderr
    night = {
        "run": "night",
        "input": config["data"]["validation"],
        "adapter": str(tmp_path / "runs" / "gpu" / "adapter"),
        "output": str(tmp_path / "night"),
        "engine": "transformers",
    }
    summarized = recap("summarize", night, tmp_path)
    assert summarized.returncode == ExitCode.DONE, summarized.stderr


def test_a_gpu_learns_what_a_cpu_learns(config, tmp_path, cuda):
    """TRL's fused head is a Triton kernel here, and 4-bit weights have kernels of their own."""
    config["model"]["dtype"] = "float32"
    config["lora"] = {"dropout": 0.0}  # each device draws its own
    config["training"] |= {"log_every_steps": 1}
    on_gpu = recap("train", config, tmp_path)
    assert on_gpu.returncode == ExitCode.DONE, on_gpu.stderr
    journal = (tmp_path / "runs" / "gpu" / "run.json").read_text(encoding="utf-8")
    assert torch.cuda.get_device_name(cuda) in journal

    on_cpu = recap("train", config | {"run": "cpu"}, tmp_path, CUDA_VISIBLE_DEVICES="")
    assert on_cpu.returncode == ExitCode.DONE, on_cpu.stderr
    found, wanted = losses_in(on_gpu.stderr), losses_in(on_cpu.stderr)
    assert found[0] == pytest.approx(wanted[0], rel=1e-3)
    # The adapters begin with other random numbers.
    assert found == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("distribution", ["ddp", "fsdp"])
def test_a_base_is_trained_on_two_gpus(config, tmp_path, distribution):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    config["training"] |= {"distribution": distribution, "optimizer": "adamw_torch"}
    trained = recap("train", config, tmp_path)
    assert trained.returncode == ExitCode.DONE, trained.stderr
