"""Run `recap train` and `recap summarize` for real, and time when each line of their logs comes."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import yaml

from benchmarks.gpu.bases import TOKENIZER, random_base, write_base
from benchmarks.gpu.turns import ROOT, Turn
from job.config.sections import ModelSection
from job.model.load import free_memory

DATA = TOKENIZER.parent


def time_phases(specification: Mapping[str, Any], turn: Turn) -> None:
    """Report the seconds from the start of each command to its first steps and to its end.

    The base is on the local disk: its weights are read, hashed and loaded as a user's.
    """
    work = Path(mkdtemp(prefix="recap-bench-"))
    base = _write_whole_base(work / "base", specification["shape"])
    configs = _configs(work, base, specification)
    found = {}
    for command, path in configs.items():
        arrivals = _arrivals(command, path)
        found |= {f"{command}: {message}": seconds for message, seconds in arrivals.items()}
    journal = json.loads((work / "phases" / "run.json").read_text(encoding="utf-8"))
    timings = journal["facts"]["timings"]
    turn.report(found | {f"train: {name}": seconds for name, seconds in timings.items()})


def _write_whole_base(folder: Path, shape: str) -> Path:
    write_base(folder, shape)
    model = random_base(folder, ModelSection(base=str(folder), quantization=None))
    model.save_pretrained(folder)
    del model
    free_memory()
    return folder


def _configs(work: Path, base: Path, specification: Mapping[str, Any]) -> dict[str, Path]:
    """Write the configs of a short training and a short night, and return them by command."""
    conversations = specification["conversations"]
    for name in ("train", "validation"):
        lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:conversations]
        (work / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    train = {
        "run": "phases",
        "model": {"base": str(base)},
        "data": {name: str(work / f"{name}.jsonl") for name in ("train", "validation")},
        "output": str(work),
        "training": {"max_steps": 4, "evaluate_every_steps": 2, "log_every_steps": 1},
        "generation": {"max_new_tokens": 32},
        "evaluation": {"max_conversations": conversations},
        "publish": {"verify": False},
    }
    summarize = {
        "run": "night",
        "input": str(work / "validation.jsonl"),
        "adapter": str(work / "phases" / "adapter"),
        "output": str(work / "summaries"),
        "engine": "transformers",
        "generation": {"max_new_tokens": 32},
    }
    paths = {}
    for command, content in (("train", train), ("summarize", summarize)):
        paths[command] = work / f"{command}.yaml"
        paths[command].write_text(yaml.safe_dump(content), encoding="utf-8")
    return paths


def _arrivals(command: str, config: Path) -> dict[str, float]:
    """Run a command; return the seconds after its start at which each message first came."""
    started = time.monotonic()
    found: dict[str, float] = {}
    lines = []
    with subprocess.Popen(
        [sys.executable, "-m", "job", command, str(config)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            message = _message(line)
            if message:
                found.setdefault(message, time.monotonic() - started)
    if process.returncode != 0:
        raise RuntimeError(f"recap {command} ended with {process.returncode}: {lines[-1:]}")
    return found | {"ended": time.monotonic() - started}


def _message(line: str) -> str:
    """Return the message of a log's line, empty for any other line."""
    try:
        content = json.loads(line)
    except json.JSONDecodeError:
        return ""
    return str(content.get("message", ""))[:40]
