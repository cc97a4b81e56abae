"""Configs in which a plan finds nothing wrong, and stand-ins of kubectl and docker.

The stand-ins record how they were called.
"""

import json
import stat
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

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


@pytest.fixture
def base(s3: S3, base_folder: Path) -> str:
    """A base on S3."""
    for file in base_folder.iterdir():
        put(s3, f"base/{file.name}", file.read_bytes())
    return f"{s3.uri}/base"


@pytest.fixture
def training(s3: S3, base: str) -> dict[str, Any]:
    """A training config on S3; everything that it names is there."""
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


@pytest.fixture
def judging(s3: S3) -> dict[str, Any]:
    """An evaluation's config on S3: four summaries, which no model generates."""
    put(s3, "test.jsonl", RECORDS[:4])
    given = [{"id": each["id"], "summary": each["summaries"][0]} for each in RECORDS[:4]]
    put(s3, "given.jsonl", given)
    return {
        "run": "judged",
        "input": f"{s3.uri}/test.jsonl",
        "summaries": f"{s3.uri}/given.jsonl",
        "output": f"{s3.uri}/runs/evaluations/judged",
    }


def put(s3: S3, key: str, content: list[dict[str, Any]] | bytes) -> None:
    """Put an object, or records as its lines. Without boto3, whose client takes far longer."""
    if isinstance(content, bytes):
        body = content
    else:
        body = "".join(json.dumps(each) + "\n" for each in content).encode()
    header = {"Content-Type": "application/octet-stream"}  # otherwise the server reads a form
    request = urllib.request.Request(f"{s3.endpoint}/{s3.bucket}/{key}", body, header, method="PUT")
    urllib.request.urlopen(request).close()


def keys_of(s3: S3) -> list[str]:
    listed = s3.client().list_objects_v2(Bucket=s3.bucket)
    return [entry["Key"] for entry in listed.get("Contents", ())]


def written(path: Path, config: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(config))
    return str(path)


STAND_IN = """#!{python} -IS
import json, pathlib, sys
words = sys.argv[1:]
given = "" if sys.stdin.isatty() else sys.stdin.read()
with open({calls!r}, "a") as file:
    print(json.dumps([words, given]), file=file)
for wanted, code, out, err in json.loads(pathlib.Path({answers!r}).read_text()):
    if set(wanted) <= set(words):
        sys.stdout.write(out)
        sys.stderr.write(err)
        sys.exit(code)
sys.exit("no answer for " + " ".join(words))
"""


@dataclass(frozen=True)
class Call:
    """One call of a stand-in."""

    words: list[str]
    stdin: str


class StandIn:
    """An executable that records its words and its input, and prints prepared answers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._calls = path.with_suffix(".calls")
        self._answers = path.with_suffix(".answers")
        self._answers.write_text("[]")
        path.write_text(
            STAND_IN.format(
                python=sys.executable, calls=str(self._calls), answers=str(self._answers)
            )
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def answers(self, *wanted: str, out: str = "", err: str = "", code: int = 0) -> None:
        """Prepare the answer to command lines with these words. The newest that fits is given."""
        known = json.loads(self._answers.read_text())
        self._answers.write_text(json.dumps([[wanted, code, out, err], *known]))

    @property
    def calls(self) -> list[Call]:
        if not self._calls.exists():
            return []
        return [Call(*json.loads(line)) for line in self._calls.read_text().splitlines()]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], StandIn]:
    """Make a stand-in of this name, first on the PATH."""

    def make(name: str) -> StandIn:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        return StandIn(folder / name)

    return make
