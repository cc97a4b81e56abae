"""Claims about nights with a challenger: who writes which line, whatever happens to the night."""

import json
from typing import Any

import pytest

from job.config.document import ConfigText
from job.config.load import load_config
from job.errors import (
    ConfigError,
    DamagedError,
    DataError,
    MissingError,
    OutputError,
    RetryError,
)
from job.storage.folders import verify_folder
from job.summarization.challenger import Choice
from job.summarization.chunk_store import OutcomeLine
from job.summarization.chunks import Chunk
from job.summarization.shard import WHOLE, Shard
from job.summarization.sides import Sides
from job.summarization.summarize import summarize
from tests.champions import promote, put_adapter
from tests.stand_in import StandInEngine, stand_in
from tests.summarization.conftest import conversation, files_below, read_lines, write_lines
from tests.summarization.nights import FOLDER, at_call, manifest_of

RECORDS = 60
MARK = " by the challenger"


@pytest.fixture
def adapters(tmp_path):
    """The adapter that serves and the challenger, by name, with the digest of each."""
    names = {name: f"{tmp_path}/runs/{name}" for name in ("a", "b")}
    return {name: (uri, put_adapter(uri, tmp_path)) for name, uri in names.items()}


@pytest.fixture
def night(config, tmp_path, adapters):
    """Make a night of 62 records in chunks of 8: one is broken, one repeats an id."""
    records: list[Any] = [conversation(f"c{n}", f"late {n}", "sorry") for n in range(RECORDS)]
    write_lines(tmp_path / "in.jsonl", [*records, "{broken", conversation("c1", "again")])

    def make(how: dict[str, Any] | None, **keys: Any) -> Any:
        challenger = None if how is None else {"adapter": adapters["b"][0], **how}
        base = {"adapter": adapters["a"][0], "chunks": {"records": 8}, "model": {}}
        return config(**{**base, "challenger": challenger, **keys})

    return make


def run(config, shard=WHOLE, before=lambda: None, challenger=None):
    """Summarize; return the numbers of prompts of the adapter and of the challenger."""
    ours = StandInEngine(before)
    theirs = challenger or StandInEngine(before, mark=MARK)
    summarize(config, stand_in(ours, challenger=theirs), shard)
    return ours.prompts, theirs.prompts


def delivered(folder):
    return {line["id"]: line for line in read_lines(folder / "parts" / "part-00000.jsonl")}


def shadow(folder):
    lines = read_lines(folder / "shadow.jsonl")
    found = {line["id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def writers(folder):
    return {id: line["adapter"] for id, line in delivered(folder).items()}


CANARY = {"canary": 0.3}
SHADOW = {"shadow": 0.3}


def test_a_canary_line_is_of_the_challenger_and_says_so(night, tmp_path, adapters):
    run(night(CANARY))
    lines = delivered(tmp_path / "out")
    assert len(lines) == RECORDS
    for line in lines.values():
        is_canary = line["adapter"] == adapters["b"][1]
        assert line["adapter"] == adapters["b" if is_canary else "a"][1]
        assert line["summary"].endswith(MARK) == is_canary
    chosen = [id for id, digest in writers(tmp_path / "out").items() if digest == adapters["b"][1]]
    assert 5 < len(chosen) < 35
    facts = manifest_of(tmp_path / "out")
    assert facts["counts"]["records"] == RECORDS + 2
    block = facts["challenger"]
    assert (block["mode"], block["share"], block["digest"]) == ("canary", 0.3, adapters["b"][1])
    assert block["counts"]["records"] == block["counts"]["summaries"] == len(chosen)
    assert block["beside"]["counts"]["summaries"] == RECORDS - len(chosen)
    assert block["figures"]["characters"]["records"] == len(chosen)
    assert files_below(tmp_path / "out") == FOLDER


def test_a_shadow_changes_nothing_that_is_delivered(night, tmp_path, adapters):
    plain = night(None, output=f"{tmp_path}/plain")
    assert run(plain) == (RECORDS + 1, 0)
    ours, theirs = run(night(SHADOW))
    out = tmp_path / "out"
    for name in ("parts/part-00000.jsonl", "rejects/part-00000.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert ours == RECORDS + 1
    lines = shadow(out)
    assert 5 < len(lines) < 35
    assert theirs in (len(lines), len(lines) + 1), "the repeated id may be chosen, too"
    assert all(line["summary"].endswith(MARK) for line in lines.values())
    assert {line["adapter"] for line in lines.values()} == {adapters["b"][1]}
    assert files_below(out) == sorted([*FOLDER, "shadow.jsonl"])
    assert "shadow.jsonl" in verify_folder(out).files
    block = manifest_of(out)["challenger"]
    assert block["counts"]["summaries"] == block["beside"]["counts"]["summaries"] == len(lines)
    assert block["measured"] == block["beside"]["measured"] == len(lines)


@pytest.mark.parametrize("how", [CANARY, SHADOW])
@pytest.mark.parametrize(("shards", "then"), [(1, 3), (3, 2)])
def test_the_choice_survives_stops_and_another_number_of_shards(night, tmp_path, how, shards, then):
    whole = night(how, output=f"{tmp_path}/whole", chunks={"records": 50})
    run(whole)

    def stop():
        raise KeyboardInterrupt

    for index in range(shards):
        with pytest.raises(KeyboardInterrupt):
            run(night(how), Shard(index, shards), at_call(2, stop))
    for index in range(then):
        run(night(how), Shard(index, then))
    out = tmp_path / "out"
    assert writers(out) == writers(tmp_path / "whole")
    assert delivered(out) == delivered(tmp_path / "whole")
    if how == SHADOW:
        assert (out / "shadow.jsonl").read_bytes() == (
            tmp_path / "whole" / "shadow.jsonl"
        ).read_bytes()
    ignored = {"seconds", "gpu_seconds"}
    here, there = (manifest_of(folder)["challenger"] for folder in (out, tmp_path / "whole"))
    assert {key: here[key] for key in here if key not in ignored} == there


def test_the_choice_goes_by_id_and_seed_and_is_near_its_share():
    ids = [n.to_bytes(16) for n in range(20_000)]
    chosen = {seed: {id for id in ids if Choice("canary", 0.1, seed).has(id)} for seed in (0, 1)}
    more = {id for id in ids if Choice("shadow", 0.3, 0).has(id)}
    assert all(1800 < len(some) < 2200 for some in chosen.values())
    assert chosen[0] < more, "a larger share has those of a smaller one"
    assert len(chosen[0] & chosen[1]) < 300
    assert not Choice("shadow", 1.0, 0).has(b""), "a record without an id is never chosen"
    assert all(Choice("shadow", 1.0, 0).has(id) for id in ids)


class Failing(StandInEngine):
    """A challenger that breaks on each prompt that has a text, or on all."""

    def __init__(self, text: str = "") -> None:
        super().__init__(mark=MARK)
        self.text = text.encode()

    def generate(self, prompts: Any, settings: Any, on_done: Any = None) -> Any:
        if any(self.text in bytes(prompt) for prompt in prompts):
            raise RuntimeError("the kernel cannot do this")
        return super().generate(prompts, settings, on_done)


@pytest.mark.parametrize("text", ["", "late 1"])
def test_a_challenger_that_fails_in_shadow_costs_no_line(night, tmp_path, text):
    run(night({"shadow": 1.0}), challenger=Failing(text))
    out = tmp_path / "out"
    assert len(delivered(out)) == RECORDS
    facts = manifest_of(out)
    counts = facts["challenger"]["counts"]
    failed = [line for line in shadow(out).values() if line.get("reason")]
    assert facts["counts"]["rejects"] == {"invalid_record": 2}
    assert counts["records"] == RECORDS == counts["summaries"] + len(failed)
    assert counts["rejects"] == {"generation_failed": len(failed)}
    assert len(failed) == (RECORDS if not text else 11)


def test_a_canary_that_fails_on_everything_is_a_mistake_in_the_config(night):
    with pytest.raises(ConfigError, match="It failed on each of the first"):
        run(night({"canary": 0.5}), challenger=Failing())


def test_a_canary_that_answered_before_and_fails_now_is_tried_again(night):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(night({"canary": 0.5}), before=at_call(6, stop))
    with pytest.raises(RetryError, match="answered before"):
        run(night({"canary": 0.5}), challenger=Failing())


def test_a_record_without_a_prompt_for_one_side_is_measured_of_neither():
    sides = Sides(Choice("shadow", 1.0, 0))
    row = {"summary": "It is late.", "finish_reason": "stop"}
    row |= dict.fromkeys(("input_tokens", "output_tokens", "redactions", "leaks"), 1)
    numbers = (b"o", b"00", b"0", b"1")
    ours = OutcomeLine(b"R", *numbers, b'{"reason": "too_long"}')
    theirs = OutcomeLine(b"Ss", *numbers, json.dumps(row).encode(), b'{"empty": 0}')
    for line in (ours, theirs):
        sides.add(line, Chunk(0, ()))
    block = sides.facts()
    assert block["counts"]["summaries"] == 1
    assert block["beside"]["counts"]["rejects"] == {"too_long": 1}
    assert block["measured"] == block["beside"]["measured"] == 0


def test_an_id_that_repeats_has_one_shadow_and_derived_ids_are_numbered(night, tmp_path):
    same = {"turns": conversation("", "hello")["turns"]}
    records = [conversation("c1", "one"), conversation("c1", "two"), same, same]
    write_lines(tmp_path / "in.jsonl", records)
    run(night({"shadow": 1.0}))
    lines = read_lines(tmp_path / "out" / "parts" / "part-00000.jsonl")
    assert list(shadow(tmp_path / "out")) == [line["id"] for line in lines]
    assert len(lines) == 3
    assert manifest_of(tmp_path / "out")["challenger"]["counts"]["records"] == 3


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_one_file_of_summaries_has_its_shadow_beside_it(night, tmp_path, ending):
    run(night({"shadow": 1.0}, output=f"{tmp_path}/day{ending}"))
    lines = read_lines(tmp_path / "day.shadow.jsonl")
    assert len(lines) == RECORDS
    assert MARK not in (tmp_path / f"day{ending}").read_bytes().decode("latin-1")
    assert run(night({"shadow": 1.0}, output=f"{tmp_path}/day{ending}")) == (0, 0)


def test_a_night_is_of_its_challenger(night, tmp_path):
    run(night(CANARY))
    assert run(night(CANARY)) == (0, 0)
    with pytest.raises(OutputError, match="challenger"):
        run(night(SHADOW))
    with pytest.raises(OutputError, match="challenger"):
        run(night(None))


def test_the_next_night_leaves_no_shadow_of_one_that_it_replaces(night, tmp_path):
    strict = {"limits": {"max_reject_fraction": 0}}
    with pytest.raises(DataError):
        run(night(SHADOW, **strict))
    assert (tmp_path / "out" / "shadow.jsonl").exists()
    run(night(None))
    assert files_below(tmp_path / "out") == FOLDER


def test_what_a_shadow_wrote_was_never_done(night, tmp_path, adapters):
    run(night({"shadow": 1.0}))
    promoted = night(None, adapter=adapters["b"][0], output=f"{tmp_path}/next")
    again = promoted.model_copy(update={"skip_done": f"{tmp_path}/out"})
    assert run(again)[0] == RECORDS + 1


def test_what_a_canary_wrote_is_done_for_its_adapter_alone(night, tmp_path, adapters):
    run(night(CANARY))
    by_challenger = sum(digest == adapters["b"][1] for digest in writers(tmp_path / "out").values())
    skip = {"skip_done": f"{tmp_path}/out"}
    same = run(night(CANARY, output=f"{tmp_path}/same", **skip))
    assert sum(same) == 1, "only the reject of yesterday"
    promoted = {"adapter": adapters["b"][0], "output": f"{tmp_path}/promoted"}
    ours, _ = run(night(None, **promoted, **skip))
    assert ours == RECORDS + 1 - by_challenger
    back = run(night(None, output=f"{tmp_path}/back", **skip))[0]
    assert back in (by_challenger, by_challenger + 1)


def test_a_challenger_by_a_pointer_stays_that_of_the_nights_begin(night, tmp_path, adapters):
    pointer = f"{tmp_path}/champions/challenger.json"
    promote(pointer, adapters["b"][0])
    how = {"adapter": pointer, "canary": 0.3}
    run(night(how), Shard(0, 2))
    third = f"{tmp_path}/runs/c"
    put_adapter(third, tmp_path)
    promote(pointer, third)
    run(night(how), Shard(1, 2))
    assert set(writers(tmp_path / "out").values()) == {adapters["a"][1], adapters["b"][1]}
    facts = manifest_of(tmp_path / "out")
    assert facts["challenger"]["followed"]["pointer"] == pointer
    assert facts["config"]["challenger"]["adapter"] == adapters["b"][0]
    assert files_below(tmp_path / "out") == FOLDER, "the pin is gone"
    assert run(night(how)) == (0, 0), "done, though the pointer names another one now"


def test_a_promoted_challenger_is_none_in_the_nights_that_follow(night, tmp_path, adapters):
    run(night({"adapter": adapters["a"][0], "shadow": 0.5}))
    assert files_below(tmp_path / "out") == FOLDER
    facts = manifest_of(tmp_path / "out")
    assert facts["challenger"]["is_champion"] is True
    assert "counts" not in facts["challenger"]


def test_a_challenger_of_another_base_ends_a_night_before_it_begins(night, tmp_path, config):
    how = {"shadow": 0.5}
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(ConfigError, match=r"challenger\.adapter: .* this night's base has digest"):
        run(night(how, adapter=None, model={"base": str(base)}))
    with pytest.raises(DataError, match=r"challenger\.adapter_digest \(or"):
        run(night({"adapter_digest": "0" * 12, **how}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["nowhere", "nowhere.json"])
def test_a_challenger_that_is_not_there_is_named_by_its_key(night, tmp_path, name):
    with pytest.raises(MissingError, match=r"^challenger\.adapter: .*nowhere"):
        run(night({"adapter": f"{tmp_path}/{name}", **CANARY}))
    assert not (tmp_path / "out").exists()


def test_a_challenger_that_is_damaged_is_named_by_its_key(night, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{broken")
    with pytest.raises(DamagedError, match=r"^challenger\.adapter: "):
        run(night({"adapter": f"{tmp_path}/broken", **SHADOW}))


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        ("{adapter: b}", "exactly one of shadow and canary must be set"),
        ("{adapter: b, shadow: 0.1, canary: 0.1}", "exactly one of shadow and canary must be set"),
        ("{adapter: b, canary: 1}", "challenger.canary"),
        ("{shadow: 0.1}", "challenger.adapter"),
        ("{adapter: b, shadow: 0.1}\nadapter_weights: merged", "serves one adapter alone"),
    ],
)
def test_a_challenger_that_cannot_be_is_a_mistake(keys, mistake):
    text = f"run: r\ninput: i\nadapter: a\noutput: o\nchallenger: {keys}\n"
    with pytest.raises(ConfigError) as caught:
        load_config("summarize", ConfigText("c.yaml", text))
    assert mistake in str(caught.value)
