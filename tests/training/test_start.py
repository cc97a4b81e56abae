"""Claims about trainings that start from an adapter: what is taken from it, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from job.config.commands import TrainConfig
from job.config.document import ConfigText
from job.config.load import load_config, resolved_yaml
from job.errors import ConfigError, DamagedError, DataError, MissingError
from job.identity import json_digest
from job.preflight.training import plan_training
from job.prompt.template import FILE, parse_prompt
from job.storage.folders import publish_folder, read_manifest
from job.storage.local import LocalStore
from job.training import journal
from job.training.examples import read_examples
from job.training.start import FACT, Start, open_start, pin_start, take_from_start
from tests.adapters import publish_adapter
from tests.champions import promote


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, base_folder) -> str:
    """An adapter of rank 2 with random weights."""
    work = tmp_path_factory.mktemp("published")
    publish_adapter(base_folder, work, str(work / "older"))
    return str(work / "older")


@pytest.fixture
def started(config, adapter) -> dict[str, Any]:
    """The config of a training that starts from the adapter."""
    del config["lora"]
    config["training"]["start_from"] = adapter
    return config


def taken(config: dict[str, Any]) -> TrainConfig:
    """Return the config with what it takes from the adapter that it starts from."""
    loaded = TrainConfig.model_validate(config)
    return take_from_start(loaded, taken_start(config))


def taken_start(config: dict[str, Any]) -> Start:
    """Return the adapter that a training starts from."""
    loaded = TrainConfig.model_validate(config)
    pin = pin_start(loaded, None)
    assert pin is not None
    return open_start(loaded, pin)


def changed(adapter: str, tmp_path: Path, **files: Any) -> str:
    """Publish a copy of the adapter in which files have other content, or are gone (None)."""
    content = shutil.copytree(adapter, tmp_path / "changed")
    (content / "manifest.json").unlink()
    for name, change in files.items():
        file = content / f"{name}.json"
        if change is None:
            file.unlink()
        else:
            before = json.loads(file.read_text()) if file.is_file() else {}
            file.write_text(json.dumps(before | change))
    facts = read_manifest(LocalStore(adapter), "").extra
    publish_folder(content, LocalStore(str(tmp_path / "copy")), "", facts)
    return str(tmp_path / "copy")


def test_the_tokens_that_its_adapter_has_seen_are_taken(started, adapter, tmp_path):
    assert taken_start(started).seen is None
    there = changed(adapter, tmp_path, seen_tokens={"tokens": 2, "ids": "BQ=="})
    started["training"]["start_from"] = there
    assert taken_start(started).seen.flags.nonzero()[0].tolist() == [0, 2]


def test_a_training_begins_with_the_weights_of_its_adapter(started, adapter, tmp_path, places):
    from safetensors.torch import load_file

    from job.training.build import build_trainer
    from job.training.prepare import prepare

    loaded = TrainConfig.model_validate(started)
    run = prepare(loaded, tmp_path, LocalStore(str(tmp_path)))
    trainer = build_trainer(run, wait_for_uploads=lambda: None)
    there = load_file(str(Path(adapter) / "adapter_model.safetensors"))
    here = {name: each for name, each in trainer.model.named_parameters() if each.requires_grad}
    assert len(here) == len(there) > 0
    for name, weight in there.items():
        trained = here[name.replace(".weight", ".default.weight")]
        assert trained.equal(weight), "TRL rounds the adapter of a 4-bit base to bfloat16"
    assert run.data.prompt == parse_prompt((Path(adapter) / FILE).read_bytes(), adapter, "")
    assert run.data.examples.cleaning == ("links", "whitespace")


def test_lora_prompt_and_cleaning_are_those_of_the_adapter(started):
    config = taken(started)
    assert (config.lora.r, config.lora.alpha, config.lora.variant) == (2, 8, "lora")
    assert "model.layers.0.self_attn.q_proj" in config.lora.target_modules
    assert config.data.cleaning == ["links", "whitespace"]
    named = taken(started | {"lora": {"r": 2}, "prompt": {"style": "instruction"}})
    assert named == config, "a config may say what is so"


@pytest.mark.parametrize(
    ("section", "keys", "named"),
    [
        ("lora", {"r": 16}, r"lora\.r 16, which is 2 there; leave"),
        ("lora", {"target_modules": ["q_proj"]}, r"lora\.target_modules \[q_proj\], which is \["),
        ("prompt", {"style": "chat"}, r"prompt\.style chat, which is instruction there"),
        ("prompt", {"system": "Sum it up."}, r"prompt\.system, which is another text there"),
        ("prompt", {"labels": {"agent": "us"}}, r"prompt\.labels \{'agent': 'us'\}"),
        ("data", {"cleaning": "tweets"}, r"data\.cleaning \[links, mentions"),
    ],
)
def test_a_config_that_names_other_values_is_refused(started, section, keys, named):
    other = started | {section: started.get(section, {}) | keys}
    with pytest.raises(ConfigError, match=rf"^training\.start_from: .*{named}"):
        taken(other)


def test_all_linear_may_be_named_if_the_adapter_is_on_all(started, tmp_path, places):
    from job.training.prepare import prepare

    config = TrainConfig.model_validate(started | {"lora": {"target_modules": "all-linear"}})
    assert plan_training(config).error is None
    run = prepare(config, tmp_path, LocalStore(str(tmp_path)))
    assert run.config.lora.target_modules == "all-linear"
    without = prepare(TrainConfig.model_validate(started), tmp_path, LocalStore(str(tmp_path)))
    assert run.fingerprint() == without.fingerprint()


def test_all_linear_is_refused_if_the_adapter_is_on_few(started, adapter, tmp_path, places):
    from job.training.prepare import prepare

    started["training"]["start_from"] = changed(
        adapter, tmp_path, adapter_config={"target_modules": ["q_proj", "v_proj"]}
    )
    config = TrainConfig.model_validate(started | {"lora": {"target_modules": "all-linear"}})
    planned = plan_training(config).error
    with pytest.raises(ConfigError, match=r"all-linear, which are 14 modules .* is on 4: leave"):
        prepare(config, tmp_path, LocalStore(str(tmp_path)))
    assert isinstance(planned, ConfigError)
    assert "all-linear, which are 14 modules" in str(planned)


def test_the_resolved_config_leaves_out_what_is_taken(started):
    text = yaml.safe_dump(started | {"lora": {"r": 2}})
    loaded = load_config("train", ConfigText("train.yaml", text))
    resolved = resolved_yaml(loaded)
    assert yaml.safe_load(resolved)["lora"] == {"r": 2}
    again = load_config("train", ConfigText("train.yaml", resolved))
    assert (again, resolved_yaml(again)) == (loaded, resolved)
    assert "cleaning" not in yaml.safe_load(resolved_yaml(taken(started)))["data"]


def test_a_run_that_has_begun_goes_on_from_its_adapter(started, adapter, tmp_path):
    pointer = str(tmp_path / "champion.json")
    promote(pointer, adapter)
    started["training"]["start_from"] = pointer
    config = TrainConfig.model_validate(started)
    pin = pin_start(config, None)
    assert (pin.adapter, pin.version) == (adapter, 1)

    store = LocalStore(str(tmp_path / "runs" / "tiny"))
    begun = journal.begin(store, config, {}, 0, {FACT: pin.facts()})
    promote(pointer, changed(adapter, tmp_path, prompt={"before": "Sum up: "}))
    assert pin_start(config, begun) == pin, "the champion moved meanwhile"
    moved = pin_start(config, None)
    assert (moved.version, moved.digest == pin.digest) == (2, False)
    fingerprints = [journal.fingerprint(config, {}, each.digest) for each in (pin, moved)]
    assert fingerprints[0] != fingerprints[1]

    elsewhere = started | {"training": started["training"] | {"start_from": adapter}}
    same = TrainConfig.model_validate(elsewhere)
    assert pin_start(same, begun).named == adapter
    assert journal.fingerprint(same, {}, pin.digest) == fingerprints[0], "an address is no identity"


def test_without_an_adapter_the_identity_is_that_of_before(config):
    loaded = TrainConfig.model_validate(config)
    found = journal.fingerprint(loaded, {})
    assert "start" not in found
    assert "start_from" not in found["training"]
    assert found["lora"]["r"] == 4


def test_an_adapter_that_was_replaced_since_ends_the_run(started, tmp_path):
    config = TrainConfig.model_validate(started)
    pin = replace(pin_start(config, None), digest="0" * 64)
    with pytest.raises(DataError, match=r"^training\.start_from: .* was replaced; put it back"):
        open_start(config, pin)


@pytest.mark.parametrize(
    ("files", "error", "named"),
    [
        ({"adapter_config": None}, DamagedError, "has no adapter_config.json: .* merged weights"),
        ({"prompt": None}, DamagedError, "has no prompt.json: it is no adapter that recap trained"),
        ({"adapter_config": {"r": 0}}, DamagedError, "adapter_config.json has r: 0"),
        ({"adapter_config": {"r": 3}}, DamagedError, "has r 3, but .* has shape"),
        ({"adapter_config": {"use_dora": True, "use_rslora": True}}, DamagedError, "no config of"),
    ],
)
def test_plan_and_training_refuse_what_is_no_adapter(
    started, adapter, tmp_path, places, files, error, named
):
    from job.training.build import load_model
    from job.training.prepare import prepare

    started["training"]["start_from"] = changed(adapter, tmp_path, **files)
    config = TrainConfig.model_validate(started)
    planned = plan_training(config).error
    assert isinstance(planned, error)
    with pytest.raises(error, match=named) as caught:
        load_model(prepare(config, tmp_path, LocalStore(str(tmp_path))))
    assert caught.value.exit_code == planned.exit_code
    assert str(caught.value).removeprefix("training.start_from: ") in str(planned)


def test_plan_and_training_refuse_the_adapter_of_another_base(
    started, tmp_path, base_folder, places
):
    from job.training.prepare import prepare

    base = shutil.copytree(base_folder, tmp_path / "base")
    (base / "generation_config.json").write_text('{"top_k": 1}')
    started["model"]["base"] = str(base)
    config = TrainConfig.model_validate(started)
    planned = plan_training(config).error
    with pytest.raises(ConfigError, match=r"is an adapter for .*another generation_config\.json"):
        prepare(config, tmp_path, LocalStore(str(tmp_path)))
    assert isinstance(planned, ConfigError)


def test_plan_and_training_miss_the_same_adapter(started, tmp_path, places):
    from job.training.prepare import prepare

    started["training"]["start_from"] = str(tmp_path / "nowhere")
    config = TrainConfig.model_validate(started)
    with pytest.raises(MissingError, match=r"^training\.start_from: .*nowhere"):
        prepare(config, tmp_path, LocalStore(str(tmp_path)))
    assert isinstance(plan_training(config).error, MissingError)
    assert isinstance(plan_training(config, brief=True).error, MissingError)


def test_a_fresh_run_is_found_again_after_the_champion_moved(started, adapter, tmp_path, places):
    pointer = str(tmp_path / "champion.json")
    promote(pointer, adapter)
    started["training"]["start_from"] = pointer
    config = TrainConfig.model_validate(started)
    digests = read_examples(taken(started)).digests()
    foreign = LocalStore(f"{config.output}/tiny")
    journal.begin(foreign, config, {"data_digests": {}}, 0, {})
    first = plan_training(config, fresh=True, brief=True)
    assert (first.error, first.run.startswith("tiny-")) == (None, True)

    pin = pin_start(config, None)
    identity = journal.fingerprint(config, digests, pin.digest)
    beside = LocalStore(f"{config.output}/{first.run}")
    journal.begin(beside, config, identity, 0, {FACT: pin.facts()})
    promote(pointer, changed(adapter, tmp_path, prompt={"before": "Sum up: "}))
    again = plan_training(config, fresh=True, brief=True)
    assert (again.error, again.run, len(again.story)) == (None, first.run, 1)
    assert json_digest(identity) == json_digest(journal.read_journal(beside).fingerprint)
