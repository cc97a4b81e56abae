"""Claims about nights whose adapter is a pointer: each follows one champion from end to end."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from job.errors import DamagedError, DataError, MissingError, RetryError
from job.model.champion import Promotion, now, read_pointer, switch
from job.summarization.champion import find_champion, follow, pin_champion, read_pin
from job.summarization.output import open_output
from job.summarization.shard import Shard
from tests.champions import STORAGE, promote, put_adapter
from tests.summarization.conftest import conversation, files_below, read_lines, write_lines
from tests.summarization.nights import FOLDER, at_call, manifest_of, run


@pytest.fixture
def adapters(tmp_path):
    """Two adapters, by name, with the digest of each."""
    names = {name: f"{tmp_path}/runs/{name}" for name in ("a", "b")}
    return {name: (uri, put_adapter(uri, tmp_path)) for name, uri in names.items()}


@pytest.fixture
def pointer(tmp_path, adapters):
    found = f"{tmp_path}/champions/support.json"
    promote(found, adapters["a"][0])
    return found


@pytest.fixture
def night(config, tmp_path, pointer):
    """A night of ten records in chunks of four that follows the pointer."""
    write_lines(tmp_path / "in.jsonl", [conversation(f"c{n}", f"late {n}") for n in range(10)])

    def make(**keys: Any) -> Any:
        return config(**{"adapter": pointer, "chunks": {"records": 4}, "model": {}, **keys})

    return make


def writers(folder):
    """Return the adapters of all lines of an output, with the manifest's."""
    lines = read_lines(folder / "parts" / "part-00000.jsonl")
    assert len(lines) == 10
    return {line["adapter"] for line in lines} | {manifest_of(folder)["champion"]["digest"]}


def test_the_page_warns_of_a_champion_that_failed_its_gate(night, tmp_path, pointer, adapters):
    uri, digest = adapters["b"]
    failed = {"gate": {"passed": False}, "reload": {"state": "not verified"}}
    by_hand = Promotion(uri, digest, now(), "Ada", evaluation=failed)
    switch(pointer, STORAGE, by_hand, read_pointer(pointer, STORAGE))
    run(night())
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "The champion serves although it did not pass its gate, and was set by hand." in page
    assert "although nobody could reload it by plain peft and transformers." in page


def test_a_night_names_its_champion_on_every_line(night, tmp_path, pointer, adapters):
    assert run(night()) == 10
    assert writers(tmp_path / "out") == {adapters["a"][1]}
    facts = manifest_of(tmp_path / "out")
    assert facts["champion"] == {
        "pointer": pointer,
        "adapter": adapters["a"][0],
        "digest": adapters["a"][1],
        "version": 1,
        "resolved_at": facts["champion"]["resolved_at"],
        "serving": None,
        "doubts": [],
    }
    assert facts["config"]["adapter"] == adapters["a"][0], "the config can be run again as it was"
    assert f"{adapters['a'][0]}, version 1" in (tmp_path / "out" / "report.html").read_text()
    assert files_below(tmp_path / "out") == FOLDER, "the pin is gone"


def test_the_log_of_a_night_names_its_champion(night, pointer, adapters, log):
    run(night())
    (line,) = [each for each in log.records if each.message == "this night follows the champion"]
    uri, digest = adapters["a"]
    assert line.fields == {"pointer": pointer, "version": 1, "adapter": uri, "digest": digest}


def test_a_finished_night_stays_finished_when_the_champion_changes(night, pointer, adapters):
    run(night())
    promote(pointer, adapters["b"][0])
    assert run(night()) == 0


def test_the_next_night_follows_the_new_champion(night, tmp_path, pointer, adapters):
    run(night())
    promote(pointer, adapters["b"][0])
    run(night(output=f"{tmp_path}/next"))
    assert writers(tmp_path / "next") == {adapters["b"][1]}


def test_shards_that_begin_later_follow_the_champion_of_the_first(
    night, tmp_path, pointer, adapters
):
    run(night(), Shard(0, 2))
    promote(pointer, adapters["b"][0])
    run(night(), Shard(1, 2))
    assert writers(tmp_path / "out") == {adapters["a"][1]}


def test_the_next_attempt_follows_the_champion_of_the_first(night, tmp_path, pointer, adapters):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(night(), before=at_call(1, fail))
    promote(pointer, adapters["b"][0])
    run(night())
    assert writers(tmp_path / "out") == {adapters["a"][1]}


def test_of_two_that_resolve_different_champions_the_first_pin_counts(
    night, tmp_path, pointer, adapters
):
    output = open_output(f"{tmp_path}/out", night().storage)
    slow = find_champion(night(), output)
    promote(pointer, adapters["b"][0])
    fast = find_champion(night(), output)
    pin_champion(night(), output, fast)
    pin_champion(night(), output, slow)
    assert (slow.digest, fast.digest) == (adapters["a"][1], adapters["b"][1])
    assert find_champion(night(), output) == fast
    assert read_pin(follow(night(), fast), output, pointer) == fast, "with the config that follows"


def test_a_night_follows_the_pointer_that_it_names(night, tmp_path, pointer, adapters):
    other = f"{tmp_path}/champions/other.json"
    promote(other, adapters["b"][0])
    output = open_output(f"{tmp_path}/out", night().storage)
    pin_champion(night(), output, find_champion(night(), output))
    assert find_champion(night(adapter=other), output).digest == adapters["b"][1]
    run(night())
    assert writers(tmp_path / "out") == {adapters["a"][1]}
    assert find_champion(night(adapter=other), output).digest == adapters["b"][1], "published"


def test_a_worker_beside_one_with_another_champion_runs_again(night, tmp_path, adapters):
    # A store that ignores conditional writes has replaced this worker's pin by another's.
    def replace_pin():
        (pin,) = (tmp_path / "out" / "_chunks").glob("champion-*.json")
        text = pin.read_text()
        for mine, other in zip(adapters["a"], adapters["b"], strict=True):
            text = text.replace(mine, other)
        pin.write_text(text)

    with pytest.raises(RetryError, match=f"with another champion, {adapters['b'][0]}"):
        run(night(), Shard(0, 2), before=at_call(0, replace_pin))


def test_a_night_with_other_settings_is_another_night(night, tmp_path, pointer, adapters):
    run(night(), Shard(0, 2))
    promote(pointer, adapters["b"][0])
    run(night(generation={"max_new_tokens": 13}))
    assert writers(tmp_path / "out") == {adapters["b"][1]}


def test_a_night_without_records_follows_nobody(night, tmp_path, pointer, adapters):
    write_lines(tmp_path / "in.jsonl", [])
    empty = night(limits={"min_records": 0})
    run(empty)
    promote(pointer, adapters["b"][0])
    write_lines(tmp_path / "in.jsonl", [conversation(f"c{n}") for n in range(10)])
    run(empty)
    assert writers(tmp_path / "out") == {adapters["b"][1]}


def delete_output(folder):
    """Delete what the error about too many rejects names, and nothing else."""
    for name in ("parts", "rejects"):
        shutil.rmtree(folder / name)
    for name in ("report.html", "manifest.json"):
        (folder / name).unlink()


def test_a_night_that_ended_with_65_is_done_again_with_the_new_champion(
    night, tmp_path, pointer, adapters
):
    bad = [*(conversation(f"c{n}", f"late {n}") for n in range(10)), {"id": "x", "turns": []}]
    write_lines(tmp_path / "in.jsonl", bad)
    strict = night(limits={"max_reject_fraction": 0})
    with pytest.raises(DataError, match="in place of version 1, delete the whole output"):
        run(strict)
    assert "_chunks" not in " ".join(files_below(tmp_path / "out")), "the pin is gone"
    promote(pointer, adapters["b"][0])
    assert run(night()) == 0, "with a higher limit, its summaries count as they are"
    assert writers(tmp_path / "out") == {adapters["a"][1]}

    delete_output(tmp_path / "out")
    (tmp_path / "out" / "_SUCCESS").unlink()
    with pytest.raises(DataError, match="in place of version 2"):
        run(strict)
    assert writers(tmp_path / "out") == {adapters["b"][1]}


def test_the_pin_of_a_night_that_was_killed_after_its_manifest_goes(
    night, tmp_path, pointer, adapters
):
    write_lines(tmp_path / "in.jsonl", [{"id": "x", "turns": []}, conversation("c")])
    strict = night(limits={"max_reject_fraction": 0})
    output = open_output(f"{tmp_path}/out", strict.storage)
    champion = find_champion(strict, output)
    with pytest.raises(DataError):
        run(strict)
    pin_champion(strict, output, champion)
    with pytest.raises(DataError, match="champion of now"):
        run(strict)
    assert read_pin(strict, output, pointer) is None


def test_what_another_champion_summarized_is_not_skipped(night, tmp_path, pointer, adapters):
    run(night())
    again = night(output=f"{tmp_path}/again", skip_done=f"{tmp_path}/out")
    assert run(again) == 0
    promote(pointer, adapters["b"][0])
    new = night(output=f"{tmp_path}/new", skip_done=[f"{tmp_path}/out", f"{tmp_path}/again"])
    assert run(new) == 10


def test_a_champion_that_was_replaced_ends_the_night(night, adapters, tmp_path):
    put_adapter(adapters["a"][0], tmp_path / "again", content="other weights")
    with pytest.raises(DataError, match=r"was promoted with digest.*it was replaced") as caught:
        run(night())
    assert adapters["a"][1] in str(caught.value)


def test_a_champion_that_is_replaced_within_the_night_ends_it(night, adapters, tmp_path):
    run(night(), Shard(0, 2))
    put_adapter(adapters["a"][0], tmp_path / "again", content="other weights")
    with pytest.raises(DataError, match="what its pointer named when this night began"):
        run(night(), Shard(1, 2))


def test_a_champion_that_is_gone_ends_the_night(night, tmp_path):
    (tmp_path / "runs" / "a" / "manifest.json").unlink()
    with pytest.raises(MissingError, match=r"its champion is gone.*recap champion rollback"):
        run(night())


def test_adapter_digest_must_be_that_of_the_champion(night, pointer, adapters):
    mine = night(adapter_digest=adapters["a"][1][:12])
    assert run(mine) == 10
    promote(pointer, adapters["b"][0])
    with pytest.raises(DataError, match="adapter_digest wants"):
        run(night(adapter_digest=adapters["a"][1][:12], output=f"{mine.output}-next"))


def test_a_pin_that_nobody_can_read_is_an_error_with_the_remedy(night, tmp_path, pointer):
    output = open_output(f"{tmp_path}/out", night().storage)
    pin_champion(night(), output, find_champion(night(), output))
    (pin,) = (tmp_path / "out" / "_chunks").glob("champion-*.json")
    pin.write_text('{"pointer": 7}')
    with pytest.raises(DamagedError, match=r"champion-.*remove it"):
        run(night())


def test_a_night_serves_its_champion_as_that_was_evaluated(night, pointer, adapters):
    serving = {
        "quantization": "none",
        "dtype": "float32",
        "attention": "sdpa",
        "adapter_weights": "separate",
        "engine": "transformers",
        "engine_version": "5.0",
        "tensor_parallel": 1,
        "generation": {
            "max_new_tokens": 7,
            "temperature": 0.0,
            "top_p": 1.0,
            "seed": 0,
            "max_input_tokens": None,
        },
        "prompt": "a" * 64,
    }
    uri, digest = adapters["b"]
    promotion = Promotion(uri, digest, now(), "a test", evaluation={"serving": serving})
    switch(pointer, night().storage, promotion, read_pointer(pointer, night().storage))
    followed = night(generation={})
    run(followed, Shard(0, 2))
    promote(pointer, adapters["a"][0])
    run(followed, Shard(1, 2))
    facts = manifest_of(Path(followed.output))
    assert facts["config"]["generation"]["max_new_tokens"] == 7
    assert facts["champion"]["serving"] == serving
    assert run(followed) == 0, "and it is done"
