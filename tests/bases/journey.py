"""What a base goes through: the real commands of recap, in this process and a fork of it.

Plan, train (three steps in nf4-double, padded, and again packed), evaluate, summarize with the
adapter beside its base and merged into it; and the same adapter loaded without recap.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from job.launch.outcome import Outcome, read_outcomes
from tests.command_line import Ended, Recap

NEW_TOKENS = 10
TOPICS = ["phone", "parcel", "refund", "router", "invoice"]
PROBE = [[7, 60, 61, 99, 120, 33, 250, 90, 14, 66, 201, 180]]  # ids of a text, for logits


@dataclass(frozen=True)
class Call:
    """A call of the transformers engine, as `watch_engines` noted it."""

    prompts: int
    output_tokens: list[int]
    error: str | None


@dataclass(frozen=True)
class Journey:
    """The place where a base is tried, and the command line."""

    base: Path
    place: Path
    style: str
    recap: Recap
    settings: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int = 512
    records: int = 8

    @property
    def adapter(self) -> Path:
        """Return the folder of the published adapter."""
        return self.place / "runs" / "padded" / "adapter"

    def plan(self) -> Ended:
        """Plan the training."""
        return self.recap("plan", self._training("padded"))

    def train(self, name: str) -> Ended:
        """Train, `padded` or `packed`; what the training process printed is in `err`, too."""
        ended = self.recap("train", self._training(name))
        log = self.place / "training.log"
        if not log.exists():
            return ended
        printed = log.read_text("utf-8", "replace")
        log.unlink()
        return Ended(ended.code, ended.out, printed + ended.err)

    def trained_logits(self) -> Any:
        """Return the logits of PROBE that the padded training ended with."""
        import torch

        return torch.load(self.place / "padded.pt")

    def evaluate(self) -> Ended:
        """Evaluate the adapter on its base in 4 bits."""
        content = {
            "run": "evaluation",
            "input": write_lines(self.place / "test.jsonl", conversations(8, first=200)),
            "output": str(self.place / "evaluation"),
            "adapter": str(self.adapter),
            "model": self._model() | {"quantization": "nf4-double"},
            "generation": {"max_new_tokens": NEW_TOKENS},
            "evaluation": {"base_without_adapter": False, "bootstrap_samples": 100},
        }
        return self.recap("evaluate", self._write("evaluate", content))

    def summarize(self, weights: str) -> Ended:
        """Summarize with the adapter `separate` from its base, or `merged` into it."""
        content = {
            "run": weights,
            "input": write_lines(self.place / "in.jsonl", conversations(self.records, first=300)),
            "output": str(self.place / weights),
            "adapter": str(self.adapter),
            "adapter_weights": weights,
            "engine": "transformers",
            "model": self._model(),
            "generation": {"max_new_tokens": NEW_TOKENS},
            # Answers of random weights may be empty.
            "limits": {"max_reject_fraction": 1},
        }
        return self.recap("summarize", self._write(weights, content))

    def summarized(self, weights: str) -> int:
        """Return how many records have a summary, or were rejected because theirs was empty."""
        manifest = json.loads((self.place / weights / "manifest.json").read_text("utf-8"))
        counts = manifest["extra"]["counts"]
        return int(counts["summaries"]) + int(counts["rejects"].get("empty_summary", 0))

    def calls(self) -> list[Call]:
        """Return the calls of engines so far."""
        lines = (self.place / "calls.jsonl").read_text("utf-8").splitlines()
        return [Call(**json.loads(line)) for line in lines]

    def _training(self, name: str) -> Path:
        is_packed = name == "packed"
        content = {
            "run": name,
            "model": self._model() | {"base": str(self.base), "quantization": "nf4-double"},
            "data": {
                "train": write_lines(self.place / "train.jsonl", conversations(12)),
                "validation": write_lines(self.place / "validation.jsonl", conversations(4, 100)),
            },
            "prompt": {"style": self.style},
            "output": str(self.place / "runs"),
            "lora": {"r": 4, "alpha": 8} | self._section("lora"),
            "training": {
                "max_steps": 3,
                "learning_rate": 0.01,
                "batch_size": 1 if is_packed else 4,
                "gradient_accumulation_steps": 1,
                "max_tokens": self.max_tokens,
                "packing": is_packed,
                "log_every_steps": 1,
                "save_every_steps": 3,
                "evaluate_every_steps": 3,
                "sample_summaries": 0 if is_packed else 2,
            }
            | self._section("training"),
            "generation": {"max_new_tokens": NEW_TOKENS},
            "evaluation": {
                "max_conversations": 4,
                "base_without_adapter": False,
                "bootstrap_samples": 100,
            },
            "publish": {"verify": False},
        }
        return self._write(name, content)

    def _model(self) -> dict[str, Any]:
        return self._section("model")

    def _section(self, name: str) -> dict[str, Any]:
        return dict(self.settings.get(name, {}))

    def _write(self, name: str, content: Mapping[str, Any]) -> Path:
        path = self.place / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path


def conversations(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Return conversations of two to eight turns, so that the rows of a batch are unequal."""
    found = []
    for number in range(first, first + count):
        topic = TOPICS[number % len(TOPICS)]
        turns = [{"role": "customer", "text": f"My {topic} number {number} does not work."}]
        for turn in range(number % 7 + 1):
            role = ("agent", "customer")[turn % 2]
            turns.append({"role": role, "text": f"Sorry! Restart the {topic}, code {turn * 31}."})
        found.append(
            {
                "id": f"c{number}",
                "turns": turns,
                "summary": f"The {topic} {number} was restarted {number % 7 + 1} times.",
            }
        )
    return found


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> str:
    """Write a file of JSON lines and return its path."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


# The training process


def run_worker_in_a_fork(place: Path) -> Callable[..., Outcome]:
    """Return a function in place of the supervisor's `supervise`.

    The training process is a fork of this one, which has the libraries loaded: a new process would
    take eight seconds to load them. It leaves its log in `place`, and the trained model's logits
    under the run's name.
    """

    def supervise(_command: Sequence[str], work: Path, *_rest: Any) -> Outcome:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _redirect(place / "training.log")
                code = _work(work, place)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        os.waitpid(child, 0)
        outcomes = read_outcomes(work)
        return outcomes.get(0) or Outcome(70, "the training process wrote no outcome")

    return supervise


def _redirect(log: Path) -> None:
    """Write this process's output to a file; pytest's capture belongs to the parent."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", buffering=1)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", buffering=1)


def _work(work: Path, place: Path) -> int:
    import torch
    from peft import PeftModel

    from job.training import worker

    run = yaml.safe_load((work / "config.yaml").read_text("utf-8"))["run"]
    logits = place / f"{run}.pt"
    save = PeftModel.save_pretrained

    def save_with_logits(self: Any, *arguments: Any, **named: Any) -> Any:
        torch.save(logits_of(self), logits)
        return save(self, *arguments, **named)

    PeftModel.save_pretrained = save_with_logits
    return int(worker.main(work))


def logits_of(model: Any) -> Any:
    """Return the logits of PROBE, (1, tokens, vocabulary), and leave the model as it was."""
    import torch

    was_training = model.training
    model.eval()
    ids = torch.tensor(PROBE)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    model.train(was_training)
    return logits.float().clone()


def watch_engines(place: Path, generate: Callable[..., Any]) -> Callable[..., Any]:
    """Return `TransformersEngine.generate` with a note of each call in a file of `place`."""

    def generate_and_note(self: Any, prompts: Any, *arguments: Any, **named: Any) -> Any:
        note = {"prompts": len(prompts), "output_tokens": [], "error": None}
        try:
            answers = generate(self, prompts, *arguments, **named)
            note["output_tokens"] = [answer.output_tokens for answer in answers]
            return answers
        except Exception as error:
            note["error"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            with (place / "calls.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(note) + "\n")

    return generate_and_note
