"""The demo's last screen: scores, some conversations with their summaries, and where the files are.

Reads the copy of the bucket and returns text as wide as the terminal.
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

from job.evaluation.metrics.all_metrics import HEADLINE, first_metrics

MIN_COLUMNS, MAX_COLUMNS = 60, 120
SHOWN_METRICS = first_metrics(3)  # more do not fit into MIN_COLUMNS
SHOWN_CONVERSATIONS = 3
LOCATIONS = {
    "bucket/runs/demo/adapter": "the adapter; README.md in it is its model card",
    "bucket/champions/demo.json": "the champion: the adapter that nights follow",
    "bucket/runs/demo-short/report/report.html": "why the other adapter did not pass",
    "bucket/runs/demo/run.json": "what was run: attempts, versions, digests, timings",
    "bucket/evaluation/report.html": "scores with intervals, and examples, as a page for the "
    "browser",
    "bucket/summaries": "the summaries, what was rejected and why, and the manifest",
    "bucket/configs": "the three configs",
    "logs": "what each command said",
}
TENSORBOARD = "bucket/runs/demo/tensorboard"


def closing_screen(work: Path, examples: Path, seconds: Mapping[str, float]) -> str:
    """Return the screen.

    `work` holds `bucket/` and `logs/`; `seconds` is shown by name, in its order.
    """
    columns = min(max(get_terminal_size((100, 24)).columns, MIN_COLUMNS), MAX_COLUMNS)
    bucket = work / "bucket"
    evaluation = json.loads((bucket / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    scored = evaluation["conversations"]
    lines = [
        _title(f"Scores on {scored} conversations, held out by wording too", columns),
        *_scores(evaluation),
        _title("Conversations and their summaries", columns),
        *_conversations(bucket, examples, columns),
        _title("Where it all is", columns),
        *_locations(work),
        "",
        "Time: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()),
    ]
    return "\n".join(lines)


def _title(title: str, columns: int) -> str:
    return f"\n── {title} ".ljust(columns + 1, "─")


def _scores(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of the systems, the best first."""
    means: dict[str, dict[str, float]] = {}
    for name, system in evaluation["systems"].items():
        scores = system["scores"]
        if HEADLINE.name not in scores:
            continue  # people, if no conversation has a second reference
        means[name] = {metric.name: scores[metric.name]["mean"]["mean"] for metric in SHOWN_METRICS}
    yield f"  {'':24}" + "".join(f"{metric.title:>10}" for metric in SHOWN_METRICS)
    for name in sorted(means, key=lambda name: -means[name][HEADLINE.name]):
        arrow = "> " if name == evaluation["judged"] else "  "
        cells = "".join(f"{means[name][metric.name]:>10.3f}" for metric in SHOWN_METRICS)
        yield f"{arrow}{name:24}{cells}"


def _conversations(bucket: Path, examples: Path, columns: int) -> Iterator[str]:
    """Yield the first summaries beside their conversations, each with a reference if it has one."""
    records = {record["id"]: record for record in _json_lines(examples / "conversations.jsonl")}
    for line in islice(_summaries(bucket), SHOWN_CONVERSATIONS):
        record = records[line["id"]]
        turns = [f"{turn['role']}: {turn['text']}" for turn in record["turns"]]
        summary = ["SUMMARY", line["summary"] or "(empty)"]
        for reference in record.get("summaries", [])[:1]:
            summary += ["", "REFERENCE", reference]
        yield from _side_by_side(turns, summary, columns)
        yield ""


def _summaries(bucket: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((bucket / "summaries" / "parts").rglob("*.jsonl")):
        yield from _json_lines(path)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _side_by_side(left: list[str], right: list[str], columns: int) -> Iterator[str]:
    half = (columns - 3) // 2
    lefts: list[str] = []
    for text in left:
        lefts += wrap(text, half, subsequent_indent="  ")
    rights: list[str] = []
    for text in right:
        rights += wrap(text, half) or [""]
    for one, other in zip_longest(lefts, rights, fillvalue=""):
        yield f"{one:{half}} │ {other}".rstrip()


def _locations(work: Path) -> Iterator[str]:
    """Yield where the results are, and how to look at the training."""
    found = {}
    for location, what in LOCATIONS.items():
        if (work / location).exists():
            found[str(work / location)] = what
    column = max(map(len, found))
    yield f"The S3 server ended with the demo; {work / 'bucket'} is a copy of s3://recap-demo."
    for path, what in found.items():
        yield f"  {path:{column}}  {what}"
    if (work / TENSORBOARD).exists():
        program = Path(os.path.relpath(Path(sys.executable).with_name("tensorboard")))
        yield "Loss, learning rate, speed and samples over time:"
        yield f"  {program} --logdir {work / TENSORBOARD}"
