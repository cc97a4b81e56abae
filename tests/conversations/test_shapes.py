"""Records as other tools and data sets write them: who spoke, what was said, and the references."""

import html
import json
import random

import pytest
from pydantic import ValidationError

from job.config.data_sections import ReadingSection, reading_identity
from job.conversations.read import read_conversations, read_strictly
from job.conversations.record import Conversation, Turn

AUTO = ReadingSection()
AS_WRITTEN = ReadingSection(roles="as_written")
HELLO = (Turn("customer", "My kettle leaks."), Turn("agent", "I send a new one."))
SHAREGPT = [
    {"from": "human", "value": "My kettle leaks."},
    {"from": "gpt", "value": "I send a new one."},
]
CHAT = [
    {"role": "user", "content": "My kettle leaks."},
    {"role": "assistant", "content": "I send a new one."},
]


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def read_one(put, record, reading=AUTO):
    (conversation,) = read_strictly([put("day.jsonl", lines(record))], reading)
    return conversation


def detail_of(put, record, reading=AUTO):
    (bad,) = read_conversations([put("day.jsonl", lines(record))], reading)
    return bad.detail


def test_sharegpt_is_read_by_from_and_value(put):
    one = read_one(put, {"id": "s", "conversations": SHAREGPT, "summary": "S.", "model": "x"})
    assert (one.turns, one.references, one.metadata) == (HELLO, ("S.",), {"model": "x"})


@pytest.mark.parametrize("turns", [SHAREGPT, CHAT, [{"speaker": "user", "text": HELLO[0].text}]])
@pytest.mark.parametrize("key", ["conversations", "messages", "turns"])
def test_known_keys_of_a_turn_count_in_any_known_list(put, key, turns):
    assert read_one(put, {key: turns}).turns == HELLO[: len(turns)]


def test_turns_of_the_config_name_list_speaker_and_text(put):
    events = [
        {"author": {"type": "user"}, "body": "My kettle leaks."},
        {"author": {"type": "assistant"}, "body": "I send a new one."},
    ]
    reading = ReadingSection(turns={"list": "chat.events", "role": "author.type", "text": "body"})
    one = read_one(put, {"id": 1, "chat": {"events": events}, "shop": "Oslo"}, reading)
    assert (one.turns, one.metadata) == (HELLO, {"shop": "Oslo"})
    flat = ReadingSection(turns={"role": "author.type", "text": "body"})
    assert read_one(put, {"turns": events}, flat).turns == HELLO
    assert "correct data.turns.list" in detail_of(put, {"chat": {}}, reading)
    assert "turn 1 has no 'body'; found author; correct data.turns.text" in detail_of(
        put, {"turns": [{"author": {"type": "user"}}]}, flat
    )


def test_a_key_with_a_dot_in_it_is_no_path(put):
    reading = ReadingSection(turns={"list": "chat.events"})
    assert read_one(put, {"chat.events": SHAREGPT}, reading).turns == HELLO


def test_texts_with_speakers_are_turns(put):
    one = read_one(put, {"turns": ["Customer: My kettle leaks.", "Agent: I send a new one."]})
    assert one.turns == HELLO
    assert "turn 2 is text: line 1" in detail_of(put, {"turns": ["Customer: Hi", "no speaker"]})


def test_last_assistant_message_is_the_reference(put):
    reading = ReadingSection(reference="last_assistant")
    messages = [{"role": "system", "content": "Summarize."}, *CHAT]
    summary = {"role": "assistant", "content": "Kettle leaks."}
    asked = {"role": "user", "content": "And now?"}
    one = read_one(put, {"messages": [*messages, asked, summary]}, reading)
    assert (one.turns, one.references) == (
        (*HELLO, Turn("customer", "And now?")),
        ("Kettle leaks.",),
    )
    none = read_one(put, {"messages": [*messages, asked]}, reading)
    assert (none.turns, none.references) == ((*HELLO, Turn("customer", "And now?")), ())


def test_a_completion_apart_from_its_prompt_ends_the_chat(put):
    prompt = [{"role": "user", "content": "Customer: My kettle leaks.\nAgent: I send a new one."}]
    completion = [{"role": "assistant", "content": "S."}]
    record = {"prompt": prompt, "completion": completion, "summary": "T."}
    columns = {"conversation": "prompt", "summary": ["completion", "summary"]}
    one = read_one(put, record, ReadingSection(columns=columns, reference="last_assistant"))
    assert (one.turns, one.references) == (HELLO, ("S.", "T."))
    refused = detail_of(put, record, ReadingSection(columns=columns))
    assert refused == "completion holds an object, wanted text"


def test_a_prompt_of_text_may_begin_with_an_instruction(put):
    reading = ReadingSection(
        reference="last_assistant",
        columns={"conversation": "prompt", "summary": "completion"},
    )
    transcript = "Customer: My kettle leaks.\nAgent: I send a new one."
    one = read_one(put, {"prompt": f"Sum it up.\n\n{transcript}", "completion": "S."}, reading)
    assert (one.turns, one.references) == (HELLO, ("S.",))
    bare = {"prompt": "My kettle leaks.", "completion": "S."}
    assert "no line of the text names" in detail_of(put, bare, reading)


@pytest.mark.parametrize(
    "before",
    [
        "",
        "Summarize the conversation.\n\n",
        "Summarize this conversation:\n",
        "Do it.\nTranscript:\n",
    ],
)
def test_the_user_message_of_a_fine_tuning_line_is_the_transcript(put, before):
    transcript = "Customer: My kettle leaks.\nAgent: I send a new one."
    record = {
        "messages": [
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": before + transcript},
            {"role": "assistant", "content": "Kettle leaks."},
        ]
    }
    for roles in ({}, "as_written"):
        reading = ReadingSection(reference="last_assistant", roles=roles, drop_roles=["developer"])
        one = read_one(put, record, reading)
        assert [turn.text for turn in one.turns] == [turn.text for turn in HELLO]
        assert one.references == ("Kettle leaks.",)


def test_a_speaker_on_a_line_of_its_own_is_no_heading(put):
    user = {"role": "user", "content": "Ann:\nHi\nBob:\nYes\nAnn:\nGood"}
    reading = ReadingSection(reference="last_assistant", roles="as_written")
    one = read_one(put, {"messages": [user, {"role": "assistant", "content": "S."}]}, reading)
    assert one.turns == (Turn("Ann", "Hi"), Turn("Bob", "Yes"), Turn("Ann", "Good"))


def test_a_user_message_without_a_transcript_is_refused(put):
    user = {"role": "user", "content": "The kettle leaks since Monday."}
    record = {"messages": [user, {"role": "assistant", "content": "S."}]}
    reading = ReadingSection(reference="last_assistant")
    assert "no line of the text names a speaker" in detail_of(put, record, reading)


@pytest.mark.parametrize(
    "transcript",
    [
        "[00:04] Customer: My kettle leaks.\n[00:09] Agent: I send a new one.",
        "Customer 00:04\nMy kettle leaks.\nAgent 00:09\nI send a new one.",
        "Customer - My kettle leaks.\nAgent - I send a new one.",
        "WEBVTT\n\n00:01.000 --> 00:04.000\n<v Customer>My kettle leaks.\n\n"
        "00:05.000 --> 00:07.000\n<v Agent>I send a new one.",
        "1\n00:00:01,000 --> 00:00:04,000\nCustomer: My kettle leaks.\n\n"
        "2\n00:00:05,000 --> 00:00:07,000\nAgent: I send a new one.",
    ],
)
@pytest.mark.parametrize("before", ["", "Sum up, in two lines.\n\n", "Sum up\nTranscript:\n"])
def test_a_transcript_of_any_form_may_follow_an_instruction(put, before, transcript):
    user = {"role": "user", "content": before + transcript}
    record = {"messages": [user, {"role": "assistant", "content": "S."}]}
    assert read_one(put, record, ReadingSection(reference="last_assistant")).turns == HELLO


def test_dropped_roles_are_labels_or_their_roles(put):
    labels = ("developer", "System", "user", "tool", "client", "assistant")
    turns = [{"role": label, "content": label} for label in labels]
    for dropped, kept in (
        (["tool", "developer", "system"], ["user", "client", "assistant"]),
        (["TOOL", "Developer", "customer"], ["System", "assistant"]),
        (["tool", "developer", "client"], ["System", "user", "assistant"]),
    ):
        for roles in ({}, "as_written"):
            reading = ReadingSection(drop_roles=dropped, roles=roles)
            one = read_one(put, {"messages": turns}, reading)
            assert [turn.text for turn in one.turns] == kept


def test_dropped_roles_count_in_every_shape(put):
    reading = ReadingSection(drop_roles=["bot", "agent"])
    for record in (
        {"dialogue": "Customer: Hi\nBot: Wait\nmore\nAgent: Yes"},
        {"log": [{"user utterance": "Hi", "system response": "Wait"}]},
        {"utt": ["Hi", "Wait"], "speaker": ["customer", "bot"]},
        {"meeting_transcripts": [{"speaker": "user", "content": "Hi"}]},
        {
            "requester_id": 1,
            "comments": [{"author_id": 1, "body": "Hi"}, {"author_id": 2, "body": "x"}],
        },
        {
            "source": {"author": {"type": "user"}, "body": "Hi"},
            "conversation_parts": [{"author": {"type": "bot"}, "body": "x"}],
        },
    ):
        assert read_one(put, record, reading).turns == (Turn("customer", "Hi"),)


def test_an_unknown_role_is_rejected_with_three_remedies(put):
    detail = detail_of(put, {"turns": [{"role": "#Person1#", "text": "Hi"}]})
    for remedy in (
        'data.roles: {"#Person1#": agent}',
        'data.drop_roles: ["#Person1#"]',
        "data.roles: as_written",
    ):
        assert remedy in detail


def test_qmsum_has_the_general_answer_as_its_reference(put):
    record = {
        "topic_list": [{"topic": "x"}],
        "general_query_list": [{"query": "Summarize.", "answer": "Kettles."}, {"answer": "More."}],
        "specific_query_list": [{"query": "Who?", "answer": "Ann."}],
        "meeting_transcripts": [{"speaker": "Project Manager", "content": "Let us begin."}],
    }
    one = read_one(put, record, AS_WRITTEN)
    assert one.turns == (Turn("Project Manager", "Let us begin."),)
    assert (one.references, one.metadata) == (("Kettles.",), {})
    assert read_one(put, record | {"general_query_list": []}, AS_WRITTEN).references == ()
    assert read_one(put, record | {"summary": "Own."}, AS_WRITTEN).references == ("Own.",)


def test_mediasum_pairs_speakers_with_their_utterances(put):
    record = {
        "id": "N-1",
        "utt": ["Welcome.", "Hi."],
        "speaker": ["ANN, HOST", "BOB"],
        "summary": "S.",
    }
    one = read_one(put, record, AS_WRITTEN)
    assert one.turns == (Turn("ANN, HOST", "Welcome."), Turn("BOB", "Hi."))
    assert one.references == ("S.",)
    detail = detail_of(put, record | {"utt": ["Welcome."]})
    assert detail == "utt is a list of 1 and speaker a list of 2, wanted two lists of one length"


def zendesk(*comments, **more):
    return {"id": 7, "subject": "Kettle", "requester_id": 1, "comments": list(comments)} | more


def test_zendesk_comments_are_turns_of_requester_and_agents(put):
    one = read_one(
        put,
        zendesk(
            {"author_id": 1, "public": True, "body": "My kettle leaks.", "html_body": "<p>x</p>"},
            {"author_id": 2, "public": False, "body": "He is angry."},
            {"author_id": 2, "public": True, "html_body": "<p>I send&nbsp;a <b>new</b> one.</p>"},
        ),
    )
    assert one.turns == HELLO
    assert (one.id, one.metadata) == ("7", {"subject": "Kettle", "requester_id": 1})


def test_zendesk_authors_are_known_by_users_or_refused(put):
    comments = [{"author_id": id, "body": "x"} for id in (1, 2, 3)]
    users = [{"id": 2, "role": "end-user"}, {"id": 3, "role": "admin"}]
    ticket = zendesk(*comments, collaborator_ids=[2])
    assert "who wrote comment 2 (author_id 2)" in detail_of(put, ticket)
    for complete in (ticket | {"users": users}, ticket | {"collaborator_ids": [], "users": users}):
        assert [turn.role for turn in read_one(put, complete).turns] == [
            "customer",
            "customer",
            "agent",
        ]
    del ticket["requester_id"]
    assert "needs its requester_id" in detail_of(put, ticket)


def test_zendesk_authors_of_neither_side_have_their_ids_on_request(put):
    comments = [{"author_id": id, "body": "x"} for id in (7, 9)]
    ticket = {"id": 1, "comments": comments}
    named = ReadingSection(roles={"7": "customer", "9": "agent"})
    assert [turn.role for turn in read_one(put, ticket, named).turns] == ["customer", "agent"]
    kept = ReadingSection(roles="as_written")
    assert [turn.role for turn in read_one(put, ticket, kept).turns] == ["7", "9"]
    assert 'data.roles: {"7": customer}' in detail_of(put, ticket)


def test_intercom_is_its_source_and_the_parts_that_a_customer_sees(put):
    def part(author, body, part_type="comment"):
        return {"part_type": part_type, "body": body, "author": {"type": author, "id": "5"}}

    parts = [
        part("bot", "<p>One moment.</p>"),
        part("admin", "<p>He is angry.</p>", "note"),
        part("admin", None, "assignment"),
        part("admin", '<p class="x">I send a&amp;b:</p><ul><li>one</li></ul>'),
        part("lead", "<p>Thanks</p><script>alert(1)</script>", "open"),
    ]
    record = {
        "type": "conversation",
        "id": "9",
        "source": {"author": {"type": "user"}, "body": "<p>My kettle<br>leaks.</p>"},
        "conversation_parts": {"type": "conversation_part.list", "conversation_parts": parts},
    }
    one = read_one(put, record)
    assert one.turns == (
        Turn("customer", "My kettle\nleaks."),
        Turn("agent", "One moment."),
        Turn("agent", "I send a&b:\none"),
        Turn("customer", "Thanks"),
    )
    assert (one.id, one.metadata) == ("9", {"type": "conversation"})


def test_several_summary_columns_are_several_references(put):
    reading = ReadingSection(columns={"summary": ["summary1", "summary2", "summary3"]})
    row = {"dialogue": "Customer: Hi", "summary1": "A.", "summary2": "B.", "summary3": "C."}
    one = read_one(put, row | {"topic1": "x"}, reading)
    assert (one.references, one.metadata) == (("A.", "B.", "C."), {"topic1": "x"})
    csv = put("t.csv", "dialogue,summary1,summary2,summary3\nCustomer: Hi,A.,,C.\n")
    assert read_strictly([csv], reading)[0].references == ("A.", "C.")
    del row["summary2"]
    assert detail_of(put, row, reading).startswith("has no 'summary2', which data.columns names")


def test_a_named_summary_counts_in_lists_of_turns_too(put):
    reading = ReadingSection(columns={"summary": "gist"})
    for record in (
        {"messages": CHAT},
        {"conversations": SHAREGPT},
        {"log": [{"user utterance": "x"}]},
    ):
        assert read_one(put, record | {"gist": "S."}, reading).references == ("S.",)
        assert read_one(put, record | {"summary": "S."}, reading).references == ("S.",)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"columns": {"id": ["a", "b"]}}, "only summary may be several columns"),
        ({"columns": {"summary": []}}, "at least 1 item"),
        ({"turns": {"list": "x"}, "format": "messages"}, "remove format, or turns.list"),
        ({"turns": {"speaker": "x"}}, "list.*role.*text"),
        ({"drop_roles": [""]}, "at least 1 character"),
    ],
)
def test_keys_that_contradict_each_other_are_mistakes(keys, message):
    with pytest.raises(ValidationError, match=message):
        ReadingSection.model_validate(keys)


def test_keys_at_their_defaults_do_not_change_what_an_output_is_known_by():
    """Outputs that were finished before the keys existed have the same identity still."""
    assert not {"turns", "reference", "drop_roles"} & set(reading_identity(AUTO))
    assert reading_identity(ReadingSection(drop_roles=["tool"]))["drop_roles"] == ["tool"]


def test_a_table_may_have_a_column_called_turns(put):
    row = {"dialogue": "Customer: My kettle leaks.\nAgent: I send a new one.", "turns": 2}
    assert read_one(put, row).turns == HELLO


SPOKEN = ("Hi", "It's “late”", 'a "q"', "x\\n{y}", "é 😊", "Note: [1]", "")


def random_shape(rng):
    """A record in a random shape, with what is in it: the turns as written, and the references."""
    turns = [
        (rng.choice(["user", "assistant", "Human"]), rng.choice(SPOKEN) + str(number))
        for number in range(rng.randrange(1, 5))
    ]
    references = [rng.choice(SPOKEN[:-1]) for _ in range(rng.randrange(3))]
    record = {"id": rng.choice([None, "", rng.randrange(10**9)]), "summary": references}
    shape = rng.choice([qmsum, mediasum, zendesk_ticket, intercom, turn_list, turn_list, turn_list])
    more, turns = shape(turns, rng)
    return record | more, turns, references


def turn_list(turns, rng):
    pairs = [("role", "text"), ("role", "content"), ("from", "value"), ("speaker", "content")]
    role, text = rng.choice(pairs)
    items = [{"weight": 1, role: label, text: said} for label, said in turns]
    if text == "content" and rng.random() < 0.3:
        items = [item | {text: [{"type": "text", "text": item[text]}]} for item in items]
    if rng.random() < 0.2:  # as pandas writes it into a cell
        items = str(items)
    return {rng.choice(["turns", "messages", "conversations"]): items}, turns


def qmsum(turns, _rng):
    items = [{"speaker": label, "content": said} for label, said in turns]
    queries = {"general_query_list": [], "specific_query_list": [{"query": "x", "answer": "y"}]}
    return {"meeting_transcripts": items, **queries}, turns


def mediasum(turns, _rng):
    return {"utt": [said for _, said in turns], "speaker": [label for label, _ in turns]}, turns


def zendesk_ticket(turns, rng):
    comments, spoken = [], []
    for _, said in turns:
        author, public = rng.choice([1, 2]), rng.random() < 0.8
        comments.append({"author_id": author, rng.choice(["body", "plain_body"]): said})
        comments[-1] |= {"public": public} if not public or rng.random() < 0.5 else {}
        spoken += [("customer" if author == 1 else "agent", said)] if public else []
    hello = {"author_id": 1, "body": "Hello"}
    return {"requester_id": 1, "comments": [hello, *comments]}, [("customer", "Hello"), *spoken]


def intercom(turns, rng):
    parts, spoken = [], []
    for _, said in turns:
        author, hidden = rng.choice(["user", "admin", "bot"]), rng.random() < 0.2
        kind = rng.choice(["note", "assignment"]) if hidden else rng.choice(["comment", "close"])
        body = f"<p>{html.escape(said)}</p>"
        parts.append({"part_type": kind, "author": {"type": author}, "body": body})
        spoken += [] if hidden else [("customer" if author == "user" else "agent", said)]
    source = {"author": {"type": "user"}, "body": "<p>Hello</p>"}
    listed = parts if rng.random() < 0.5 else {"type": "list", "conversation_parts": parts}
    record = {"source": source, "conversation_parts": listed}
    return record, [("customer", "Hello"), *spoken]


def damaged(record, rng):
    """The record with a key left out, or a value that nobody wants."""
    key = rng.choice([key for key in record if key != "id"])
    if rng.random() < 0.5:
        return {name: value for name, value in record.items() if name != key}
    value = rng.choice([None, 5, {}, [None], [[]], [{}], [{"role": None, "content": 3}]])
    return record | {key: value}


def test_random_records_come_back_whole_or_as_one_error_each(put):
    rng = random.Random(11)
    reading = ReadingSection(roles="as_written")
    for _ in range(40):
        shaped = [random_shape(rng) for _ in range(8)]
        compact = {"separators": (",", ":")} if rng.random() < 0.5 else {}
        text = "".join(json.dumps(record, **compact) + "\n" for record, _, _ in shaped)
        if rng.random() < 0.3:
            text = json.dumps([record for record, _, _ in shaped], ensure_ascii=False)
        ids = [str(record["id"]) for record, _, _ in shaped if record["id"]]
        if len(ids) > len(set(ids)):
            continue
        outcomes = read_strictly([put("all", text)], reading)
        for one, (_, turns, references) in zip(outcomes, shaped, strict=True):
            assert [tuple(turn) for turn in one.turns] == turns, one
            assert list(one.references) == references
        broken = [damaged(record, rng) for record, _, _ in shaped]
        for outcome in read_conversations([put("all", lines(*broken))], reading):
            assert isinstance(outcome, Conversation) or outcome.detail
        assert len(list(read_conversations([put("all", lines(*broken))], reading))) == len(broken)


def test_speakers_may_be_numbers_as_recorders_count_them(put):
    record = {"utterances": [{"speaker": 0, "text": "Hello"}, {"speaker": 1, "text": "Hi"}]}
    numbered = ReadingSection(turns={"list": "utterances"}, roles={"0": "agent", "1": "customer"})
    assert read_one(put, record, numbered).turns == (Turn("agent", "Hello"), Turn("customer", "Hi"))
    assert 'data.roles: {"0": agent}' in detail_of(
        put, record, ReadingSection(turns={"list": "utterances"})
    )


@pytest.mark.parametrize("kind", ["text", "input_text", "output_text"])
def test_parts_of_text_are_read_under_the_names_that_apis_give_them(put, kind):
    part = [{"type": kind, "text": "My kettle leaks."}]
    assert read_one(put, {"messages": [{"role": "user", "content": part}]}).turns == HELLO[:1]
