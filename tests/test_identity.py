"""Digests are what an earlier version computed, and differences name each value.

The digests here are on disk in runs that earlier versions began: in manifests, checkpoints, names
of folders. The literals were computed by the code of commit 50c167c.
"""

import json

import pytest

from job import environment
from job.config.commands import SummarizeConfig
from job.config.document import ConfigText
from job.config.load import load_config
from job.conversations.record import Conversation, Source, Turn
from job.conversations.splits import content_digest
from job.identity import differences, json_digest, sha256_of
from job.model.fetch import Adapter
from job.storage.folders import FileEntry, Manifest
from job.storage.local import LocalStore
from job.submit.locations import config_uri
from job.summarization.identity import conversation_digest, hash_settings, settings_fingerprint
from job.summarization.summarizer import Digests
from job.training.examples import split_facts

ADAPTER = "0123456789abcdef" * 4
BASE = ADAPTER[::-1]
NIGHT = """\
run: night
input: in/
output: s3://bucket/out/
adapter: s3://bucket/adapter
data: {roles: {bot: agent}, columns: {summary: [é, b]}}
"""


@pytest.fixture
def night() -> SummarizeConfig:
    return load_config("summarize", ConfigText("night.yaml", NIGHT))


@pytest.fixture
def conversation() -> Conversation:
    turns = (Turn("customer", "Hallo, wo ist mein Päckchen?"), Turn("agent", "Unterwegs."))
    return Conversation("c-1", turns, Source("in.jsonl", 1), ("Paket é",))


def test_the_digest_of_a_json_value_stays():
    value = {"model": {"base": "é", "r": 1}, "data": [1.5, None, True]}
    digest = "3d6755a292fb04e6e3bd4ba8e8ca3550e834b8024c54f712eaee6e0063cc4ab2"
    assert json_digest(value) == digest
    assert json_digest(dict(reversed(value.items()))) == digest


def test_the_digest_of_a_list_of_files_stays():
    digest = "d7b2d2e35d57909fc8ff1313bd8b6421e82d7ecaaaf77ddeb611ade83dbbc30d"
    assert json_digest([["in/a.jsonl", 12, "v1"]]) == digest


@pytest.mark.parametrize("content", ["s3://bucket/base", b"s3://bucket/base"])
def test_the_digest_of_a_text_is_that_of_its_bytes(content):
    assert sha256_of(content)[:16] == "701b844a3fb825e0", "name of a folder in the cache"


def test_the_own_digest_of_a_manifest_stays():
    manifest = Manifest(
        {"a/é.txt": FileEntry(3, ADAPTER)}, {"name": "é", "share": 0.5, "none": None}
    )
    digest = "3cbcbfadaae98034ed3607ae9ad60ee2a565c07c3fc307e520744f92cccfe8de"
    assert json.loads(manifest.to_json())["sha256"] == digest


def test_the_digest_of_an_adapter_stays(tmp_path):
    files = {"model.safetensors": FileEntry(1, ADAPTER), "config.json": FileEntry(1, BASE)}
    adapter = Adapter("adapter", LocalStore(str(tmp_path)), Manifest(files, {}))
    digest = "e4f7050c82e46e4e37348d2b7fe6395f74940468c33437002e9f0b8ed7ee58ee"
    assert adapter.digest == digest


def test_the_digests_of_conversations_stay(night, conversation):
    settings = hash_settings(night, Digests(ADAPTER, BASE))
    assert content_digest(conversation) == "74e269bc1256b386c4aa06fa3142fefe"
    assert conversation_digest(conversation, settings) == "c7e59c8ad72bec18d0fc56340e1409d8"


def test_the_digest_of_training_examples_stays(conversation):
    digest = "f50986259e24a4035fcea0380180589a507c86750e3519d9f19d31c9d38a4aba"
    assert split_facts([conversation]).digest == digest


def test_the_folder_of_a_night_stays(night):
    assert settings_fingerprint(night, Digests(ADAPTER, BASE)) == "0a02fe12b621d997"


def test_the_name_of_a_submitted_config_stays(night):
    uri = config_uri(b"run: night\n", night)
    assert uri == "s3://bucket/out/_configs/night-70269d6427e03608.yaml"


def test_the_digest_of_code_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "CODE", ("conversations", "training"))
    files = {"training/a.py": "x = 1\n", "conversations/b.py": "é = 2\n"}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
    assert environment.code_digest(tmp_path) == "13d550a25013"


def test_differences_name_nested_values_and_those_of_one_side():
    there = {"model": {"base": "a", "r": 1}, "seed": 1, "gone": True}
    here = {"model": {"base": "b", "r": 1}, "seed": 1, "new": [2]}
    assert differences(there, here) == [
        "model.base: a there, b here",
        "gone: True there, none here",
        "new: none there, [2] here",
    ]


def test_differences_join_names_with_the_separator():
    assert differences({"input": {"a": 1}}, {"input": {"a": 2}}, " ") == [
        "input a: 1 there, 2 here"
    ]
