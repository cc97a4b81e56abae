"""Make the conversations of training benchmarks, and rows of them as users of TRL write them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEMO = Path(__file__).parent.parent / "examples" / "demo"
SPLITS = ("train", "validation")
SYSTEM = (
    "Below is a conversation between a human and an AI agent. Write a summary of the conversation."
)


def write_data(folder: Path, are_mixed: bool) -> None:
    """Write the demo's conversations to `folder`, whole or cut to lengths that differ much."""
    folder.mkdir()
    for split in SPLITS:
        lines = map(json.dumps, _records(DEMO / f"{split}.jsonl", are_mixed))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def prompts_and_completions(path: Path) -> list[dict[str, str]]:
    """Return both texts, one row per reference."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        turns = "\n".join(f"{turn['role']}: {turn['text']}" for turn in record["turns"])
        prompt = f"### Instruction: {SYSTEM}\n\n### Input:\n{turns}\n\n### Response:\n"
        found += [{"prompt": prompt, "completion": summary} for summary in record["summaries"]]
    return found


def _records(path: Path, are_mixed: bool) -> Iterator[dict[str, Any]]:
    """Yield the conversations of a file. Mixed ones have one turn, or two, and so on, by turns."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        record = json.loads(line)
        if are_mixed:
            count = 1 + number % len(record["turns"])
            record["turns"] = record["turns"][:count]
        yield record
