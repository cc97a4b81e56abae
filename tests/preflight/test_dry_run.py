"""Claims that a command's dry run shows what `recap plan` shows."""

import json
from pathlib import Path

import pytest

from job.errors import ExitCode
from tests.conftest import Recap


@pytest.mark.parametrize("words", ["train", "train --fresh", "summarize", "evaluate"])
def test_a_dry_run_prints_the_plan_of_its_command(recap: Recap, s3, tmp_path: Path, words: str):
    command, *options = words.split()
    content = {"run": "r", "output": f"{s3.uri}/out", "model": {"base": f"{tmp_path}/none"}}
    data = f"{tmp_path}/none.jsonl"
    if command == "train":
        content["data"] = {"train": data}
    else:
        content["input"] = data
    if command == "evaluate":
        del content["model"]
        content["summaries"] = data
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(content))
    planned = recap("plan", config, "--command", command)
    dry = recap(command, config, "--dry-run", *options)
    assert dry.out == planned.out
    assert dry.code == planned.code == ExitCode.MISSING
    for name in ("clock", "disk", "gpu"):
        assert f" {name} " in dry.out
