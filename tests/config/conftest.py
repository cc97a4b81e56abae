import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

LEAST = """\
run: small
model: {base: org/base}
data: {train: train.jsonl}
output: runs
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Put a text at ./c.yaml, where the test then runs; without a text, the least that a training config needs."""
    monkeypatch.chdir(tmp_path)

    def put(text: str = LEAST, more: str = "") -> str:
        Path("c.yaml").write_text(textwrap.dedent(text) + textwrap.dedent(more), encoding="utf-8")
        return "c.yaml"

    return put
