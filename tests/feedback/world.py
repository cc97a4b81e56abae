"""A night of generated conversations, and agents who judge its summaries."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.config.commands import FeedbackConfig, SummarizeConfig
from job.summarization.summarize import summarize
from tests.stand_in import TextEngine, stand_in

Record = dict[str, Any]
PROBLEMS = ("late parcel", "wrong size", "broken lamp", "double charge", "lost password")
NAMES = ("Maria Lopez", "Peter Novak", "Aisha Khan", "Jonas Weber", "Emily Stone")


def summary_of(prompt: str) -> str:
    """Return a summary that greets, says what the problem is, and leaves the order number out."""
    problem = next((each for each in PROBLEMS if each in prompt), "question")
    return f"Hello and welcome, the customer has a {problem} and the agent helps."


def conversation(number: int) -> Record:
    """Return a conversation with a problem and an order number of its own."""
    problem = PROBLEMS[number % len(PROBLEMS)]
    name = NAMES[number % len(NAMES)]
    # Words of its own, so that no two conversations nearly repeat each other.
    own = " ".join(f"word{number}x{place}" for place in range(40))
    texts = (
        f"I am {name} and I have a {problem} with order {7000 + number}",
        f"Let me look at {own}",
    )
    turns = [
        {"role": role, "text": text}
        for role, text in zip(("customer", "agent"), texts, strict=True)
    ]
    return {"id": f"c{number}", "turns": turns, "summary": f"A {problem}."}


def write_lines(path: Path, records: Sequence[Any]) -> Path:
    """Write a file of JSON lines; a text among the records is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [one if isinstance(one, str) else json.dumps(one) for one in records]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[Record]:
    """Return the records of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class World:
    """A folder with nights, and the config of their feedback."""

    folder: Path
    base: Path
    read_only: tuple[str, ...] = ()  # nights of another world, which this one reads as well

    def night(
        self, date: str, records: Sequence[Record], name: str = "", **keys: Any
    ) -> list[Record]:
        """Summarize the records as the night of this date, and return its lines."""
        source = write_lines(self.folder / "conversations" / f"{date}.jsonl", records)
        output = self.folder / "nights" / (name or f"dt={date}")
        config = {
            "run": "night",
            "input": str(source),
            "output": str(output),
            "model": {"base": str(self.base)},
            "report": False,
        }
        summarize(SummarizeConfig.model_validate(config | keys), stand_in(TextEngine(summary_of)))
        if name:
            return []
        return read_lines(output / "parts" / "part-00000.jsonl")

    def verdicts(self, rows: Sequence[Any], name: str = "verdicts.jsonl") -> Path:
        """Write a file of verdicts."""
        return write_lines(self.folder / "verdicts" / name, rows)

    def nights(self) -> list[str]:
        """Return the locations of nights."""
        own = self.folder / "nights"
        return [*self.read_only, *([str(own)] if own.exists() or not self.read_only else [])]

    def content(self, **keys: Any) -> dict[str, Any]:
        """Return the config of the feedback on all nights."""
        return {
            "run": "feedback",
            "verdicts": str(self.folder / "verdicts"),
            "nights": self.nights(),
            "output": str(self.folder / "out"),
        } | keys

    def config(self, **keys: Any) -> FeedbackConfig:
        """Return the checked config."""
        return FeedbackConfig.model_validate(self.content(**keys))

    def rows(self, kind: str, side: str) -> list[Record]:
        """Return the rows of a data set, none if it has no file."""
        path = self.folder / "out" / kind / f"{side}.jsonl"
        return read_lines(path) if path.exists() else []


def verdict(line: Record, **fields: Any) -> Record:
    """Return a verdict on a line of a night."""
    return {"id": line["id"], "digest": line["digest"], **fields}


def corrected(line: Record) -> str:
    """Return what an agent makes of a summary: without the greeting, with the order number."""
    number = int(line["id"][1:])
    text = str(line["summary"]).removeprefix("Hello and welcome, ").removesuffix(".")
    return f"{text} for order {7000 + number}."
