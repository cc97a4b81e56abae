"""A small run on S3 with a proxy before it, and a way to start it hundreds of times."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stand_in import NO_WEIGHTS
from tests.conftest import S3
from tests.faults.nights import Workers, lines
from tests.faults.s3_proxy import FaultyS3
from tests.training.conftest import records


@pytest.fixture
def proxy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """The embedded S3 server behind a proxy; training processes find the proxy, the test itself the server."""
    with FaultyS3(s3.endpoint).running() as proxy:
        yield proxy


@pytest.fixture
def small(tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run of six steps with a checkpoint every second one, from and to folders below tmp_path."""
    monkeypatch.setenv("RECAP_CACHE", str(tmp_path / "cache"))
    data = {}
    for split, count, first in (("train", 6, 0), ("validation", 2, 100)):
        path = tmp_path / f"{split}.jsonl"
        path.write_text(
            "".join(json.dumps(line) + "\n" for line in records(count, first)), encoding="utf-8"
        )
        data[split] = str(path)
    return {
        "run": "small",
        "model": {"base": str(base_folder)},
        "data": data,
        "output": str(tmp_path / "runs"),
        "lora": {"r": 2, "alpha": 4, "dropout": 0.1},
        "training": {
            "epochs": 2, "learning_rate": 1e-2, "batch_size": 4, "gradient_accumulation_steps": 1, "max_tokens": 512,
            "optimizer": "adamw_torch", "save_every_steps": 2, "evaluate_every_steps": 3, "log_every_steps": 2,
            "sample_summaries": 0, "keep_last": 2,
        },
        "generation": {"max_new_tokens": 4},
        "evaluation": {"max_conversations": 1, "bootstrap_samples": 100},
    }  # fmt: skip


@pytest.fixture
def small_on_s3(small: dict[str, Any], s3: S3, proxy: FaultyS3) -> dict[str, Any]:
    """The same with its output on S3, through the proxy."""
    endpoint = {"endpoint_url": proxy.endpoint, "timeout_seconds": 2}
    return small | {"output": f"{s3.uri}/runs", "storage": endpoint}


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with closing(Workers(tmp_path_factory.mktemp("nights"))) as found:
        yield found


@pytest.fixture
def night(tmp_path: Path, places: Path) -> dict[str, Any]:
    """A night of seven chunks in two files, from and to folders."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(NO_WEIGHTS)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text(lines(0, 14))
    (tmp_path / "in" / "b.jsonl").write_text(lines(50, 12))
    return {
        "run": "night", "input": f"{tmp_path}/in/", "output": f"{tmp_path}/out", "model": {"base": str(base)},
        "chunks": {"records": 4}, "limits": {"max_reject_fraction": 1},
    }  # fmt: skip


@pytest.fixture
def on_s3(night: dict[str, Any], s3: S3, proxy: FaultyS3, tmp_path: Path) -> dict[str, Any]:
    """The same from and to S3, through the proxy."""
    for name in ("a.jsonl", "b.jsonl"):
        s3.client().upload_file(str(tmp_path / "in" / name), s3.bucket, f"in/{name}")
    endpoint = {"endpoint_url": proxy.endpoint, "timeout_seconds": 2}
    return night | {"input": f"{s3.uri}/in/", "output": f"{s3.uri}/out", "storage": endpoint}
