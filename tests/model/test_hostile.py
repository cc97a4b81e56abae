"""Claims about folders that mean harm: a base or an adapter that tries ends as damaged or refused.

Never as a bug of recap, never in a hang, never in a request to another repository.
"""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from job.config.sections import AdapterModelSection, PromptSection, StorageSection
from job.errors import ConfigError, DamagedError, DataError, RecapError
from job.inference.open import fetch_with_adapter, load
from job.model.fetch import fetch_adapter, fetch_base, fetch_small_files, read_adapter
from job.preflight.access import describe_base
from job.storage.folders import MANIFEST, read_manifest, write_manifest
from job.storage.local import LocalStore
from tests.adapters import publish_adapter

STORAGE = StorageSection()
DEEP = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
NESTED = b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}"


class Harm:
    """A pickle of it would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('code of a pickle ran')",)


@pytest.fixture(scope="module")
def published_once(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    publish_adapter(base_folder, folder / "made", str(folder / "published"))
    return folder / "published"


@pytest.fixture
def published(published_once: Path, tmp_path: Path) -> Path:
    """An adapter to tamper with."""
    return Path(shutil.copytree(published_once, tmp_path / "published"))


def sign(folder: Path) -> None:
    """Write the manifest anew, as somebody who may write the folder can."""
    extra = json.loads((folder / MANIFEST).read_text())["extra"]
    (folder / MANIFEST).unlink()
    write_manifest(folder, extra)


def fetch(published: Path, cache: Path) -> Path:
    return fetch_adapter(read_adapter(str(published), STORAGE), cache)


def damaged(published: Path, cache: Path, message: str) -> None:
    sign(published)
    with pytest.raises(DamagedError) as caught:
        fetch(published, cache)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "PROMPT_TUNING"),
        ("peft_type", "XLORA"),
        ("peft_type", None),
        ("task_type", "SEQ_CLS"),
        ("r", 10**9),
        ("r", 0),
        ("r", -2),
        ("r", True),
        ("r", 2.0),
        ("r", "2"),
        ("lora_alpha", float("nan")),
        ("lora_alpha", "much"),
        ("lora_dropout", 2),
        ("target_modules", "((([a-z_.0-9]+)+)+)+!"),
        ("target_modules", "all-linear"),
        ("target_modules", ["q_proj", "((a+)+)+!"]),
        ("target_modules", []),
        ("exclude_modules", "((([a-z_.0-9]+)+)+)+!"),
        ("rank_pattern", {"((([a-z_.0-9]+)+)+)+!": 4}),
        ("alpha_pattern", {".*": 4}),
        ("layers_pattern", "(a+)+"),
        ("modules_to_save", ["lm_head"]),
        ("layer_replication", [[0, 10**6]]),
        ("auto_mapping", {"base_model_class": "Popen", "parent_library": "subprocess"}),
        ("megatron_core", "os"),
        ("init_lora_weights", "eva"),
        ("bias", "all"),
        ("something_new", {"a": 1}),
    ],
)
def test_adapter_config_that_is_no_plain_lora_is_damaged(published, tmp_path, key, value):
    config = json.loads((published / "adapter_config.json").read_text())
    (published / "adapter_config.json").write_text(json.dumps(config | {key: value}))
    damaged(published, tmp_path / "cache", "is no adapter that recap trained: adapter_config.json ")


@pytest.mark.parametrize("content", [DEEP, b"{bad", b"[]", b"3", b"\xff"])
def test_adapter_config_that_is_no_object_is_damaged(published, tmp_path, content):
    (published / "adapter_config.json").write_bytes(content)
    damaged(published, tmp_path / "cache", "is no adapter that recap trained: adapter_config.json")


def test_adapter_config_with_a_new_empty_key_is_accepted(published, tmp_path):
    config = json.loads((published / "adapter_config.json").read_text())
    (published / "adapter_config.json").write_text(json.dumps(config | {"of_peft_1": None}))
    sign(published)
    assert fetch(published, tmp_path / "cache").is_dir()


def test_adapter_weights_as_a_pickle_are_damaged(published, tmp_path):
    (published / "adapter_model.safetensors").unlink()
    (published / "adapter_model.bin").write_bytes(pickle.dumps(Harm()))
    damaged(published, tmp_path / "cache", "it has no adapter_model.safetensors")


def test_adapter_weights_that_are_no_safetensors_are_damaged(published, tmp_path):
    (published / "adapter_model.safetensors").write_bytes(pickle.dumps(Harm()))
    damaged(published, tmp_path / "cache", "adapter_model.safetensors is no safetensors file")


def test_an_adapter_without_some_of_its_tensors_is_damaged(published, tmp_path):
    from safetensors.numpy import load_file, save_file

    path = published / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name: tensors[name] for name in list(tensors)[2:]}, path)
    sign(published)
    section = AdapterModelSection(dtype="float32")
    model = fetch_with_adapter(str(published), section, STORAGE, tmp_path / "cache")
    with pytest.raises(DamagedError, match="does not fit its base: Found missing adapter keys"):
        load(model, section)


def test_an_adapter_of_another_shape_than_its_base_is_damaged(published, tmp_path):
    from safetensors.numpy import load_file, save_file

    path = published / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "lora_A" in name)
    save_file(tensors | {name: tensors[name][:, :-1].copy()}, path)
    sign(published)
    section = AdapterModelSection(dtype="float32")
    model = fetch_with_adapter(str(published), section, STORAGE, tmp_path / "cache")
    with pytest.raises(DamagedError, match="the adapter does not fit its base"):
        load(model, section)


@pytest.mark.parametrize(
    "content", [DEEP, b'{"files": {"a": {"size": 1e999}}, "extra": {}}', b'{"files": []}', b"\xff"]
)
def test_manifest_that_is_none_is_damaged(tmp_path, content):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(DamagedError, match=r"is no manifest of recap"):
        read_manifest(LocalStore(str(tmp_path)), "")


JSON_OF_A_BASE = [
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "model.safetensors.index.json",
    "chat_template.json",
]


@pytest.mark.parametrize("name", JSON_OF_A_BASE)
@pytest.mark.parametrize("content", [DEEP, NESTED, b"[]", b"\xff\xfe", b""])
def test_json_of_a_base_that_is_none_is_65(copy, tmp_path, name, content):
    (copy / name).write_bytes(content)
    prompt = PromptSection(style="chat" if name == "chat_template.json" else "instruction")
    calls = [lambda: describe_base(str(copy), None, STORAGE, prompt)]
    if name != "chat_template.json":
        calls.append(lambda: fetch_base(str(copy), None, STORAGE, tmp_path))
    for call in calls:
        with pytest.raises(DataError, match=name):
            call()


def refused_by_all(base: Path, cache: Path, kind: type[RecapError], message: str) -> None:
    for call in (
        lambda: describe_base(str(base), None, STORAGE),
        lambda: fetch_base(str(base), None, STORAGE, cache),
    ):
        with pytest.raises(kind) as caught:
            call()
        assert message in str(caught.value)


def test_an_adapters_config_in_a_base_is_refused(copy, tmp_path):
    # transformers would load the base that it names, from wherever it is.
    config = {"peft_type": "LORA", "base_model_name_or_path": "other/repo"}
    (copy / "adapter_config.json").write_text(json.dumps(config))
    refused_by_all(copy, tmp_path, ConfigError, "has an adapter_config.json, so transformers would")


def test_weights_of_another_name_are_refused(copy, tmp_path):
    config = json.loads((copy / "config.json").read_text())
    config["transformers_weights"] = "adapter_model.bin"
    (copy / "config.json").write_text(json.dumps(config))
    refused_by_all(copy, tmp_path, ConfigError, "has transformers_weights")


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer", "num_labels"])
def test_more_layers_than_any_model_has_are_65(copy, tmp_path, key):
    config = json.loads((copy / "config.json").read_text())
    nested = {"text_config": {key: 10**9}}
    (copy / "config.json").write_text(json.dumps(config | nested))
    refused_by_all(copy, tmp_path, DataError, f"config.json has {key}: 1000000000")
    with pytest.raises(DataError, match=key):
        fetch_small_files(str(copy), None, STORAGE, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 10**6},
        {"vocab_size": 10**9},
        {"intermediate_size": 10**9},
        {"head_dim": 10**9},
        {"text_config": {"d_model": 64, "num_experts": 10**9}},
    ],
)
def test_matrices_far_larger_than_the_weights_are_65(copy, tmp_path, change):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | change))
    refused_by_all(copy, tmp_path, DataError, "far more than its weights of ")


@pytest.mark.parametrize("names", [5, ["a"], {"a": 5}, {"a": None}, {"a": "../../etc/passwd"}])
def test_index_without_names_of_files_is_65(copy, tmp_path, names):
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    refused_by_all(copy, tmp_path, DataError, "model.safetensors.index.json")
