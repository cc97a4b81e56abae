"""Claims about which files of a base are fetched, and which changes of it an adapter refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from job.config.sections import AdapterModelSection, StorageSection
from job.errors import ConfigError
from job.model.fetch import Adapter, Base, fetch_base, fetch_base_of, fetch_small_files
from job.storage.folders import FETCHED, Manifest, sha256_file
from job.storage.local import LocalStore

STORAGE = StorageSection()
SMALL = {
    "config.json": b"{}",
    "generation_config.json": b"{}",
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "special_tokens_map.json": b"{}",
    "tokenizer.model.v3": b"",
    "merges.txt": b"",
    "chat_template.jinja": b"",
    "chat_template.json": b"{}",
    "additional_chat_templates/tool_use.jinja": b"",
    "preprocessor_config.json": b"{}",
}
NOT_LOADED = {
    "README.md": b"",
    "consolidated.safetensors": b"all weights again",
    "consolidated.safetensors.index.json": b"{}",
    "pytorch_model.bin": b"",
    "params.json": b"{}",
    "adapter_config.json": b"{}",
    "trainer_state.json": b"{}",
    "original/model.safetensors": b"all weights again",
    "original/config.json": b"{}",
    "checkpoint-10/model.safetensors": b"all weights again",
    "onnx/tokenizer.json": b"{}",
    "runs/own.py": b"",
    "additional_chat_templates/README.md": b"",
}


def tensors(size: int = 0) -> bytes:
    """Return the bytes of a safetensors file."""
    tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({"a": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


SHARDS = {"model-1-of-2.safetensors": tensors(1), "model-2-of-2.safetensors": tensors(2)}
INDEX = {
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {str(number): name for number, name in enumerate(SHARDS)}}
    ).encode()
}
SINGLE = {"model.safetensors": tensors(3)}

Put = Callable[[dict[str, bytes]], str]


@pytest.fixture(params=["s3", "hub"])
def put(request: pytest.FixtureRequest, monkeypatch, tmp_path: Path) -> Put:
    """Put a base into S3 or on the Hub, and return its URI."""
    if request.param == "hub":
        from huggingface_hub import constants

        hub = request.getfixturevalue("hub")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))

        def put_on_hub(files: dict[str, bytes]) -> str:
            hub.add("org/base", files)
            return "org/base"

        return put_on_hub
    s3 = request.getfixturevalue("s3")

    def put_into_s3(files: dict[str, bytes]) -> str:
        client = s3.client()
        for key, data in files.items():
            client.put_object(Bucket=s3.bucket, Key=f"base/{key}", Body=data)
        return f"{s3.uri}/base"

    return put_into_s3


def names_below(folder: Path) -> set[str]:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return found - {FETCHED, ".lock"}


@pytest.mark.parametrize(
    ("weights", "loaded"),
    [
        (SHARDS | INDEX, SHARDS | INDEX),
        # transformers prefers the single file.
        (SINGLE | SHARDS | INDEX, SINGLE | INDEX),
    ],
)
def test_only_files_that_are_loaded_are_fetched(put, tmp_path, weights, loaded):
    uri = put(SMALL | NOT_LOADED | weights | {"own.py": b""})
    base = fetch_base(uri, None, STORAGE, tmp_path / "cache")
    assert names_below(base.path) == {*SMALL, *loaded}


@pytest.mark.parametrize("put", ["hub"], indirect=True)
def test_code_of_a_base_is_fetched_only_if_trusted(put, tmp_path):
    uri = put(SMALL | NOT_LOADED | SINGLE | {"own.py": b""})
    base = fetch_base(uri, None, STORAGE, tmp_path / "cache", trust_remote_code=True)
    assert names_below(base.path) == {*SMALL, *SINGLE, "own.py"}


def test_a_base_in_the_hubs_cache_is_found_offline(hub, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    hub.add("org/base", SMALL | SHARDS | INDEX)
    before = fetch_base("org/base", None, STORAGE, tmp_path)
    asked = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_base("org/base", None, STORAGE, tmp_path) == before
    assert len(hub.requests) == asked


@pytest.mark.parametrize("put", ["hub"], indirect=True)
def test_small_files_are_fetched_without_weights(put, tmp_path):
    uri = put(SMALL | NOT_LOADED | SINGLE | {"own.py": b""})
    folder = fetch_small_files(uri, None, STORAGE, tmp_path / "small")
    assert names_below(folder) == {*SMALL}


def test_small_files_of_a_folder_here_stay_there(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert fetch_small_files(str(tmp_path), None, STORAGE, tmp_path / "small") == tmp_path
    with pytest.raises(ConfigError, match=r"model\.revision"):
        fetch_small_files(str(tmp_path), "main", STORAGE, tmp_path / "small")


def adapter_of(base: Base, **changes: object) -> Adapter:
    recorded = base.identity() | changes
    return Adapter("runs/a", LocalStore("runs/a"), Manifest({}, {"base": recorded}))


def older_adapter_of(base: Base, digest: str) -> Adapter:
    recorded = {"uri": base.uri, "revision": base.revision, "digest": digest}
    return Adapter("runs/a", LocalStore("runs/a"), Manifest({}, {"base": recorded}))


def test_an_adapter_of_before_counts_weights_that_are_not_loaded(put, tmp_path):
    uri = put(SMALL | SINGLE | {"consolidated.safetensors": tensors(5)})
    base = fetch_base(uri, None, STORAGE, tmp_path / "cache")
    all_weights = fetch_base(uri, None, STORAGE, tmp_path / "other", every_weight=True)
    assert all_weights.digest != base.digest
    found = fetch_base_of(
        older_adapter_of(base, all_weights.digest), AdapterModelSection(), STORAGE, tmp_path
    )
    assert found.digest == all_weights.digest
    with pytest.raises(ConfigError, match="give the base that it was trained on"):
        fetch_base_of(older_adapter_of(base, "0" * 64), AdapterModelSection(), STORAGE, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    for name, data in (SMALL | SINGLE).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "chat_template.json",
        "additional_chat_templates/tool_use.jinja",
        "generation_config.json",
    ],
)
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_changed_small_file_of_the_base_is_refused(folder, tmp_path, name, how):
    adapter = adapter_of(fetch_base(str(folder), None, STORAGE, tmp_path))
    if how == "gone":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(b"{ }")
    with pytest.raises(ConfigError) as caught:
        fetch_base_of(adapter, AdapterModelSection(), STORAGE, tmp_path)
    assert str(caught.value) == (
        f"runs/a is an adapter for {folder}, but the base there now, {folder}, has another {name} "
        "than it was trained with: put back those files, give the base that it was trained on, or "
        "train again"
    )


def test_a_generation_config_that_came_later_is_refused(folder, tmp_path):
    base = fetch_base(str(folder), None, STORAGE, tmp_path)
    adapter = adapter_of(base, generation_digest=None)
    with pytest.raises(ConfigError, match=r"has another generation_config\.json"):
        fetch_base_of(adapter, AdapterModelSection(), STORAGE, tmp_path)


def test_an_older_adapter_accepts_another_tokenizer(folder, tmp_path):
    base = fetch_base(str(folder), None, STORAGE, tmp_path)
    adapter = older_adapter_of(base, base.digest)
    for name in ("tokenizer.json", "generation_config.json"):
        (folder / name).write_bytes(b"{ }")
    assert fetch_base_of(adapter, AdapterModelSection(), STORAGE, tmp_path).digest == base.digest


def test_a_copy_of_the_weights_without_tokenizer_serves_an_adapter(folder, tmp_path):
    adapter = adapter_of(fetch_base(str(folder), None, STORAGE, tmp_path))
    for name in [*SMALL]:
        if name not in ("config.json", "generation_config.json"):
            (folder / name).unlink()
    found = fetch_base_of(adapter, AdapterModelSection(), STORAGE, tmp_path)
    assert found.tokenizer_digest is None


def test_files_that_are_no_tokenizers_do_not_change_its_digest(folder, tmp_path):
    before = fetch_base(str(folder), None, STORAGE, tmp_path).identity()
    (folder / "README.md").write_text("new")
    (folder / "preprocessor_config.json").write_text("{ }")
    after = fetch_base(str(folder), None, STORAGE, tmp_path).identity()
    assert after == before
    assert before["generation_digest"] == sha256_file(folder / "generation_config.json")
