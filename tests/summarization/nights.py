"""What tests of nights look at: the files of an output, its manifest, and that no model is loaded."""

import json
from pathlib import Path
from typing import Any

from job.summarization.summarizer import Summarizer

FOLDER = ["_SUCCESS", "manifest.json", "parts/part-00000.jsonl", "rejects/part-00000.jsonl"]


def manifest_of(folder: Path, name: str = "manifest.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))["extra"]
    return found


def never(*_arguments: Any) -> Summarizer:
    raise AssertionError("a model was loaded where nothing is to be generated")
