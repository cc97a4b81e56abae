"""Claims about held-out pairs: who wins, what passes the gate, and what never does."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from job.config.data_sections import ReadingSection
from job.config.gate_sections import MIN_CONVERSATIONS, PairsSection
from job.config.sections import StorageSection
from job.errors import DamagedError, DataError, MissingError
from job.evaluation.distances import changed_share
from job.evaluation.gate import GateResult
from job.evaluation.gate_screen import gate_screen
from job.evaluation.held_out_pairs import (
    HeldOutPair,
    HeldOutPairs,
    check_usable,
    find_held_out_pairs,
    read_held_out_pairs,
)
from job.evaluation.win_rate import PairsResult, agreement_name, compare_on_pairs, with_pairs
from tests.evaluation.conftest import make_conversations

SECTION = PairsSection(input="pairs.jsonl")
PASSED = GateResult(True, "tuned", "rougeL", 60, "compared", "a" * 64)
COUNT = 60
TALKS = make_conversations(COUNT)


def shown(number):
    return f"Hello and welcome, the customer asks about parcel {number % 7} and waits."


def edited(number):
    return f"The customer asks about parcel {number % 7} of order {number} and waits."


def draft(number, rng):
    """A summary that is as near to the edit as to what was shown, by chance."""
    return edited(number) if rng.random() < 0.5 else shown(number)


def pairs_of(count=COUNT, swapped=lambda number: False):
    """Return one pair of each conversation; those that are swapped have what was shown as edit."""
    pairs = []
    for number in range(count):
        texts = (edited(number), shown(number))
        pairs.append(HeldOutPair(number, *(texts[::-1] if swapped(number) else texts)))
    return HeldOutPairs(TALKS[:count], pairs)


def judged(pairs, own, others, state="compared", opponent="champion", **section):
    """Return the verdict of a gate that was passed but for the pairs."""
    result = compare_on_pairs(pairs, own, others, opponent, 200)
    verdict = replace(PASSED, champion_state=state)
    return with_pairs(verdict, SECTION.model_copy(update=section), result), result


def checks_of(verdict):
    return {check.rule: check for check in verdict.checks}


OWN = [edited(number) for number in range(COUNT)]
CHAMPION = [shown(number) for number in range(COUNT)]


def test_who_writes_what_agents_write_passes_with_rate_and_distances():
    verdict, result = judged(pairs_of(), OWN, CHAMPION)
    assert verdict.passed
    assert (result.wins, result.ties, result.losses) == (COUNT, 0, 0)
    assert result.win_rate.mean == 1
    assert result.win_rate.low < 1, "no number of conversations proves certainty"
    assert result.judged_distance == 0
    assert result.opponent_distance == result.shown_distance == result.gain.mean
    assert result.shown_again == COUNT, "the champion has written what agents had corrected"
    checks = checks_of(verdict)
    assert checks["win rate"].sentence == (
        "tuned is nearer to agents' edits than the champion: it wins 60 of 60 pairs, with 0 ties: "
        "a win rate of 1.00 [0.94, 1.00] on 60 conversations"
    )
    assert checks["agreement"].sentence.startswith(
        "tuned is as near to agents' edits as the champion: agents would change 0% of its words"
    )


def test_by_shuffled_verdicts_a_challenger_hardly_ever_passes():
    """Of edits that are drawn by a coin, the interval is above a half in about 2.5 of 100."""
    passed = 0
    for seed in range(40):
        rng = random.Random(seed)
        coin = [rng.random() < 0.5 for _ in range(COUNT)]
        verdict, _ = judged(pairs_of(swapped=coin.__getitem__), OWN, CHAMPION)
        passed += verdict.passed
    assert passed <= 3, passed


def test_equal_summaries_are_ties_and_do_not_pass():
    verdict, result = judged(pairs_of(), CHAMPION, CHAMPION)
    assert not verdict.passed
    assert (result.wins, result.ties, result.losses) == (0, COUNT, 0)
    assert result.win_rate.mean == 0.5
    check = checks_of(verdict)["win rate"]
    assert check.sentence.startswith("tuned is not shown to be nearer to agents' edits")
    assert check.sentence.endswith("and the interval must be above 0.5")
    assert checks_of(verdict)["agreement"].passed, "it is no farther"


def test_a_few_wins_among_ties_prove_nothing():
    own = [edited(number) if number < 4 else shown(number) for number in range(COUNT)]
    verdict, result = judged(pairs_of(), own, CHAMPION)
    assert result.losses == 0
    assert not verdict.passed
    own = [edited(number) if number < 15 else shown(number) for number in range(COUNT)]
    assert judged(pairs_of(), own, CHAMPION)[0].passed


def test_several_pairs_of_one_conversation_are_one():
    """Ten agents who correct one conversation alike are no proof of sixty."""
    once = pairs_of()
    repeated = HeldOutPairs(TALKS, [*once.pairs, *([once.pairs[0]] * 200)])
    rng = random.Random(3)
    own = [edited(0), *(draft(number, rng) for number in range(1, COUNT))]
    _, alone = judged(once, own, CHAMPION)
    _, often = judged(repeated, own, CHAMPION)
    assert often.pairs == alone.pairs + 200
    assert often.win_rate == alone.win_rate
    assert often.gain == alone.gain


def test_fewer_conversations_than_the_minimum_never_pass():
    few = MIN_CONVERSATIONS - 1
    verdict, _ = judged(pairs_of(few), OWN, CHAMPION)
    assert not verdict.passed
    for check in verdict.checks:
        assert f"fewer than {MIN_CONVERSATIONS}" in check.sentence
    with pytest.raises(DataError, match=r"they are of 39 conversations, and fewer than 40 never"):
        check_usable(pairs_of(few))
    check_usable(pairs_of(MIN_CONVERSATIONS))


def test_a_lower_win_rate_may_be_allowed_but_not_farther_summaries():
    verdict, _ = judged(pairs_of(), CHAMPION, CHAMPION, min_win_rate=0.45)
    assert verdict.passed
    farther = [f"{shown(number)} Nothing else is known." for number in range(COUNT)]
    verdict, result = judged(pairs_of(), farther, CHAMPION, min_win_rate=0)
    assert result.gain.high < 0
    assert [check.rule for check in verdict.failures] == ["win rate", "agreement"]
    assert checks_of(verdict)["agreement"].sentence.endswith("the interval must be from -0.01")


def test_without_a_champion_the_base_is_the_opponent_and_the_check_says_so():
    for state, why in (("none yet", "is none yet"), ("not named", "is none named")):
        verdict, _ = judged(pairs_of(), OWN, CHAMPION, state, "base without adapter")
        assert verdict.passed
        sentence = checks_of(verdict)["win rate"].sentence
        assert "nearer to agents' edits than the base: " in sentence
        assert sentence.endswith(f"(the base is the opponent, as there {why} as champion)")


def test_the_champion_itself_is_compared_with_nobody():
    result = PairsResult("champion", COUNT, COUNT)
    verdict = with_pairs(replace(PASSED, champion_state="itself"), SECTION, result)
    assert verdict.passed
    assert [check.passed for check in verdict.checks] == [None, None]


def test_an_opponent_without_summaries_lets_nobody_pass():
    result = PairsResult("champion", COUNT, COUNT, why="the champion could not be scored (X)")
    verdict = with_pairs(PASSED, SECTION, result)
    assert not verdict.passed
    assert [check.sentence.split(": ")[1] for check in verdict.failures] == [result.why] * 2


def test_what_champions_lost_before_is_taken_from_the_margin():
    slightly = [shown(number) + (" Yes." if number % 20 == 0 else "") for number in range(COUNT)]
    result = compare_on_pairs(pairs_of(), slightly, CHAMPION, "champion", 200)
    section = SECTION.model_copy(update={"min_win_rate": 0, "margin": 0.02})
    assert with_pairs(PASSED, section, result).passed
    verdict = with_pairs(PASSED, section, result, used=0.02)
    (check,) = verdict.failures
    assert check.name == agreement_name("champion")
    assert check.sentence.endswith("as 0.020 were lost before")


def test_a_result_is_read_again_as_it_was_written():
    _, result = judged(pairs_of(), OWN, CHAMPION)
    assert PairsResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    unknown = PairsResult("champion", 3, 2, why="it failed")
    assert PairsResult.from_json(unknown.to_json()) == unknown
    with pytest.raises(DamagedError, match="evaluate again"):
        PairsResult.from_json({"opponent": "champion"})


def test_the_screen_has_rate_and_gain_with_what_they_must_be():
    verdict, _ = judged(pairs_of(), OWN, CHAMPION)
    lines = gate_screen(verdict, "s3://b/adapter", None).splitlines()
    (rate,) = (line for line in lines if "than the champion" in line)
    assert rate.split()[-4:] == ["[0.940,", "1.000]", "above", "0.5"]
    (gain,) = (line for line in lines if "as the champion" in line)
    assert gain.endswith("from -0.01")
    refused, _ = judged(pairs_of(), CHAMPION, OWN)
    screen = gate_screen(refused, "s3://b/adapter", "s3://b/champion.json")
    assert "Agents would not have kept its summaries" in screen
    assert max(map(len, screen.splitlines())) <= 100


def test_distance_is_the_share_of_words_that_change():
    assert changed_share("One two three.", "one TWO, three") == 0
    assert changed_share("", "") == 0
    assert changed_share("one two three four", "one two") == 0.5
    assert changed_share("one", "") == 1


# Files


@pytest.fixture
def write(tmp_path):
    """Write rows of pairs, as `recap feedback` does, and return a section that names them."""

    def rows_to(rows, name="test.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return PairsSection(input=str(path))

    return rows_to


def row(number, talk=None, **fields):
    talk = talk or TALKS[number]
    return {
        "id": f"c-{number}",
        "turns": [{"role": turn.role, "text": turn.text} for turn in talk.turns],
        "chosen": edited(number),
        "rejected": shown(number),
        "metadata": {"week": "2026-W05"},
    } | fields


def read(section, train=(), most=None, **reading):
    reading = ReadingSection.model_validate(reading)
    return read_held_out_pairs(section, reading, StorageSection(), most, train)


def test_pairs_are_read_by_conversation_whatever_columns_the_data_has(write):
    rows = [row(0), row(1), row(0, id="c-0-2", chosen="Another edit of order 0.")]
    found = read(write(rows), columns={"conversation": "talk", "summary": "note"}, format="table")
    assert [talk.id for talk in found.conversations] == ["c-0", "c-1"]
    assert [pair.conversation for pair in found.pairs] == [0, 1, 0]
    assert found.pairs[0] == (0, edited(0), shown(0))


def test_pairs_of_trl_and_openai_are_read(write):
    talk = "Customer: My kettle leaks.\nAgent: We send a new one."
    pairs = [
        {"prompt": f"Summarize.\n{talk}", "chosen": "A new kettle.", "rejected": "A call."},
        {
            "input": {"messages": [{"role": "user", "content": talk}]},
            "preferred_output": [{"role": "assistant", "content": "A new kettle."}],
            "non_preferred_output": [{"role": "assistant", "content": "A call."}],
        },
        {
            "chosen": f"{talk}\nSummary: A new kettle.",
            "rejected": f"{talk}\nSummary: A call.",
        },
    ]
    found = read(write(pairs))
    assert found.pairs == [(0, "A new kettle.", "A call.")] * 3
    assert [turn.role for turn in found.conversations[0].turns] == ["customer", "agent"]


def test_a_sample_of_conversations_has_all_their_pairs(write):
    rows = [row(number) for number in range(20)]
    rows += [row(number, id=f"c-{number}-2", chosen="Another edit.") for number in range(20)]
    section = write(rows)
    found = read(section, most=5)
    assert len(found.conversations) == 5
    assert sorted(pair.conversation for pair in found.pairs) == sorted([*range(5)] * 2)
    assert found == read(section, most=5), "the sample is seeded"
    for pair in found.pairs:
        order = found.conversations[pair.conversation].id.removeprefix("c-")
        assert pair.rejected == shown(int(order))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"id": "a", "turns": [], "chosen": "x"},
            "has no 'rejected'; found id, turns, chosen; held-out pairs have chosen and rejected",
        ),
        ({"id": "a", "turns": [], "summary": "x"}, "method: sft learns from references; pairs/ of"),
        (row(0, chosen="!"), "chosen has no word"),
        (["a"], "the record is text, wanted an object"),
        (row(0, turns=[]), "1 of 1 records are no conversations"),
    ],
)
def test_a_row_that_is_no_pair_is_named_with_what_was_wanted(write, line, message):
    with pytest.raises(DataError, match=r"test\.jsonl line 1") as caught:
        read(write([line]))
    assert message in str(caught.value)


def test_broken_json_and_missing_files_are_errors_before_a_training(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(row(1)) + '\n{"id": "a",\n')
    with pytest.raises(DataError, match=r"test\.jsonl line 2: not JSON"):
        read(PairsSection(input=str(path)))
    path.write_text("id,summary\na,b\n")
    with pytest.raises(DataError, match=r"no column 'chosen' .*; held-out pairs have chosen and"):
        read(PairsSection(input=str(path)))
    with pytest.raises(MissingError):
        read(PairsSection(input=str(tmp_path / "gone.jsonl")))


def test_training_on_the_conversations_of_pairs_is_found_exact_and_near(write):
    talks = []
    for number in range(MIN_CONVERSATIONS):
        own = " ".join(f"word{number}x{place}" for place in range(60))
        talks.append(TALKS[number]._replace(turns=(TALKS[0].turns[0]._replace(text=own),)))
    section = write([row(number, talk) for number, talk in enumerate(talks)])
    assert not read(section, talks[:0]).leaks

    turn = talks[1].turns[0]
    near = talks[1]._replace(id="near", turns=(turn._replace(text=turn.text + " Thanks!"),))
    exact = talks[0]._replace(id="exact", turns=(talks[0].turns[0]._replace(role="agent"),))
    other = TALKS[5]._replace(id="other")
    found = read(section, [near, exact, other])
    assert [(leak.train_id, leak.validation_id, leak.kind) for leak in found.leaks] == [
        ("exact", "c-0", "exact"),
        ("near", "c-1", "near"),
    ]
    assert found.why_unusable() == (
        "2 training conversations repeat one of the held-out pairs (1 exactly, 1 nearly), so a "
        "win would be no proof"
    )
    with pytest.raises(DataError, match=r"take them out of the training data: exact = c-0; near ="):
        check_usable(found)


def test_a_sample_hides_no_leak(write):
    section = write([row(number) for number in range(MIN_CONVERSATIONS)])
    for number in range(0, MIN_CONVERSATIONS, 9):
        assert read(section, [TALKS[number]], most=1).leaks


def test_at_the_end_of_a_training_unreadable_pairs_are_only_a_reason(tmp_path):
    section = PairsSection(input=str(tmp_path / "gone.jsonl"))
    found = find_held_out_pairs(section, ReadingSection(), StorageSection(), None, ())
    assert found.why_unusable() == "they could not be read (MissingError)"


def test_points_and_distances_agree_on_drawn_texts():
    """Where every pair is of its own conversation, the rate is wins and half the ties."""
    rng = random.Random(0)
    own = [draft(number, rng) for number in range(COUNT)]
    others = [draft(number, rng) for number in range(COUNT)]
    _, result = judged(pairs_of(), own, others)
    assert result.win_rate.mean == pytest.approx((result.wins + result.ties / 2) / COUNT)
    assert result.gain.mean == pytest.approx(result.opponent_distance - result.judged_distance)
    assert np.sign(result.gain.mean) == np.sign(result.wins - result.losses)
