"""Who said what: every way to name a speaker, and what never passes for another's in silence."""

import random

import pytest

from job.config.data_sections import ReadingSection
from job.conversations import transcript
from job.conversations.draft import RecordError
from job.conversations.speaker_lines import QUOTED_CHARACTERS, quote
from job.conversations.transcript import read_transcript

STRICT = ReadingSection()
NAMES = ReadingSection(roles="as_written")
TALK = [("agent", "Good morning."), ("customer", "My oven is dead."), ("agent", "I see.")]


def read(text, reading=STRICT):
    return [tuple(turn) for turn in read_transcript(text, reading).turns]


def doubts(text, reading=STRICT):
    return [line.strip("'") for line in read_transcript(text, reading).doubts]


def detail(text, reading=STRICT):
    with pytest.raises(RecordError) as caught:
        read_transcript(text, reading)
    return caught.value.detail


@pytest.mark.parametrize(
    "form",
    [
        "{0}: {2}",
        "[{1}] {0}: {2}",
        "({1}) {0}: {2}",
        "{1} {0}: {2}",
        "{1} - {0}: {2}",
        "{0} ({1}): {2}",
        "{0} [{1}]: {2}",
        "{0}, {1}: {2}",
        "{0} ({1})\n{2}",
        "{0}  {1}\n{2}\n",
        "{0} - {1}\n{2}",
        "**{0}** ({1})\n{2}",
        "[{1}] {0}\n{2}",
        "{1}\n{0}: {2}",
        "[{1}]\n\n{0}: {2}\n",
        "[{1} --> {1}] {0}: {2}",
        "{0}:\n{2}",
        "{0} - {2}",
        "{0} – {2}",
        "{0} — {2}",
        "{0} | {2}",
        "{0}\t{2}",
        "{0}> {2}",
        "<{0}> {2}",
        "[{0}] {2}",
        "[{0}]: {2}",
        "[{1}] <{0}> {2}",
        "**{0}:** {2}",
        "**{0}**: {2}",
        "__{0}__: {2}",
        "__{0}:__ {2}",
        "*{0}:* {2}",
        "<b>{0}:</b> {2}",
        "**{0}** {2}",
        "[{1}] **{0}:** {2}",
        "**[{1}] {0}:** {2}",
        "- {0}: {2}",
        "> {0}: {2}",
        "{0}：{2}",
        "{0}:{2}",
        "\u200e[{1}] {0}: {2}",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "clock",
    ["00:0{}", "0:0{}", "00:00:0{}", "00:00:0{}.200", "10:1{} AM", "10:1{}:02\u202fPM"],
)
def test_speakers_are_found_in_every_form_with_every_clock(form, clock):
    said = [("Agent", TALK[0][1]), ("Customer", TALK[1][1]), ("Agent", TALK[2][1])]
    turns = [form.format(name, clock.format(n), text) for n, (name, text) in enumerate(said)]
    assert read("\n".join(turns)) == TALK
    assert read("\r\n".join(turns).replace("\n", "\r\n").replace("\r\r", "\r")) == TALK
    assert read("\n".join(turns), NAMES) == said
    assert doubts("\n".join(turns)) == doubts("\n".join(turns), NAMES) == []


@pytest.mark.parametrize(
    "stamp",
    [
        "[12/03/24, 10:15:0{}] ",
        "12/03/24, 10:1{} - ",
        "12.03.2024, 10:1{} - ",
        "[2024-03-12 10:15:0{}] ",
        "2024-03-12T10:15:0{}Z ",
        "2024-03-12T10:15:0{}.123+01:00 ",
        "2024-03-12 10:1{} ",
        "[Tue 12 March, 10:1{} AM] ",
        "( {}s ) ",
        "( 1m {}s ) ",
        "[{}.00s - 7.20s] ",
        "[{}.00s -> 7.20s] ",
        "[{}.00 - 7.20] ",
        "[10h1{}] ",
        "[\uff11\uff10\uff1a1{}] ",
        "10:1{} UTC ",
        "12/3/24, 10:1{} a.\u00a0m. - ",
        "12.3.2024 klo 10.1{} - ",
        "12/03/24 10.1{} - ",
        "12. 3. 2024, 10:1{} - ",
        "2024. 3. 12. 오후 3:1{} - ",
        "2024/3/12 上午10:1{} - ",
        "2024年3月12日 10:1{} - ",
        "\u0661\u0662/\u0663/\u0662\u0660\u0662\u0664، \u0661\u0660:\u0661{} ص - ",
        "12/03/2024 à 10:1{} - ",
        "2024-03-12 10 h 1{} - ",
        "10:1{}, 12/03/2024 - ",
        "12/3/67 10:1{} น. - ",
        "12.03.24 \u0433., 10:1{} ч. - ",
        "12.03.2024 10:1{} Uhr - ",
        "Mar 12, 2024, 10:1{} AM - ",
        "12 mars 2024 10:1{} - ",
        "1{}. ",
    ],
)
def test_dates_seconds_and_numbers_before_a_speaker_are_no_part_of_it(stamp):
    turns = [f"{stamp.format(n)}{role.title()}: {text}" for n, (role, text) in enumerate(TALK)]
    assert read("\n".join(turns)) == TALK


@pytest.mark.parametrize(
    "name",
    [
        "Maria del Carmen Ruiz",
        "Sean O’Neil",
        "Agent/Bot",
        "Dr. Ann-Marie de la Cruz y Ortega",
        "Müller & Söhne",
        "Berg, Anna",
        "José (Ops)",
        "😊 Mia",
        "王小明",
        "Мария Ивановна Петрова",
        "عبد الله بن محمد",
        "राम कुमार",
        "SPEAKER_00",
        "#Person1#",
        "+49 170 1234567 Ben",
        "Jean-Luc d'Arc, Jr.",
        "john_doe",
        "Bob Due [EXT]",
        "Pablo Diego José Francisco de Paula Juan Nepomuceno María de los Remedios Ruiz",
    ],
)
@pytest.mark.parametrize("form", ["{}: {}", "[00:04] {}: {}", "{} (00:04): {}", "**{}:** {}"])
def test_a_name_of_any_length_and_script_opens_a_turn(name, form):
    said = [("Lena", "Did you call?"), (name, "I did."), ("Lena", "Good.")]
    assert read("\n".join(form.format(*one) for one in said), NAMES) == said
    twice = [("Customer", "Hello"), (name, "I did."), ("Agent", "Good."), (name, "Yes.")]
    assert repr(name)[1:-1][:9] in detail("\n".join(form.format(*one) for one in twice))


@pytest.mark.parametrize(
    "line",
    ["Maria del Carmen Ruiz: I send one.", "Sean O’Neil: I send one.", "Sean: I send one.",
     "Sean:I send one.", "Agent - I send one.", "Sean (00:04)", "Agent/Bot: I send one."],
)  # fmt: skip
def test_a_likely_speaker_beside_a_single_sure_one_is_a_bad_record(line):
    message = detail(f"Customer: My oven.\n{line}\nCustomer: Ok")
    assert f"line 2 of the conversation '{line}'" in message


@pytest.mark.parametrize(
    "line",
    [
        "Address: 12 High Street",
        "PS: please hurry",
        "Note: it is the left door",
        "Sean: I take over",
        "error code: 42",
        "Order number: 5512",
        "Supervisor (00:15)",
        "[00:15] and then it stopped",
        "Support - is it free?",
        "Sean:I take over",
        "joe.smith@shop.example: I take over",
        "+1 415 555 0123: I take over",
        "Dr. med. Hans Müller: I take over",
        "Ms Lee {Sales}: I take over",
        "Ana = Bob: I take over",
        "Ana (she/her):I take over",
        "the agent:I take over",
        "Ms. Patel's assistant：I take over",
    ],
)
def test_a_line_that_may_be_a_speakers_is_counted_and_shown(line):
    text = f"Agent: Hello\nCustomer: My oven.\n{line}\nAgent: I see."
    assert doubts(text) == [line]
    assert read(text)[1] == ("customer", f"My oven.\n{line}")


@pytest.mark.parametrize(
    "line",
    [
        "https://shop.example/a?b=1: see there",
        "Look at\nhttp://x.co/a at 12:30",
        "10:15 works for me",
        "10:15",
        "at 10:15: the tram",
        "mailto:a@b.co",
        "std::vector<int> x",
        "C:\\temp\\log.txt",
        "{'a': 1}",
        "It comes with three things that I did not order: a lamp, a box and a cable",
        "Well - I think so",
        "- a kettle\n- a lid",
        "16:9 screen",
        "Is this it? Yes: it is.",
        "return x",
        "See you Friday 10:15",
        "",
        "@shop.example: hello",
    ],
)
def test_ordinary_lines_go_on_with_the_turn_without_a_word(line):
    text = f"Agent: Hello\nCustomer: My oven.\n{line}\nmore\nAgent: I see."
    assert doubts(text) == []
    assert read(text)[1] == ("customer", f"My oven.\n{line}\nmore")


def test_a_heading_names_its_speaker_behind_the_first_hour_too():
    text = "Ana Lima   0:03\nHello.\n\nBob Due   59:15\nHi.\n\nCarl   1:02:10\nI am late."
    assert read(text, NAMES) == [("Ana Lima", "Hello."), ("Bob Due", "Hi."), ("Carl", "I am late.")]


@pytest.mark.parametrize("preface", ["Date: 2024-03-05", "Weekly sync: Monday"])
def test_headings_below_another_kind_of_line_open_turns(preface):
    text = f"{preface}\n\nAna Lima   0:03\nHello.\n\nBob Due   0:15\nHi.\n\nAna Lima   0:20\nOk."
    assert [role for role, _ in read(text, NAMES)][1:] == ["Ana Lima", "Bob Due", "Ana Lima"]


def test_the_date_above_a_meeting_is_no_speaker():
    text = "January 5, 2024, 3:00PM\n\nAna Lima   0:03\nHello.\n\nBob Due   0:15\nHi."
    assert read(text, NAMES) == [("Ana Lima", "Hello."), ("Bob Due", "Hi.")]


def test_headings_below_another_kind_of_heading_are_not_merged_in_silence():
    text = "Room Four 3:00 PM\n\nAna Lima   0:03\nHello.\n\nBob Due   0:15\nHi."
    assert "'Ana Lima 0:03' may be another speaker's" in detail(text, NAMES)


def test_nicknames_in_headings_are_speakers_or_counted():
    said = [("ana", "hello"), ("bob", "hi"), ("ana", "so"), ("bob", "well")]
    assert read("\n".join(f"{n} [0:0{i}]\n{t}" for i, (n, t) in enumerate(said)), NAMES) == said
    bare = "\n".join(f"{n} 0:0{i}\n{t}" for i, (n, t) in enumerate(said))
    assert "'bob 0:01' may be another speaker's" in detail(bare, NAMES)


def test_tags_of_html_are_no_speakers():
    assert "has no speaker" in detail("<p><b>Ana:</b> Hello</p>\n<p><b>Bob:</b> Hi</p>", NAMES)


def test_a_receipt_and_a_program_do_not_make_a_record_bad():
    receipt = "Item: Kettle\nPrice: 20.00\nItem: Lid\nPrice: 3.00\nTotal: 23.00"
    program = "def f(x):\n  for y in x: print(y)\n\nname: kettle\nimage: a:b"
    text = f"Customer: I got\n{receipt}\nAgent: And?\nCustomer: I ran\n{program}\nAgent: Ok"
    assert [role for role, _ in read(text)] == ["customer", "agent", "customer", "agent"]
    assert set(doubts(text)) >= {"Item: Kettle", "name: kettle"}


def test_an_unknown_name_that_is_surely_a_speaker_is_bad():
    for more in ("Mira: a\nAgent: b\nMira: c", "[00:04] Mira: a", "Supervisor: a", "Agent 2: a"):
        assert "is not one of customer" in detail(f"Agent: Hello\nCustomer: Hi\n{more}")


def test_the_first_line_without_a_speaker_is_quoted_with_its_time():
    assert "line 1 of the conversation has no speaker: 'Hello there'" in detail("Hello there")
    assert "no name and colon follow its time [00:04]" in detail("[00:04] my oven is dead")
    assert len(detail("x" * 10_000)) < QUOTED_CHARACTERS + 200


@pytest.mark.parametrize(
    "text",
    ["Agent: Hello. Customer: My oven. Agent: Ok", "Agent: Hello\\nCustomer: My oven",
     "Agent: Hello<br>Customer: My oven", "AGENT: Hello CUSTOMER: My oven"],
)  # fmt: skip
def test_turns_on_one_line_are_a_bad_record(text):
    assert "inside a line" in detail(text)


def test_a_turn_of_another_inside_a_line_is_counted():
    text = "Agent: Hi\nCustomer: It leaks. Agent: Since when?\nCustomer: Monday"
    assert doubts(text) == ["Customer: It leaks. Agent: Since when?"]
    text = "Ana: Hi\nBob: it leaks Ana: since when?\nBob: Monday"
    assert doubts(text, NAMES) == ["Bob: it leaks Ana: since when?"]
    text = "Agent: Hi\nCustomer: My Operating System: Linux, see: it is on\nAgent: Ok"
    assert doubts(text) == []


@pytest.mark.parametrize(
    "end",
    ["\\n", "\\r\\n", "<br>", "<br />", "</p><p>", "&#10;", "\v", "\x85", "\u2028", "\u2029"],
)
def test_a_name_behind_a_lost_line_break_is_a_bad_record(end):
    assert "at 'Bob Due: no', inside a line" in detail(f"Ana: Hi{end}Bob Due: no", NAMES)
    for text in (f"Hi{end}and so on: no", f"Hi{end}Address: 12 High Street"):
        assert read(f"Ana: {text}", NAMES) == [("Ana", text)]


def test_a_chat_export_keeps_notices_of_the_app_and_tells_of_them():
    text = (
        "12/03/24, 10:14 - Messages are end-to-end encrypted. Tap to learn more.\n"
        "12/03/24, 10:15 - Anna: Hello\nsecond line\n12/03/24, 10:16 - Ben Li: Hi\n"
        "12/03/24, 10:17 - Ben Li left\n12/03/24, 10:18 - Anna: Bye"
    )
    assert [role for role, _ in read(text, NAMES)] == ["Anna", "Ben Li", "Anna"]
    assert read(text, NAMES)[0] == ("Anna", "Hello\nsecond line")
    shown = [line[:20] for line in doubts(text, NAMES)]
    assert shown == ["12/03/24, 10:14 - Me", "12/03/24, 10:17 - Be"]


def test_a_colon_without_a_space_counts_for_labels_that_are_sure():
    assert read("Customer: Hi\nAgent:Hello") == [("customer", "Hi"), ("agent", "Hello")]
    text = "Mira:Hello\nTom:Hi\nMira:Bye\nTom:10 days"
    assert [role for role, _ in read(text, NAMES)] == ["Mira", "Tom", "Mira", "Tom"]
    assert read("客服:您好\n顾客:水壶漏水\n客服:好", NAMES)[1] == ("顾客", "水壶漏水")


def test_dropped_speakers_are_sides_of_the_conversation_too():
    reading = ReadingSection(drop_roles=["Bot"])
    text = "Customer: Hi\nBot: Hello\n[00:04] Bot: Wait\nNote: x"
    assert read(text, reading) == [("customer", "Hi")]


def test_long_lines_and_many_lines_take_linear_time():
    for part in ("a", "(", "1:11 ", "**", " \t", "- ", "Agent", "_:", "[00:04] "):
        text = part * 10**5 + " 10:15 x: "
        read_transcript(f"Agent: Hi\nCustomer: x\n{text}", STRICT)
        assert read(f"Agent: Hi\n[00:04] Customer: {text}")[1] == ("customer", text.strip())


@pytest.mark.parametrize(
    "form",
    ["{} >> x", "{}=x", "{}; x", "({}) x", "{{{}}} x", "{} -- x", "{}—x", "{} ~ x", "{} / x",
     "{} => x", "{},x",
     "[{}|00:04] x", "{} at 10:15: x", "### {}\nx", "🤖 {}\nx", "{}::x", "{}?: x", ">>{}: x"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("first", "second", "reading"),
    [("Agent", "Customer", STRICT), ("Ana", "Tom", NAMES)],
)
def test_a_sure_name_before_any_sign_is_never_merged_in_silence(form, first, second, reading):
    said = (f"{first}: Hello", f"{second}: My oven.", form.format(first), "more", f"{second}: Ok")
    text = "\n".join((*said, f"{first}: Bye"))
    assert len(read(text, reading)) == 5 or doubts(text, reading)
    alone = f"{first}: Hello\n{form.format(second)}\nmore"
    if reading is STRICT and not form.startswith(">>"):
        assert "may be another speaker's" in detail(alone)


def test_a_style_is_known_from_several_sure_speakers_too():
    text = "Ana: Hello\nAna  00:04\nI am here.\nTom  00:09\nMe too.\nAna  00:15\nGood."
    assert [role for role, _ in read(text, NAMES)] == ["Ana", "Ana", "Tom", "Ana"]


def test_a_quote_shows_no_part_of_a_number_or_an_address():
    for value in ("4111 1111 1111 1111", "jane.roe@example.com", "+49 170 1234567"):
        for width in range(20, 70):
            shown = quote("x" * width + f" is {value} and more of this and more of that")
            assert len(shown) <= QUOTED_CHARACTERS + 2
            assert value in shown or not (set(shown) & set("0123456789@"))


def test_plain_lines_are_read_alike_with_and_without_a_closer_look(monkeypatch):
    rng = random.Random(3)
    words = ["kettle", "Agent", "is", "10:15", "- well", "https://x.co", "now", "Ana", "(so)"]
    texts = []
    for _ in range(300):
        lines = [f"{rng.choice(('Agent', 'Customer', 'user', 'Ana', 'Bo Lee'))}: Hi"]
        for _ in range(rng.randrange(8)):
            label = rng.choice(("Agent: ", "Customer: ", "Ana: ", "", ""))
            lines.append(label + " ".join(rng.choices(words, k=rng.randrange(4))))
        texts.append("\n".join(lines))
    quick = [outcome(text, reading) for text in texts for reading in (STRICT, NAMES)]
    monkeypatch.setattr(transcript, "_plain_turns", lambda *_: None)
    assert [outcome(text, reading) for text in texts for reading in (STRICT, NAMES)] == quick


def outcome(text, reading):
    try:
        return read_transcript(text, reading)
    except RecordError as error:
        return error.detail
