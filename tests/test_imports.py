"""Claims about what is not imported, and would take seconds at the start of a command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PLAN = """
import sys
from job.config.load import load_config
from job.launch.supervisor import launch_command
from job.preflight.training import plan_training
from job.storage.config_file import read_config

config = load_config("train", read_config(sys.argv[1]))
plan = plan_training(config, brief=True)
assert plan.error is None, plan.text()
print(*(name for name in ("torch", "transformers", "datasets", "peft") if name in sys.modules))
"""

WORKER = """
import gc, os, sys
from job.model.libraries import import_bitsandbytes, importing

with importing():
    import_bitsandbytes()
    from job.training.run import train

assert gc.isenabled() and gc.get_freeze_count(), "the collector looks for garbage in modules"
assert "TORCHDYNAMO_DISABLE" not in os.environ
names = ("torch._inductor.compile_fx", "vllm", "sacrebleu", "rouge_score", "tensorboard.main")
print(*(name for name in names if name in sys.modules))
import torch

assert hasattr(torch.compile(len), "_torchdynamo_orig_callable"), "nothing is compiled any more"
"""


def imported(program: str, *arguments: str) -> str:
    """Return the names that the program prints, in a process of its own."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_plan_of_a_training_that_starts_imports_no_torch(base_folder: Path, tmp_path: Path):
    for name in ("train", "validation"):
        turns = [{"role": "customer", "text": name}]
        record = {"id": name, "turns": turns, "summary": "A customer says a word."}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record) + "\n")
    config = {
        "run": "tiny",
        "model": {"base": str(base_folder)},
        "data": {
            "train": str(tmp_path / "train.jsonl"),
            "validation": str(tmp_path / "validation.jsonl"),
        },
        "output": str(tmp_path / "runs"),
    }
    path = tmp_path / "train.yaml"
    path.write_text(json.dumps(config))
    assert imported(PLAN, str(path)) == ""


@pytest.mark.quality  # a process that loads the libraries: 10 CPU seconds
def test_a_training_imports_no_compiler():
    assert imported(WORKER) == ""
