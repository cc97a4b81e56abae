"""Generated and real conversations, the runs on them, and one work folder: build/real."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.real.runs import BASE, ROOT, Data, Run, demo_data

IN_4_BIT = "nf4-double"
TWEETSUMM = os.environ.get("RECAP_TWEETSUMM", "")


@pytest.fixture(scope="session")
def work() -> Path:
    """The folder of this session. It is kept, so that its reports and logs can be read."""
    assert BASE.is_dir(), f"{BASE} is missing: `make test-real` makes it"
    folder = ROOT / "build" / "real"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="session")
def generated(work: Path) -> Data:
    """The demo's conversations; the held-out ones have other wording too."""
    return demo_data(work, steps=12, validation=16, heldout=32)


@pytest.fixture(scope="session")
def plain(work: Path, generated: Data) -> Run:
    return Run(work / "plain", generated, None)


@pytest.fixture(scope="session")
def in_4_bit(work: Path, generated: Data) -> Run:
    return Run(work / "in-4-bit", generated, IN_4_BIT)


@pytest.fixture(scope="session")
def on_tweets(work: Path) -> Run:
    """A run on real conversations, the shortest in the folder that RECAP_TWEETSUMM names."""
    if not TWEETSUMM:
        pytest.skip("RECAP_TWEETSUMM names no folder with train.json and validation.json")
    known = shortest_dialogs(Path(TWEETSUMM) / "train.json", 200)
    heldout = shortest_dialogs(Path(TWEETSUMM) / "validation.json", 32)
    data = Data(
        "TweetSumm",
        train=write_dialogs(work / "tweets-train.json", known[8:]),
        validation=write_dialogs(work / "tweets-validation.json", known[:8]),
        heldout=write_dialogs(work / "tweets-heldout.json", heldout),
        steps=24,
    )
    return Run(work / "on-tweets", data, None)


def shortest_dialogs(path: Path, count: int) -> list[tuple[str, Any]]:
    """Return the shortest of DialogStudio's dialogs with their keys, in the order of the file."""
    dialogs = json.loads(path.read_text(encoding="utf-8"))
    shortest = set(sorted(dialogs, key=lambda key: (count_words(dialogs[key]), key))[:count])
    return [(key, dialog) for key, dialog in dialogs.items() if key in shortest]


def count_words(dialog: Any) -> int:
    turns = [f"{turn['user utterance']} {turn['system response']}" for turn in dialog["log"]]
    return len(" ".join(turns).split())


def write_dialogs(path: Path, dialogs: list[tuple[str, Any]]) -> Path:
    path.write_text(json.dumps(dict(dialogs)), encoding="utf-8")
    return path
