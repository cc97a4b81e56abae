import json

import pytest

from job.config.gate_sections import MIN_CONVERSATIONS
from job.config.scoring_sections import ScoringSection
from job.conversations.record import Conversation, Turn
from job.errors import DamagedError, DataError, ExitCode
from job.evaluation.evaluate import choose_conversations, evaluate
from job.evaluation.metrics.copying import COPIED
from job.evaluation.metrics.invented import INVENTED_NAMES, inventions
from job.evaluation.result import Evaluation, comparison_sentence, verdict, warnings
from job.evaluation.systems import Scored, System
from job.evaluation.table import score_table, shown_scores
from tests.evaluation.conftest import make_conversations, references_of

OPTIONS = ScoringSection()
HUMAN_AND_FLOORS = ["constant sentence", "lead-2", "first and last turn", "human"]


def score(
    summaries: dict[str, list[str]],
    conversations: list[Conversation],
    train_references: list[str] | None = None,
) -> Scored:
    """Evaluate systems by name, the first as the judged one."""
    judged, *others = summaries
    systems = [System(judged, "judged", summaries[judged])]
    systems += [System(name, "other", summaries[name]) for name in others]
    return evaluate(systems, conversations, OPTIONS, train_references)


def test_floors_and_people_are_scored_beside_the_given_systems(good: Evaluation) -> None:
    assert list(good.systems) == ["tuned", "base without adapter", *HUMAN_AND_FLOORS]
    assert good.judged == "tuned"
    assert set(good.differences) == {"base without adapter", *HUMAN_AND_FLOORS}
    assert good.conversations == 40
    assert good.references == 80


def test_a_system_that_reads_beats_every_other_one(good: Evaluation) -> None:
    assert {verdict(good, name) for name in good.differences} == {"beats"}
    assert [warning.split(" summaries")[0] for warning in warnings(good)] == ["40 of 40"]


def test_equal_conversations_and_summaries_that_are_references_are_told() -> None:
    conversations = make_conversations(12)
    conversations[3] = conversations[4]._replace(id="again")
    summaries = [f"{c.references[0]} Now." for c in conversations]
    found = score({"tuned": summaries}, conversations).evaluation
    assert found.repeated_conversations == 1
    assert warnings(found)[-1].startswith("1 conversation repeats an earlier one")
    summaries[:2] = [c.references[1] for c in conversations[:2]]
    found = score({"tuned": summaries}, conversations).evaluation
    assert warnings(found)[-1].startswith("2 of 12 summaries by tuned are a reference")


def test_one_conversation_is_told_without_an_interval() -> None:
    conversations = make_conversations(1)
    found = score({"tuned": ["The agent helps."]}, conversations).evaluation
    sentence = comparison_sentence(found, "lead-2")
    assert "[" not in sentence
    assert sentence.endswith("but 1 conversation is too few to tell (at least 40)")
    table = score_table(found)
    assert table.startswith("1 conversation with 2 references;")
    assert "±0.000" not in table


def test_a_difference_is_the_difference_of_the_means(good: Evaluation) -> None:
    tuned, floor = (
        good.systems[name].scores["rougeL"]["best"].mean for name in ("tuned", "constant sentence")
    )
    assert good.differences["constant sentence"]["rougeL"]["best"].mean == pytest.approx(
        tuned - floor
    )


def test_exchanging_two_systems_flips_every_sign() -> None:
    conversations = make_conversations(MIN_CONVERSATIONS)
    summaries = {
        "one": [c.references[0] for c in conversations],
        "two": [f"Here is Peter: {c.turns[0].text}" for c in conversations],
    }
    there = score(summaries, conversations).evaluation
    back = score(dict(reversed(summaries.items())), conversations).evaluation
    assert (there.judged, back.judged) == ("one", "two")
    differences = back.differences["one"]
    assert differences.keys() == there.differences["two"].keys() >= {"rougeL", "copied", "chrf"}
    for metric, by_aggregation in there.differences["two"].items():
        for aggregation, by in by_aggregation.items():
            other = differences[metric][aggregation]
            found = (other.mean, other.low, other.high)
            assert found == pytest.approx((-by.mean, -by.high, -by.low)), metric
    assert (verdict(there, "two"), verdict(back, "one")) == ("beats", "loses to")
    copied, names = COPIED, INVENTED_NAMES  # less of them is better
    assert {verdict(there, "two", metric) for metric in (copied, names)} == {"beats"}
    assert {verdict(back, "one", metric) for metric in (copied, names)} == {"loses to"}
    assert "Copied: " in " ".join(warnings(back))


def test_a_collapsed_model_is_seen_and_said(collapsed: Evaluation) -> None:
    tuned = collapsed.systems["tuned"]
    assert tuned.most_common == "The agent <b>helps</b>."
    assert tuned.most_common_share == 38 / 40
    said = " ".join(warnings(collapsed))
    assert "not shown to beat the constant sentence" in said
    assert "the same summary to 95% of the conversations" in said


def test_the_constant_sentence_cannot_be_told_apart_from_itself(
    good: Evaluation,
) -> None:
    conversations = make_conversations(40)
    sentence = good.systems["constant sentence"].most_common
    train = references_of(make_conversations(60, seed=1))
    same = score({"tuned": [sentence] * 40}, conversations, train).evaluation
    assert verdict(same, "constant sentence") == "cannot be told apart from"
    assert comparison_sentence(same, "constant sentence").endswith(
        "the constant sentence: +0.000 [+0.000, +0.000]"
    )


def test_few_conversations_prove_nothing() -> None:
    conversations = make_conversations(5)
    summaries = {"tuned": [c.references[0] for c in conversations]}
    few = score(summaries, conversations, ["Something else."]).evaluation
    assert verdict(few, "constant sentence") == "too few conversations"
    assert "5 conversations are too few to tell (at least 40)" in comparison_sentence(
        few, "constant sentence"
    )


def test_a_loss_is_told_with_the_bounds_the_right_way_round(good: Evaluation) -> None:
    conversations = make_conversations(40)
    summaries = {"tuned": ["nothing"] * 40, "base": references_of(conversations)[::2]}
    bad = score(summaries, conversations).evaluation
    sentence = comparison_sentence(bad, "base")
    assert sentence.startswith("tuned loses to base by ")
    assert "-" not in sentence


def test_without_training_references_one_is_left_out_for_each(
    collapsed: Evaluation,
) -> None:
    origin = collapsed.systems["constant sentence"].origin
    assert "no training references were given" in origin
    assert "leave one out" in origin


def test_the_constant_sentence_comes_from_training_where_there_is_one(good: Evaluation) -> None:
    training = references_of(make_conversations(60, seed=1))
    assert good.systems["constant sentence"].most_common in training
    assert good.systems["constant sentence"].most_common_share == 1


def test_one_conversation_without_training_has_no_constant_sentence() -> None:
    alone = score({"tuned": ["Hm."]}, make_conversations(1)).evaluation
    assert set(alone.systems) == {"tuned", "lead-2", "first and last turn", "human"}
    assert score_table(alone)


def test_conversations_without_reference_are_counted_and_left_out() -> None:
    conversations = make_conversations(12)
    conversations[3] = conversations[3]._replace(references=())
    summaries = [
        "wrong place" if row == 3 else c.references[0] for row, c in enumerate(conversations)
    ]
    found = score({"tuned": summaries}, conversations).evaluation
    assert (found.conversations, found.conversations_without_reference) == (11, 1)
    assert found.systems["tuned"].scores["rouge1"]["first"].mean == 1


def test_nothing_to_score_against_is_a_data_error_with_a_remedy() -> None:
    conversations = [c._replace(references=()) for c in make_conversations(3)]
    with pytest.raises(
        DataError, match=r"0 of 3 conversations have a reference.*a column summary"
    ) as caught:
        score({"tuned": ["a"] * 3}, conversations)
    assert caught.value.exit_code == ExitCode.DATA
    with pytest.raises(DataError, match="nothing to score against"):
        choose_conversations(conversations, 10)


def test_references_without_a_letter_are_an_error_when_all_are() -> None:
    numbers = [c._replace(references=("👍 5",)) for c in make_conversations(12)]
    wanted = r"s3://b/test.jsonl line 1\) have no word with a letter"
    with pytest.raises(DataError, match=wanted) as caught:
        score({"tuned": ["a"] * 12}, numbers)
    assert caught.value.exit_code == ExitCode.DATA
    with pytest.raises(DataError, match=wanted):
        choose_conversations(numbers, 10)


def test_references_without_a_letter_are_a_warning_when_some_are() -> None:
    conversations = make_conversations(12)
    mixed = [*conversations[:11], conversations[11]._replace(references=("5",))]
    found = score({"tuned": ["a"] * 12}, mixed).evaluation
    assert any("1 of 23 references have no word with a letter" in text for text in warnings(found))


def test_an_evaluation_names_the_tokenizer_of_its_words(good: Evaluation) -> None:
    assert good.to_json()["tokenizer"] == "unicode-words-1"


def test_chosen_conversations_have_references_and_keep_their_order(
    conversations: list[Conversation],
) -> None:
    with_gaps = [c._replace(references=()) if row % 2 else c for row, c in enumerate(conversations)]
    chosen = choose_conversations(with_gaps, 7)
    assert len(chosen) == 7
    assert all(conversation.references for conversation in chosen)
    assert [c.id for c in chosen] == sorted(c.id for c in chosen)
    assert chosen == choose_conversations(with_gaps, 7)
    assert chosen != with_gaps[:14:2], "they are drawn, and not the first"
    assert len(choose_conversations(with_gaps, None)) == 20


def test_an_evaluation_comes_back_from_json_as_it_was_written(good: Evaluation) -> None:
    plain = json.loads(json.dumps(good.to_json()))
    assert Evaluation.from_json(plain).to_json() == plain
    assert plain["versions"]["rouge-score"] == "0.1.2"
    assert plain["seed"] == 0


@pytest.mark.parametrize("plain", [{}, {"systems": {"tuned": 3}}, {"systems": None}])
def test_json_that_is_no_evaluation_is_damaged(plain: dict[str, object]) -> None:
    with pytest.raises(DamagedError, match="evaluate again") as caught:
        Evaluation.from_json(plain)
    assert caught.value.exit_code == ExitCode.DATA


def test_an_evaluation_of_before_is_refused_with_a_remedy(good: Evaluation) -> None:
    plain = good.to_json() | {"floors_from": {"lead": "the first and the last turn"}}
    for system in plain["systems"].values():
        del system["kind"], system["origin"]
        system["empty_summaries"] = 0
    with pytest.raises(DamagedError, match=r"not one that this version of recap reads.*again"):
        Evaluation.from_json(plain)


def test_an_evaluation_repeats_exactly(conversations: list[Conversation]) -> None:
    first, second = (
        score({"s": ["The agent helps."] * 40}, conversations).evaluation for _ in range(2)
    )
    assert first == second


def test_the_table_fits_a_terminal_and_shows_the_best_row_without_colour(
    good: Evaluation, collapsed: Evaluation
) -> None:
    lines = score_table(good).splitlines()
    assert all(len(line) <= 100 and line.isprintable() for line in lines)
    assert lines[3].startswith("> tuned")
    assert lines[3].count("*") == len(shown_scores(good))
    assert "tuned beats the constant sentence by" in score_table(good)
    table = score_table(collapsed).splitlines()
    assert all(len(line) <= 100 for line in table)
    assert any(line.startswith("! tuned gave the same summary") for line in table)


def test_the_table_has_long_names_whole(conversations: list[Conversation]) -> None:
    name = "a system with a very long name, as paths of adapters have it, and more of it"
    table = score_table(score({name: ["x"] * 40}, conversations).evaluation)
    assert all(len(line) <= 100 for line in table.splitlines())
    assert table.splitlines().count(f"> {name}") == 2, "above its scores, and above its shares"


def test_a_summary_is_measured_against_what_its_system_read() -> None:
    conversations = make_conversations(12)
    said = [Turn("customer", "a@shop.com, b@shop.com, c@shop.com"), Turn("agent", "Thanks, Joe")]
    read = [Turn("customer", "[EMAIL_1], [EMAIL_2], [EMAIL_3]"), Turn("agent", "Thanks, Joe")]
    given = conversations[3]._replace(turns=tuple(said))
    redacted = [each._replace(turns=tuple(read)) for each in conversations]
    for text, invented in {"Joe has [EMAIL_3].": [], "Joe has a@shop.com.": ["a@shop.com"]}.items():
        sample = System("tuned", "judged", [text] * 12, read=redacted).sample(3, given)
        found = inventions(sample)
        assert [*found.numbers, *(found.names or []), *found.contacts] == invented
        assert sample.references == given.references, "as people wrote them"
