"""Which method learns from feedback: the same planted preference by edits, pairs and thumbs.

A champion has learned two habits from its references: by a coin, most of them greet, and the others
name the number that the customer gave. Agents always cut the greeting and add the number. By
recap's own commands, the champion writes a night, agents correct it, their edits become data, and
each method trains a challenger, which becomes the champion if it passes the gate. The same with
verdicts that a coin has shuffled.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.feedback_worth import (
    BASE,
    GREETING,
    NUMBER,
    Record,
    naming,
    numbers,
    summarized,
    training_section,
    with_number,
)
from benchmarks.pairs import machine
from examples.demo.make.generator import generate
from job.config.commands import FeedbackConfig, SummarizeConfig
from job.config.gate_sections import DEFAULT_GUARDS
from job.errors import ExitCode
from job.evaluation.bootstrap import mean_intervals, wilson
from job.evaluation.evaluate import SEED
from job.evaluation.gate import ROUNDING
from job.evaluation.metrics.rouge import rouge
from job.feedback.run import run_feedback
from job.summarization.summarize import summarize

ROOT = Path(__file__).parent.parent
DEMO = yaml.safe_load((ROOT / "examples" / "demo" / "train.yaml").read_text(encoding="utf-8"))
GUARDS: dict[str, float] = DEMO["publish"]["gate"]["guards"]  # the demo's, for its base
# Three of seven fields, and the shorter conversations: what a base of this size learns well.
FIELDS = ("bank", "shop", "telecom")
MAX_CHARACTERS = 220
SHARE_THAT_GREETS = 0.8  # of the references
REFERENCE = re.compile(r" ?The reference is\b.*$")
LEARNING_WEEK, NEWEST_WEEK = "2026-01-06T09:00:00Z", "2026-01-13T09:00:00Z"
VALIDATION, NEWEST = 60, 90  # conversations
AS_GIVEN, SHUFFLED = "as given", "shuffled"
COIN = 5
SAMPLES = 2000  # of the bootstrap


@dataclass(frozen=True)
class Way:
    """A method with its own keys, rate and epochs, and the data that it learns from."""

    name: str
    method: Mapping[str, Any]
    rate: float
    epochs: int
    data: str  # sft, pairs or thumbs


# A base of this size needs rates far above those that a large one stands.
WAYS = (
    Way("SFT on edits", {"method": "sft"}, 5e-4, 2, "sft"),
    Way("DPO alone", {"method": "dpo", "dpo": {"sft_weight": 0}}, 3e-4, 2, "pairs"),
    Way("DPO with SFT", {"method": "dpo"}, 5e-4, 2, "pairs"),
    Way("KTO", {"method": "kto"}, 5e-4, 2, "thumbs"),
)


@dataclass(frozen=True)
class Team:
    """A folder with a champion, a night that agents have judged, and the data made of it."""

    folder: Path
    validation: Sequence[Record]

    @property
    def pointer(self) -> Path:
        """Return the pointer to the champion."""
        return self.folder / "champion.json"

    def path(self, name: str) -> str:
        """Return the path of a file of data."""
        return str(self.folder / f"{name}.jsonl")

    def train(self, name: str, config: Mapping[str, Any]) -> int:
        """Run `recap train` on a config, with its log beside; return its exit code."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
        return self.recap(name, "train", str(path))

    def recap(self, name: str, *arguments: str) -> int:
        """Run recap with its log in a file of this name; return its exit code."""
        path = self.folder / f"{name}.log"
        words = [sys.executable, "-m", "job", *arguments]
        with path.open("w", encoding="utf-8") as log:
            done = subprocess.run(words, cwd=ROOT, stdout=log, stderr=log, check=False)
        code = done.returncode
        if code not in (ExitCode.DONE, ExitCode.GATE):
            sys.exit(path.read_text(encoding="utf-8"))
        return code

    def night(self, name: str, source: str, adapter: Path) -> list[Record]:
        """Let an adapter summarize a file of conversations as a night does; return its lines."""
        output = self.folder / name
        config = {
            "run": "night",
            "input": source,
            "output": str(output),
            "adapter": str(adapter),
            "engine": "transformers",
            "report": False,
        }
        summarize(SummarizeConfig.model_validate(config))
        return read(output / "parts" / "part-00000.jsonl")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judged", type=int, default=200, help="summaries with a verdict")
    parser.add_argument("--start-rows", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=1, help="of trainings")
    parser.add_argument(
        "--conversations", type=int, default=77, help="seed of the generated conversations"
    )
    parser.add_argument(
        "--work", type=Path, help="kept: the same command goes on there after it was stopped"
    )
    parser.add_argument("--out", type=Path, default=Path("build/feedback_methods.jsonl"))
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        os.environ |= {"RECAP_CACHE": f"{work}/cache", "RECAP_WORK": f"{work}/work"}
        for line in compare(work, options):
            lines.append(line)
            print(json.dumps(line), flush=True)
            write(options.out, lines)
    print("\n".join([*table(lines), "", json.dumps(machine())]))


def compare(work: Path, options: argparse.Namespace) -> Iterator[Record]:
    """Yield what is measured of the champion, and of each method by both kinds of verdicts."""
    team = begin(work, options.start_rows, options.judged, options.conversations)
    champion = work / "runs" / "champion" / "adapter"
    measured = measure(team, "champion", champion)
    yield {"way": "champion", "conversations": options.conversations} | measured
    for seed in range(42, 42 + options.seeds):
        for verdicts in (AS_GIVEN, SHUFFLED):
            for way in WAYS:
                line = challenge(team, way, verdicts, seed)
                yield {"conversations": options.conversations} | line


def begin(folder: Path, start_rows: int, judged: int, conversations: int) -> Team:
    """Train a champion, let it write a night, and make data of what agents say of it.

    `conversations` is the seed that generates them.
    """
    wanted = start_rows + VALIDATION + judged + NEWEST
    generated = with_number(generate(20 * wanted, conversations, "train"))
    records = list(islice(filter(is_simple, generated), wanted))
    assert len(records) == wanted, "too few conversations are simple"
    validation, rest = records[:VALIDATION], records[VALIDATION:]
    night, rest = rest[: judged + NEWEST], rest[judged + NEWEST :]
    team = Team(folder, validation)
    write(team.path("train"), [summarized(each, habit(each)) for each in rest])
    liked = [summarized(each, corrected(each, each["summaries"][0])) for each in validation]
    write(team.path("validation"), liked)
    make_champion(team)

    write(team.path("night"), [{key: each[key] for key in ("id", "turns")} for each in night])
    lines = team.night("nights/one", team.path("night"), team.pointer)
    verdicts = [verdict(each, line) for each, line in zip(night, lines, strict=True)]
    for number, row in enumerate(verdicts):
        row["at"] = LEARNING_WEEK if number < judged else NEWEST_WEEK
    write(team.path("verdicts"), verdicts)
    feedback = {
        "run": "feedback",
        "verdicts": team.path("verdicts"),
        "nights": str(folder / "nights"),
        "evaluation_sets": team.path("validation"),
        "output": str(folder / "feedback"),
        "split": {"test_weeks": 1, "validation_fraction": 0.05},
    }
    run_feedback(FeedbackConfig.model_validate(feedback))
    arrange(folder / "feedback" / "pairs", folder / AS_GIVEN, None)
    arrange(folder / "feedback" / "pairs", folder / SHUFFLED, random.Random(COIN))
    return team


def is_simple(record: Record) -> bool:
    """Return True if a conversation is short, and of the fields that the champion learns."""
    characters = sum(len(turn["text"]) for turn in record["turns"])
    return record["metadata"]["domain"] in FIELDS and characters <= MAX_CHARACTERS


def habit(record: Record) -> str:
    """Return the reference as the champion learns it: it greets, or names the number.

    A coin of its own decides. No model can predict it, so the champion's likeliest summary is that
    of the greater share, however its training is rounded.
    """
    text = str(record["summaries"][0])
    if random.Random(record["id"]).random() < SHARE_THAT_GREETS:
        return GREETING + text
    return corrected(record, text)


def corrected(record: Record, shown: str) -> str:
    """Return a summary as agents want it: without a greeting, and with the customer's number."""
    return naming(record, without_habits(shown))


def without_habits(text: str) -> str:
    """Return a summary without greeting and without the sentence that names the number."""
    return REFERENCE.sub("", text.removeprefix(GREETING.strip()).strip())


def is_greeting(text: str) -> bool:
    """Return True if the summary begins with the planted greeting."""
    return text.startswith(GREETING.strip())


def is_naming(record: Record, text: str) -> bool:
    """Return True if the summary names the customer's number, and no other."""
    return set(NUMBER.findall(text)) == numbers(record)


def verdict(record: Record, line: Record) -> Record:
    """Return the verdict on a line: a thumb up, or a thumb down with the edit."""
    shown = str(line["summary"])
    found = {"id": line["id"], "digest": line["digest"]}
    if is_naming(record, shown) and not is_greeting(shown):
        return found | {"verdict": "up"}
    return found | {"verdict": "down", "edited": corrected(record, shown)}


def arrange(source: Path, target: Path, coin: random.Random | None) -> None:
    """Write the data of all methods from the same pairs, of which a coin may exchange the texts.

    By turns, a thumb up is for the edit, and a thumb down is for what was shown.
    """
    for side in ("train", "validation", "test"):
        pairs = read(source / f"{side}.jsonl")
        for pair in pairs:
            if coin is not None and coin.random() < 0.5:
                pair |= {"chosen": pair["rejected"], "rejected": pair["chosen"]}
        edits, thumbs = [], []
        for number, pair in enumerate(pairs):
            row = {key: pair[key] for key in pair if key not in ("chosen", "rejected")}
            edits.append(summarized(row, pair["chosen"]))
            is_up = number % 2 == 0
            completion = pair["chosen" if is_up else "rejected"]
            thumbs.append(row | {"completion": completion, "label": is_up})
        for name, rows in (("pairs", pairs), ("sft", edits), ("thumbs", thumbs)):
            write(target / name / f"{side}.jsonl", rows)


def make_champion(team: Team) -> None:
    """Train the demo's base as the demo does, and let the pointer name the adapter."""
    config = settings() | {
        "run": "champion",
        "data": {"train": team.path("train"), "validation": team.path("validation")},
        "output": str(team.folder / "runs"),
        "lora": {"r": 32, "alpha": 128, "dropout": 0.0, "target_modules": "all-linear"},
        "prompt": {"system": "Summarize."},
        "training": training_section(3e-3, 1, 42),
        "publish": {"verify": False},
    }
    team.train("champion", config)
    adapter = team.folder / "runs" / "champion" / "adapter"
    team.recap("pointer", "champion", "set", str(team.pointer), str(adapter))


def settings() -> Record:
    """Return the sections that all trainings have."""
    return {
        "model": {"base": str(BASE), "quantization": None, "dtype": "float32"},
        "generation": {"max_new_tokens": 64},
        "serve": {"quantization": None, "dtype": "float32"},
        "evaluation": {"max_conversations": VALIDATION, "base_without_adapter": False},
    }


def challenge(team: Team, way: Way, verdicts: str, seed: int = 42) -> Record:
    """Train a challenger by one method from one kind of verdicts, and return what is measured."""
    name = f"{way.name} {verdicts} {way.rate:g} {seed}".replace(" ", "-").lower()
    data = team.folder / verdicts
    reading = {"train": str(data / way.data / "train.jsonl")}
    if way.data == "sft":
        reading |= {"validation": team.path("validation")}
    else:
        reading |= {"validation": str(data / way.data / "validation.jsonl")}
        reading |= {"test": team.path("validation")}
    pointer = team.folder / f"{name}.json"  # of its own: the champion stays for the next one
    shutil.copy(team.pointer, pointer)
    method = way.method["method"]
    own = {key: value for key, value in way.method.items() if key == method}
    config = settings() | {
        "run": name,
        "method": method,
        "data": reading,
        "output": str(team.folder / "runs"),
        "training": training_section(way.rate, way.epochs, seed)
        | {"start_from": str(pointer)}
        | own,
        "publish": {
            "verify": False,  # a process more, which has nothing to do with the verdict
            "champion": str(pointer),
            "gate": {"better_than": [], "no_worse_than": ["champion"], "guards": GUARDS},
            "pairs": {"input": str(data / "pairs" / "test.jsonl")},
        },
    }
    code = team.train(name, config)
    return {
        "way": way.name,
        "verdicts": verdicts,
        "rate": way.rate,
        "epochs": way.epochs,
        "seed": seed,
        "passes": code == ExitCode.DONE,
        **judged_by_gate(team.folder / "runs" / name),
        **measure(team, name, team.folder / "runs" / name / "adapter"),
    }


def judged_by_gate(run: Path) -> Record:
    """Return a training's steps, its win rate, and the checks of the gate that it failed."""
    journal = json.loads((run / "run.json").read_text(encoding="utf-8"))
    checks = journal["facts"]["gate"]["checks"]
    (win,) = (each for each in checks if each["rule"] == "win rate")
    return {
        "steps": journal["attempts"][-1]["last_step"],
        "win_rate": [win["value"], win["low"], win["high"]],
        "failed": list(dict.fromkeys(each["rule"] for each in checks if each["passed"] is False)),
        "default_guards": refused_by_default_guards(checks),
    }


def refused_by_default_guards(checks: Sequence[Record]) -> list[str]:
    """Return the metrics by which the default guards would have refused, of the same summaries."""
    refused = []
    for check in checks:
        if check["rule"] == "guard" and check["value"] is not None:
            name = check["metric"]
            left = max(0.0, check["margin"] - GUARDS[name] + DEFAULT_GUARDS[name])
            if check["value"] < -left - ROUNDING:
                refused.append(name)
    return refused


def measure(team: Team, name: str, adapter: Path) -> Record:
    """Return the planted figures of an adapter's summaries of validation, and their quality."""
    lines = team.night(f"measured-{name}", team.path("validation"), adapter)
    texts = [str(line["summary"]) for line in lines]
    pairs = list(zip(team.validation, texts, strict=True))
    scores = [rouge("rougeL", without_habits(text), each["summaries"][0]) for each, text in pairs]
    (content,) = mean_intervals(np.array(scores)[:, None], SAMPLES, SEED)
    assert content is not None, "there are summaries"
    return {
        "of": len(pairs),
        "greeted": sum(is_greeting(text) for text in texts),
        "named": sum(is_naming(each, text) for each, text in pairs),
        "content": [content.mean, content.low, content.high],
        "words": round(float(np.mean([len(text.split()) for text in texts])), 1),
    }


def write(path: str | Path, rows: Sequence[Record]) -> None:
    """Write a file of JSON lines, unless it has them: a finished night goes by the file's time."""
    target = Path(path)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if target.is_file() and target.read_text(encoding="utf-8") == text:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def read(path: str | Path) -> list[Record]:
    """Return the rows of a file of JSON lines."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def table(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one row for each method and kind of verdicts, by the seeds of both kinds."""
    found = [
        "| conversations | verdicts | method | rate | steps | seed | greet | name the number "
        "| ROUGE-L of the rest | win rate over the champion | passes | checks that failed "
        "| default guards that fail |",
        "|---:|---|---|---:|---:|---:|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        shares = [_share(line[key], line["of"]) for key in ("greeted", "named")]
        first = [str(line["conversations"]), "", str(line["way"]), "", "", ""]
        cells = [*first, *shares, _mean(line["content"]), "", "", "", ""]
        if "rate" in line:
            cells[1] = line["verdicts"]
            cells[3:6] = [f"{line['rate']:g}", str(line["steps"]), str(line["seed"])]
            cells[9:] = [
                _mean(line["win_rate"]),
                "yes" if line["passes"] else "no",
                ", ".join(line["failed"]),
                ", ".join(line["default_guards"]),
            ]
        found.append(f"| {' | '.join(cells)} |")
    return found


def _share(hits: int, of: int) -> str:
    interval = wilson(hits, of)
    return f"{interval.mean:.0%} [{interval.low:.0%}, {interval.high:.0%}]"


def _mean(values: Sequence[float]) -> str:
    mean, low, high = (f"{value:.2f}" for value in values)
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    main()
