"""Bad input gets a clear answer with its exit code, through the real command line, and nothing is written."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

GOOD = {"id": "a", "turns": [{"role": "customer", "text": "My phone is dead."}], "summaries": ["A dead phone."]}
OTHER = {"id": "b", "turns": [{"role": "customer", "text": "Where is my parcel?"}], "summaries": ["A lost parcel."]}


def recap(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "job", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"} | environment,
        check=False,
    )


def jsonl(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """What looks like a base to a plan, which fetches no weights."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def train_config(
    tmp_path: Path, base: Path, train: bytes, validation: bytes, name: str = "train.jsonl"
) -> dict[str, Any]:
    (tmp_path / name).write_bytes(train)
    (tmp_path / "validation.jsonl").write_bytes(validation)
    return {
        "run": "r",
        "model": {"base": str(base)},
        "data": {"train": str(tmp_path / name), "validation": str(tmp_path / "validation.jsonl")},
        "output": str(tmp_path / "out"),
    }


def train(tmp_path: Path, config: dict[str, Any], *arguments: str) -> "subprocess.CompletedProcess[str]":
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return recap("train", str(path), "--dry-run", *arguments)


DATA = {
    "empty file": (b"", "train.jsonl: holds no records"),
    "broken JSON": (jsonl(GOOD) + b'{"id": "x", \n', "train.jsonl line 2: "),
    "no turns": (jsonl({"id": "x", "summaries": ["s"]}), "train.jsonl line 1: "),
    "unknown role": (
        jsonl({"id": "x", "turns": [{"role": "bot", "text": "hi"}]}),
        "train.jsonl line 1: role 'bot' is not one of customer, agent, system; map it under data.roles",
    ),
    "wrong encoding": (jsonl(GOOD) + '{"id": "é"}'.encode("latin-1") + b"\n", "train.jsonl line 2: "),
    "no reference": (jsonl({**GOOD, "summaries": []}), "0 training and 1 validation conversations"),
    "empty references": (jsonl({**GOOD, "summaries": ["", "  "]}), "0 training and 1 validation conversations"),
}


@pytest.mark.parametrize("case", DATA)
def test_bad_data_is_65_and_says_where(tmp_path, base, case):
    content, message = DATA[case]
    done = train(tmp_path, train_config(tmp_path, base, content, jsonl(OTHER)))
    assert done.returncode == 65, done.stderr
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_table_without_the_column_is_65_and_names_the_columns_it_has(tmp_path, base):
    table = b"id,text,summary\n1,customer: hi,greeting\n"
    done = train(tmp_path, train_config(tmp_path, base, table, jsonl(OTHER), "train.csv"))
    assert done.returncode == 65
    assert "text" in done.stdout + done.stderr
    assert "data.columns" in done.stdout + done.stderr


def test_validation_that_stands_in_train_is_65_unless_the_config_says_what_to_do(tmp_path, base):
    config = train_config(tmp_path, base, jsonl(GOOD, OTHER), jsonl({**GOOD, "id": "copy"}))
    done = train(tmp_path, config)
    assert done.returncode == 65
    assert "1 validation conversations also stand in train (a = copy)" in done.stdout + done.stderr
    assert train(tmp_path, config, "--set", "data.overlap=drop").returncode == 0


def test_inputs_and_bases_that_are_not_there_are_66(tmp_path, base):
    config = train_config(tmp_path, base, jsonl(GOOD), jsonl(OTHER))
    for change in ("data.train=/nowhere/train.jsonl", "model.base=/nowhere/base"):
        done = train(tmp_path, config, "--set", change)
        assert done.returncode == 66, done.stdout
        assert "/nowhere" in done.stdout + done.stderr


def test_a_base_with_pickled_weights_only_is_66_with_the_remedy(tmp_path, base):
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    done = train(tmp_path, train_config(tmp_path, base, jsonl(GOOD), jsonl(OTHER)))
    assert done.returncode == 66
    assert "needs config.json and *.safetensors, found config.json, pytorch_model.bin" in done.stdout + done.stderr


def test_an_output_below_a_file_is_73(tmp_path, base):
    config = train_config(tmp_path, base, jsonl(GOOD), jsonl(OTHER))
    (tmp_path / "file").write_text("")
    done = train(tmp_path, config, "--set", f"output={tmp_path / 'file' / 'out'}")
    assert done.returncode == 73
    assert str(tmp_path / "file") in done.stdout + done.stderr


def test_a_plan_names_everything_that_is_wrong_at_once(tmp_path, base):
    config = train_config(tmp_path, base, b"", jsonl(OTHER))
    done = train(tmp_path, config, "--set", "model.base=/nowhere/base")
    assert done.returncode == 65, "the first one decides"
    assert "holds no records" in done.stdout
    assert "/nowhere/base" in done.stdout


def test_no_adapter_is_taken_for_another_bases(tmp_path, base):
    from job.config.sections import AdapterModelSection, StorageSection
    from job.errors import ConfigError
    from job.model import base_of_adapter

    recorded = {"uri": "org/base", "revision": "abc", "digest": "0" * 64}
    section = AdapterModelSection(base=str(base))
    with pytest.raises(ConfigError, match="is an adapter for org/base") as error:
        base_of_adapter("s3://b/adapter", recorded, section, StorageSection(), tmp_path)
    assert error.value.exit_code == 64
