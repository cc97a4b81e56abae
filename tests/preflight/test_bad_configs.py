"""Claims about the list of bad configs: each message names the fix, and plan and train agree."""

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from job.config.commands import TrainConfig
from job.config.document import ConfigText
from job.config.load import load_config
from job.errors import ConfigError, DataError, ExitCode, RecapError
from job.evaluation.metrics.all_metrics import METRICS
from job.launch.supervisor import run_training
from job.model.fetch import Base
from job.model.load import load_base
from job.preflight.training import plan_training
from job.storage.local import LocalStore
from job.training.examine import examine_base
from tests.preflight.bad_configs import (
    BAD_BASES,
    BAD_CONFIGS,
    BAD_EVALUATIONS,
    BAD_NIGHTS,
    BAD_WEIGHTS,
    Bad,
    BadBase,
    change_json,
)
from tests.training.conftest import records, write_jsonl


@pytest.fixture
def content(tmp_path: Path, places: Path) -> dict[str, Any]:
    """A config without mistakes, and the data that it names."""
    return {
        "run": "r",
        "model": {"base": str(tmp_path / "base")},
        "data": {
            "train": str(write_jsonl(tmp_path / "train.jsonl", records(8))),
            "validation": str(write_jsonl(tmp_path / "validation.jsonl", records(4, first=100))),
        },
        "output": str(tmp_path / "runs"),
        "training": {"max_tokens": 400, "optimizer": "adamw_torch"},
        "generation": {"max_new_tokens": 8},
    }


@pytest.fixture
def good(content: dict[str, Any], tmp_path: Path, base_folder: Path) -> dict[str, Any]:
    """A config that trains: the base that it names, which is the test's own, is there, too."""
    shutil.copytree(base_folder, tmp_path / "base")
    return content


def with_keys(config: dict[str, Any], keys: Any) -> dict[str, Any]:
    """Return the config with other values at some dotted paths."""
    changed = copy.deepcopy(config)
    for path, value in keys.items():
        *above, name = path.split(".")
        section = changed
        for part in above:
            section = section.setdefault(part, {})
        section[name] = value
    return changed


def end_of_training(config: TrainConfig, work: Path) -> RecapError | None:
    """Return the error with which `recap train` ends before it loads any weights."""
    from job.training.prepare import prepare

    error = plan_training(config, brief=True).error
    if error:
        return error
    work.mkdir(exist_ok=True)
    try:
        prepare(config, work, LocalStore(str(work)))
    except RecapError as found:
        return found
    return None


def test_the_list_has_60_entries_and_more_than_15_of_them_are_bases():
    names = [bad.name for bad in [*BAD_CONFIGS, *BAD_BASES]]
    assert len(BAD_BASES) >= 15
    assert len(set(names)) == len(names) >= 60


@pytest.mark.parametrize("bad", BAD_CONFIGS, ids=lambda bad: bad.name)
def test_a_bad_config_is_answered_with_its_fix(content, bad: Bad):
    """Plan, train and submit load a config by this function, with and without a command."""
    text = ConfigText("train.yaml", yaml.safe_dump(with_keys(content, bad.keys)))
    with pytest.raises(ConfigError) as planned:
        load_config(None, text, metrics=METRICS)
    with pytest.raises(ConfigError) as trained:
        load_config("train", text, metrics=METRICS)
    assert bad.fix in str(planned.value)
    assert str(planned.value) == str(trained.value)


GENERATING = {"run": "r", "input": "in.jsonl", "output": "out/", "adapter": "a"}


@pytest.mark.parametrize("bad", BAD_NIGHTS, ids=lambda bad: bad.name)
def test_a_bad_night_is_answered_with_its_fix(bad: Bad):
    text = ConfigText("night.yaml", yaml.safe_dump(with_keys(GENERATING, bad.keys)))
    with pytest.raises(ConfigError, match=re.escape(bad.fix)):
        load_config("summarize", text, metrics=METRICS)


@pytest.mark.parametrize("bad", BAD_EVALUATIONS, ids=lambda bad: bad.name)
def test_a_bad_evaluation_is_answered_with_its_fix(bad: Bad):
    text = ConfigText("evaluate.yaml", yaml.safe_dump(with_keys(GENERATING, bad.keys)))
    with pytest.raises(ConfigError, match=re.escape(bad.fix)):
        load_config("evaluate", text, metrics=METRICS)


@pytest.mark.parametrize("command", ["plan", "train", "submit docker"])
def test_all_bad_keys_of_the_list_at_once_are_answered_at_once(recap, content, tmp_path, command):
    """Keys that differ, since a key has one mistake: the first that was found."""
    keys: dict[str, Any] = {}
    fixes = []
    for bad in BAD_CONFIGS:
        if len(bad.keys) == 1 and not keys.keys() & bad.keys.keys():
            keys |= bad.keys
            fixes.append(bad.fix)
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(with_keys(content, keys)), encoding="utf-8")
    ended = recap(*command.split(), path)
    assert ended.code == ExitCode.CONFIG
    assert ended.err.startswith(f"config error: {len(fixes)} mistakes in {path}")
    assert not [fix for fix in fixes if fix not in ended.err]


def refuses(error: RecapError | None, bad: BadBase) -> bool:
    """Return True if the error is that of the entry."""
    return error is not None and bad.fix in str(error) and error.exit_code == bad.code


@pytest.mark.parametrize("bad", BAD_BASES, ids=lambda bad: bad.name)
def test_a_bad_base_ends_a_plan_with_its_fix(good, tmp_path, bad: BadBase):
    bad.change(tmp_path / "base")
    error = plan_training(TrainConfig.model_validate(with_keys(good, bad.keys))).error
    assert refuses(error, bad), error


@pytest.mark.bases
@pytest.mark.parametrize("bad", BAD_BASES, ids=lambda bad: bad.name)
def test_a_bad_base_ends_a_training_as_its_plan(good, tmp_path, bad: BadBase):
    bad.change(tmp_path / "base")
    config = TrainConfig.model_validate(with_keys(good, bad.keys))
    error = end_of_training(config, tmp_path / "here")
    assert refuses(error, bad), error


@pytest.mark.parametrize("bad", BAD_WEIGHTS, ids=lambda bad: bad.name)
@pytest.mark.parametrize("quantization", [None, "nf4-double"])
def test_weights_that_are_not_the_configs_end_a_plan_and_the_loading(
    good, tmp_path, quantization, bad: BadBase
):
    bad.change(tmp_path / "base")
    config = TrainConfig.model_validate(with_keys(good, {"model.quantization": quantization}))
    base = Base(config.model.base, None, "d", tmp_path / "base")
    with pytest.raises(DataError) as loaded:
        load_base(base, config.model)
    planned = plan_training(config).error
    assert refuses(planned, bad), planned
    assert str(planned) == str(loaded.value)


def test_what_a_plan_passes_a_training_does_not_refuse(good, tmp_path):
    config = TrainConfig.model_validate(good)
    assert plan_training(config).error is None
    assert end_of_training(config, tmp_path / "here") is None


@pytest.mark.parametrize("keys", [{"limits.max_cut_fraction": 0}, {"limits.max_poor_fraction": 0}])
def test_a_limit_of_the_data_ends_plan_and_train_alike(good, tmp_path, keys):
    write_jsonl(tmp_path / "train.jsonl", [*records(8), {**records(1, 8)[0], "summaries": ["Oh"]}])
    wanted = with_keys(good, keys) | {"generation": {"max_new_tokens": 8}}
    config = TrainConfig.model_validate(wanted)
    planned = plan_training(config).error
    trained = end_of_training(config, tmp_path / "here")
    assert planned is not None
    assert trained is not None
    assert (planned.exit_code, trained.exit_code) == (ExitCode.DATA, ExitCode.DATA)
    (key,) = keys
    assert key in str(planned)
    assert key in str(trained)


def test_one_process_cannot_share_a_base(good, tmp_path):
    keys = {"training.distribution": "fsdp", "training.processes": 1}
    config = TrainConfig.model_validate(with_keys(good, keys))
    planned = plan_training(config).error
    with pytest.raises(ConfigError, match="there is one: use ddp") as ended:
        run_training(config)
    assert str(planned) == str(ended.value)


def test_a_base_that_is_quantized_already_cannot_be_shared(good, tmp_path):
    bnb = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    change_json(tmp_path / "base" / "config.json", quantization_config=bnb)
    keys = {"training.distribution": "fsdp", "training.processes": 2}
    config = TrainConfig.model_validate(with_keys(good, keys))
    with pytest.raises(ConfigError, match=r"fsdp cannot shard .*: use training\.distribution: ddp"):
        examine_base(tmp_path / "base", config)
