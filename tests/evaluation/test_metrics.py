import numpy as np
import pytest

from benchmarks.evaluation_quality import PAGE, metrics_table
from job.config.scoring_sections import ScoringSection
from job.evaluation.evaluate import evaluate
from job.evaluation.metrics.all_metrics import METRICS, first_metrics, quality_metrics
from job.evaluation.metrics.chrf import CHRF
from job.evaluation.metrics.metric import Metric, each
from job.evaluation.metrics.rouge import ROUGE_1, ROUGE_2, ROUGE_L, ROUGE_LSUM
from job.evaluation.metrics.sentences import sentences
from job.evaluation.score import score_systems
from job.evaluation.systems import System
from job.evaluation.table import score_table, shown_scores, shown_shares
from tests.evaluation.conftest import make_conversations, score_pairs


def test_rouge_of_a_known_pair_is_what_counting_by_hand_gives() -> None:
    # police killed the gunman / police kill the gunman, stemmed: killed and kill are one word
    scores = score_pairs(["the gunman kill police"], [["Police killed the gunman"]])
    assert scores.of("rouge1")[0] == 1.0  # four of four words
    assert scores.of("rouge2")[0] == pytest.approx(1 / 3)  # of three pairs, "the gunman"
    assert scores.of("rougeL")[0] == pytest.approx(0.5)  # two of four words in order


def test_f_measure_weighs_precision_and_recall_alike() -> None:
    scores = score_pairs(["cat sat"], [["the cat sat on a mat"]])
    assert scores.of("rouge1")[0] == pytest.approx(2 * 1 * (2 / 6) / (1 + 2 / 6))


def test_lsum_forgives_the_order_of_sentences_and_l_does_not() -> None:
    scores = score_pairs(["He left town. She came home."], [["She came home. He left town."]])
    assert scores.of("rougeLsum")[0] == 1.0
    assert scores.of("rougeL")[0] == 0.5


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("One\n\nTwo. ", ["One", "Two."]),
        ('He said "no." Then left.', ['He said "no.', "Then left."]),
        ("3.5 stars", ["3.5 stars"]),
        ("", []),
        ("Ask Mr. Smith or Dr. Jones. Bye.", ["Ask Mr. Smith or Dr. Jones.", "Bye."]),
        ("He called J. R. Miller. Then left.", ["He called J. R. Miller.", "Then left."]),
        ("He chose plan B. The agent agreed.", ["He chose plan B.", "The agent agreed."]),
        ("He paid $5 vs. $10, approx. half.", ["He paid $5 vs. $10, approx. half."]),
        ("1. Call back. 2. Pay.", ["1. Call back.", "2. Pay."]),
        (
            "Bus No. 5 is late. He said no. She left",
            ["Bus No. 5 is late.", "He said no.", "She left"],
        ),
        (
            "At 10 a.m. on Monday. At 5 p.m. Agents",
            ["At 10 a.m. on Monday.", "At 5 p.m.", "Agents"],
        ),
        ("On Main St. The agent", ["On Main St.", "The agent"]),
        ("To St. Louis", ["To St. Louis"]),
        ("a\nMr.\nb", ["a", "Mr.", "b"]),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, lines: list[str]) -> None:
    assert sentences(text) == lines


def test_first_mean_and_best_are_over_the_references_of_one_conversation() -> None:
    scores = score_pairs(["red"], [["red green", "red", "blue"]])
    assert scores.of("rouge1", "first")[0] == pytest.approx(2 / 3)
    assert scores.of("rouge1", "mean")[0] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores.of("rouge1", "best")[0] == 1.0


def test_an_empty_summary_scores_zero_everywhere() -> None:
    scores = score_pairs(["", " . "], [["a b c"], ["a b c"]])
    assert not np.any([scores.of(name) for name in scores.metrics])


def test_scores_are_those_of_the_library_used_plainly() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    plain = RougeScorer(names, use_stemmer=True)
    conversations = make_conversations(20)
    summaries = [conversation.references[1] for conversation in conversations]
    scores = score_pairs(summaries, [conversation.references[:1] for conversation in conversations])
    for row, (conversation, summary) in enumerate(zip(conversations, summaries, strict=True)):
        pair = [*conversation.references[:1], summary]
        wanted = plain.score(*("\n".join(sentences(text)) for text in pair))
        found = [scores.of(name)[row] for name in names]
        assert found == [wanted[name].fmeasure for name in names]


def test_a_metric_is_any_function_of_a_sample() -> None:
    same = Metric(
        name="same",
        title="Same",
        short_title="same",
        hub_type="exact_match",
        direction="higher",
        low=0,
        high=1,
        unit="score",
        needs=("reference",),
        about="1 if the summary is the reference.",
        measure=each(lambda sample: float(sample.summary == sample.references[0])),
    )
    scores = score_pairs(["red", "blue"], [["red", "green"], ["red"]], (ROUGE_1, same))
    assert scores.of("same", "first").tolist() == [1, 0]
    assert scores.of("same", "mean").tolist() == [0.5, 0]
    assert scores.of("rouge1", "best").tolist() == [1, 0]


def test_every_metric_is_shown_wherever_there_is_room() -> None:
    conversations = make_conversations(12)
    system = System("tuned", "judged", [c.references[0] for c in conversations])
    options = ScoringSection(bootstrap_samples=100)
    found = evaluate([system], conversations, options, None).evaluation
    systems = found.systems
    table = score_table(found)
    for metric in quality_metrics():
        assert systems["tuned"].scores[metric.name]["best"].mean == 1
    for metric in (*shown_scores(found), *shown_shares(found)):
        assert f" {metric.short_title}" in table
    guards = [m for m in METRICS if m.direction == "lower" and m.name in systems["human"].scores]
    assert set(shown_shares(found)) == set(guards)


def test_the_headline_is_among_the_first_metrics_wherever_it_stands() -> None:
    four = (ROUGE_1, ROUGE_2, ROUGE_L, ROUGE_LSUM)
    assert first_metrics(3, four, ROUGE_L) == (ROUGE_1, ROUGE_2, ROUGE_L)
    assert first_metrics(3, four, ROUGE_LSUM) == (ROUGE_1, ROUGE_2, ROUGE_LSUM)
    assert first_metrics(9, four, ROUGE_L) == four


def test_chrf_is_the_librarys_number() -> None:
    from sacrebleu import sentence_chrf

    conversations = make_conversations(10)
    pairs = [c.references for c in conversations] + [
        ("客户要求退款。", "客服同意退款。"),
        ("", "a"),
    ]
    scores = score_pairs([pair[0] for pair in pairs], [[pair[1]] for pair in pairs], (CHRF,))
    wanted = [sentence_chrf(summary, [reference]).score / 100 for summary, reference in pairs]
    assert scores.of("chrf").tolist() == wanted


@pytest.mark.parametrize("metric", METRICS, ids=[metric.name for metric in METRICS])
def test_a_metric_says_all_that_a_reader_needs(metric: Metric) -> None:
    assert metric.about.endswith(".")
    assert metric.low < metric.high
    assert metric.name.isidentifier()
    assert len(metric.short_title) <= 9  # a column of the terminal


def test_the_page_has_the_table_of_all_metrics() -> None:
    table = "\n".join(metrics_table())
    page = PAGE.read_text(encoding="utf-8")
    assert table in page, "docs/evaluation.md does not match the metrics: run 'make docs'"
    assert table.count("\n") == len(METRICS) + 1


def test_scores_lie_in_the_range_of_their_metric() -> None:
    conversations = make_conversations(8)
    odd = ["", " ", "no no no no no no no no", "Peter paid $1,000 to x@y.org", "客户要求退款" * 9]
    summaries = [*odd, *(c.references[0] for c in conversations[5:])]
    system = System("tuned", "judged", summaries, ["stop", "length", None] + ["stop"] * 5)
    metrics = [metric for metric in METRICS if "model" not in metric.needs]
    scores = score_systems([system], conversations, metrics, {})["tuned"]
    for metric in metrics:
        values = scores[metric.name].values
        present = values[~np.isnan(values)]
        assert present.size, metric.name
        assert ((present >= metric.low) & (present <= metric.high)).all(), metric.name
