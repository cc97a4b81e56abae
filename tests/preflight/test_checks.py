"""A plan tells everything at once, by the config's keys, and leaves nothing behind."""

from pathlib import Path

from job.config.commands import EvaluateConfig, TrainConfig
from job.config.sections import StorageSection
from job.model import fetch_base
from job.preflight.checks import is_writable
from job.preflight.plan import plan
from job.storage.folders import publish_folder
from job.storage.local import LocalStore

RECORD = '{{"id": "{0}", "turns": [{{"role": "customer", "text": "{1}"}}], "summaries": ["{1}"]}}\n'


def train_config(tmp_path: Path, base: Path, **more) -> TrainConfig:
    (tmp_path / "t.jsonl").write_text(RECORD.format("a", "one two"))
    (tmp_path / "v.jsonl").write_text(RECORD.format("b", "three four"))
    data = {"train": str(tmp_path / "t.jsonl"), "validation": str(tmp_path / "v.jsonl")}
    whole = {"run": "r", "model": {"base": str(base)}, "data": data, "output": str(tmp_path / "deep" / "out")}
    return TrainConfig.model_validate(whole | more)


def test_a_place_of_no_known_kind_is_one_line_of_the_plan_by_its_key(tmp_path, base_folder):
    found = {check.name: check for check in plan(train_config(tmp_path, base_folder, output="gs://x/y")).checks}
    wanted = "'gs://x/y': no such kind of place; wanted a path, s3://bucket/prefix"
    assert found["output"].found.startswith(f"output: {wanted}")
    assert found["run"].found.startswith("output: 'gs://x/y/r'")
    assert [name for name, check in found.items() if not check.error] == ["data", "steps", "base"]


def test_a_plan_leaves_no_folder_behind_and_takes_none_away(tmp_path, base_folder):
    assert plan(train_config(tmp_path, base_folder)).error is None
    assert not (tmp_path / "deep").exists()
    (tmp_path / "mine").mkdir()
    is_writable(str(tmp_path / "mine"), StorageSection())
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_base_that_is_not_the_adapters_is_told_by_the_plan(tmp_path, base_folder):
    recorded = fetch_base(str(base_folder), None, StorageSection(), tmp_path).identity()
    (tmp_path / "adapter").mkdir()
    for digest, fits in ((recorded["digest"], True), ("0" * 64, False)):
        store = LocalStore(str(tmp_path / "published"))
        publish_folder(tmp_path / "adapter", store, "", {"run": "r", "base": recorded | {"digest": digest}})
        train_config(tmp_path, base_folder)
        config = {"run": "e", "input": str(tmp_path / "t.jsonl"), "output": str(tmp_path / "o"), "adapter": store.uri}
        error = plan(EvaluateConfig.model_validate(config)).error
        assert (error is None) == fits
    assert str(error) == (
        f"adapter: {store.uri} is an adapter for {base_folder} (digest 000000000000), but what stands there now, "
        f"{base_folder}, has digest {recorded['digest'][:12]}: give the base that it was trained on, or train again"
    )
