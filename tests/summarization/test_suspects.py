"""Claims about GPUs that fail for good: who is found to blame over several tries, and what the others come to."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from job.errors import RetryError
from job.inference.engine import BrokenEngineError, Generated
from job.summarization.summarize import summarize
from job.summarization.summarizer import open_summarizer
from tests.summarization.conftest import conversation, files_below, read_lines, results_below, write_lines

POISON = "poison"


class Gpu:
    """Answers with the number of prompts of each call; fails for good on poison, or once it has answered `answers`."""

    context_tokens = 512
    prompts_ahead = 0

    def __init__(self, tokenizer: Any, at_once: int, answers: float) -> None:
        self.tokenizer, self.at_once, self.answers, self.is_dead = tokenizer, at_once, answers, False

    def generate(self, prompts: Sequence[list[int]], settings: Any, on_done: Any = None) -> list[Generated]:
        answers: list[Generated] = []
        for start in range(0, len(prompts), self.at_once):
            batch = prompts[start : start + self.at_once]
            texts = [self.tokenizer.decode(prompt) for prompt in batch]
            self.answers -= len(batch)
            assert not self.is_dead, "nothing answers in a process whose GPU failed"
            if self.answers < 0 or any(POISON in text for text in texts):
                self.is_dead = True
                raise BrokenEngineError(torch.AcceleratorError("device-side assert triggered"), batch)
            answers += [Generated(f"among {len(batch)}", 1, "stop") for _ in batch]
        return answers

    def expect(self, prompts: Sequence[list[int]], settings: Any) -> None:
        raise AssertionError("told of prompts ahead while some are suspected")


def tries(config: Any, at_once: int = 8, answers: float = float("inf")) -> list[str]:
    """How each try ends, each on a GPU that works at first, until one is done or ten have failed."""

    def open_with(config: Any, cache: Any) -> Any:
        real = open_summarizer(config, cache)
        return replace(real, engine=Gpu(real.tokenizer, at_once, answers))

    ends: list[str] = []
    while len(ends) < 10 and ends[-1:] != ["done"]:
        try:
            summarize(config, open_with)
            ends.append("done")
        except RetryError as error:
            ends.append(str(error))
    return ends


@pytest.fixture
def night(config, tmp_path):
    """Forty records in chunks of twenty."""

    def make(*poisonous: int) -> Any:
        texts = [f"{POISON} {number}" if number in poisonous else f"my parcel {number}" for number in range(40)]
        write_lines(tmp_path / "in.jsonl", [conversation(f"c{number}", text) for number, text in enumerate(texts)])
        return config(chunks={"records": 20})

    return make


def test_a_record_that_breaks_the_gpu_is_found_and_costs_no_other_its_summary(night, tmp_path):
    ends = tries(night(29))
    assert [end.partition(" (")[0] for end in ends] == [
        "the GPU failed on 8 prompts", "the GPU failed on one prompt", "the GPU failed on one prompt", "done",
    ]  # fmt: skip
    (reject,) = read_lines(tmp_path / "out/rejects/part-00000.jsonl")
    assert (reject["id"], reject["reason"]) == ("c29", "generation_failed")
    assert reject["detail"] == "Broken: the process, or its GPU, failed on it alone, 2 times"
    rows = read_lines(tmp_path / "out/parts/part-00000.jsonl")
    assert [row["id"] for row in rows] == [f"c{number}" for number in range(40) if number != 29]
    assert "_SUCCESS" in results_below(tmp_path / "out")
    alone = [row["id"] for row in rows if row["summary"] == "among 1"]
    assert len(alone) == 7, "the others of its batch, and nobody else, were taken one at a time"


def test_two_records_that_break_the_gpu_are_both_found(night, tmp_path):
    assert tries(night(3, 30))[-1] == "done"
    rejects = read_lines(tmp_path / "out/rejects/part-00000.jsonl")
    assert [row["id"] for row in rejects] == ["c3", "c30"]


def test_a_night_of_one_record_that_breaks_the_gpu_ends(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("c0", POISON)])
    ends = tries(config())
    assert (len(ends), ends[-1]) == (4, "done")


@pytest.mark.parametrize("answers", [0, 8, 9, 10])
def test_a_gpu_that_fails_whatever_it_is_given_blames_no_record(night, tmp_path, answers):
    ends = tries(night(), answers=answers)
    written = [name for name in files_below(tmp_path / "out") if "prompts-" in name]
    assert written, "what was under way is noted"
    if answers == 0:
        assert "done" not in ends
    assert tries(night())[-1] == "done"
    assert len(read_lines(*sorted((tmp_path / "out/parts").iterdir()))) == 40


def test_what_was_noted_is_gone_when_the_night_is_done(night, tmp_path):
    tries(night(29))
    assert results_below(tmp_path / "out") == files_below(tmp_path / "out")
