"""Claims about the scheme of faithfulness, with a stand-in for the classifier that sees words."""

import math
from collections.abc import Sequence

import pytest

from job.config.scoring_sections import FaithfulnessModelSection
from job.conversations.record import Conversation, Source, Turn
from job.errors import ConfigError
from job.evaluation.metrics.faithfulness import (
    Room,
    premises,
    score_samples,
    summary_sentences,
    supported_label,
)
from job.evaluation.metrics.metric import Sample
from job.evaluation.metrics.models import MetricModel, pieces
from job.model.fetch import Base

ROOM = Room(60, lambda text: len(text.split()))
MODEL = MetricModel(
    "evaluation.faithfulness_model",
    FaithfulnessModelSection(model="/models/judge"),
    Base("/models/judge", None, "d", path=None),
)
TALK = [
    ("customer", "My parcel is late"),
    ("agent", "What is the number of the order"),
    ("customer", "It is 4711"),
    ("agent", "A refund is on its way"),
    ("customer", "Thanks"),
]


def conversation(turns: Sequence[tuple[str, str]]) -> Conversation:
    return Conversation("c", tuple(Turn(*turn) for turn in turns), Source("f", 1))


def words(text: str) -> set[str]:
    return set(text.lower().replace(".", "").replace(":", "").split())


def has_all_words(pairs: Sequence[tuple[str, str]]) -> list[float]:
    return [float(words(text) <= words(premise)) for premise, text in pairs]


def score(summary: str, room: Room = ROOM) -> float:
    (found,) = score_samples([Sample(summary, conversation(TALK))], has_all_words, room)
    return found


def test_a_sentence_has_the_score_of_its_best_premise():
    assert score("Refund is on its way.") == 1
    assert score("Refund is refused.") == 0


def test_a_summary_has_the_mean_of_its_sentences():
    assert score("My parcel is late. The parcel was stolen.") == 0.5


def test_question_and_answer_support_a_sentence_together():
    """No single turn has number, order and 4711."""
    assert score("The number of the order is 4711.") == 1


def test_the_name_of_a_speaker_is_part_of_a_premise():
    assert score("Agent refund.") == 1
    assert score("Agent parcel is late.", Room(14, ROOM.count)) == 0  # no room for more turns


def test_an_empty_summary_has_no_faithfulness():
    assert math.isnan(score(""))
    assert math.isnan(score("  \n "))


def test_premises_are_turns_windows_of_three_and_the_whole():
    found = premises(conversation(TALK), ROOM, ["a b"])
    lines = [f"{role}: {text}" for role, text in TALK]
    windows = ["\n".join(lines[at : at + 3]) for at in range(3)]
    assert found == [*lines, *windows, "\n".join(lines)]


def test_premises_fit_beside_the_longest_sentence():
    long = conversation([("customer", " ".join(f"w{n}" for n in range(200))), *TALK])
    found = premises(long, ROOM, ["a b c", "a b c d e"])
    assert max(ROOM.count(text) for text in found) <= 55


def test_no_word_of_a_long_turn_is_lost():
    said = [f"w{n}" for n in range(200)]
    found = premises(conversation([("customer", " ".join(said))]), ROOM, ["a"])
    assert set(said) <= {word for text in found for word in text.split()}


def test_a_sentence_that_leaves_no_room_is_cut():
    found = summary_sentences(" ".join(f"w{n}" for n in range(50)), ROOM)
    assert len(found) == 4
    assert max(map(ROOM.count, found)) <= 20
    assert " ".join(found).split() == [f"w{n}" for n in range(50)]


def test_each_pair_is_classified_once_for_equal_summaries():
    asked: list[tuple[str, str]] = []

    def probability(pairs: Sequence[tuple[str, str]]) -> list[float]:
        asked.extend(pairs)
        return [0.5] * len(pairs)

    sample = Sample("Parcel is late.", conversation(TALK))
    assert score_samples([sample, sample], probability, ROOM) == [0.5, 0.5]
    assert len(asked) == len(set(asked)) == 9


@pytest.mark.parametrize("text", ["x" * 100, "a b " * 30, "word " + "y" * 90, "語" * 64])
def test_pieces_of_a_text_fit_and_have_all_of_it(text):
    found = pieces(text, lambda piece: len(piece) <= 16)
    assert max(map(len, found)) <= 16
    assert "".join(found).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    ("names", "label"),
    [
        ({0: "contradiction", 1: "neutral", 2: "entailment"}, 2),
        ({0: "ENTAILMENT", 1: "NEUTRAL", 2: "CONTRADICTION"}, 0),
        ({"0": "not_entailment", "1": "entailment"}, 1),
        ({0: "inconsistent", 1: "consistent"}, 1),
        ({0: "supported", 1: "not supported"}, 0),
        ({0: "LABEL_0"}, 0),
    ],
)
def test_the_supported_class_is_found_by_its_name(names, label):
    assert supported_label(MODEL, names) == label


def test_names_that_tell_nothing_are_an_error_that_names_the_key():
    with pytest.raises(ConfigError) as error:
        supported_label(MODEL, {0: "LABEL_0", 1: "LABEL_1"})
    assert "LABEL_0, LABEL_1" in str(error.value)
    assert "evaluation.faithfulness_model.label" in str(error.value)


def test_a_label_of_the_config_names_the_class():
    section = FaithfulnessModelSection(model="m", label="LABEL_1")
    model = MetricModel(MODEL.key, section, MODEL.base)
    assert supported_label(model, {0: "LABEL_0", 1: "LABEL_1"}) == 1
    with pytest.raises(ConfigError, match="wanted one of LABEL_1"):
        supported_label(model, {0: "no", 1: "yes"})
