"""Claims about trainings on judged answers: what is read, left out, encoded and reported."""

import json
from dataclasses import asdict

import pytest

from job.config.commands import TrainConfig
from job.config.sections import GenerationSection, PromptSection
from job.conversations.record import Answer, Conversation, Source, Turn
from job.errors import DataError
from job.evaluation.evaluate import why_unscorable
from job.preflight.rows import example_text
from job.preflight.steps import rows_at_most
from job.prompt.encode import Encoder
from job.prompt.template import make_prompt
from job.telemetry import recorded_warnings
from job.training.answer_facts import AnswerFacts, answer_facts, answers_lines
from job.training.data_report import contents_lines, counts_lines, rows_lines
from job.training.examples import read_examples
from job.training.rows import RowSettings, check_rows, read_rows, write_rows
from job.training.stored_examples import read_examples_once
from job.training.usable import check_kinds, with_references
from tests.tiny import make_byte_tokenizer


def pairs(count, first=0):
    return [
        {
            "id": f"p{number}",
            "turns": [
                {"role": "customer", "text": f"The {number}th kettle of order {number * 7} leaks."},
                {"role": "agent", "text": f"We send number {number * 13} to you by day {number}."},
            ],
            "chosen": f"Kettle {number} is replaced, order {number * 7}.",
            "rejected": f"A call about kettle {number}.",
        }
        for number in range(first, first + count)
    ]


def thumbs(count, first=0):
    return [
        {"id": pair["id"], "turns": pair["turns"], "completion": pair["chosen"], "label": n % 3 > 0}
        for n, pair in enumerate(pairs(count, first))
    ]


@pytest.fixture
def config_of(monkeypatch, tmp_path):
    """Return the config of a training on some records of a kind, with further keys of data."""

    def make(kind, records, validation=None, **data):
        for name, some in (("train", records), ("validation", validation)):
            if some is not None:
                lines = "".join(json.dumps(record) + "\n" for record in some)
                data[name] = str(tmp_path / f"{name}.jsonl")
                (tmp_path / f"{name}.jsonl").write_text(lines)
        monkeypatch.setattr(TrainConfig, "judged", kind)
        return TrainConfig(run="r", model={"base": "b"}, data=data, output=str(tmp_path / "out"))

    return make


def encode(conversations, kind, tmp_path, **rules):
    tokenizer = make_byte_tokenizer()
    encoder = Encoder(make_prompt(PromptSection(), tokenizer), tokenizer, 1000)
    settings = RowSettings(encoder, "all", 0.1, judged=kind, **rules)
    write_rows(conversations, settings, tmp_path / "rows.arrow")
    return read_rows(tmp_path / "rows.arrow"), settings


def test_pairs_are_read_split_and_scored_against_what_was_chosen(config_of):
    examples = read_examples(config_of("pairs", pairs(40)))
    train, validation = list(examples.train), examples.validation
    assert len(train) + len(validation) == 40
    for one in (*train, *validation):
        assert [answer.is_wanted for answer in one.answers] == [True, False]
        assert one.references == (one.answers[0].text,)
    assert examples.scoring == validation


def test_thumbs_have_no_references_and_are_scored_by_a_test_set(config_of, tmp_path):
    (tmp_path / "test.jsonl").write_text(
        "".join(
            json.dumps({"id": p["id"], "turns": p["turns"], "summary": p["chosen"]}) + "\n"
            for p in pairs(5, 100)
        )
    )
    config = config_of("thumbs", thumbs(40), test=str(tmp_path / "test.jsonl"))
    examples = read_examples(config)
    assert not [one for one in examples.train if one.references]
    assert [one.id for one in examples.scoring] == [f"p{number}" for number in range(100, 105)]
    assert examples.digests().keys() == {"train", "validation", "test"}
    assert examples.uncleaned == examples.scoring
    assert "5 conversations, which score the adapter" in "\n".join(counts_lines(examples))


def test_answers_that_teach_nothing_are_left_out_with_their_reasons(config_of):
    records = pairs(30)
    records[3]["rejected"] = records[3]["chosen"]
    records[4]["chosen"] = ""
    records[5]["chosen"] = " "
    with recorded_warnings() as warnings:
        examples = read_examples(config_of("pairs", records, pairs(5, 50)))
    why = "both answers are equal (1), the preferred answer is empty (2)"
    assert examples.of_train.conversations == 27
    assert (examples.without_reference, examples.why_without) == (3, why)
    (fields,) = [fields for message, fields in warnings if "teach nothing" in message]
    assert (fields["records"], fields["of"], fields["why"]) == (3, 30, why)
    assert f"with answers that teach nothing: {why}" in counts_lines(examples)


def test_too_many_useless_answers_are_an_error(config_of):
    records = [record | {"label": None} for record in thumbs(20)] + thumbs(5, 50)
    with pytest.raises(DataError, match=r"20 of 25 records teach nothing \(no label \(20\); the"):
        read_examples(config_of("thumbs", records))


def test_thumbs_of_one_kind_are_an_error(config_of):
    records = [record | {"label": "up"} for record in thumbs(20)]
    with pytest.raises(DataError, match=r"each of the 1\d thumbs is up"):
        read_examples(config_of("thumbs", records))


def test_a_conversation_of_both_sides_is_an_error_as_for_references(config_of):
    again = pairs(1) + pairs(4, 50)
    with pytest.raises(DataError, match=r"1 training conversation is also in validation"):
        read_examples(config_of("pairs", pairs(20), again))
    examples = read_examples(config_of("pairs", pairs(20), again, overlap="drop"))
    assert examples.of_train.conversations == 19


def test_a_training_conversation_in_the_test_set_is_an_error(config_of, tmp_path):
    (tmp_path / "test.jsonl").write_text(json.dumps(pairs(1)[0] | {"summary": "Replaced."}) + "\n")
    config = config_of("pairs", pairs(20), pairs(5, 50), test=str(tmp_path / "test.jsonl"))
    with pytest.raises(DataError, match="also in validation or test"):
        read_examples(config)


def test_pairs_of_a_test_set_judge_a_reward_model(config_of, tmp_path):
    useless = pairs(1, 90)[0] | {"rejected": pairs(1, 90)[0]["chosen"]}
    lines = "".join(json.dumps(record) + "\n" for record in [*pairs(20, 70), useless])
    (tmp_path / "test.jsonl").write_text(lines)
    config = config_of("pairs", pairs(20), pairs(5, 50), test=str(tmp_path / "test.jsonl"))
    limits = config.limits.model_copy(update={"max_unreferenced_fraction": 1.0})
    config = config.model_copy(update={"method": "reward", "limits": limits})
    examples = read_examples(config)
    assert len(examples.scoring) == 20
    assert all(len(each.answers) == 2 for each in examples.scoring)

    (tmp_path / "test.jsonl").write_text(json.dumps(useless) + "\n")
    with pytest.raises(DataError, match=r"data.test: none of its 1 records teaches anything: "):
        read_examples(config)


def test_other_answers_to_the_same_conversations_are_other_data(config_of):
    before = read_examples(config_of("pairs", pairs(20), pairs(5, 50))).digests()
    changed = [pair | {"rejected": "Something else."} for pair in pairs(20)]
    after = read_examples(config_of("pairs", changed, pairs(5, 50))).digests()
    assert before["train"] != after["train"]
    assert before["validation"] == after["validation"]


@pytest.mark.parametrize(("kind", "make"), [("pairs", pairs), ("thumbs", thumbs)])
def test_a_machine_that_read_answers_before_finds_the_same(config_of, kind, make):
    config = config_of(kind, make(30), make(6, 50))
    read = read_examples(config)
    for _ in range(2):
        found = read_examples_once(config)
        assert found.stored_as
        assert list(found.train) == list(read.train)
        assert (found.validation, found.of_train) == (read.validation, read.of_train)
    assert rows_at_most(config, found) == 30


def test_rows_of_pairs_have_the_columns_of_trl(config_of, tmp_path):
    examples = read_examples(config_of("pairs", pairs(12), pairs(5, 50)))
    rows, settings = encode(examples.train, "pairs", tmp_path)
    encoder = settings.encoder
    for row, conversation in zip(rows.dataset, examples.train, strict=True):
        assert row.keys() == {"prompt_ids", "chosen_ids", "rejected_ids"}
        for answer, name in zip(conversation.answers, ("chosen", "rejected"), strict=True):
            whole = row["prompt_ids"] + row[f"{name}_ids"]
            assert whole == encoder.encode_example(conversation, answer.text).input_ids
    counts = rows.counted
    lengths = [
        (len(r["prompt_ids"]) + len(r["chosen_ids"]), len(r["prompt_ids"]) + len(r["rejected_ids"]))
        for r in rows.dataset
    ]
    assert counts.rows == 12
    assert (
        counts.tokens == sum(map(sum, lengths)) == sum(n * c for n, c in rows.by_tokens().items())
    )
    assert counts.longest == max(map(max, lengths))
    assert rows.lengths() == [2 * max(each) for each in lengths]


def test_rows_of_thumbs_have_the_columns_of_trl(config_of, tmp_path):
    examples = read_examples(config_of("thumbs", thumbs(12), thumbs(5, 50)))
    rows, _ = encode(examples.train, "thumbs", tmp_path)
    assert rows.dataset.column_names == ["prompt_ids", "completion_ids", "label"]
    assert rows.dataset["label"][:] == [one.answers[0].is_wanted for one in examples.train]


def judged(*answers):
    return Conversation("c", (Turn("customer", "Late."),), Source("f", 1), answers=answers)


def test_pairs_that_do_not_fit_are_excluded_up_to_the_limit(tmp_path):
    fitting = judged(Answer("yes", True), Answer("no", False))
    too_long = judged(Answer("yes", True), Answer("no " * 400, False))
    rows, settings = encode([fitting] * 9 + [too_long], "pairs", tmp_path)
    check_rows("train", rows.counted, settings)
    assert (rows.counted.rows, rows.counted.excluded) == (9, 1)
    rows, settings = encode([fitting] * 8 + [too_long] * 2, "pairs", tmp_path)
    with pytest.raises(DataError, match="2 of 10 rows of train do not fit"):
        check_rows("train", rows.counted, settings)


def test_an_example_of_a_pair_shows_what_is_learned_and_what_is_avoided(tmp_path, config_of):
    config = config_of("pairs", pairs(3))
    rows, settings = encode([judged(Answer("yes", True), Answer("no", False))], "pairs", tmp_path)
    text = example_text(rows.dataset[0], settings.encoder, config)
    assert text.endswith("⟪yes</s>⟫⟨no</s>⟩")
    for is_wanted, shown in ((True, "⟪yes</s>⟫"), (False, "⟨yes</s>⟩")):
        rows, settings = encode([judged(Answer("yes", is_wanted))], "thumbs", tmp_path)
        assert example_text(rows.dataset[0], settings.encoder, config).endswith(shown)


@pytest.mark.parametrize(
    ("chosen", "rejected", "warns"), [(12, 6, True), (6, 12, True), (7, 6, False), (6, 6, False)]
)
def test_a_bias_of_length_is_a_warning(chosen, rejected, warns):
    both = (Answer("word " * chosen, True), Answer("word " * rejected, False))
    for conversations in ([judged(*both)] * 20, [judged(each) for each in both * 20]):
        lines = answers_lines(answer_facts(conversations))
        assert f"{chosen} words" in lines[0]
        assert any(line.startswith("warning: what is wanted is") for line in lines) == warns


def test_opposite_verdicts_on_one_conversation_are_a_warning():
    pair = (Answer("It is late.", True), Answer("A call.", False))
    opposite = (Answer("A  call.", True), Answer("It is late.", False))
    facts = answer_facts([judged(*pair), judged(*opposite)])
    assert AnswerFacts.from_json(json.loads(json.dumps(asdict(facts)))) == facts
    (line,) = (line for line in answers_lines(facts) if line.startswith("warning"))
    assert line.startswith("warning: 2 answers are wanted in one record and not in another")
    elsewhere = judged(*opposite)._replace(turns=(Turn("customer", "Early."),))
    assert answer_facts([judged(*pair), elsewhere]).contradictions == 0


def test_thumbs_that_are_mostly_of_one_kind_are_a_warning():
    thumbs = [judged(Answer("a b c", True))] * 50 + [judged(Answer("a b d", False))] * 10
    lines = answers_lines(answer_facts(thumbs))
    assert lines[0] == "thumbs: 50 up (median of 3 words), 10 down (3 words)"
    assert lines[1].startswith("warning: 5.0 times as many of one kind")


def test_a_report_of_references_has_no_word_on_answers(config_of):
    records = [pair | {"summary": pair["chosen"]} for pair in pairs(20)]
    examples = read_examples(config_of(None, records))
    assert not [line for line in contents_lines("train", examples.of_train) if "chosen" in line]
    assert "0 without reference left out" in counts_lines(examples)[-1]


def test_a_split_without_any_reference_is_left_to_the_error_of_both():
    usable, why = with_references({"train": [judged()]}, 0.5)
    assert usable == {"train": []}
    assert "they have no other keys" in why
    usable, why = with_references(
        {"train": [judged()._replace(metadata={"chosen": "a", "rejected": "b"})]}, 0.5
    )
    assert why.endswith("; judged answers are for data.train with method: dpo")


def test_thumbs_that_cannot_be_scored_ask_for_a_test_set(config_of):
    examples = read_examples(config_of("thumbs", thumbs(20), thumbs(5, 50)))
    assert why_unscorable(examples.scoring, None) == (
        "nothing to score against: 0 of 5 conversations have a reference summary; thumbs have "
        "none: name conversations with references by data.test"
    )


@pytest.mark.parametrize(
    ("kind", "make", "words"),
    [("pairs", pairs, "5 chosen summaries are"), ("thumbs", thumbs, "5 judged summaries are")],
)
def test_what_generation_would_cut_is_named_as_it_is(config_of, tmp_path, kind, make, words):
    config = config_of(kind, make(5), make(5, 50))
    config = config.model_copy(update={"generation": GenerationSection(max_new_tokens=4)})
    rows, _ = encode(read_examples(config).train, kind, tmp_path)
    lines = rows_lines("train", rows.counted, rows.by_tokens(), config)
    assert any(line.startswith(f"warning: {words} longer than") for line in lines)


def test_one_kind_of_thumbs_that_is_left_for_an_overlap_is_refused(config_of):
    lines = thumbs(8)
    ups = [record for record in lines if record["label"]]
    config = config_of("thumbs", lines, ups, overlap="drop")
    with pytest.raises(DataError, match="each of the 3 thumbs is down"):
        read_examples(config)


def test_one_kind_of_thumbs_that_fits_into_rows_is_refused():
    with pytest.raises(DataError, match="each of the 2 thumbs is up"):
        check_kinds([True, True])
    check_kinds([True, False])
    with pytest.raises(DataError, match="the only thumb is down"):
        check_kinds([False])
