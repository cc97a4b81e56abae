"""Claims about the time of a run on a GPU that nobody has yet."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import TrainConfig
from job.gpus.cards import CARDS, Card
from job.model.operations import Products, TokenRows
from job.model.room import MissingWeights
from job.preflight.duration import (
    CPU,
    GPU,
    HOUR,
    Base,
    Durations,
    Range,
    Steps,
    Work,
    durations_on,
    work_of,
)

LLAMA_8B = Base(Products(6_980_000_000, 525_000_000, {None: 262_144}), 8_030_000_000, 42_000_000)
SPLITS = {"train": TokenRows({500: 1000}, 50_000), "validation": TokenRows({500: 100}, 5_000)}
TWO_EPOCHS = Steps(126, 63)
FILES = MissingWeights(Path("cache"), 0, 8_030_000_000, 16_060_000_000)


def config_with(generation: dict[str, Any] | None = None, **training: Any) -> TrainConfig:
    values = {
        "run": "tiny",
        "model": {"base": "org/base"},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
        "output": "runs",
        "training": training,
        "generation": generation or {},
    }
    return TrainConfig.model_validate(values)


def work_with(steps: Steps = TWO_EPOCHS, summaries: int = 200, **training: Any) -> Work:
    return work_of(config_with(**training), LLAMA_8B, SPLITS, steps, summaries, FILES)


def durations(work: Work, card: Card = CARDS["h100"], **named: Any) -> Durations:
    found = durations_on(card, work, **{"recomputed": 0.0} | named)
    assert found is not None
    return found


def test_the_work_is_that_of_all_steps():
    whole = work_with(Steps(126, 63))
    half = work_with(Steps(63, 63))
    assert (whole.tokens, whole.learned) == (1_000_000, 100_000)
    assert (half.tokens, half.learned) == (500_000, 50_000)
    assert half.training == pytest.approx(whole.training / 2)


def test_the_published_speed_is_the_fastest_of_the_range():
    # 12,500 tokens a second of an 8B base with LoRA on one H100.
    hour = 12_500 * HOUR
    rows = {"train": TokenRows({4096: hour // 4096}, hour), "validation": SPLITS["validation"]}
    work = work_of(config_with(), LLAMA_8B, rows, Steps(100, 100), 0, FILES)
    found = durations(work).training
    # The publication counts four operations for each of the 8.03 billion parameters.
    assert found.least == pytest.approx(HOUR, rel=0.15)
    assert found.most == pytest.approx(found.least * 4.1)


@pytest.mark.parametrize(
    ("training", "wanted"),
    [
        ({"evaluate_every_steps": 50}, 3),  # after steps 50, 100 and 126
        ({"evaluate_every_steps": 63}, 2),  # the last one once
        ({"evaluate_every_steps": 1000}, 1),
        ({"evaluate_every_epochs": 0.5}, 4),
    ],
)
def test_evaluations_are_counted_as_the_run_makes_them(training: Any, wanted: int) -> None:
    assert work_with(**training).evaluations == wanted


def test_evaluations_take_no_more_than_their_share():
    often = {"evaluate_every_steps": 1, "epochs": 100}
    bounded = work_with(Steps(6300, 63), **often)
    decisive = work_with(Steps(6300, 63), adapter_from="best_evaluation", **often)
    found = durations(bounded)
    each = found.evaluations.most - 0.1 * found.training.most
    assert 0 < each < 0.01 * found.evaluations.most  # the last one is always made
    assert durations(decisive).evaluations.most == pytest.approx(6300 * each)


def test_recomputing_all_layers_costs_half_as_much_again():
    work = work_with()
    ratio = durations(work, recomputed=1.0).training.least / durations(work).training.least
    assert ratio == pytest.approx(1.5, rel=0.02)


def test_two_gpus_take_half_the_time_for_steps():
    work = work_with()
    one, two = durations(work), durations(work, gpus=2)
    assert two.training == one.training.times(0.5)
    assert (two.start, two.scores) == (one.start, one.scores)


def test_a_number_of_steps_takes_as_long_on_several_gpus():
    # Their steps are larger.
    work = work_with(max_steps=126)
    assert durations(work, gpus=2).training == durations(work).training


def test_generation_takes_the_time_to_read_the_weights():
    work = replace(work_with(summaries=64), prompt=0.0)
    l4, h100 = (durations(work, CARDS[name]).scores for name in ("l4", "h100"))
    # 16 GB at 0.8 of 3,350 GB/s for each of the 50 tokens of a mean summary.
    assert h100.least == pytest.approx(50 * 16.06 / (0.8 * 3350), rel=0.01)
    assert l4.least / h100.least == pytest.approx(3350 / 300)


def test_the_start_counts_the_download():
    seconds = durations(work_with()).start
    assert seconds.least == GPU.start.least + 2 * 16.06
    assert seconds.most == GPU.start.most + 2 * 160.6


def test_a_base_in_a_folder_is_read_and_not_downloaded():
    values = config_with(), LLAMA_8B, SPLITS, TWO_EPOCHS, 200
    local = work_of(*values, replace(FILES, is_local=True))
    assert durations(local).start.least == GPU.start.least + 16.06


def test_no_summary_is_longer_than_max_new_tokens():
    short = work_with()
    mean, _ = short.new_tokens
    assert mean == 50
    cut = work_with(generation={"max_new_tokens": 20})
    assert cut.new_tokens == (20, 20)
    assert durations(cut).scores.least < durations(short).scores.least


def test_a_gpu_of_unknown_speed_has_no_time():
    assert durations_on(Card("new", 1 << 40, (11, 0)), work_with(), recomputed=0.0) is None


def test_a_cpu_may_reach_the_speed_that_was_measured():
    card = Card("this CPU", 0, (0, 0), 0.05, 10)
    found = durations(work_with(), card, rates=CPU).training
    assert found.least == pytest.approx(work_with().training / 0.05e12)


@pytest.mark.parametrize(
    ("least", "most", "wanted"),
    [
        (0.2, 0.4, "under 1 s"),
        (0.2, 1.4, "1 s"),
        (20, 50, "20 to 50 s"),
        (50, 130, "50 s to 2 min"),
        (4000, 9000, "1.1 to 2.5 h"),
        (1e5, 1e6, "27.8 h to 11.6 days"),
    ],
)
def test_a_range_is_shown_with_its_units(least: float, most: float, wanted: str) -> None:
    assert Range(least, most).text() == wanted
