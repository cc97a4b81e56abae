"""The demo's last screen: scores, some conversations with their summaries, and where everything lies.

The copy of the bucket → text as wide as the terminal. Knows nothing of how any of it came about.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from itertools import islice, zip_longest
from pathlib import Path
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any

METRICS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
CONVERSATIONS = 3
PLACES = {
    "bucket/runs/demo/adapter": "the adapter; README.md in it is its model card",
    "bucket/runs/demo/run.json": "what was run: attempts, versions, digests, timings",
    "bucket/evaluation/report.html": "scores with intervals, and examples, as a page for the browser",
    "bucket/summaries": "the summaries, what was rejected and why, and the manifest",
    "bucket/configs": "the three configs",
    "logs": "what each command said",
}
TENSORBOARD = "bucket/runs/demo/tensorboard"


def closing_screen(work: Path, examples: Path, seconds: Mapping[str, float]) -> str:
    """The screen; `work` holds `bucket/` and `logs/`, `seconds` is told by name in its order."""
    width = min(max(get_terminal_size((100, 24)).columns, 60), 120)
    bucket = work / "bucket"
    evaluation = json.loads((bucket / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    parts = [
        _titled(
            f"Scores on {evaluation['conversations']} conversations, held out by wording too", width
        ),
        *_scores(evaluation),
        _titled("Conversations and their summaries", width),
        *_conversations(bucket, examples, width),
        _titled("Where it all is", width),
        *_places(work),
        "",
        "Time: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()),
    ]
    return "\n".join(parts)


def _titled(title: str, width: int) -> str:
    return f"\n── {title} ".ljust(width + 1, "─")


def _scores(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Systems by ROUGE-L, best first."""
    scores = {name: system["scores"] for name, system in evaluation["systems"].items()}
    ranked = sorted(scores, key=lambda name: -scores[name]["rougeL"]["mean"]["mean"])
    yield f"  {'':24}" + "".join(f"{label:>10}" for label in METRICS.values())
    for name in ranked:
        cells = "".join(f"{scores[name][metric]['mean']['mean']:>10.3f}" for metric in METRICS)
        yield f"{'> ' if name == evaluation['judged'] else '  '}{name:24}{cells}"


def _conversations(bucket: Path, examples: Path, width: int) -> Iterator[str]:
    """The first summaries beside what they summarize, and beside the reference where there is one."""
    records = {record["id"]: record for record in _lines(examples / "conversations.jsonl")}
    for line in islice(_summaries(bucket), CONVERSATIONS):
        record = records[line["id"]]
        turns = [f"{turn['role']}: {turn['text']}" for turn in record["turns"]]
        summary = ["SUMMARY", line["summary"] or "(empty)"]
        for reference in record.get("summaries", [])[:1]:
            summary += ["", "REFERENCE", reference]
        yield from _side_by_side(turns, summary, width)
        yield ""


def _summaries(bucket: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((bucket / "summaries" / "parts").rglob("*.jsonl")):
        yield from _lines(path)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _side_by_side(left: list[str], right: list[str], width: int) -> Iterator[str]:
    column = (width - 3) // 2
    lefts = [line for text in left for line in wrap(text, column, subsequent_indent="  ")]
    rights = [line for text in right for line in wrap(text, column) or [""]]
    for pair in zip_longest(lefts, rights, fillvalue=""):
        yield f"{pair[0]:{column}} │ {pair[1]}".rstrip()


def _places(work: Path) -> Iterator[str]:
    """What is there, and how to look at the training."""
    found = {str(work / place): what for place, what in PLACES.items() if (work / place).exists()}
    column = max(map(len, found))
    yield f"The S3 server ended with the demo; {work / 'bucket'} is a copy of s3://recap-demo."
    yield from (f"  {path:{column}}  {what}" for path, what in found.items())
    if (work / TENSORBOARD).exists():
        program = Path(os.path.relpath(Path(sys.executable).with_name("tensorboard")))
        yield f"Loss, learning rate, speed and samples over time:\n  {program} --logdir {work / TENSORBOARD}"
