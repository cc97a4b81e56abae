"""An empty object with a folder's name, as Hadoop leaves it, hides nothing from any command."""

import json
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import EvaluateConfig, SummarizeConfig, TrainConfig
from job.config.sections import AdapterModelSection, StorageSection
from job.evaluation.inputs import all_references, read_given, read_input, read_train
from job.inference.open import fetch_with_adapter
from job.model.fetch import fetch_base
from job.storage.folders import MANIFEST
from job.storage.open import open_store
from job.summarization.inputs import find_night_inputs
from job.training.examples import read_examples
from tests.adapters import publish_adapter
from tests.evaluation.conftest import make_conversations

MARKERS = ("{}", "{}/", "{}_$folder$", "{}/sub", "{}/sub_$folder$")


def lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


@pytest.fixture
def data(s3) -> str:
    """A prefix with markers of every kind, its conversations in a folder below."""
    records = [
        {
            "id": c.id,
            "turns": [{"role": t.role, "text": t.text} for t in c.turns],
            "summaries": c.references,
        }
        for c in make_conversations(12)
    ]
    given = [{"id": record["id"], "summary": record["summaries"][0]} for record in records]
    store = open_store(s3.uri)
    store.write("data/sub/a.jsonl", lines(records))
    store.write("given/sub/a.jsonl", lines(given))
    mark(s3, "data", "given")
    return f"{s3.uri}/data"


def mark(s3: Any, *prefixes: str) -> None:
    for prefix in prefixes:
        for marker in MARKERS:
            s3.client().put_object(Bucket=s3.bucket, Key=marker.format(prefix), Body=b"")


def test_a_night_reads_below_it(data):
    config = {"run": "r", "input": data, "output": "out", "model": {"base": "b/c"}}
    inputs = find_night_inputs(SummarizeConfig.model_validate(config))
    assert [file.uri for file in inputs.files] == [f"{data}/sub/a.jsonl"]


def test_a_training_reads_below_it(data):
    config = {"run": "r", "model": {"base": "b/c"}, "output": "out"}
    one = TrainConfig.model_validate(config | {"data": {"train": data}})
    two = TrainConfig.model_validate(
        config | {"data": {"train": data, "validation": data, "overlap": "allow"}}
    )
    assert len(read_examples(one).train) + len(read_examples(one).validation) == 12
    assert len(read_examples(two).validation) == 12


def test_an_evaluation_reads_below_it(data, s3):
    config = EvaluateConfig.model_validate(
        {"run": "r", "input": data, "train": data, "summaries": f"{s3.uri}/given", "output": "out"}
    )
    everything, chosen = read_input(config)
    assert len(everything) == len(chosen) == len(read_given(config, everything)) == 12
    assert len(all_references(read_train(config) or [])) == 24


def test_base_and_adapter_are_read_below_it(s3, base_folder, tmp_path: Path, places):
    store = open_store(s3.uri)
    for file in base_folder.iterdir():
        store.upload(file, f"models/base/{file.name}")
    publish_adapter(base_folder, tmp_path / "made", f"{s3.uri}/runs/adapter")
    mark(s3, "models/base", "runs/adapter")
    storage = StorageSection()
    base = fetch_base(f"{s3.uri}/models/base", None, storage, tmp_path / "cache")
    section = AdapterModelSection(base=f"{s3.uri}/models/base")
    model = fetch_with_adapter(f"{s3.uri}/runs/adapter", section, storage, tmp_path / "cache")
    assert model.base.digest == base.digest
    assert (model.adapter or tmp_path).joinpath(MANIFEST).is_file()
