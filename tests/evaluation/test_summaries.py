import json
from pathlib import Path

import pytest

from job.errors import DataError, ExitCode
from job.evaluation.inputs import read_summaries
from job.storage.open import InputFile, list_inputs
from tests.evaluation.conftest import make_conversations

PLACE = "summaries.jsonl"
GOOD = [
    f'{{"id": "c-00{number}", "summary": "text {number}", "finish_reason": "stop"}}'
    for number in range(3)
]


def file_of(folder: Path, lines: list[str | bytes]) -> list[InputFile]:
    raw = [line.encode() if isinstance(line, str) else line for line in lines]
    (folder / PLACE).write_bytes(b"\n".join(raw))
    return list_inputs([str(folder / PLACE)])


def test_summaries_are_matched_by_id_whatever_their_order(tmp_path: Path) -> None:
    lines = [GOOD[2], "", GOOD[0].encode(), GOOD[1]]
    found = read_summaries(file_of(tmp_path, lines), PLACE, make_conversations(3))
    assert found == {f"c-00{number}": (f"text {number}", "stop") for number in range(3)}


def test_a_number_as_id_is_the_text_of_the_number(tmp_path: Path) -> None:
    conversation = make_conversations(1)[0]
    renamed = type(conversation)(
        "41", conversation.turns, conversation.source, conversation.references
    )
    assert read_summaries(file_of(tmp_path, ['{"id": 41, "summary": "x"}']), PLACE, [renamed]) == {
        "41": ("x", None)
    }


def test_a_conversation_without_reference_needs_no_summary(tmp_path: Path) -> None:
    conversation = make_conversations(4)[3]
    bare = type(conversation)(conversation.id, conversation.turns, conversation.source)
    assert "c-003" not in read_summaries(
        file_of(tmp_path, GOOD), PLACE, [*make_conversations(3), bare]
    )


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (
            GOOD[:1],
            r"summaries.jsonl: 2 conversations without a summary: 'c-001', 'c-002'; "
            "add a summary of each, or remove them from input",
        ),
        (
            [*GOOD, '{"id": "x", "summary": ""}'],
            r"summaries.jsonl: 1 ids that no conversation has: 'x'",
        ),
        (
            [*GOOD, GOOD[1]],
            r"summaries.jsonl line 4: id 'c-001' has a summary already, "
            r"at .*summaries.jsonl line 2; keep one",
        ),
        (["{"], r"summaries.jsonl line 1: not JSON"),
        (['["a"]'], r"line 1: got list; wanted an object with id and summary"),
        (
            ['{"id": "c-000", "text": "x"}'],
            r"line 1: got the keys id, text; wanted an object with id and summary",
        ),
        (
            ['{"id": "c-000", "summary": null}'],
            r"line 1: id is str and summary is NoneType; wanted text for both",
        ),
        (['{"id": true, "summary": "x"}'], r"line 1: id is bool"),
        (
            [b'{"id": "\xff", "summary": "x"}'],
            r"line 1: byte 0xff .* is not UTF-8.*wanted one object with id and summary a line",
        ),
    ],
)
def test_a_wrong_file_is_named_with_its_lines_and_ids(
    tmp_path: Path, lines: list[str | bytes], wanted: str
) -> None:
    with pytest.raises(DataError, match=wanted) as caught:
        read_summaries(file_of(tmp_path, lines), PLACE, make_conversations(3))
    assert caught.value.exit_code == ExitCode.DATA


def test_of_other_conversations_a_file_of_production_may_have_several(tmp_path: Path) -> None:
    again = '{"id": "x", "summary": "of an earlier night"}'
    place = file_of(tmp_path, [*GOOD, again, again])
    conversations = make_conversations(3)
    found = read_summaries(place, PLACE, conversations, may_have_more=True)
    assert list(found) == [conversation.id for conversation in conversations]


def test_a_message_lists_a_few_of_many_ids(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"9 conversations without a summary: ('c-00\d', ){5}…;"):
        read_summaries(
            file_of(tmp_path, [json.dumps({"id": "c-000", "summary": "x"})]),
            PLACE,
            make_conversations(10),
        )


def test_conversations_that_share_an_id_cannot_be_matched(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ids that several conversations share: 'c-000'"):
        read_summaries(
            file_of(tmp_path, GOOD), PLACE, [*make_conversations(3), *make_conversations(1)]
        )
