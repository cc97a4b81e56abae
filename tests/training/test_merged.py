"""Claims about merged weights that are published beside the adapter."""

import json
import shutil
from pathlib import Path

import pytest

from job.config.commands import TrainConfig
from job.config.sections import StorageSection
from job.errors import ConfigError, DamagedError, ExitCode, OutputError
from job.model.fetch import read_adapter
from job.storage.folders import verify_folder
from job.training.examine import examine_base
from job.training.merged import Likeness, check_room, likeness
from job.training.plain_process import Answers
from tests.faults.trials import journal_of, store_of


def test_a_disk_without_room_is_found_before_anything_is_merged(tmp_path):
    check_room(tmp_path, 1000)
    with pytest.raises(OutputError, match=r"the merged weights need 1955\d{3}\.\d GiB"):
        check_room(tmp_path, 10**15)


def test_the_agreement_is_that_of_texts_and_of_tokens():
    adapter = Answers([[1, 2, 3, 4], [5, 6]], [])
    found = likeness(adapter, Answers([[1, 2], [5, 6]], [3, 2]), ["a b", "c"], ["a", "c"])
    assert found == Likeness(2, 1, 0.8333)
    assert found.sentence() == (
        "Of 2 greedy summaries, 1 are those of the adapter beside its base, word for word; they "
        "expect 83.3% of its tokens"
    )
    assert Likeness(why="no memory").facts() == {"compared": 0, "same": 0, "why": "no memory"}


def test_a_base_that_cannot_be_merged_into_is_refused(config, base_folder, tmp_path):
    copy = Path(shutil.copytree(base_folder, tmp_path / "base"))
    settings = json.loads((copy / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (copy / "config.json").write_text(json.dumps(settings))
    config |= {"publish": {"merged": True}, "model": {"base": str(copy)}}
    with pytest.raises(ConfigError, match=r"publish\.merged: .* set publish\.merged: false"):
        examine_base(copy, TrainConfig.model_validate(config))


@pytest.mark.quality
@pytest.mark.usefixtures("places", "one_thread")
def test_merged_weights_are_a_base_of_their_own(config, trials, recap, tmp_path, write_config):
    config["training"] |= {"max_steps": 2, "save_every_steps": 2, "sample_summaries": 0}
    trials.finish(config)
    run = Path(config["output"]) / "tiny"
    assert not (run / "merged").exists()
    before = read_adapter(str(run / "adapter"), StorageSection()).digest

    # The same run again: only this is left to do. The adapter may serve by now: it stays as it is,
    # though its card would have another license now.
    config["publish"] |= {"merged": True, "license": "mit"}
    code, log = trials.run(config)
    assert code == ExitCode.DONE, log
    assert '"message": "engine"' not in log, "it is not scored again, either"
    assert read_adapter(str(run / "adapter"), StorageSection()).digest == before
    facts = journal_of(store_of(config))["facts"]
    assert facts["published"]["merged"] == str(run / "merged")
    assert facts["timings"]["merge_seconds"] > 0
    folder = run / "merged"
    extra = verify_folder(folder).extra["merged"]
    assert extra["dtype"] == "bfloat16"
    assert extra["base"]["uri"] == config["model"]["base"]
    assert extra["adapter"] == read_adapter(str(run / "adapter"), StorageSection()).digest
    assert extra["agreement"]["compared"] == 6
    assert 0.8 < extra["agreement"]["tokens"] <= 1
    with pytest.raises(DamagedError, match="no adapter folder"):
        read_adapter(str(folder), StorageSection())

    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Weights of 16 bits (bfloat16) that summarize conversations" in card
    assert 'model = transformers.AutoModelForCausalLM.from_pretrained(".", ' in card
    assert "library_name: transformers" in card

    night = {
        "run": "night",
        "input": config["data"]["validation"],
        "model": {"base": str(folder)},
        "prompt": {},
        "output": f"{tmp_path}/summaries.jsonl",
        "generation": {"max_new_tokens": 4},
    }
    ended = recap("summarize", write_config(night, "night.yaml"))
    assert ended.code == ExitCode.DONE, ended.err
    assert len((tmp_path / "summaries.jsonl").read_text().splitlines()) == 6

    _plain_transformers_loads(folder)


@pytest.mark.quality
@pytest.mark.usefixtures("places", "one_thread")
def test_merged_weights_that_answer_otherwise_are_left_out(config, trials):
    config["training"] |= {"max_steps": 2, "save_every_steps": 2, "sample_summaries": 0}
    config["publish"] |= {"merged": True}
    code, log = trials.run(config, INSTRUMENTS="merge_otherwise")
    assert code == ExitCode.DONE, log
    run = Path(config["output"]) / "tiny"
    verify_folder(run / "adapter")
    assert not (run / "merged").exists()
    why = journal_of(store_of(config))["facts"]["left_out"]["merged weights"]
    assert "they answer otherwise than the adapter" in why


def _plain_transformers_loads(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(str(folder))
    assert model.dtype == torch.bfloat16
    assert AutoTokenizer.from_pretrained(str(folder))("x")["input_ids"]
