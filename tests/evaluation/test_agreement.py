"""Claims about the agreement of a classifier with people's labels."""

import json

import numpy as np
import pytest

from job.config.sections import StorageSection
from job.conversations.record import Conversation, Source, Turn
from job.errors import DataError
from job.evaluation.bootstrap import Interval
from job.evaluation.metrics.agreement import (
    Agreement,
    auroc,
    best_threshold,
    measure_agreement,
)
from job.evaluation.metrics.labels import read_labels
from job.storage.open import list_inputs

TALKS = [
    Conversation(f"c-{number}", (Turn("customer", "Hello"),), Source("f", number))
    for number in range(5)
]


def drawn(labels: int, gap: float, seed: int = 0) -> tuple[list[float], list[bool]]:
    """Scores of two classes, half of the labels each, that are `gap` apart."""
    rng = np.random.default_rng(seed)
    is_faithful = [number % 2 == 0 for number in range(labels)]
    scores = [float(rng.normal(gap if label else 0.0)) for label in is_faithful]
    return scores, is_faithful


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(1)
    faithful = rng.integers(0, 6, 40) / 5
    unfaithful = rng.integers(0, 5, 30) / 5
    pairs = [(x > y) + (x == y) / 2 for x in faithful for y in unfaithful]
    assert auroc(faithful, unfaithful) == pytest.approx(np.mean(pairs))


def test_the_best_threshold_separates_what_can_be_separated():
    threshold = best_threshold(np.array([0.7, 0.8, 0.9]), np.array([0.1, 0.2, 0.6]))
    assert 0.6 < threshold < 0.7


def test_a_perfect_classifier_agrees_fully():
    labels = [number % 3 == 0 for number in range(60)]
    found = measure_agreement([0.9 if label else 0.2 for label in labels], labels, 200, 0)
    assert (found.labels, found.faithful) == (60, 20)
    assert found.auroc.low == found.auroc.mean == 1
    assert found.balanced_accuracy.mean == 1
    assert found.is_calibrated
    assert found.note == "AUROC 1.00"


def test_a_summary_without_a_score_counts_as_the_least_faithful():
    labels = [number % 2 == 0 for number in range(40)]
    scores = [0.1 if label else float("nan") for label in labels]
    assert measure_agreement(scores, labels, 50, 0).auroc.mean == 1


def test_a_threshold_is_not_judged_by_the_labels_that_chose_it():
    """By those, scores of no meaning would be above chance."""
    means = []
    for seed in range(40):
        scores, labels = drawn(40, gap=0.0, seed=seed)
        means.append(measure_agreement(scores, labels, 10, seed).balanced_accuracy.mean)
    assert np.mean(means) == pytest.approx(0.5, abs=0.03)


def test_the_interval_of_auroc_covers_the_true_one():
    true = 0.7602  # of two normal distributions that are one deviation apart
    covered = 0
    for seed in range(60):
        found = measure_agreement(*drawn(80, gap=1.0, seed=seed), 200, seed)
        covered += found.auroc.low <= true <= found.auroc.high
    assert covered >= 52


def test_scores_no_better_than_chance_are_uncalibrated():
    found = measure_agreement(*drawn(60, gap=0.0), 200, 0)
    assert not found.is_calibrated
    assert found.note == "uncalibrated: no better than chance"
    assert "not shown to be better than chance" in found.sentence()


def test_an_interval_that_has_chance_in_it_is_uncalibrated():
    better = Interval(0.7, 0.51, 0.9, 40)
    assert Agreement(40, 20, better, better, 0.5).is_calibrated
    unsure = Interval(0.7, 0.5, 0.9, 40)
    assert not Agreement(40, 20, unsure, unsure, 0.5).is_calibrated


@pytest.mark.parametrize(("labels", "faithful"), [(19, 10), (40, 40), (40, 4), (0, 0)])
def test_too_few_labels_are_named(labels, faithful):
    found = measure_agreement([0.5] * labels, [n < faithful for n in range(labels)], 100, 0)
    assert found.auroc is None
    assert found.note == "uncalibrated: too few labels"
    assert f"{labels} labels ({faithful} faithful) are too few" in found.sentence()


def test_the_agreement_is_the_same_every_time():
    scores, labels = drawn(50, gap=1.0)
    first = measure_agreement(scores, labels, 100, 7)
    assert first == measure_agreement(scores, labels, 100, 7)
    assert Agreement.from_json(json.loads(json.dumps(first.to_json()))) == first


def read(tmp_path, *lines):
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return read_labels(list_inputs([str(file)], StorageSection()), str(file), TALKS)


def test_labels_are_read_with_their_conversations(tmp_path):
    found = read(
        tmp_path,
        '{"id": "c-1", "summary": "Right.", "label": true}',
        '{"id": "c-1", "summary": "Wrong.", "label": 0.2}',
        '{"id": "c-2", "summary": "Half.", "label": 0.5}',
        '{"id": "c-2", "summary": "Less.", "label": 0.49}',
        '{"id": "elsewhere", "summary": "Right.", "label": 1}',
    )
    assert [(each.summary, each.is_faithful) for each in found] == [
        ("Right.", True),
        ("Wrong.", False),
        ("Half.", True),
        ("Less.", False),
    ]
    assert found[0].conversation is TALKS[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "c-1", "summary": "x"}', "line 1: has no label; wanted an object"),
        ('{"id": "c-1", "summary": "x", "label": "yes"}', "label is str"),
        ('{"id": "c-1", "summary": "x", "label": 2}', "label is 2"),
        ('{"id": "c-1", "summary": null, "label": 1}', "summary is NoneType"),
        ("[1]", "got list; wanted an object with id, summary and label"),
        ("{", "wanted an object with id, summary and label"),
        ('{"id": "x", "summary": "x", "label": 1}', "1 labels, and none is of one of the 5"),
    ],
)
def test_a_line_that_is_no_label_is_an_error(tmp_path, line, message):
    with pytest.raises(DataError) as error:
        read(tmp_path, line)
    assert message in str(error.value)
