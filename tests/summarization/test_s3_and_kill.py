"""Claims about the command: from S3 to S3 with an adapter; stopped, and killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from job.storage.folders import verify_folder
from tests.adapters import publish_adapter
from tests.summarization.conftest import (
    conversation,
    files_below,
    read_lines,
    results_below,
    write_lines,
)
from tests.summarization.nights import FOLDER

RECORDS = 3000  # ten chunks
COMMITTED = "_chunks/*/*/*.done.json"


def command(config: Path) -> list[str]:
    return [sys.executable, "-m", "job", "summarize", str(config)]


def environment() -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def write_config(tmp_path: Path, **keys: Any) -> Path:
    path = tmp_path / "config.yaml"
    content = {
        "run": "night",
        "generation": {"max_new_tokens": 12},
        "limits": {"max_reject_fraction": 1},
    }
    path.write_text(yaml.safe_dump(content | keys), encoding="utf-8")
    return path


def test_an_adapter_summarizes_from_s3_to_s3(s3, base_folder, tmp_path, recap):
    publish_adapter(base_folder, tmp_path, f"{s3.uri}/runs/tiny/adapter")
    records = [
        conversation(f"c{n}", f"see https://example.org/{n}", "thanks", metadata={"n": n})
        for n in range(6)
    ]
    for day, some in {"dt=2026-01-31": records[:4], "dt=2026-01-31-old": records[4:]}.items():
        s3.client().upload_file(
            str(write_lines(tmp_path / "day.jsonl", some)), s3.bucket, f"in/{day}/a.jsonl"
        )
    config = write_config(
        tmp_path,
        input=f"{s3.uri}/in/dt={{date}}/",
        adapter=f"{s3.uri}/runs/tiny/adapter",
        output=f"{s3.uri}/out/dt={{date}}/",
    )
    done = recap("summarize", config, "--var", "date=2026-01-31")
    assert done.code == 0, done.err
    again = recap("summarize", config, "--var", "date=2026-01-31")
    assert again.code == 0, again.err
    assert "already done" in again.err
    keys = [
        entry["Key"]
        for entry in s3.client().list_objects_v2(Bucket=s3.bucket, Prefix="out/")["Contents"]
    ]
    names = FOLDER
    assert keys == [f"out/dt=2026-01-31/{name}" for name in names]
    for name in names:
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        s3.client().download_file(
            s3.bucket, f"out/dt=2026-01-31/{name}", str(tmp_path / "copy" / name)
        )
    manifest = verify_folder(tmp_path / "copy")
    assert manifest.extra["identity"]["weights"]["adapter"] is not None
    lines = read_lines(tmp_path / "copy" / names[2], tmp_path / "copy" / names[3])
    assert sorted(line["id"] for line in lines) == ["c0", "c1", "c2", "c3"]
    assert {line["source"]["uri"] for line in lines} == {f"{s3.uri}/in/dt=2026-01-31/a.jsonl"}
    assert all(
        line["metadata"] == {"n": int(line["id"][1:])} for line in lines if "summary" in line
    )


def end_by(sent: signal.Signals, config: Path, out: Path) -> int:
    """Send the command a signal once it has committed one more chunk; return its exit code."""
    before = len(list(out.glob(COMMITTED)))
    with subprocess.Popen(command(config), env=environment(), stderr=subprocess.PIPE) as process:
        try:
            while len(list(out.glob(COMMITTED))) == before:
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.01)
            process.send_signal(sent)
            return process.wait(60)
        finally:
            process.kill()


@pytest.mark.quality  # four runs of the command
def test_a_run_that_is_stopped_or_killed_publishes_nothing(base_folder, tmp_path, places):
    records = [conversation(f"c{n}", "late " * (n % 9 + 1)) for n in range(RECORDS)]
    out = tmp_path / "out"
    config = write_config(
        tmp_path, input=str(write_lines(tmp_path / "in.jsonl", records)), output=str(out),
        model={"base": str(base_folder)},
        generation={"max_new_tokens": 3},
        chunks={"records": RECORDS // 10},
    )  # fmt: skip
    for sent in (signal.SIGTERM, signal.SIGINT):
        assert end_by(sent, config, out) == 75, "it asks to be run again"
        assert results_below(out) == files_below(places) == []
    assert end_by(signal.SIGKILL, config, out) == -signal.SIGKILL
    assert results_below(out) == []
    kept = len(list(out.glob(COMMITTED)))
    assert kept >= 3
    done = subprocess.run(command(config), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f'"done_before": {kept}' in done.stderr
    lines = read_lines(out / "parts" / "part-00000.jsonl", out / "rejects" / "part-00000.jsonl")
    assert sorted(line["id"] for line in lines) == sorted(f"c{n}" for n in range(RECORDS))
    assert files_below(out) == FOLDER
