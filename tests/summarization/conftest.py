"""A real base on disk, files of conversations, and a config over them that answers in a moment."""

import gc
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import SummarizeConfig

Config = Callable[..., SummarizeConfig]


@pytest.fixture
def config(tmp_path: Path, base_folder: Path) -> Config:
    """A config whose keys can be replaced; input is `in.jsonl`, output is the folder `out`."""

    def make(**keys: Any) -> SummarizeConfig:
        content = {
            "run": "night",
            "input": str(tmp_path / "in.jsonl"),
            "output": str(tmp_path / "out"),
            "model": {"base": str(base_folder)},
            "generation": {"max_new_tokens": 12},
            "limits": {"max_reject_fraction": 1},
        }
        return SummarizeConfig.model_validate(content | keys)

    return make


def conversation(id: str, *texts: str, **more: Any) -> dict[str, Any]:
    """A record whose turns say `texts`, by customer and agent in turn."""
    roles = ("customer", "agent")
    turns = [
        {"role": roles[place % 2], "text": text}
        for place, text in enumerate(texts or ("my parcel is late",))
    ]
    return {"id": id, "turns": turns, **more}


def write_lines(path: Path, records: list[Any]) -> Path:
    """A file of JSON lines; a text among the records stands as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        record if isinstance(record, str) else json.dumps(record, ensure_ascii=False)
        for record in records
    ]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def read_lines(*paths: Path) -> list[dict[str, Any]]:
    """The records of files of JSON lines, one file after the other; no NaN, which other readers refuse."""
    texts = [
        line for path in paths for line in path.read_text(encoding="utf-8").split("\n") if line
    ]
    return [json.loads(text, parse_constant=_refused) for text in texts]


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def files_below(folder: Path) -> list[str]:
    """Every file, hidden ones too, by its path below the folder; nothing if there is no folder."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def results_below(folder: Path) -> list[str]:
    """The same without the chunks that a run has committed on its way."""
    return [name for name in files_below(folder) if not name.startswith("_chunks/")]


@pytest.fixture(autouse=True)
def quick_and_alone(one_thread: None, places: Path) -> Iterator[None]:
    """Every test here runs on one thread, with a cache and a work folder of its own.

    A night begins with a collection of garbage: it shall not look through all the libraries in each of these tests.
    """
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """What recap's log is told."""
    monkeypatch.setattr(logging.getLogger("recap"), "propagate", True)
    caplog.set_level(logging.INFO, "recap")
    return caplog
