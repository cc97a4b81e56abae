"""Claims about scores in other languages than English, against words that were cut by hand."""

# ruff: noqa: RUF001

import random
import string
import unicodedata
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from job.evaluation.floors import constant_sentence
from job.evaluation.metrics.sentences import sentences
from job.evaluation.words import RougeTokenizer, has_letters, length, words
from tests.evaluation.conftest import score_pairs

PAIRS = Path(__file__).parent / "languages.yaml"
LANGUAGES: dict[str, Any] = yaml.safe_load(PAIRS.read_text(encoding="utf-8"))


def f_measure(common: int, one: int, other: int) -> float:
    return 2 * common / (one + other) if common else 0.0


def rouge_n(reference: list[str], summary: list[str], n: int) -> float:
    counts = []
    for text in (reference, summary):
        starts = range(len(text) - n + 1)
        counts.append(Counter(tuple(text[start : start + n]) for start in starts))
    common = sum((counts[0] & counts[1]).values())
    return f_measure(common, counts[0].total(), counts[1].total())


def rouge_l(reference: list[str], summary: list[str]) -> float:
    table = [[0] * (len(summary) + 1) for _ in range(len(reference) + 1)]
    for row, wanted in enumerate(reference, 1):
        for column, said in enumerate(summary, 1):
            longer = max(table[row - 1][column], table[row][column - 1])
            table[row][column] = table[row - 1][column - 1] + 1 if wanted == said else longer
    return f_measure(table[-1][-1], len(reference), len(summary))


@pytest.mark.parametrize("language", LANGUAGES)
def test_ten_pairs_score_as_their_words_cut_by_hand(language: str) -> None:
    pairs = LANGUAGES[language]["pairs"]
    assert len(pairs) == 10
    scores = score_pairs([pair[2] for pair in pairs], [[pair[0]] for pair in pairs])
    for row, pair in enumerate(pairs):
        reference, summary = (unicodedata.normalize("NFC", pair[n]).split() for n in (1, 3))
        wanted = [rouge_n(reference, summary, 1), rouge_n(reference, summary, 2)]
        wanted.append(rouge_l(reference, summary))
        found = [scores.of(metric)[row] for metric in ("rouge1", "rouge2", "rougeL")]
        assert found == pytest.approx(wanted), pair


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_first_pair_scores_what_was_worked_out_on_paper(language: str) -> None:
    reference, _, summary, _ = LANGUAGES[language]["pairs"][0]
    scores = score_pairs([summary], [[reference]])
    by_hand = [float(Fraction(text)) for text in LANGUAGES[language]["by_hand"]]
    assert [scores.of("rouge1")[0], scores.of("rougeL")[0]] == pytest.approx(by_hand)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_composed_and_decomposed_letters_are_the_same(language: str, form: Any) -> None:
    for reference, _, summary, _ in LANGUAGES[language]["pairs"]:
        for text in (reference, summary):
            assert words(unicodedata.normalize(form, text)) == words(text)


def test_text_in_ascii_has_the_words_of_the_reference_implementation() -> None:
    from rouge_score.tokenizers import DefaultTokenizer

    plain, ours, rng = DefaultTokenizer(use_stemmer=True), RougeTokenizer(), random.Random(3)
    endings = ["ing", "ed", "es", "ational", "ization", "n't", "'s", "_x", "-3.5%", " "]
    for _ in range(2000):
        pieces = [rng.choice(string.printable) * rng.randint(1, 2) for _ in range(20)]
        text = "".join(piece + rng.choice(["", *endings]) for piece in pieces)
        assert ours.tokenize(text) == plain.tokenize(text)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("STRASSE", "Straße"),
        ("İSTANBUL IŞIK", "istanbul ışık"),
        ("co\u00adop", "coop"),  # a soft hyphen
        ("می\u200cخواهم", "میخواهم"),  # a joiner
        ("អតិថិជន\u200bសុំ", "អតិថិជនសុំ"),  # a break that only some writers type
        ("\u200fمرحبا\u200e", "مرحبا"),  # direction marks
        ("ok \u2764\ufe0f 1\ufe0f\u20e3 \U0001f44d\U0001f3fdx", "ok 1 x"),  # emojis
        ("об\u02bcєкт", "об'єкт"),
        ("ﬁn", "fin"),
    ],
)
def test_texts_that_read_alike_have_the_same_words(text: str, other: str) -> None:
    assert words(text) == words(other)
    assert len(words(text)) > 0


def test_a_mark_belongs_to_the_letter_before_it() -> None:
    assert words("Trường học") == ["trường", "học"]
    assert words("क्षेत्र") == ["क्षेत्र"]
    assert words("නිවැරදි தமிழ் বাংলা") == ["නිවැරදි", "தமிழ்", "বাংলা"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("客户要求退款。客服同意！好？", ["客户要求退款。", "客服同意！", "好？"]),
        ("「遅い。」と言った。", ["「遅い。", "と言った。"]),
        ("هل وصل؟ نعم۔ شكرا", ["هل وصل؟", "نعم۔", "شكرا"]),
        ("पैसे मिले। धन्यवाद॥", ["पैसे मिले।", "धन्यवाद॥"]),
        ("本当！？はい", ["本当！？", "はい"]),
        ("3.5点です。", ["3.5点です。"]),
    ],
)
def test_sentences_end_at_the_marks_of_their_script(text: str, lines: list[str]) -> None:
    assert sentences(text) == lines


def test_lsum_forgives_the_order_of_chinese_sentences() -> None:
    scores = score_pairs(["客服同意。客户要求退款。"], [["客户要求退款。客服同意。"]])
    assert scores.of("rougeLsum")[0] == 1
    assert scores.of("rougeL")[0] == pytest.approx(0.6)  # 6 of 10 signs in order


def test_a_word_has_a_letter_where_a_number_or_a_picture_has_none() -> None:
    assert not has_letters("12345, ٣ 👍 1️⃣")
    assert all(has_letters(text) for text in ("5 дней", "三", "น", "a", "é"))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It doesn't work - 3.5 stars", 6),
        ("La cliente a été remboursée.", 5),
        ("客户要求退款3天。", 8),
        ("iPhone手机 坏了", 5),
        ("고객이 환불을 요청했다.", 3),
        ("", 0),
    ],
)
def test_length_is_by_spaces_or_by_signs_without_them(text: str, count: int) -> None:
    assert length(text) == count


def test_the_constant_sentence_is_chosen_by_the_words_of_its_language() -> None:
    references = ["代理商帮助处理包裹", "代理商帮助处理退款", "代理商帮助", "蓝色的月亮"]
    assert constant_sentence(references) in references[:2]
