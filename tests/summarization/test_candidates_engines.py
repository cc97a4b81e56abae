"""Claims about a real reward model beside a real adapter: its choice is that of its own scores."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from job.config.sections import AdapterModelSection
from job.conversations.record import Conversation, Source, Turn
from job.errors import ConfigError
from job.inference.reward import FetchedRewardModel, RewardModel, load_reward_model
from job.inference.serving import ServingWish
from job.model.reward import read_reward_model
from job.preflight.beside import bytes_beside
from job.summarization import summarizer
from job.summarization.shard import WHOLE, Shard
from job.summarization.summarize import summarize
from tests.adapters import publish_adapter
from tests.rewards import NO_STORAGE, publish_reward_model
from tests.summarization.conftest import conversation, read_lines, write_lines
from tests.summarization.nights import manifest_of

RECORDS = 8
COUNT = 3
OTHER_PROMPT = "Judge this summary."
NOTHING_MORE: dict[str, Any] = {}


@pytest.fixture
def night(config, tmp_path, base_folder):
    publish_adapter(base_folder, tmp_path / "a-work", f"{tmp_path}/a")
    judge = f"{tmp_path}/judge"
    publish_reward_model(base_folder, tmp_path / "judge-work", judge, system=OTHER_PROMPT)
    records = [conversation(f"c{n}", f"parcel {n} is late", "sorry") for n in range(RECORDS)]
    write_lines(tmp_path / "in.jsonl", records)

    def make(
        name: str, candidates: int = 1, seed: int = 42, reward: Any = NOTHING_MORE, **keys: Any
    ) -> Any:
        generation: dict[str, Any] = {"max_new_tokens": 8, "temperature": 1.0, "seed": seed}
        generation["deterministic"] = True
        if candidates > 1:
            generation |= {"candidates": candidates, "reward_model": {"adapter": judge, **reward}}
        model = {"base": str(base_folder), "dtype": "float32"}
        return config(
            adapter=f"{tmp_path}/a",
            model=model,
            engine="transformers",
            generation=generation,
            output=f"{tmp_path}/{name}",
            report=False,
            **keys,
        )

    return make


def summarized(night: Any, shards: int = 1) -> dict[str, dict[str, Any]]:
    for index in range(shards):
        summarize(night, shard=WHOLE if shards == 1 else Shard(index, shards))
    lines = read_lines(*sorted(Path(night.output).glob("parts/*")))
    return {line["id"]: line for line in lines}


def as_read(id: str) -> Conversation:
    turns = (Turn("customer", f"parcel {id[1:]} is late"), Turn("agent", "sorry"))
    return Conversation(id, turns, Source("in", 1))


def test_a_reward_model_that_no_longer_fits_beside_it_is_named(night, monkeypatch):
    def put_on(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FetchedRewardModel, "put_on", put_on)
    with pytest.raises(ConfigError, match=r"generation\.reward_model.*does not fit into memory"):
        summarize(night("shared", COUNT, reward={"dtype": "float32"}))


def test_what_this_machine_lacks_is_known_before_a_base_is_shared(night, monkeypatch):
    def in_another_dtype(wish: ServingWish) -> ServingWish:
        return replace(wish, section=wish.section.model_copy(update={"dtype": "bfloat16"}))

    def load(*_: Any) -> None:
        raise ConfigError("it is loaded alone")

    monkeypatch.setattr(summarizer, "for_this_machine", in_another_dtype)
    monkeypatch.setattr(FetchedRewardModel, "load", load)
    with pytest.raises(ConfigError, match="it is loaded alone"):
        summarize(night("apart", COUNT, reward={"dtype": "float32"}))


def test_the_reward_model_chooses_by_its_own_scores(night, tmp_path):
    drawn = [summarized(night(f"plain-{n}", seed=42 + n)) for n in range(COUNT)]
    lines = summarized(night("best", COUNT))
    adapter = read_reward_model(f"{tmp_path}/judge", NO_STORAGE, "generation.reward_model.adapter")
    section = AdapterModelSection(dtype="float32")
    judge = load_reward_model(adapter, section, NO_STORAGE, tmp_path / "cache")
    for id, line in lines.items():
        texts = [each[id]["summary"] for each in drawn]
        ended = [each[id]["finish_reason"] == "stop" for each in drawn]
        rewards = judge.score_texts([as_read(id)] * COUNT, texts)
        best = max(range(COUNT), key=lambda n: (ended[n], round(rewards[n], 4), -n))
        assert (line["candidate"], line["summary"]) == (best + 1, texts[best])
        assert line["reward"] == pytest.approx(rewards[best], abs=1e-3)
    assert len({line["candidate"] for line in lines.values()}) > 1
    block = manifest_of(tmp_path / "best")["candidates"]
    assert block["gain"]["mean"] > 0
    assert block["reward"]["digest"] == adapter.digest


def test_shards_and_chunks_change_no_choice_of_a_real_judge(night, monkeypatch):
    compute, rows = RewardModel._compute, []

    def counted(self: RewardModel, batch: list[list[int]]) -> list[float]:
        rows.append(len(batch))
        return compute(self, batch)

    monkeypatch.setattr(RewardModel, "_compute", counted)
    whole = summarized(night("whole", COUNT))
    assert summarized(night("parted", COUNT, chunks={"records": 3}), shards=2) == whole
    assert set(rows) == {1}


@pytest.mark.parametrize("has_challenger", [False, True])
def test_a_judge_on_the_same_base_needs_no_second_one(
    has_challenger, night, base_folder, tmp_path, monkeypatch
):
    keys: dict[str, Any] = {}
    if has_challenger:
        publish_adapter(base_folder, tmp_path / "b-work", f"{tmp_path}/b", seed=9)
        keys = {"challenger": {"adapter": f"{tmp_path}/b", "canary": 0.5}}
    loaded = []
    load = AutoModelForCausalLM.from_pretrained

    def load_and_count(*arguments: Any, **named: Any) -> Any:
        loaded.append(arguments)
        return load(*arguments, **named)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load_and_count)
    one = night("together", COUNT, reward={"dtype": "float32"}, **keys)
    two = night("apart", COUNT, **keys)  # the judge's dtype is auto
    assert bytes_beside(one, 4) < bytes_beside(two, 4) / 2
    apart = summarized(two)
    assert len(loaded) == 2
    together = summarized(one)
    assert len(loaded) == 3
    for line in (*together.values(), *apart.values()):
        del line["digest"]  # has the keys of the config
    assert together == apart
    assert len({line["candidate"] for line in together.values()}) > 1
    assert all(line["reward"] is not None for line in together.values())
