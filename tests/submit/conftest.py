"""What claims about submitting use: the command in this process, configs that a plan finds nothing wrong with, and
stand-ins of kubectl and docker that write down how they were called."""

import json
import logging
import signal
import stat
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from job.cli import run
from tests.conftest import S3
from tests.evaluation.conftest import make_conversations

RECORDS = [
    {
        "id": c.id,
        "turns": [{"role": t.role, "text": t.text} for t in c.turns],
        "summaries": c.references,
    }
    for c in make_conversations(12)
]


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said where."""

    code: int
    out: str
    err: str


@pytest.fixture
def recap(capsys: pytest.CaptureFixture[str], places: Path) -> Iterator[Callable[..., Ended]]:
    """`recap` with these words; signals and log handlers are as before afterwards."""
    handler, handlers = signal.getsignal(signal.SIGTERM), list(logging.getLogger("recap").handlers)

    def call(*words: str) -> Ended:
        code = run([str(word) for word in words])
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    yield call
    signal.signal(signal.SIGTERM, handler)
    logging.getLogger("recap").handlers[:] = handlers


@pytest.fixture
def base(s3: S3, base_folder: Path) -> str:
    """A base on S3."""
    for file in base_folder.iterdir():
        put(s3, f"base/{file.name}", file.read_bytes())
    return f"{s3.uri}/base"


@pytest.fixture
def training(s3: S3, base: str) -> dict[str, Any]:
    """A training config, all of whose places are there, on S3."""
    put(s3, "train.jsonl", RECORDS[:8])
    put(s3, "validation.jsonl", RECORDS[8:])
    data = {"train": f"{s3.uri}/train.jsonl", "validation": f"{s3.uri}/validation.jsonl"}
    return {"run": "support", "model": {"base": base}, "data": data, "output": f"{s3.uri}/runs"}


@pytest.fixture
def night(s3: S3, base: str) -> dict[str, Any]:
    """A night's config with twelve records, on S3."""
    put(s3, "dt=2026-01-31/day.jsonl", RECORDS)
    return {
        "run": "nightly-{date}",
        "input": f"{s3.uri}/dt={{date}}/",
        "output": f"{s3.uri}/summaries/dt={{date}}/",
        "model": {"base": base},
    }


def put(s3: S3, key: str, content: list[dict[str, Any]] | bytes) -> None:
    """Put an object, or records as its lines: a client takes far longer."""
    body = (
        content
        if isinstance(content, bytes)
        else "".join(json.dumps(each) + "\n" for each in content).encode()
    )
    header = {"Content-Type": "application/octet-stream"}  # else it is taken for a form
    request = urllib.request.Request(f"{s3.endpoint}/{s3.bucket}/{key}", body, header, method="PUT")
    urllib.request.urlopen(request).close()


def keys_of(s3: S3) -> list[str]:
    return [
        entry["Key"] for entry in s3.client().list_objects_v2(Bucket=s3.bucket).get("Contents", ())
    ]


def written(path: Path, config: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(config))
    return str(path)


class StandIn:
    """An executable that writes down its words and its input, and answers the first words that fit."""

    def __init__(self, path: Path) -> None:
        self.path, self._calls, self._answers = (
            path,
            path.with_suffix(".calls"),
            path.with_suffix(".answers"),
        )
        self._answers.write_text("[]")
        path.write_text(
            f"#!{sys.executable}\n"
            "import json, pathlib, sys\n"
            "words, given = sys.argv[1:], '' if sys.stdin.isatty() else sys.stdin.read()\n"
            f"with open({str(self._calls)!r}, 'a') as file:\n"
            "    print(json.dumps([words, given]), file=file)\n"
            f"for wanted, code, out, err in json.loads(pathlib.Path({str(self._answers)!r}).read_text()):\n"
            "    if set(wanted) <= set(words):\n"
            "        sys.stdout.write(out); sys.stderr.write(err); sys.exit(code)\n"
            "sys.exit('no answer for ' + ' '.join(words))\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def answers(self, *wanted: str, out: str = "", err: str = "", code: int = 0) -> None:
        """What it says to a command line that has these words; what was said last comes first."""
        known = json.loads(self._answers.read_text())
        self._answers.write_text(json.dumps([[wanted, code, out, err], *known]))

    @property
    def calls(self) -> list[tuple[list[str], str]]:
        """Words and input of each call."""
        if not self._calls.exists():
            return []
        return [
            (words, given) for words, given in map(json.loads, self._calls.read_text().splitlines())
        ]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], StandIn]:
    """A stand-in of this name, first on the PATH."""

    def make(name: str) -> StandIn:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        return StandIn(folder / name)

    return make
