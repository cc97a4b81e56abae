"""Claims about the Hub: one commit, private by default, no token in any text, read as any store."""

import logging
from pathlib import Path

import pytest

from job.errors import (
    ConfigError,
    DataError,
    ExitCode,
    ForbiddenError,
    MissingError,
    OutputError,
    RetryError,
)
from job.storage.folders import fetch_folder, publish_folder
from job.storage.hub import HubStore
from job.storage.local import LocalStore
from job.storage.open import list_inputs, open_store, read_uri
from job.storage.publish_hub import TRIES, publish_to_hub


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    (folder / "sub").mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 400)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# An adapter\n")
    (folder / "sub" / "prompt.json").write_text("{}")
    return folder


def push(adapter: Path, private: bool = True, waits: list[float] | None = None) -> str:
    sleep = (waits if waits is not None else []).append
    return publish_to_hub(
        adapter, "org/adapter", private=private, message="recap run x", sleep=sleep
    )


def test_a_folder_becomes_one_commit_of_a_private_repository(hub, adapter):
    url = push(adapter)
    repository = hub.repositories["models/org/adapter"]
    names = ["README.md", "adapter_model.safetensors", "sub/prompt.json"]
    assert repository.private
    assert repository.commits == [("recap run x", names)]
    assert {name: (adapter / name).read_bytes() for name in names} == repository.files
    assert url == f"{hub.endpoint}/org/adapter/commit/{repository.sha}"


def test_a_repository_is_public_only_by_the_config(hub, adapter):
    push(adapter, private=False)
    assert not hub.repositories["models/org/adapter"].private


def test_private_files_are_never_pushed_to_a_public_repository(hub, adapter):
    hub.add("org/adapter", {}, private=False)
    with pytest.raises(OutputError, match="is there and public"):
        push(adapter)
    assert hub.repositories["models/org/adapter"].files == {}


def test_pushing_again_adds_a_commit_to_the_same_repository(hub, adapter):
    push(adapter)
    (adapter / "sub" / "prompt.json").write_text('{"new": 1}')
    push(adapter)
    repository = hub.repositories["models/org/adapter"]
    assert len(repository.commits) == 2
    assert repository.files["sub/prompt.json"] == b'{"new": 1}'


@pytest.mark.parametrize("path", ["/api/repos/create", "/commit/"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_tried_again(hub, adapter, path, status):
    hub.fail(path, status)
    waits: list[float] = []
    push(adapter, waits=waits)
    assert waits == [2.0]
    assert len(hub.repositories["models/org/adapter"].commits) == 1


def test_a_hub_that_stays_busy_ends_in_retry(hub, adapter):
    hub.fail("/commit/", 503, times=100)
    waits: list[float] = []
    with pytest.raises(RetryError, match="the Hub answered 503, also after retries") as caught:
        push(adapter, waits=waits)
    assert caught.value.exit_code == ExitCode.RETRY
    assert waits == [2.0, 4.0, 8.0, 16.0]
    assert sum("/commit/" in request.path for request in hub.requests) == TRIES
    assert hub.repositories["models/org/adapter"].files == {}


def test_a_card_that_the_hub_does_not_take_is_named(hub, adapter):
    hub.fail("/api/validate-yaml", 400)
    with pytest.raises(OutputError, match=r"does not take the model card .*: correct publish\.lic"):
        push(adapter)
    assert hub.repositories["models/org/adapter"].files == {}


def test_a_hub_that_cannot_be_reached_ends_in_retry(hub, adapter, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    waits: list[float] = []
    with pytest.raises(RetryError, match="the Hub cannot be reached"):
        push(adapter, waits=waits)
    assert len(waits) == TRIES - 1


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("path", ["/api/repos/create", "/preupload/", "/commit/"])
def test_a_refused_token_is_forbidden_and_not_tried_again(hub, adapter, path, status):
    if path != "/api/repos/create":
        hub.add("org/adapter", {}, private=True)
    hub.fail(path, status, times=100)
    waits: list[float] = []
    with pytest.raises(
        ForbiddenError, match="set HF_TOKEN to a token that may write there"
    ) as caught:
        push(adapter, waits=waits)
    assert caught.value.exit_code == ExitCode.FORBIDDEN
    assert waits == []


def test_without_a_token_there_is_no_request(hub, adapter, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ForbiddenError, match="set HF_TOKEN in the environment"):
        push(adapter)
    assert hub.requests == []


def test_the_token_is_in_no_log_and_in_no_error(hub, adapter, caplog, capfd, monkeypatch):
    caplog.set_level(logging.DEBUG)
    hub.fail("/commit/", 503)
    push(adapter)
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrongwrong")
    with pytest.raises(ForbiddenError) as caught:
        push(adapter)
    told = caplog.text + str(caught.value) + "".join(capfd.readouterr())
    assert "org/adapter" in told
    assert hub.token not in told
    assert "hf_wrongwrongwrong" not in told


def test_a_published_adapter_is_fetched_from_the_hub_and_verified(hub, adapter, tmp_path):
    published = publish_folder(
        adapter, LocalStore(str(tmp_path / "store")), "adapter", {"base": {"uri": "org/base"}}
    )
    push(adapter)
    assert fetch_folder(open_store("hf://org/adapter"), "", tmp_path / "target") == published
    assert (tmp_path / "target" / "sub" / "prompt.json").read_text() == "{}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "store", "target"]


def test_a_repository_is_read_as_any_store(hub, tmp_path):
    hub.add(
        "org/model",
        {"config.json": b"{}", "sub/a b.txt": b"text", "sub2/c": b"", "x": b"", "y": b""},
    )
    store = HubStore("hf://org/model")
    assert [entry.key for entry in store.list()] == [
        "config.json",
        "sub/a b.txt",
        "sub2/c",
        "x",
        "y",
    ]
    assert [entry.key for entry in store.list("sub")] == ["sub/a b.txt"]
    assert list(store.list("nothing")) == []
    assert store.stat("config.json") == next(store.list())
    assert store.read("sub/a b.txt") == b"text"
    moved: list[int] = []
    store.download("sub/a b.txt", tmp_path / "new" / "target", moved.append)
    assert (tmp_path / "new" / "target").read_bytes() == b"text"
    assert moved == [4]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["target"]


def test_a_folder_of_a_repository_is_a_root(hub):
    hub.add("org/model", {"sub/deep/a": b"a", "sub/b": b"b", "c": b"c"})
    store = HubStore("hf://org/model/sub")
    assert [entry.key for entry in store.list()] == ["b", "deep/a"]
    assert store.read("deep/a") == b"a"


def test_a_store_reads_one_commit_though_the_branch_moves(hub):
    repository = hub.add("org/model", {"a": b"old"})
    store = HubStore("hf://org/model@main")
    store.stat("a")
    before = repository.sha
    repository.commits.append(("another", ["a"]))
    store.read("a")
    assert f"/org/model/resolve/{before}/a" in [request.path for request in hub.requests]


def test_a_data_set_is_an_input_without_its_pages(hub):
    files = {
        "README.md": b"# Data",
        ".gitattributes": b"",
        "data/train.jsonl": b"{}",
        "data/README.md": b"{}",
    }
    hub.add("org/data", files, kind="datasets")
    found = list_inputs(["hf://datasets/org/data"])
    uris = [file.uri.removeprefix("hf://datasets/org/data/") for file in found]
    assert uris == ["data/train.jsonl"]
    assert [file.key for file in list_inputs(["hf://datasets/org/data/data/train.jsonl"])] == [
        "train.jsonl"
    ]
    assert read_uri("hf://datasets/org/data/data/train.jsonl") == b"{}"


def test_a_file_that_is_not_on_the_hub_is_missing(hub, tmp_path):
    hub.add("org/model", {"a": b"a"})
    questions = [
        lambda: HubStore("hf://org/other").stat("a"),
        lambda: list(HubStore("hf://org/other").list()),
        lambda: HubStore("hf://org/model@v9").read("a"),
        lambda: HubStore("hf://org/model").stat("b"),
        lambda: HubStore("hf://org/model").read("b"),
        lambda: HubStore("hf://org/model").download("b", tmp_path / "target"),
    ]
    for question in questions:
        with pytest.raises(MissingError, match="hf://org/"):
            question()
    assert list(tmp_path.iterdir()) == []


def test_a_repository_that_may_not_be_read_has_a_remedy(hub, monkeypatch):
    hub.add("org/gated", {"a": b"a"}, gated=True)
    with pytest.raises(ForbiddenError, match="is gated: ask for access on its page"):
        HubStore("hf://org/gated").read("a")
    hub.add("org/private", {"a": b"a"}, private=True)
    assert HubStore("hf://org/private").read("a") == b"a"
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ForbiddenError, match="set HF_TOKEN to a token that may read it"):
        HubStore("hf://org/private").read("a")


def test_a_repository_is_never_written_through_the_store(hub, tmp_path):
    store = HubStore("hf://org/model")
    for action in (
        lambda: store.write("a", b""),
        lambda: store.upload(tmp_path, "a"),
        lambda: store.delete("a"),
    ):
        with pytest.raises(OutputError, match="choose a folder or s3:// as output"):
            action()
    assert hub.requests == []


def test_a_hostile_path_in_a_repository_is_refused(hub):
    hub.add("org/model", {"../../escaped": b"x"})
    with pytest.raises(DataError, match="escaped"):
        list(HubStore("hf://org/model").list())


def test_offline_mode_is_named_in_the_error(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE forbids asking the Hub"):
        HubStore("hf://org/model").read("a")
