"""Claims about code that a base names elsewhere: refused before that repository is asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from job.config.sections import AdapterModelSection, PromptSection, StorageSection
from job.errors import ConfigError
from job.inference.open import fetch_without_adapter
from job.model.fetch import BASE_KEY, fetch_base, fetch_base_of, read_adapter
from job.preflight.access import describe_base
from job.storage.folders import publish_folder
from job.storage.local import LocalStore
from tests.storage.hub_server import Hub

STORAGE = StorageSection()
EVIL = b"raise SystemExit('code of another repository ran')\n"
ELSEWHERE = "other/repo--evil.Mine"


@pytest.fixture
def files(base_folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in base_folder.iterdir()}


def add_base(hub: Hub, files: dict[str, bytes], key: str, change: dict[str, Any]) -> str:
    """Put a base on the Hub whose file `key` has the change; return its commit."""
    hub.add("other/repo", {"evil.py": EVIL, "config.json": b"{}"})
    content = json.loads(files.get(key, b"{}"))
    return hub.add("org/base", files | {key: json.dumps(content | change).encode()}).sha


@pytest.fixture
def cache(monkeypatch, tmp_path: Path) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    return tmp_path / "cache"


def refused(call: Any, hub: Hub, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        call()
    assert message in str(caught.value)
    asked = [request.path for request in hub.requests]
    assert not [path for path in asked if "other" in path or path.endswith((".py", "safetensors"))]


REFERENCES = [
    ("config.json", {"AutoConfig": ELSEWHERE}),
    ("config.json", {"AutoModelForCausalLM": ELSEWHERE}),
    ("tokenizer_config.json", {"AutoTokenizer": [ELSEWHERE, None]}),
    ("tokenizer_config.json", {"AutoTokenizer": ["own.Mine", ELSEWHERE]}),
    ("tokenizer_config.json", ["own.Mine", ELSEWHERE]),
    ("tokenizer_config.json", ELSEWHERE),
    ("processor_config.json", {"AutoProcessor": ELSEWHERE}),
    ("preprocessor_config.json", {"AutoImageProcessor": {"torchvision": ELSEWHERE}}),
]


@pytest.mark.parametrize(("key", "value"), REFERENCES)
def test_code_of_another_repository_is_refused(hub, cache, files, key, value):
    commit = add_base(hub, files, key, {"auto_map": value})
    message = f"{key} names code of other/repo, which the pinned revision does not cover"
    section = AdapterModelSection(base="org/base", revision=commit, trust_remote_code=True)
    for call in (
        lambda: describe_base("org/base", commit, STORAGE, PromptSection(), True),
        lambda: fetch_base("org/base", commit, STORAGE, cache, trust_remote_code=True),
        lambda: fetch_without_adapter(section, PromptSection(), STORAGE, cache),
    ):
        refused(call, hub, message)


def test_nested_code_of_another_repository_is_refused(hub, cache, files):
    commit = add_base(
        hub, files, "config.json", {"text_config": {"auto_map": {"AutoConfig": ELSEWHERE}}}
    )
    refused(
        lambda: fetch_base("org/base", commit, STORAGE, cache, trust_remote_code=True),
        hub,
        "model.trust_remote_code: org/base/config.json names code of other/repo",
    )


def test_code_elsewhere_of_an_adapters_base_is_refused(hub, cache, files, tmp_path):
    commit = add_base(hub, files, "config.json", {"auto_map": {"AutoConfig": ELSEWHERE}})
    (tmp_path / "made").mkdir()
    store = LocalStore(str(tmp_path / "adapter"))
    recorded = {"uri": "org/base", "revision": commit, "digest": "0" * 64}
    publish_folder(tmp_path / "made", store, "", {BASE_KEY: recorded})
    section = AdapterModelSection(revision=commit, trust_remote_code=True)
    refused(
        lambda: fetch_base_of(read_adapter(store.uri, STORAGE), section, STORAGE, cache),
        hub,
        "names code of other/repo",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"attn_implementation": "other/kernel"},
        {"_attn_implementation": "paged|other/kernel@main:fn"},
        {"text_config": {"_attn_implementation_internal": "other/kernel"}},
        {"kernel_config": {"RMSNorm": "other/kernel:Norm"}},
    ],
)
def test_kernel_on_the_hub_is_refused_without_any_trust(hub, cache, files, change):
    commit = add_base(hub, files, "config.json", change)
    for call in (
        lambda: describe_base("org/base", commit, STORAGE),
        lambda: fetch_base("org/base", commit, STORAGE, cache),
    ):
        refused(call, hub, "config.json names the kernel ")


def test_code_of_the_base_itself_is_fetched_if_trusted(hub, cache, files):
    own = {"own.py": b"", "runs/other.py": b""}
    commit = add_base(hub, files | own, "config.json", {"auto_map": {"AutoConfig": "own.Mine"}})
    base = fetch_base("org/base", commit, STORAGE, cache, trust_remote_code=True)
    assert (base.path / "own.py").is_file()


def test_code_elsewhere_does_not_matter_unless_trusted(hub, cache, files):
    commit = add_base(hub, files, "config.json", {"auto_map": {"AutoConfig": ELSEWHERE}})
    assert fetch_base("org/base", commit, STORAGE, cache).revision == commit
    assert not [request.path for request in hub.requests if "other" in request.path]


@pytest.mark.parametrize("words", ["train --dry-run", "plan --command summarize", "summarize"])
def test_commands_end_with_64_before_the_other_repository_is_asked(
    hub, cache, files, recap, tmp_path, words
):
    commit = add_base(hub, files, "config.json", {"auto_map": {"AutoConfig": ELSEWHERE}})
    for name in "ab":
        turns = [{"role": "customer", "text": f"hi {name}"}]
        record = {"id": name, "turns": turns, "summaries": [name]}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record))
    config = {
        "run": "r",
        "output": f"{tmp_path}/out",
        "model": {"base": "org/base", "revision": commit, "trust_remote_code": True},
    }
    if "train" in words:
        config["data"] = {"train": f"{tmp_path}/a.jsonl", "validation": f"{tmp_path}/b.jsonl"}
    else:
        config["input"] = f"{tmp_path}/a.jsonl"
    (tmp_path / "job.yaml").write_text(json.dumps(config))
    ended = recap(*words.split(), tmp_path / "job.yaml")
    assert ended.code == 64, ended
    assert "names code of other/repo" in ended.out + ended.err
    assert not [request.path for request in hub.requests if "other" in request.path]
