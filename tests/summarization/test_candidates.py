"""Claims about nights with candidates: which one is written, and that nothing else changes."""

from typing import Any

import pytest

from job.config.document import ConfigText
from job.config.load import load_config
from job.conversations.record import Reject, Source
from job.errors import ConfigError, DataError, MissingError, OutputError
from job.inference.engine import Generated
from job.inference.levels import Answer
from job.summarization.candidates import choose
from job.summarization.shard import WHOLE, Shard
from job.summarization.summarize import summarize
from tests.champions import put_adapter, put_reward_model
from tests.stand_in import StandInEngine, stand_in
from tests.summarization.conftest import conversation, files_below, read_lines, write_lines
from tests.summarization.nights import FOLDER, at_call, manifest_of

RECORDS = 40
COUNT = 4
SEED = 7
MARK = " by the challenger"
KEYS = ("candidates", "candidate", "drawn_tokens", "reward", "reward_of_first")
KEYS += ("lowest_reward", "highest_reward")


class Drawing(StandInEngine):
    """An engine whose answers differ with the seed; those to `cut` prompts are cut."""

    def __init__(self, before: Any = lambda: None, mark: str = "") -> None:
        super().__init__(before)
        self.own_mark = mark

    def generate(self, prompts: Any, settings: Any, on_done: Any = None) -> Any:
        super().generate(prompts, settings, on_done)
        return [draw(prompt, settings.seed, self.own_mark) for prompt in prompts]


def draw(prompt: list[int], seed: int, mark: str = "") -> Generated:
    length = 3 + (sum(prompt) * (seed + 1)) % 17
    # The longest of all is cut, and every fifth length is empty.
    reason = "length" if length == 19 else "stop"
    text = "" if length % 5 == 0 else "so " * length + mark
    return Generated(text, length, reason)


def by_length(conversations: Any, summaries: Any) -> list[float]:
    return [len(summary) / 10 for summary in summaries]


@pytest.fixture
def night(config, tmp_path):
    """Make a night of 42 records in chunks of 8: one is broken, one repeats an id."""
    records: list[Any] = [conversation(f"c{n}", f"late {n * n}", "sorry") for n in range(RECORDS)]
    write_lines(tmp_path / "in.jsonl", [*records, "{broken", conversation("c1", "again")])
    for name in ("a", "b"):
        put_adapter(f"{tmp_path}/runs/{name}", tmp_path)
    put_reward_model(f"{tmp_path}/judge", tmp_path)

    def make(candidates: int = COUNT, seed: int = SEED, **keys: Any) -> Any:
        generation = {"temperature": 0.7, "seed": seed}
        if candidates > 1:
            reward = {"adapter": f"{tmp_path}/judge"}
            generation |= {"candidates": candidates, "reward_model": reward}
        base = {"adapter": f"{tmp_path}/runs/a", "chunks": {"records": 8}, "model": {}}
        return config(**{**base, "generation": generation, **keys})

    return make


def run(config, shard=WHOLE, before=lambda: None, score=by_length):
    """Summarize; return the number of prompts."""
    engine = Drawing(before)
    beside = Drawing(mark=MARK)
    summarize(config, stand_in(engine, challenger=beside, score=score), shard)
    return engine.prompts


def lines_of(folder):
    return {line["id"]: line for line in read_lines(folder / "parts" / "part-00000.jsonl")}


def test_the_written_summary_is_the_finished_one_of_the_highest_reward(night, tmp_path):
    drawn = []
    for number in range(COUNT):
        run(night(1, SEED + number, output=f"{tmp_path}/{number}"))
        drawn.append(lines_of(tmp_path / str(number)))
    assert run(night()) == COUNT * (RECORDS + 1)
    lines = lines_of(tmp_path / "out")
    assert lines.keys() == set.union(*[set(each) for each in drawn])
    for id, line in lines.items():
        found = {number: each[id] for number, each in enumerate(drawn, 1) if id in each}
        finished = {n: each for n, each in found.items() if each["finish_reason"] == "stop"}
        best = max((finished or found).items(), key=lambda item: len(item[1]["summary"]))
        assert (line["candidate"], line["summary"]) == (best[0], best[1]["summary"])
        lengths = [len(each["summary"]) / 10 for each in found.values()]
        assert line["reward"] == len(line["summary"]) / 10
        assert (line["lowest_reward"], line["highest_reward"]) == (min(lengths), max(lengths))
        assert line["reward_of_first"] == (len(found[1]["summary"]) / 10 if 1 in found else None)
        assert line["candidates"] == COUNT
        assert line["drawn_tokens"] >= sum(each["output_tokens"] for each in found.values())
        assert {key: line[key] for key in line if key not in (*KEYS, "digest")} == {
            key: value for key, value in found[best[0]].items() if key != "digest"
        }
    assert len({line["candidate"] for line in lines.values()}) == COUNT
    assert files_below(tmp_path / "out") == FOLDER


def test_a_manifest_says_what_the_candidates_were_worth(night, tmp_path):
    run(night())
    lines = lines_of(tmp_path / "out").values()
    facts = manifest_of(tmp_path / "out")
    block = facts["candidates"]
    assert (block["count"], block["reward"]["run"]) == (COUNT, "judge")
    rewards = [line["reward"] for line in lines]
    assert block["reward_of_summary"]["mean"] == pytest.approx(
        sum(rewards) / len(rewards), abs=1e-3
    )
    gains = [
        line["reward"] - line["reward_of_first"]
        for line in lines
        if line["reward_of_first"] is not None
    ]
    assert block["gain"]["mean"] == pytest.approx(sum(gains) / len(gains), abs=1e-3)
    assert block["gain"]["records"] == len(gains) < len(rewards)
    assert block["first_chosen"] == sum(line["candidate"] == 1 for line in lines)
    assert block["unscored"] == 0
    assert block["drawn_tokens"] == sum(line["drawn_tokens"] for line in lines)
    assert block["drawn_tokens"] > 2 * facts["counts"]["output_tokens"]
    assert facts["quality"]["figures"]["reward"]["mean"] == block["reward_of_summary"]["mean"]
    assert facts["quality"]["reward_model"]["digest"] == block["reward"]["digest"]
    counts = facts["counts"]
    assert counts["records"] == RECORDS + 2 == counts["summaries"] + sum(counts["rejects"].values())


def test_the_quality_of_a_night_is_that_of_the_chosen_summaries(night, tmp_path):
    run(night())
    lines = lines_of(tmp_path / "out").values()
    figures = manifest_of(tmp_path / "out")["quality"]["figures"]
    chosen = [len(line["summary"]) for line in lines]
    cut = [line["finish_reason"] == "length" for line in lines]
    assert figures["characters"]["records"] == len(lines)
    assert figures["characters"]["mean"] == pytest.approx(sum(chosen) / len(chosen), abs=1e-3)
    assert figures["cut"]["mean"] == pytest.approx(sum(cut) / len(cut), abs=1e-3)
    assert figures["empty"]["mean"] == 0, "an empty candidate is not written"
    run(night(1, output=f"{tmp_path}/first"))
    first = manifest_of(tmp_path / "first")["quality"]["figures"]
    assert first["empty"]["mean"] > 0
    assert first["characters"]["mean"] < figures["characters"]["mean"]
    assert first["turns"] == figures["turns"]


@pytest.mark.parametrize(("shards", "then"), [(1, 3), (3, 2)])
def test_stops_shards_and_chunks_change_no_choice(night, tmp_path, shards, then):
    run(night(output=f"{tmp_path}/whole", chunks={"records": 50}))

    def stop():
        raise KeyboardInterrupt

    for index in range(shards):
        with pytest.raises(KeyboardInterrupt):
            run(night(), Shard(index, shards), at_call(2 * COUNT - 1, stop))
    for index in range(then):
        run(night(), Shard(index, then))
    parts = [f / "parts" / "part-00000.jsonl" for f in (tmp_path / "out", tmp_path / "whole")]
    assert parts[0].read_bytes() == parts[1].read_bytes()
    here, there = (manifest_of(tmp_path / name)["candidates"] for name in ("out", "whole"))
    assert here == there


def answer(text: str, reason: Any = "stop") -> Answer:
    return Answer(text, reason, 1, 1, 0, 1)


@pytest.mark.parametrize(
    ("candidates", "rewards", "number"),
    [
        ([answer("a"), answer("b"), answer("c")], {"a": 1.0, "b": 2.0, "c": 2.0}, 2),
        ([answer("a"), answer("a")], {"a": -1.0}, 1),
        ([answer("cut", "length"), answer("b")], {"cut": 9.0, "b": -9.0}, 2),
        ([answer("cut", "length"), answer("b", "length")], {"cut": 1.0, "b": 2.0}, 2),
        ([answer(" "), answer("b")], {"b": 0.0}, 2),
        ([Reject(Source("f", 1), "generation_failed", "", "i"), answer("b")], {"b": 0.0}, 2),
        ([answer("a"), answer("b")], {}, 1),
        ([answer("a"), answer("b")], {"b": -3.0}, 2),
    ],
)
def test_what_is_chosen(candidates, rewards, number):
    found = choose(candidates, rewards)
    assert found.answer == candidates[number - 1]
    assert found.best.number == number
    assert found.best.reward == rewards.get(found.answer.text)


@pytest.mark.parametrize(
    "first", [answer(""), Reject(Source("f", 1), "generation_failed", "broken", "i")]
)
def test_a_record_without_any_answer_is_what_its_first_candidate_is(first):
    assert choose([first, answer(" ")], {}) == (first, None)


class Broken:
    """A reward model that fails on summaries of some length, and on batches with one."""

    def __init__(self, is_broken: Any) -> None:
        self.is_broken = is_broken

    def __call__(self, conversations: Any, summaries: Any) -> list[float]:
        if any(self.is_broken(summary) for summary in summaries):
            raise RuntimeError("no kernel")
        return by_length(conversations, summaries)


def test_a_record_that_cannot_be_scored_has_its_first_finished_candidate(night, tmp_path):
    run(night(), score=Broken(lambda text: len(text) > 50))
    lines = lines_of(tmp_path / "out")
    unscored = [line for line in lines.values() if line["reward"] is None]
    assert 0 < len(unscored) < len(lines)
    assert manifest_of(tmp_path / "out")["candidates"]["unscored"] == len(unscored)
    for line in unscored:
        assert line["finish_reason"] == "stop"


@pytest.mark.parametrize("none", [None, float("nan"), float("inf")])
def test_a_reward_that_is_no_number_is_none_and_the_night_says_it(night, tmp_path, none, caplog):
    def score(conversations, summaries):
        rewards = by_length(conversations, summaries)
        return [
            none if "36" in each.turns[0].text else reward
            for each, reward in zip(conversations, rewards, strict=True)
        ]

    run(night(), score=score)
    unscored = [each for each in lines_of(tmp_path / "out").values() if each["reward"] is None]
    assert 0 < len(unscored) < 8
    assert manifest_of(tmp_path / "out")["candidates"]["unscored"] == len(unscored)
    assert "the reward model scored none of their candidates" in caplog.text
    page = (tmp_path / "out" / "report.html").read_text()
    assert "not chosen: the reward model scored none of the candidates" in page


@pytest.mark.parametrize("none", [None, float("nan")])
def test_a_reward_model_without_any_score_ends_the_night(night, none):
    with pytest.raises(ConfigError, match=r"none of the summaries of 8 .* do not fit"):
        run(night(), score=lambda _, summaries: [none] * len(summaries))


def test_a_reward_model_that_scores_nothing_is_a_mistake_in_the_config(night):
    with pytest.raises(
        ConfigError, match=r"generation\.reward_model: the reward model scored none"
    ):
        run(night(), score=Broken(bool))


@pytest.mark.parametrize("how", [{"canary": 0.4}, {"shadow": 0.4}])
def test_the_challenger_has_candidates_by_the_same_judge(night, tmp_path, how):
    run(night(challenger={"adapter": f"{tmp_path}/runs/b", **how}))
    lines = list(lines_of(tmp_path / "out").values())
    if "shadow" in how:
        lines += [
            each for each in read_lines(tmp_path / "out" / "shadow.jsonl") if "reward" in each
        ]
    theirs = [line for line in lines if line["summary"].endswith(MARK)]
    assert theirs
    assert all(line["candidates"] == COUNT and line["reward"] for line in lines)
    block = manifest_of(tmp_path / "out")["challenger"]
    assert block["figures"]["reward"]["records"] == len(theirs)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_table_has_columns_of_candidates_only_with_candidates(night, tmp_path, ending):
    import pandas as pd

    read = pd.read_csv if ending == ".csv" else pd.read_parquet
    run(night(output=f"{tmp_path}/day{ending}"))
    run(night(1, output=f"{tmp_path}/plain{ending}"))
    table = read(tmp_path / f"day{ending}")
    assert list(table.columns[-len(KEYS) :]) == list(KEYS)
    assert set(table["candidate"]) == set(range(1, COUNT + 1))
    assert table["reward"].dtype == float
    assert not set(KEYS) & set(read(tmp_path / f"plain{ending}").columns)


def test_a_finished_night_is_of_its_candidates_and_its_reward_model(night, tmp_path):
    run(night())
    assert run(night()) == 0
    put_reward_model(f"{tmp_path}/other", tmp_path)
    other = {"temperature": 0.7, "seed": SEED, "candidates": COUNT}
    with pytest.raises(OutputError, match="candidates reward digest"):
        run(night(generation=other | {"reward_model": {"adapter": f"{tmp_path}/other"}}))
    with pytest.raises(OutputError, match="candidates count"):
        run(night(3))
    with pytest.raises(OutputError, match="candidates"):
        run(night(1))


def test_a_night_that_began_with_another_reward_model_begins_anew(night, tmp_path):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(night(), before=at_call(2 * COUNT, stop))
    put_reward_model(f"{tmp_path}/other", tmp_path)
    generation = {"temperature": 0.7, "seed": SEED, "candidates": COUNT}
    reward = {"adapter": f"{tmp_path}/other"}
    assert run(night(generation=generation | {"reward_model": reward})) == COUNT * (RECORDS + 1)


@pytest.mark.parametrize(
    ("reward", "error", "text"),
    [
        ({"adapter": "nowhere"}, MissingError, "^generation.reward_model.adapter: .*nowhere"),
        ({"adapter": "runs/a"}, ConfigError, "^generation.reward_model.adapter: .*no reward model"),
        ({"adapter": "c.json"}, ConfigError, "^generation.reward_model.adapter: .*is a pointer"),
        (
            {"adapter": "judge", "adapter_digest": "0" * 12},
            DataError,
            "^generation.reward_model.adapter",
        ),
    ],
)
def test_what_is_no_reward_model_ends_a_night_at_once(night, tmp_path, reward, error, text):
    reward = reward | {"adapter": f"{tmp_path}/{reward['adapter']}"}
    generation = {"temperature": 0.7, "candidates": 2, "reward_model": reward}
    with pytest.raises(error, match=text):
        run(night(generation=generation))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "keys", "mistake"),
    [
        ("summarize", "{candidates: 4, temperature: 1}", "needs a reward model that chooses"),
        ("summarize", "{candidates: 4, reward_model: {adapter: r}}", "would all be the same"),
        ("summarize", "{temperature: 1, reward_model: {adapter: r}}", "chooses among several"),
        ("summarize", "{temperature: 1, candidates: 0}", "generation.candidates"),
        ("summarize", "{temperature: 1, best_of: 4}", "it is called generation.candidates here"),
        ("evaluate", "{candidates: 4}", "is a key of `recap summarize`"),
    ],
)
def test_what_cannot_be_is_a_mistake_of_the_config(command, keys, mistake):
    text = f"run: r\ninput: i\nadapter: a\noutput: o/\ngeneration: {keys}\n"
    with pytest.raises(ConfigError) as caught:
        load_config(command, ConfigText("c.yaml", text))
    assert mistake in str(caught.value)


def test_a_night_without_candidates_has_the_identity_that_it_had(night, tmp_path):
    run(night(1))
    identity = manifest_of(tmp_path / "out")["identity"]
    assert "candidates" not in identity
    assert not {"candidates", "reward"} & identity["generation"].keys()
    assert not any(set(KEYS) & line.keys() for line in lines_of(tmp_path / "out").values())
