"""One transcript a file: WebVTT, SRT and text, the id from the name, the summary from beside it."""

import gzip
import random

import pytest

from job.config.data_sections import ReadingSection
from job.conversations.doubts import Doubts
from job.conversations.pieces import Size, cut, read_piece
from job.conversations.read import read_conversations, read_strictly
from job.conversations.record import Conversation, Reject, Source, Turn
from job.errors import DataError
from job.storage.open import list_inputs

AUTO = ReadingSection()
NAMES = ReadingSection(roles="as_written")
VTT = """WEBVTT - a call
Kind: captions

STYLE
::cue { color: red }

NOTE
Agent: this is no speech

intro
00:00:01.000 --> 00:00:04.000 align:start position:0%
<v Agent>Good morning,</v>

2
00:04.000 --> 00:05.000
<v.loud.first Agent>how can I <i>help</i>?

00:04.500 --> 00:07.000
<v Customer>My kettle &amp; its lid leak:
it is new. <v Agent>Oh.
"""
SRT = """1
00:00:01,000 --> 00:00:04,000
Agent: Good morning,
how can I help?

2
00:00:04,500 --> 00:00:07,000
Customer: My kettle leaks:

it is new.
3
00:00:07,500 --> 00:00:09,000
<i>and the lid.</i>
"""
TEXT = "Agent: Good morning, how can I help?\nCustomer: My kettle leaks."
SAID = [("agent", "Good morning, how can I help?"), ("customer", "My kettle leaks.")]


def turns_of(conversation):
    return [tuple(turn) for turn in conversation.turns]


def read_one(file, reading=AUTO):
    (conversation,) = read_strictly([file], reading)
    return conversation


def test_webvtt_has_voices_and_joins_cues_of_one_speaker(put):
    conversation = read_one(put("call-1.vtt", VTT))
    assert (conversation.id, conversation.source.line) == ("call-1", 1)
    assert turns_of(conversation) == [
        ("agent", "Good morning, how can I help?"),
        ("customer", "My kettle & its lid leak: it is new."),
        ("agent", "Oh."),
    ]


def test_srt_names_speakers_in_its_text_and_loses_no_line(put):
    assert turns_of(read_one(put("a.srt", SRT))) == [
        ("agent", "Good morning, how can I help?"),
        ("customer", "My kettle leaks: it is new. and the lid."),
    ]


@pytest.mark.parametrize("content", [VTT, SRT, TEXT])
@pytest.mark.parametrize("change", [
    str.encode, lambda text: text.encode("utf-8-sig"),
    lambda text: text.replace("\n", "\r\n").encode(),
    lambda text: gzip.compress(text.encode()),
])  # fmt: skip
@pytest.mark.parametrize("name", ["Call 1 ü.txt", "Call 1 ü", "Call 1 ü.vtt.gz", "Call 1 ü.srt"])
def test_what_a_transcript_is_shows_in_its_content(put, content, change, name):
    conversation = read_one(put(name, change(content)))
    assert conversation.id == "Call 1 ü"
    assert [turn.role for turn in conversation.turns][:2] == ["agent", "customer"]


@pytest.mark.parametrize(
    "text",
    ["[00:00:01] Agent: Good morning, how can I help?\n[00:00:04] Customer: My kettle leaks.",
     "Agent  00:01\nGood morning, how can I help?\n\nCustomer  00:04\nMy kettle leaks.\n",
     "[Agent]: Good morning, how can I help?\n[Customer]: My kettle leaks.",
     "**Agent:** Good morning, how can I help?\n**Customer:** My kettle leaks.",
     "\n\nAgent - Good morning, how can I help?\nCustomer - My kettle leaks."],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.txt", "a.log"])
def test_text_is_a_transcript_whatever_its_form(put, text, name):
    assert turns_of(read_one(put(name, text))) == SAID


@pytest.mark.parametrize("name", ["t.txt", "t", "t.vtt"])
@pytest.mark.parametrize("content", [
    'id,dialogue\na,"Agent: Hi\nCustomer: Ho"\n',
    "id\tdialogue\na\tAgent: Hi\n", "dialogue\nAgent: Hi\n",
    '[\n  {\n    "id": "a",\n    "dialogue": "Agent: Hi"\n  }\n]\n',
    '{\n  "id": "a",\n  "dialogue": "Agent: Hi"\n}\n',
    '{"id": "a", "dialogue": "Agent: Hi"}\n', '[{"id": "a", "dialogue": "Agent: Hi"}]',
])  # fmt: skip
def test_tables_and_json_stay_what_they_are_under_any_name(put, name, content):
    assert read_one(put(name, content)).turns[0] == ("agent", "Hi")


@pytest.mark.parametrize("name", ["job.ini", "query.sql", "mail.eml", "load.py", "a.properties"])
def test_where_any_label_counts_the_name_must_fit_too(put, name):
    with pytest.raises(DataError, match=r"data\.format: transcript"):
        list(read_conversations([put(name, "From: mira\nTo: tom\n")], NAMES))


@pytest.mark.parametrize("name", ["call", "v1.2/call", "call.TXT", "call.001", "call.log"])
def test_a_name_of_a_transcript_fits(put, name, tmp_path):
    (tmp_path / "v1.2").mkdir()
    (called,) = read_conversations([put(name, "Mira: Hello\nTom: Hi\n")], NAMES)
    assert [turn.role for turn in called.turns] == ["Mira", "Tom"]


def test_the_format_of_the_config_wins(put):
    transcript = ReadingSection(format="transcript")
    assert turns_of(read_one(put("a.csv", TEXT), transcript)) == SAID
    with pytest.raises(DataError, match="no column"):
        read_strictly([put("b.txt", TEXT)], ReadingSection(format="table"))
    (bad,) = read_conversations([put("c.json", '{"turns": []}')], transcript)
    assert "has no speaker: '{" in bad.detail


@pytest.mark.parametrize(
    ("name", "content", "reason", "wanted"),
    [
        ("a.vtt", "", "nothing_to_summarize", "it has no turns"),
        ("a.vtt", "WEBVTT\n\nNOTE nothing\n", "nothing_to_summarize", "it has no turns"),
        ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n", "invalid_record", "'Hello'"),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nHello\n", "invalid_record", "'Hello'"),
        ("a.txt", "Hello there\n", "invalid_record", "leave it out by data.exclude"),
        ("a.txt", b"Agent: caf\xe9\nCustomer: x", "invalid_record", "is not UTF-8"),
        ("a.txt", "Mira: Hello\nTom: Hi", "invalid_record", "data.roles: as_written"),
    ],
)
def test_a_file_without_a_conversation_is_bad_and_has_its_id(put, name, content, reason, wanted):
    (bad,) = read_conversations([put(name, content)], AUTO)
    assert isinstance(bad, Reject)
    assert (bad.id, bad.reason) == ("a", reason)
    assert wanted in bad.detail


def test_a_cue_without_a_voice_is_counted_and_an_unnamed_change_is_bad(put):
    cue = "00:0{0}.000 --> 00:0{0}.900\n{1}\n"
    cues = (cue.format(1, "<v Agent>Hi"), cue.format(3, "{}"), cue.format(5, "{}"))
    some = "\n".join(("WEBVTT\n", *cues))
    assert read_one(put("a.vtt", some.format("Hello", "<v Customer>Ho"))).doubts == ("'Hello'",)
    captions = some.replace("<v Agent>", "AGENT: ")
    (bad,) = read_conversations([put("b.vtt", captions.format(">> Hello", "Yes"))], AUTO)
    assert "may be another speaker's" in bad.detail
    good = read_one(put("c.vtt", captions.format(">> CUSTOMER: Hello", "Yes")))
    assert turns_of(good) == [("agent", "Hi"), ("customer", "Hello Yes")]


def test_captions_in_a_cell_are_read_too(put):
    csv = 'id,transcript\na,"' + VTT.replace('"', '""') + '"\n'
    conversation = read_one(put("t.csv", csv))
    assert [turn.role for turn in conversation.turns] == ["agent", "customer", "agent"]


def test_the_summary_is_in_a_file_beside_its_transcript(put):
    files = [
        put("a.vtt", VTT),
        put("a.summary.txt", "\ufeffKettle leaks.\r\n"),
        put("b.txt", TEXT),
        put("c.d.txt.gz", gzip.compress(TEXT.encode())),
        put("c.d.summary.txt", "Two\nlines."),
        put("b.summary.TXT", " "),
    ]
    read = read_strictly(files, AUTO)
    assert [one.id for one in read] == ["a", "b", "c.d"]
    assert [one.references for one in read] == [("Kettle leaks.",), (), ("Two\nlines.",)]


def test_an_unreadable_summary_or_one_without_transcript_is_reported(put):
    (bad,) = read_conversations([put("a.txt", TEXT), put("a.summary.txt", b"caf\xe9")], AUTO)
    assert "its summary a.summary.txt: byte 0xe9" in bad.detail
    files = [put("t.txt", "dialogue\nAgent: Hi\n"), put("t.summary.txt", "x")]
    with pytest.raises(DataError, match=r"named like the summary of t\.txt"):
        list(read_conversations(files, AUTO))
    (alone,) = read_conversations([put("z.summary.txt", "Kettle leaks.")], AUTO)
    assert isinstance(alone, Reject)


def test_one_name_in_two_folders_is_a_repeated_id(put, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    _, bad = read_conversations([put("x/a.txt", TEXT), put("y/a.vtt", VTT)], AUTO)
    assert bad.detail == "id 'a' is already used at x/a.txt line 1"


@pytest.mark.parametrize("name", ["a.vtt", "a.txt", "a.vtt.gz"])
def test_a_transcript_is_one_piece(tmp_path, name):
    content = (VTT * 3).replace("\nWEBVTT", "\nx") if "vtt" in name else TEXT
    data = content.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if "gz" in name else data)
    (file,) = list_inputs([str(tmp_path / name)])
    (piece,) = cut(file, AUTO, Size(1, 1))
    assert (piece.kind, piece.records) == ("whole", 1)
    assert list(read_piece(file, piece, AUTO)) == list(read_conversations([file], AUTO))


NAMED = (
    "Ana",
    "Dr. Bo van Dijk",
    "Sean O’Neil",
    "王小明",
    "Мария Петрова",
    "Müller & Co",
    "Agent 7",
    "Lee, Kim",
    "😊 Mia",
)
STYLES = ("plain", "bracket", "behind", "heading", "chat", "bold", "vtt", "srt")
WORDS = (
    *("kettle", "leaks", "since", "10:15", "https://x.co/a", "ok?"),
    *("3.50", "- and", "(maybe)", "Well,", "no: never"),
)


def sentence(rng):
    return " ".join(["Now", rng.choice(WORDS[:-1]), *rng.choices(WORDS, k=3)])


def written(rng, said, style):
    """The conversation as a recorder writes it, some sentences over several lines."""
    lines, second = [], 0
    for name, text in said:
        second += rng.randrange(1, 9)
        clock = f"00:{second // 60:02}:{second % 60:02}"
        text = text.replace(" ", "\n", 1) if rng.random() < 0.3 and style != "srt" else text
        lines.append({
            "plain": f"{name}: {text}",
            "bracket": f"[{clock}] {name}: {text}",
            "behind": f"{name} ({clock}): {text}",
            "heading": f"{name}  {clock}\n{text}\n",
            "chat": f"12/03/24, {clock[3:]} - {name}: {text}",
            "bold": f"**{name}:** {text}",
            "vtt": f"{clock}.000 --> {clock}.900\n<v {name.replace('&', '&amp;')}>{text}\n",
            "srt": f"{len(lines) + 1}\n{clock},000 --> {clock},900\n{name}: {text}\n",
        }[style])  # fmt: skip
    return ("WEBVTT\n\n" if style == "vtt" else "") + "\n".join(lines)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_random_calls_come_back_with_their_speakers_or_not_in_silence(put, style, newline):
    rng = random.Random(f"{style}{newline!r}")
    whole = 0
    for _ in range(60):
        names = rng.sample(NAMED, rng.randrange(2, 5))
        said = [(rng.choice(names), sentence(rng)) for _ in range(rng.randrange(2, 12))]
        text = written(rng, said, style).replace("\n", newline)
        (found,) = read_conversations([put("a.txt", text)], NAMES)
        if isinstance(found, Reject):
            assert "'" in found.detail
            continue
        merged = joined(said) if style in ("vtt", "srt") else said
        same = [(turn.role, " ".join(turn.text.split())) for turn in found.turns] == merged
        assert same or found.doubts
        whole += same
    assert whole >= 55


def joined(said):
    turns = []
    for name, text in said:
        if turns and turns[-1][0] == name:
            turns[-1] = (name, f"{turns[-1][1]} {text}")
        else:
            turns.append((name, text))
    return turns


def test_doubts_are_one_warning_with_counts_and_examples(put, caplog):
    doubtful = "Agent: Hi\nCustomer: Ho\nNote: one\nPS: two\nAgent: Ok"
    files = [put(f"{number}.txt", doubtful) for number in range(5)] + [put("good.txt", TEXT)]
    assert len(list(read_conversations(files, AUTO))) == 6
    (warning,) = caplog.records
    fields = warning.fields
    assert (fields["conversations"], fields["lines"], len(fields["examples"])) == (5, 10, 3)
    assert fields["examples"][0] == "0.txt line 1: 'Note: one'"


def test_a_redacted_night_shows_sources_and_no_text():
    doubts = Doubts(shows_text=False)
    said = (Turn("agent", "Hi"),)
    doubts.add(Conversation("a", said, Source("a.txt", 1), doubts=("'Note: 4111 1111'",)))
    assert doubts.examples == ["a.txt line 1"]
