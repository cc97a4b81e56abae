"""Claims about summarizing from the disk: what shares a loaded base, and the process of its own."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from job.config.sections import AdapterModelSection, GenerationSection, StorageSection
from job.conversations.record import Conversation, Source, Turn
from job.errors import ConfigError, RecapError
from job.inference import from_disk
from job.inference import open as opening
from job.inference.from_disk import Candidate, Place, Results, summarize_candidates
from job.inference.open import FetchedModel, fetch_with_adapter
from job.inference.serving import ServingWish
from tests.adapters import publish_adapter

CONVERSATIONS = [
    Conversation(f"c{n}", (Turn("customer", f"Parcel {n} is late"),), Source("in.jsonl", n))
    for n in range(4)
]
WISH = ServingWish(AdapterModelSection(dtype="float32"), GenerationSection(max_new_tokens=8))


@pytest.fixture(scope="module")
def model(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FetchedModel:
    work = tmp_path_factory.mktemp("adapter")
    publish_adapter(base_folder, work, str(work / "published"))
    return fetch_with_adapter(
        str(work / "published"), WISH.section, StorageSection(), work / "cache"
    )


@pytest.fixture(scope="module")
def other(model: FetchedModel, tmp_path_factory: pytest.TempPathFactory) -> FetchedModel:
    """The same base with another adapter."""
    folder = tmp_path_factory.mktemp("other") / "adapter"
    shutil.copytree(str(model.adapter), folder)
    weights = load_file(folder / "adapter_model.safetensors")
    turned = {name: -tensor if "lora_A" in name else tensor for name, tensor in weights.items()}
    save_file(turned, folder / "adapter_model.safetensors", {"format": "pt"})
    return replace(model, adapter=folder, adapter_digest="f" * 64)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The bases that were loaded so far."""
    seen = []
    real = opening.load_base

    def load_base(*arguments: Any, **named: Any) -> Any:
        seen.append(arguments)
        return real(*arguments, **named)

    monkeypatch.setattr(opening, "load_base", load_base)
    return seen


def candidate(name: str, model: FetchedModel, wish: ServingWish = WISH) -> Candidate:
    return Candidate(name, model, wish, CONVERSATIONS)


def alone(model: FetchedModel) -> FetchedModel:
    return replace(model, adapter=None, adapter_digest=None)


def folders(path: Path, gpus: Sequence[str] = ()) -> Place:
    return Place(path, path, gpus)


def texts(found: Results) -> list[list[str]]:
    return [each.summaries.texts for each in found.values()]


def test_adapters_and_their_base_share_one_loaded_base(model, other, loads, tmp_path, caplog):
    caplog.set_level("INFO")
    named = {"base": alone(model), "tuned": model, "other": other}
    candidates = [candidate(name, each) for name, each in named.items()]
    together = summarize_candidates(candidates, folders(tmp_path))
    assert list(together) == ["base", "tuned", "other"]
    left = [each.fields for each in caplog.records if each.message == "time left for summaries"]
    assert [each["done_by"] for each in left] == ["tuned", "other"]
    assert all(each["seconds"] >= 0 for each in left)
    assert len(loads) == 1
    apart = [summarize_candidates([each], folders(tmp_path)) for each in candidates]
    assert len(loads) == 4
    assert texts(together) == [each for found in apart for each in texts(found)]
    assert len(set(map(str, texts(together)))) == 3, "each summarizes in its own words"


def test_merged_weights_share_no_base(model, loads, tmp_path):
    merged = replace(WISH, adapter_weights="merged")
    found = summarize_candidates(
        [candidate("tuned", model, merged), candidate("base", alone(model), merged)],
        folders(tmp_path),
    )
    assert len(loads) == 2
    assert found["tuned"].serving.adapter_weights == "merged"
    beside = summarize_candidates([candidate("tuned", model)], folders(tmp_path))
    assert texts(beside)[0] == found["tuned"].summaries.texts, "float32 rounds next to nothing"


def test_the_settings_are_those_of_what_was_loaded(model, tmp_path):
    section = AdapterModelSection(quantization="nf4", dtype="bfloat16", attention="eager")
    wish = replace(WISH, section=section)
    found = summarize_candidates([candidate("tuned", model, wish)], folders(tmp_path))["tuned"]
    serving = found.serving
    assert (serving.quantization, serving.dtype, serving.attention) == ("nf4", "bfloat16", "eager")
    assert serving.generation["max_new_tokens"] == 8
    assert found.weights is not None
    assert set(found.summaries.finish_reasons) <= {"stop", "length"}


def test_what_was_judged_with_vllm_departs_where_there_is_none(model, tmp_path):
    taken = replace(
        WISH, engine="vllm", tensor_parallel=2, taken=frozenset({"engine", "tensor_parallel"})
    )
    found = summarize_candidates([candidate("tuned", model, taken)], folders(tmp_path))["tuned"]
    assert found.serving.engine == "transformers"
    assert found.serving.tensor_parallel == 1
    insisting = replace(taken, taken=frozenset())
    with pytest.raises(ConfigError, match="needs vLLM"):
        summarize_candidates([candidate("tuned", model, insisting)], folders(tmp_path))


@pytest.fixture
def in_child(monkeypatch: pytest.MonkeyPatch) -> Callable[[Candidate, Path], Results]:
    """Summarize as where vLLM is installed; the process finds that it is not, and does without."""
    monkeypatch.setattr(from_disk, "is_installed", lambda: True)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "3")
    return lambda each, path: summarize_candidates([each], folders(path))


@pytest.mark.faults
def test_a_process_of_its_own_summarizes_alike(model, in_child, tmp_path, capfd):
    here = from_disk.summarize_group([candidate("tuned", model)], tmp_path)
    there = in_child(candidate("tuned", model), tmp_path)
    assert there == here
    assert '"message": "engine"' in capfd.readouterr().err, "its log is this process's"


@pytest.mark.faults
def test_the_error_of_the_process_is_raised_here(model, in_child, tmp_path):
    wish = replace(WISH, generation=GenerationSection(max_new_tokens=5000))
    with pytest.raises(ConfigError, match="leave no room for a conversation"):
        in_child(candidate("tuned", model, wish), tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_a_process_that_dies_is_an_error_and_leaves_nothing(
    model, in_child, tmp_path, monkeypatch, way
):
    class Dying(subprocess.Popen):  # type: ignore[type-arg]
        waits = 0

        def wait(self, timeout: float | None = None) -> int:
            self.waits += 1
            if way == "stopped" and self.waits == 1:
                raise KeyboardInterrupt
            self.send_signal(signal.SIGKILL)
            return super().wait(timeout)

    started = []

    def start(*arguments: Any, **named: Any) -> Any:
        started.append(Dying(*arguments, **named))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    expected = KeyboardInterrupt if way == "stopped" else RecapError
    with pytest.raises(expected):
        in_child(candidate("tuned", model), tmp_path)
    (process,) = started
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.faults
def test_a_share_that_fails_ends_the_others_at_once(model, tmp_path, monkeypatch):
    """The second share is killed while the first has not begun."""
    started = []

    def start(command: Sequence[str], **named: Any) -> Any:
        slow = ["-c", "import time; time.sleep(600)"]
        started.append(real([command[0], *slow] if not started else command, **named))
        if len(started) == 2:
            started[1].kill()
        return started[-1]

    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(RecapError, match="ended by signal 9"):
        summarize_candidates([many(model, [1] * 64)], folders(tmp_path, ["0", "1"]))
    assert [each.returncode for each in started] == [-signal.SIGKILL] * 2


def many(model: FetchedModel, words: Sequence[int], **wish: Any) -> Candidate:
    """Return a candidate with a conversation of as many words as each number says."""
    conversations = [
        Conversation(f"c{n}", (Turn("customer", "late " * n),), Source("in.jsonl", n))
        for n in words
    ]
    return Candidate("tuned", model, replace(WISH, **wish), conversations)


def test_each_gpu_gets_a_like_share(model):
    sizes = [len(each) for each in shares_in_words(many(model, range(1, 101)), ["0", "1", "5"])]
    assert sizes == [34, 33, 33]
    first, second, third = shares_in_words(many(model, range(1, 101)), ["0", "1", "5"])
    assert max(map(sum, (first, second, third))) - min(map(sum, (first, second, third))) <= 100
    assert sorted([*first, *second, *third]) == list(range(1, 101))


def shares_in_words(candidate: Candidate, gpus: Sequence[str]) -> list[list[int]]:
    shares = from_disk.shares_of([candidate], gpus)
    return [[each.source.line for each in share.group[0].conversations] for share in shares]


@pytest.mark.parametrize(
    ("conversations", "gpus", "size", "expected"),
    [
        (100, [], 1, [()]),
        (100, ["7"], 1, [()]),
        (40, ["0", "1"], 1, [()]),
        (64, ["GPU-a", "GPU-b"], 1, [("GPU-a",), ("GPU-b",)]),
        (1000, ["0", "1", "2", "3", "4"], 2, [("0", "1"), ("2", "3")]),
    ],
)
def test_a_gpu_gets_a_process_where_that_is_worth_it(model, conversations, gpus, size, expected):
    candidate = many(model, [1] * conversations, tensor_parallel=size)
    assert [tuple(each.gpus) for each in from_disk.shares_of([candidate], gpus)] == expected


@pytest.mark.quality
def test_shares_of_several_gpus_are_put_together_in_order(model, other, tmp_path, capfd):
    """Without GPUs, the processes find none of these names, and compute on the CPU."""
    section = GenerationSection(max_new_tokens=8, deterministic=True)
    group = [
        replace(many(each, [n % 7 + 1 for n in range(34)], generation=section), name=name)
        for name, each in {"tuned": model, "other": other}.items()
    ]
    together = summarize_candidates(group, folders(tmp_path))
    capfd.readouterr()
    shared = summarize_candidates(group, folders(tmp_path, ["0", "1"]))
    assert capfd.readouterr().err.count('"message": "engine"') == 2
    assert shared == together
