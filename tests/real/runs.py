"""One training of the real base, and what is done with its adapter: by the commands of a user.

Each command has a process of its own and runs once, for all tests that judge it. Its config and its
log stay beside what it writes.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BASE = ROOT / "build" / "smollm2-135m-instruct"
DEMO = ROOT / "examples" / "demo"
EXAMPLE = ROOT / "examples" / "laptop.yaml"
GENERATION = {"max_new_tokens": 64}  # more than any reference has


@dataclass(frozen=True)
class Data:
    """Conversations, and the number of steps in which the base learns from them."""

    name: str
    train: Path
    validation: Path
    heldout: Path
    steps: int


@dataclass(frozen=True)
class Run:
    """A training with its weights in 4 bits or not, and what follows from it.

    `seconds` has those of the commands that are done. One that failed is not tried again.
    """

    folder: Path
    data: Data
    quantization: str | None
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def adapter(self) -> Path:
        """The folder of the adapter, which is trained first."""
        self._run("train", "train", self.train_config())
        return self.folder / "runs" / "real" / "adapter"

    def train_config(self) -> dict[str, Any]:
        """Return the example's config with this run's base, data and steps."""
        config: dict[str, Any] = yaml.safe_load(read(EXAMPLE))
        config |= {"run": "real", "output": str(self.folder / "runs")}
        config["model"] = {"base": str(BASE), **self.weights()}
        config["data"] |= {"train": str(self.data.train), "validation": str(self.data.validation)}
        steps = self.data.steps
        config["training"] |= {"max_steps": steps, "evaluate_every_steps": steps}
        config["evaluation"] = {"max_conversations": 1}  # `evaluation` judges the adapter
        return config

    def weights(self) -> dict[str, Any]:
        """Return the keys of `model` for weights as in the training."""
        return {"quantization": self.quantization, "dtype": "float32"}

    def evaluation(self) -> dict[str, Any]:
        """Return evaluation.json of the adapter on the held-out conversations."""
        folder = self.folder / "evaluation"
        config = {
            "run": "real",
            "input": str(self.data.heldout),
            "train": str(self.data.train),
            "adapter": str(self.adapter),
            "output": str(folder),
            "model": self.weights(),
            "generation": GENERATION,
        }
        self._run("evaluate", "evaluate", config)
        found: dict[str, Any] = json.loads(read(folder / "evaluation.json"))
        return found

    def summaries(self, name: str, source: Path | None = None, **keys: Any) -> list[Any]:
        """Return the lines of a night over a file, or over the held-out conversations.

        The base is not quantized, as in every night by default. `keys` are those of the config.
        """
        folder = self.folder / "nights" / name
        config = {
            "run": name,
            "input": str(source or self.data.heldout),
            "adapter": str(self.adapter),
            "output": str(folder),
            "engine": "transformers",
            "model": {"dtype": "float32"},
            "generation": GENERATION,
        }
        self._run("summarize", name, config | keys)
        return read_jsonl(folder / "parts" / "part-00000.jsonl")

    def _run(self, command: str, name: str, config: dict[str, Any]) -> None:
        """Run a command to its end, unless that is done."""
        assert name not in self.failed, self.failed[name]
        if name in self.seconds:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        begun = time.monotonic()
        with path.with_suffix(".log").open("w", encoding="utf-8") as log:
            done = subprocess.run(
                [sys.executable, "-m", "job", command, str(path)],
                cwd=ROOT,
                env=os.environ | {"RECAP_CACHE": str(self.folder / "cache")},
                stdout=log,
                stderr=log,
                check=False,
            )
        if done.returncode:
            self.failed[name] = f"recap {command} ended with {done.returncode}: see {log.name}"
            raise AssertionError(self.failed[name])
        self.seconds[name] = time.monotonic() - begun


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def read_jsonl(path: Path) -> list[Any]:
    return [json.loads(line) for line in read(path).splitlines()]


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def demo_data(work: Path, steps: int, validation: int, heldout: int) -> Data:
    """Return the demo's conversations, with this many of the small splits written to `work`."""
    return Data(
        "Generated",
        train=DEMO / "train.jsonl",
        validation=write_jsonl(
            work / "validation.jsonl", read_jsonl(DEMO / "validation.jsonl")[:validation]
        ),
        heldout=write_jsonl(work / "heldout.jsonl", read_jsonl(DEMO / "heldout.jsonl")[:heldout]),
        steps=steps,
    )
