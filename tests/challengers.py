"""Nights of two adapters that answer otherwise, alone and with one as the other's challenger."""

from pathlib import Path
from typing import Any

from job.config.commands import SummarizeConfig
from job.storage.folders import verify_folder
from job.summarization.summarize import summarize
from tests.adapters import publish_adapter
from tests.summarization.conftest import conversation, read_lines, write_lines

COUNT = 24
OWN_PROMPT = "Sum up in one sentence."  # of the challenger


def publish_both(base: Path, work: Path) -> dict[str, str]:
    """Publish two adapters of other ranks and prompts for one base; return their URIs."""
    publish_adapter(base, work / "a-work", f"{work}/a")
    publish_adapter(base, work / "b-work", f"{work}/b", seed=9, rank=4, system=OWN_PROMPT)
    return {"a": f"{work}/a", "b": f"{work}/b"}


class Nights:
    """Nights over one file of conversations, each into a folder of its own."""

    def __init__(self, folder: Path, adapters: dict[str, str], **keys: Any) -> None:
        records = [
            conversation(f"c{n}", "late " * (n % 9 + 1), f"parcel {n}") for n in range(COUNT)
        ]
        write_lines(folder / "in.jsonl", records)
        self._folder = folder
        self._adapters = adapters
        self._keys = keys

    def run(self, name: str, adapter: str | None, **keys: Any) -> dict[str, dict[str, Any]]:
        """Summarize by this adapter, and return the delivered lines by id."""
        content = {
            "run": "night",
            "input": str(self._folder / "in.jsonl"),
            "output": str(self._folder / "out" / name),
            "adapter": None if adapter is None else self._adapters[adapter],
            "chunks": {"records": 10},
            "limits": {"max_reject_fraction": 1},
            "report": False,
        }
        summarize(SummarizeConfig.model_validate(content | self._keys | keys))
        return lines_of(self._folder / "out" / name / "parts" / "part-00000.jsonl")

    def with_challenger(
        self, name: str, adapter: str | None, how: dict[str, Any], **keys: Any
    ) -> dict[str, dict[str, Any]]:
        """Do the same with `b` as the challenger."""
        challenger = {"adapter": self._adapters["b"], **how}
        return self.run(name, adapter, challenger=challenger, **keys)

    def shadow(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the lines of a shadow by id."""
        return lines_of(self._folder / "out" / name / "shadow.jsonl")

    def engines(self, name: str) -> list[str]:
        """Return the names of the engines of a night."""
        return sorted(verify_folder(self._folder / "out" / name).extra["engines"])


def lines_of(path: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of a file by their ids, of which each is there once."""
    lines = read_lines(path)
    found = {line["id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def summaries_of(lines: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the texts by id."""
    return {id: line["summary"] for id, line in lines.items()}
