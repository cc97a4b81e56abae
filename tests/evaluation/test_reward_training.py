"""Claims about pairs that judge a reward model: those of its own training are refused."""

from pathlib import Path
from typing import Any

import pytest

from job.config.commands import TrainConfig
from job.config.data_sections import ReadingSection
from job.config.scoring_sections import ScoringRewardModelSection, ScoringSection
from job.config.sections import StorageSection, to_plain
from job.errors import DataError, ExitCode
from job.evaluation.reward_pairs import RewardPairs, read_reward_pairs
from job.evaluation.reward_training import CHANGED, NO_RECORD
from job.preflight.metric_models import metric_model_checks
from job.training.examples import files_now
from tests.feedback.world import conversation, write_lines

STORAGE = StorageSection()


def pairs_of(*numbers: int, more: str = "") -> list[dict[str, Any]]:
    """Return pairs of conversations with these numbers, whose last turn ends with `more`."""
    records = []
    for number in numbers:
        record = conversation(number)
        record["turns"][1]["text"] += more
        records.append(record | {"chosen": "An order is late.", "rejected": "Hello."})
    return records


@pytest.fixture
def judge(tmp_path: Path):
    """Return a function that leaves what a reward training does, with its data by split."""

    def leave(run: str = "r", start: str | None = None, **data: Any) -> str:
        for split in data.keys() & {"train", "validation", "test", "replay"}:
            data[split] = str(write_lines(tmp_path / run / f"{split}.jsonl", data[split]))
        content = {"run": run, "method": "reward", "output": str(tmp_path / "runs"), "data": data}
        config = TrainConfig.model_validate(content | {"model": {"base": "org/base"}})
        facts = {"files": files_now(config), "start": start and {"adapter": start}}
        record = {"run": run, "config": to_plain(config), "facts": facts}
        write_lines(tmp_path / "runs" / run / "run.json", [record])
        return str(tmp_path / "runs" / run / "adapter")

    return leave


@pytest.fixture
def given(tmp_path: Path):
    """Return a function that reads pairs for the reward model of a location."""

    def read(adapter: str, records: list[dict[str, Any]], **more: Any) -> RewardPairs | None:
        file = str(write_lines(tmp_path / "pairs.jsonl", records))
        section = ScoringRewardModelSection(adapter=adapter, pairs=file)
        return read_reward_pairs(section, ReadingSection(), STORAGE, **more)

    return read


def test_other_pairs_than_those_of_the_training_are_held_out(judge, given):
    adapter = judge(train=pairs_of(1, 2, 3), replay=pairs_of(4))
    found = given(adapter, pairs_of(5, 6))
    assert found.not_compared == ""
    assert len(found.pairs.pairs) == 2


@pytest.mark.parametrize(
    ("more", "kinds"), [("", "2 exactly, 0 nearly"), (" today", "0 exactly, 2 nearly")]
)
def test_pairs_that_it_was_trained_on_are_refused(judge, given, more, kinds):
    adapter = judge(train=pairs_of(1, 2, 3))
    with pytest.raises(DataError, match=r"reward_model\.pairs: 2 training") as caught:
        given(adapter, pairs_of(2, 3, 7, more=more))
    assert caught.value.exit_code == ExitCode.DATA
    assert kinds in str(caught.value)
    assert "c2 = c2; c3 = c3" in str(caught.value)


def test_pairs_that_it_learned_again_are_refused(judge, given):
    adapter = judge(train=pairs_of(1, 2), validation=pairs_of(8), replay=pairs_of(3, 8))
    with pytest.raises(DataError, match="1 training conversation repeats"):
        given(adapter, pairs_of(3, 9))
    assert given(adapter, pairs_of(8)).not_compared == "", "its training left it out of the replay"


def test_pairs_of_the_reward_model_that_it_started_from_are_refused(judge, given):
    first = judge("first", train=pairs_of(1, 2))
    second = judge("second", start=first, train=pairs_of(1, 3, 4))
    with pytest.raises(DataError, match="1 training conversation repeats"):
        given(second, pairs_of(1))
    with pytest.raises(DataError, match="c2 = c2"):
        given(second, pairs_of(2))


def test_pairs_of_the_conversations_that_the_config_names_are_refused(judge, given):
    found = given(judge(train=pairs_of(1, 2)), pairs_of(5))
    with pytest.raises(DataError, match=r"nearly\), in train, so"):
        given(judge(train=pairs_of(1, 2)), pairs_of(5, 6), train=found.pairs.conversations)


def test_what_its_training_left_out_as_an_overlap_is_held_out(judge, given):
    adapter = judge(train=pairs_of(1, 2), test=pairs_of(2), overlap="drop")
    assert given(adapter, pairs_of(2)).not_compared == ""
    adapter = judge(train=pairs_of(1, 2), test=pairs_of(2), overlap="allow")
    with pytest.raises(DataError, match="c2 = c2"):
        given(adapter, pairs_of(2))


def lose(run: Path) -> None:
    (run / "train.jsonl").unlink()


def change(run: Path) -> None:
    write_lines(run / "train.jsonl", pairs_of(1, 2, 9))


def spoil(run: Path) -> None:
    write_lines(run / "train.jsonl", [{"id": "x"}])


def forget(run: Path) -> None:
    (run.parent / "runs" / "r" / "run.json").unlink()


def outdate(run: Path) -> None:
    (run.parent / "runs" / "r" / "run.json").write_text('{"config": {"data": 5}}')


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lose, "its training data could not be read (MissingError)"),
        (spoil, "its training data could not be read (DataError)"),
        (change, CHANGED),
        (forget, NO_RECORD),
        (outdate, "its training data could not be read (DamagedError)"),
    ],
)
def test_pairs_are_not_called_held_out_if_nobody_can_know(judge, given, tmp_path, damage, why):
    adapter = judge(train=pairs_of(1, 2))
    damage(tmp_path / "r")
    found = given(adapter, pairs_of(5))
    assert found.not_compared == why
    assert str(tmp_path) not in found.not_compared


@pytest.mark.parametrize(("number", "says"), [(1, "1 training"), (5, "none of them trained on")])
def test_a_plan_compares_the_pairs_too(judge, tmp_path, number, says):
    file = str(write_lines(tmp_path / "pairs.jsonl", pairs_of(number)))
    section = {"adapter": judge(train=pairs_of(1, 2)), "pairs": file}
    options = ScoringSection.model_validate({"reward_model": section})
    checks = {each.name: each for each in metric_model_checks(options, STORAGE, [])}
    found = checks["reward pairs"]
    assert says in (str(found.error) if found.error else found.found)
