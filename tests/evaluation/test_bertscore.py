"""Claims about the matching of BERTScore, on vectors made by hand."""

import numpy as np
import pytest

from job.evaluation.metrics.bertscore import Tokens, f_measure

EAST, NORTH, NORTH_EAST = (1.0, 0.0), (0.0, 1.0), (0.5**0.5, 0.5**0.5)


def tokens(*vectors: tuple[float, float], added: int = 0) -> Tokens:
    """The last `added` tokens are the tokenizer's."""
    counts = np.arange(len(vectors)) < len(vectors) - added
    return Tokens(np.array(vectors, dtype=np.float32), counts)


def test_equal_texts_score_one():
    assert f_measure(tokens(EAST, NORTH), tokens(EAST, NORTH)) == pytest.approx(1)


def test_precision_and_recall_have_the_same_weight():
    # Precision is 1; recall is the mean of 1 and 0.
    assert f_measure(tokens(EAST), tokens(EAST, NORTH)) == pytest.approx(2 * 0.5 / 1.5)
    assert f_measure(tokens(EAST, NORTH), tokens(EAST)) == pytest.approx(2 * 0.5 / 1.5)


def test_each_token_is_matched_with_the_nearest():
    found = f_measure(tokens(NORTH_EAST), tokens(EAST, NORTH))
    assert found == pytest.approx(0.5**0.5)


def test_tokens_of_the_tokenizer_do_not_count():
    found = f_measure(tokens(EAST, NORTH, added=1), tokens(EAST, NORTH_EAST, added=1))
    assert found == pytest.approx(1)


def test_a_text_without_tokens_scores_zero():
    assert f_measure(tokens(EAST, added=1), tokens(EAST)) == 0
    assert f_measure(tokens(EAST), tokens(EAST, added=1)) == 0
