"""Small runs and nights, on S3 behind a proxy, and processes that start them hundreds of times."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.champions import put_adapter, put_reward_model
from tests.conftest import S3
from tests.faults.nights import DEADLY, Workers, lines
from tests.faults.s3_proxy import FaultyS3
from tests.stand_in import NO_WEIGHTS
from tests.training.conftest import records, write_jsonl


@pytest.fixture
def proxy(s3: S3) -> Iterator[FaultyS3]:
    """A proxy in front of the embedded S3 server.

    The processes under test have its address; the test itself has the server's.
    """
    with FaultyS3(s3.endpoint).running() as proxy:
        yield proxy


@pytest.fixture
def small(tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run of six steps with a checkpoint every second one, in folders below tmp_path."""
    monkeypatch.setenv("RECAP_CACHE", str(tmp_path / "cache"))
    train = write_jsonl(tmp_path / "train.jsonl", records(6))
    validation = write_jsonl(tmp_path / "validation.jsonl", records(2, first=100))
    return {
        "run": "small",
        "model": {"base": str(base_folder)},
        "data": {"train": str(train), "validation": str(validation)},
        "output": str(tmp_path / "runs"),
        "lora": {"r": 2, "alpha": 4, "dropout": 0.1},
        "training": {
            "epochs": 2,
            "learning_rate": 1e-2,
            "batch_size": 4,
            "gradient_accumulation_steps": 1,
            "max_tokens": 512,
            "optimizer": "adamw_torch",
            "save_every_steps": 2,
            "evaluate_every_steps": 3,
            "log_every_steps": 2,
            "sample_summaries": 0,
            "keep_last": 2,
        },
        "generation": {"max_new_tokens": 4},
        "evaluation": {"max_conversations": 1, "bootstrap_samples": 100},
        "publish": {"verify": False},
    }


@pytest.fixture
def small_on_s3(small: dict[str, Any], s3: S3, proxy: FaultyS3) -> dict[str, Any]:
    """The same run with its output on S3, through the proxy."""
    storage = {"endpoint_url": proxy.endpoint, "timeout_seconds": 2}
    return small | {"output": f"{s3.uri}/runs", "storage": storage}


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Workers of nights that start at once: the libraries are loaded only for the first."""
    with closing(Workers(tmp_path_factory.mktemp("nights"))) as found:
        yield found


@pytest.fixture
def night(tmp_path: Path, places: Path) -> dict[str, Any]:
    """A night of seven chunks in two files, in folders below tmp_path."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(NO_WEIGHTS)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text(lines(0, 14))
    (tmp_path / "in" / "b.jsonl").write_text(lines(50, 12))
    return {
        "run": "night",
        "input": f"{tmp_path}/in/",
        "output": f"{tmp_path}/out",
        "model": {"base": str(base)},
        "chunks": {"records": 4},
        "limits": {"max_reject_fraction": 1},
    }


@pytest.fixture
def night_on_s3(night: dict[str, Any], s3: S3, proxy: FaultyS3, tmp_path: Path) -> dict[str, Any]:
    """The same night with input and output on S3, through the proxy."""
    for name in ("a.jsonl", "b.jsonl"):
        s3.client().upload_file(str(tmp_path / "in" / name), s3.bucket, f"in/{name}")
    storage = {"endpoint_url": proxy.endpoint, "timeout_seconds": 2}
    return night | {"input": f"{s3.uri}/in/", "output": f"{s3.uri}/out", "storage": storage}


@pytest.fixture
def night_with_deadly(night: dict[str, Any], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Make a night of fifty records in chunks of twenty; those of the given numbers are deadly."""

    def make(*deadly: int) -> dict[str, Any]:
        path = tmp_path / "deadly.jsonl"
        with path.open("w") as file:
            for number in range(50):
                text = f"{DEADLY if number in deadly else 'my parcel'} {number}"
                turns = [{"role": "customer", "text": text}]
                file.write(json.dumps({"id": f"c{number}", "turns": turns}) + "\n")
        return night | {"input": str(path), "chunks": {"records": 20}}

    return make


@pytest.fixture
def challenged(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that gives a night an adapter, and a challenger that is tried so."""
    folder = tmp_path / "adapters"
    for name in ("a", "b"):
        put_adapter(f"{folder}/{name}", folder)

    def add(night: dict[str, Any], **how: float) -> dict[str, Any]:
        challenger = {"adapter": f"{folder}/b", **how}
        return night | {"model": {}, "adapter": f"{folder}/a", "challenger": challenger}

    return add


@pytest.fixture
def judged(tmp_path: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a function that gives a night an adapter, and candidates with a reward model."""
    folder = tmp_path / "adapters"
    put_adapter(f"{folder}/a", folder)
    put_reward_model(f"{folder}/judge", folder)

    def add(night: dict[str, Any]) -> dict[str, Any]:
        reward = {"adapter": f"{folder}/judge"}
        generation = {"temperature": 0.7, "candidates": 3, "reward_model": reward}
        return night | {"model": {}, "adapter": f"{folder}/a", "generation": generation}

    return add
