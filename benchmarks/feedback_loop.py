"""Run the whole loop of feedback on real conversations, and report what it was worth.

`python -m benchmarks.feedback_loop --tweetsumm DIR --base DIR [--out DIR] [--steps N]` takes
TweetSumm's training split. A champion learns from some conversations. Three nights of others have
one person's summary as what was shown, and agents' edits are another person's: these pairs come
from people, and nobody meant to correct anything. `recap feedback` makes data of them, challengers
are trained from the champion by each method, and the gate decides. Run again, it goes on where it
ended: a finished step does nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from job.config.commands import SummarizeConfig
from job.errors import ExitCode
from job.summarization.summarize import summarize
from tests.stand_in import TextEngine, stand_in

ROOT = Path(__file__).parent.parent
DEFAULT_OUT = ROOT / "build" / "feedback-loop"
NIGHTS = ("2026-01-05", "2026-01-12", "2026-01-19")
A_NIGHT = 45  # conversations
FOR_THE_CHAMPION = 300  # conversations
METHODS = ("sft", "dpo")
TO_SCORE = 40  # conversations of the validation split
SYSTEM = (
    "Summarize the customer-support conversation in two short sentences: what the customer "
    "wanted, and what the agent did or asked."
)
Dialogs = dict[str, Any]  # of DialogStudio's shape, by name


def shown(dialogs: Dialogs, prompt: str) -> str:
    """Return one person's summary of the conversation in a prompt."""
    (found,) = {
        references(dialog)[0]
        for dialog in dialogs.values()
        if all(text in prompt for text in texts(dialog))
    }
    return found


def texts(dialog: Any) -> list[str]:
    """Return what was said, as a prompt has it."""
    said = [turn[key] for turn in dialog["log"] for key in ("user utterance", "system response")]
    return [" ".join(text.split()) for text in said if text.strip()]


def references(dialog: Any) -> list[str]:
    """Return the summaries that people wrote."""
    all_of_them = dialog["original dialog info"]["summaries"]["abstractive_summaries"]
    return [" ".join(" ".join(sentences).split()) for sentences in all_of_them]


@dataclass(frozen=True)
class Loop:
    """The folder of a loop, and what all its configs have in common."""

    out: Path
    base: Path
    steps: int
    max_tokens: int

    def pointer(self, method: str) -> Path:
        """Return the pointer to the champion that this method's challenger is to replace."""
        return self.out / f"champion-{method.replace(' ', '-')}.json"

    def style(self) -> str:
        """Return the prompt's style: bases of tests have no chat template."""
        has_template = (self.base / "chat_template.jinja").exists()
        return "chat" if has_template else "instruction"

    def model(self) -> dict[str, Any]:
        """Return the sections that every training has."""
        return {
            "model": {"base": str(self.base), "quantization": None, "dtype": "float32"},
            "prompt": {"style": self.style(), "system": SYSTEM},
            "generation": {"max_new_tokens": 64},
            "evaluation": {"max_conversations": TO_SCORE, "base_without_adapter": False},
        }

    def training(self, rate: float, steps: int) -> dict[str, Any]:
        """Return the section of a training of so many steps of four rows."""
        return {
            "max_steps": steps,
            "learning_rate": rate,
            "batch_size": 2,
            "gradient_accumulation_steps": 2,
            "max_tokens": self.max_tokens,
            "evaluate_every_steps": steps,
            "save_every_steps": 10,
            "log_every_steps": 5,
            "sample_summaries": 0,
        }

    def run(self, command: str, name: str, config: dict[str, Any]) -> int:
        """Run a command of recap on a config, with its log beside; return its exit code."""
        path = self.out / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        return self.command(name, [command, str(path)])

    def command(self, name: str, words: list[str]) -> int:
        """Run a command of recap with its log in a file of this name; return its exit code."""
        begun = time.monotonic()
        with (self.out / f"{name}.log").open("a", encoding="utf-8") as log:
            code = subprocess.run(
                [sys.executable, "-m", "job", *words],
                cwd=ROOT,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
                stdout=log,
                stderr=log,
                check=False,
            ).returncode
        print(f"{name}: {code}, {time.monotonic() - begun:.0f} s", flush=True)
        if code not in (ExitCode.DONE, ExitCode.GATE):
            sys.exit(f"see {self.out / f'{name}.log'}")
        return code


def write_dialogs(path: Path, dialogs: Dialogs, keep: slice = slice(None)) -> Path:
    """Write a file in DialogStudio's shape, with the references of `keep`."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(json.dumps(dialogs))
    for dialog in kept.values():
        summaries = dialog["original dialog info"]["summaries"]
        summaries["abstractive_summaries"] = summaries["abstractive_summaries"][keep]
    path.write_text(json.dumps(kept), encoding="utf-8")
    return path


def make_champion(loop: Loop, train: Path, validation: Path) -> None:
    """Train the first champion, on one person's summaries, and let it serve by three pointers."""
    config = loop.model() | {
        "run": "champion",
        "data": {"train": str(train), "validation": str(validation)},
        "output": str(loop.out / "runs"),
        "lora": {"r": 16, "alpha": 32, "dropout": 0.0},
        "training": loop.training(1e-3, loop.steps),
    }
    loop.run("train", "champion", config)
    adapter = loop.out / "runs" / "champion" / "adapter"
    for method in METHODS:
        pointer = loop.pointer(method)
        if not pointer.exists():
            loop.command("pointers", ["champion", "set", str(pointer), str(adapter)])


def challenge(loop: Loop, method: str, replay: Path, validation: Path) -> dict[str, Any]:
    """Train a challenger from the champion, and let the gate decide; return its run.json."""
    data = loop.out / "feedback" / ("sft" if method == "sft" else "pairs")
    reading: dict[str, Any] = {
        "train": str(data / "train.jsonl"),
        "validation": str(data / "validation.jsonl"),
        "test": str(validation),
    }
    rate = 5e-5
    if method == "sft":
        reading |= {"replay": str(replay), "replay_share": 0.3}
        rate = 5e-4
    pointer = loop.pointer(method)
    config = loop.model() | {
        "run": f"challenger-{method}",
        **({} if method == "sft" else {"method": method}),
        "data": reading,
        "output": str(loop.out / "runs"),
        "training": loop.training(rate, loop.steps) | {"start_from": str(pointer)},
        "publish": {
            "champion": str(pointer),
            "gate": {"better_than": [], "no_worse_than": ["champion"]},
            "pairs": {"input": str(loop.out / "feedback" / "pairs" / "test.jsonl")},
        },
    }
    del config["prompt"]  # the champion's
    name = str(config["run"])
    loop.run("train", name, config)
    journal: dict[str, Any] = json.loads((loop.out / "runs" / name / "run.json").read_text())
    return journal


def make_nights(loop: Loop, nights: dict[str, Dialogs]) -> Path:
    """Write each night with one person's summaries; return the folder of nights."""
    for day, dialogs in nights.items():
        source = write_dialogs(loop.out / "conversations" / f"{day}.json", dialogs, slice(0))
        output = loop.out / "nights" / f"dt={day}"
        if (output / "_SUCCESS").exists():
            continue
        config = {
            "run": "night",
            "input": str(source),
            "output": str(output),
            "model": {"base": str(loop.base)},
            "report": False,
        }
        summarize(
            SummarizeConfig.model_validate(config), stand_in(TextEngine(partial(shown, dialogs)))
        )
    return loop.out / "nights"


def make_verdicts(loop: Loop, nights: dict[str, Dialogs]) -> Path:
    """Write verdicts: each summary was edited to another person's."""
    rows = []
    for day, dialogs in nights.items():
        for part in sorted((loop.out / "nights" / f"dt={day}" / "parts").glob("*.jsonl")):
            for line in map(json.loads, part.read_text(encoding="utf-8").splitlines()):
                edited = references(dialogs[line["id"]])[1]
                rows.append({"id": line["id"], "digest": line["digest"], "edited": edited})
    path = loop.out / "verdicts.jsonl"
    if not path.exists():  # written again, it would be another version of the feedback's input
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def main() -> None:
    """Run the steps of the loop, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tweetsumm", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--max-tokens", type=int, default=512)
    options = parser.parse_args()
    loop = Loop(options.out.resolve(), options.base.resolve(), options.steps, options.max_tokens)
    loop.out.mkdir(parents=True, exist_ok=True)

    dialogs = json.loads((options.tweetsumm / "train.json").read_text(encoding="utf-8"))
    validation = json.loads((options.tweetsumm / "validation.json").read_text(encoding="utf-8"))
    usable = {name: one for name, one in dialogs.items() if len(set(references(one))) > 1}
    names = list(usable)
    champions = {name: usable[name] for name in names[-FOR_THE_CHAMPION:]}
    nights = {
        day: {name: usable[name] for name in names[number * A_NIGHT : (number + 1) * A_NIGHT]}
        for number, day in enumerate(NIGHTS)
    }
    make_nights(loop, nights)
    verdicts = make_verdicts(loop, nights)
    feedback = {
        "run": "feedback",
        "verdicts": str(verdicts),
        "nights": str(loop.out / "nights"),
        "output": str(loop.out / "feedback"),
        "split": {"test_weeks": 1},
    }
    loop.run("feedback", "feedback", feedback)
    train = write_dialogs(loop.out / "data" / "champion.json", champions, slice(1))
    few = dict(list(validation.items())[:TO_SCORE])
    old = write_dialogs(loop.out / "data" / "old.json", few, slice(1))
    make_champion(loop, train, old)
    for method in METHODS:
        journal = challenge(loop, method, train, old)
        print(f"{method}: {journal['facts']['gate']['screen']}\n", flush=True)


if __name__ == "__main__":
    main()
