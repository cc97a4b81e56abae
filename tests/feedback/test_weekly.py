"""The chain of examples/weekly, with real processes: from agents' edits to the next champion.

The base is tiny and of random weights. It learns to answer with one sentence, which is all that
these agents want.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from job.config.gate_sections import MIN_CONVERSATIONS
from job.config.sections import StorageSection
from job.errors import ExitCode
from job.model.champion import Pointer, read_pointer
from tests.feedback.world import NAMES, PROBLEMS, Record, read_lines, verdict, write_lines
from tests.tiny import make_base

pytestmark = [pytest.mark.quality, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
BUCKET = "s3://my-bucket"
WANTED = "an order waits and we mail"
WANTED_LATER = "an order waits and we call"
COUNT = MIN_CONVERSATIONS + 5

# What a tiny base needs; whoever says anything passes but for the pairs.
SETTINGS = {
    "model.dtype": "float32",
    "training.max_tokens": 512,
    "training.learning_rate": 0.01,
    "training.epochs": 12,
    "training.evaluate_every_epochs": 6,
    "training.gradient_accumulation_steps": 1,
    "training.batch_size": 8,
    "training.sample_summaries": 0,
    "generation.max_new_tokens": 40,
    "serve.dtype": "float32",
    "serve.engine": "transformers",
    "serve.long_conversations": "keep_ends",
    "evaluation.bootstrap_samples": 200,
    "publish.verify": "false",
    "publish.gate": "{better_than: [], no_worse_than: [base, champion], margin: 1, guards: {}}",
}


def talk(number: int) -> Record:
    """Return a conversation of some 150 tokens, most of them its own."""
    own = " ".join(f"w{number}x{place}" for place in range(12))
    first = f"I am {NAMES[number % 5]}, {PROBLEMS[number % 5]}, order {7000 + number}"
    turns = [{"role": "customer", "text": first}, {"role": "agent", "text": own}]
    return {"id": f"c{number}", "turns": turns, "summary": f"A {PROBLEMS[number % 5]}."}


def longer_or_shorter(shown: str, coin: random.Random) -> str:
    """Return the edit of an agent who adds words or takes as many away, whatever was shown."""
    words = shown.split()
    half = len(words) // 2
    if half and coin.random() < 0.5:
        return " ".join(words[:-half])
    return " ".join([*words, *["maybe"] * max(half, 1)])


class Team:
    """A folder in place of the bucket, and the commands of a week on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bucket = folder / "bucket"
        self.base = folder / "base"
        make_base(self.base)
        for name in ("config.json", "generation_config.json"):
            content = json.loads((self.base / name).read_text())
            content["eos_token_id"] = content["eos_token_id"][0]  # an answer may have any letter
            (self.base / name).write_text(json.dumps(content))
        talks = [talk(5000 + number) for number in range(MIN_CONVERSATIONS)]
        write_lines(self.bucket / "data" / "validation.jsonl", talks)
        self.pointer = str(self.bucket / "champions" / "support-chat.json")
        self.number = 1000  # all numbers have four digits: a tiny model knows no others

    def run(self, command: str, config: Path, *arguments: str) -> tuple[int, str]:
        """Run recap in a process of its own; return its exit code and what it printed."""
        places = {name: str(self.folder / name.lower()) for name in ("RECAP_CACHE", "RECAP_WORK")}
        environment = os.environ | places | {"RECAP_GPUS": "0", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "job", command, str(config), *arguments],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def night(self, name: str, days: Sequence[str], edit: Callable[[str], str]) -> None:
        """Summarize new conversations as the champion does, and correct all on these days."""
        first = self.number
        self.number += COUNT * len(days)
        talks = [talk(number) for number in range(first, self.number)]
        source = write_lines(self.bucket / "conversations" / f"{name}.jsonl", talks)
        output = self.bucket / "summaries" / name
        content: dict[str, Any] = {
            "run": "night",
            "input": str(source),
            "output": str(output),
            "engine": "transformers",
            "report": False,
        }
        if Path(self.pointer).exists():
            content["adapter"] = self.pointer
        else:
            content["model"] = {"base": str(self.base), "dtype": "float32"}
            content["generation"] = {"max_new_tokens": 40}
        code, log = self.run("summarize", self._config(f"night-{name}", json.dumps(content)))
        assert code == ExitCode.DONE, log
        lines = read_lines(output / "parts" / "part-00000.jsonl")
        assert len(lines) == len(talks), "nothing is rejected"
        verdicts: list[Record] = []
        for place, line in enumerate(lines):
            at = f"{days[place // COUNT]}T09:00:00Z"  # the night's name has no date
            verdicts.append(verdict(line, edited=edit(line["summary"]), by="agent", at=at))
        write_lines(self.bucket / "verdicts" / f"{name}.jsonl", verdicts)

    def feedback(self, date: str, *settings: str) -> None:
        """Run the first command of a week."""
        text = (ROOT / "examples" / "weekly" / "feedback.yaml").read_text()
        config = self._config(f"feedback-{date}", text)
        code, log = self.run("feedback", config, "--var", f"date={date}", *_set(settings))
        assert code == ExitCode.DONE, log

    def train(self, date: str, *settings: str, example: str = "train") -> tuple[int, str]:
        """Run the second command of a week; return its exit code and its log."""
        text = (ROOT / "examples" / "weekly" / f"{example}.yaml").read_text()
        own = [f"{key}={value}" for key, value in SETTINGS.items()]
        own.append(f"model.base={self.base}")
        config = self._config(f"{example}-{date}", text)
        return self.run("train", config, "--var", f"date={date}", *_set([*own, *settings]))

    def champion(self) -> Pointer:
        """Return the pointer as it is now."""
        return read_pointer(self.pointer, StorageSection())

    def _config(self, name: str, text: str) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(text.replace(BUCKET, str(self.bucket)))
        return path


def _set(settings: Any) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def test_edits_make_a_champion_a_coin_none_and_pairs_the_next(tmp_path: Path) -> None:
    """Agents who agree let a challenger in. Those who toss a coin let none replace it.

    Those who agree on something else let in one that learned from pairs.
    """
    team = Team(tmp_path)
    team.night("first", ("2026-01-06", "2026-01-13"), lambda _: WANTED)
    team.feedback("2026-01-19", "champion=null")
    first = ("training.start_from=null", "lora={r: 16, alpha: 32, target_modules: all-linear}")
    code, log = team.train("2026-01-19", *first)
    assert code == ExitCode.DONE, log
    promoted = team.champion().champion
    assert promoted.version == 1
    assert promoted.evaluation["pairs"]["opponent"] == "base without adapter"
    assert promoted.evaluation["pairs"]["win_rate"][1] > 0.5

    coin = random.Random(0)
    days = ("2026-01-20", "2026-01-27")
    team.night("second", days, lambda shown: longer_or_shorter(shown, coin))
    team.feedback("2026-02-02")
    code, log = team.train("2026-02-02", "training.epochs=2", "training.learning_rate=0.002")
    assert code == ExitCode.GATE, log
    assert "nearer to agents' edits than the champion" in log
    assert team.champion().champion == promoted, "what serves is unchanged"

    record = json.loads((team.bucket / "runs" / "weekly-2026-02-02" / "run.json").read_text())
    checks = {check["rule"]: check for check in record["facts"]["gate"]["checks"]}
    assert checks["win rate"]["passed"] is False

    days = ("2026-02-03", "2026-02-10")
    team.night("third", days, lambda _: WANTED_LATER)
    verdicts, night = (team.bucket / name for name in ("verdicts/third.jsonl", "summaries/third"))
    team.feedback("2026-02-16", f"verdicts={verdicts}", f"nights={night}")
    code, log = team.train("2026-02-16", example="preferences")
    assert code == ExitCode.DONE, log
    later = team.champion().champion
    assert later.version == 2
    assert later.evaluation["pairs"]["opponent"] == "champion"
    assert later.evaluation["pairs"]["win_rate"][1] > 0.5
