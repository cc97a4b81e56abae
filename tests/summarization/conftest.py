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
    """Make a config of `keys`; its input is `in.jsonl`, its output the folder `out`."""

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
    """Return a record with turns of these texts, by customer and agent in turn."""
    roles = ("customer", "agent")
    turns = [
        {"role": roles[place % 2], "text": text}
        for place, text in enumerate(texts or ("my parcel is late",))
    ]
    return {"id": id, "turns": turns, **more}


def write_lines(path: Path, records: list[Any]) -> Path:
    """Write a file of JSON lines; a text among the records is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        record if isinstance(record, str) else json.dumps(record, ensure_ascii=False)
        for record in records
    ]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def read_lines(*paths: Path) -> list[dict[str, Any]]:
    """Return the records of files of JSON lines. Refuse NaN, as other readers do."""
    texts = [
        line for path in paths for line in path.read_text(encoding="utf-8").split("\n") if line
    ]
    return [json.loads(text, parse_constant=_refuse) for text in texts]


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def files_below(folder: Path) -> list[str]:
    """Return the path of every file below the folder, hidden ones too."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def results_below(folder: Path) -> list[str]:
    """Return the same without the chunks that a night has committed so far."""
    return [name for name in files_below(folder) if not name.startswith("_chunks/")]


@pytest.fixture(autouse=True)
def instant_freeze_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer at once that objects are frozen, as `quick_and_alone` sees to.

    Each night asks. Counting takes a tenth of a second where all the libraries are loaded.
    """
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 1)


@pytest.fixture(autouse=True)
def quick_and_alone(one_thread: None, places: Path) -> Iterator[None]:
    """Run every test on one thread, with a cache and a work folder of its own.

    A night begins with a collection of garbage. Here it need not look at all the libraries.
    """
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """Return recap's log."""
    monkeypatch.setattr(logging.getLogger("recap"), "propagate", True)
    caplog.set_level(logging.INFO, "recap")
    return caplog
