"""Claims about numbers with a checksum, other tools' placeholders, and characters in disguise."""

import random
import sys
import unicodedata

import pytest

from job.config.redaction import RedactionSection
from job.conversations.finders.folding import HIDDEN, fold
from job.conversations.finders.numbers import IBAN_LENGTHS, has_iban_checksum
from job.conversations.record import Conversation, Source, Turn
from job.conversations.redaction import Placeholders, make_redactor, redact, redact_message

REDACTOR = make_redactor(RedactionSection())
ZERO_WIDTH, SOFT_HYPHEN = "\u200b", "\u00ad"


def redacted(*texts: str) -> list[str]:
    assert REDACTOR
    turns = tuple(Turn("customer", text) for text in texts)
    conversation, _ = redact(Conversation("c", turns, Source("f", 1)), REDACTOR)
    return [turn.text for turn in conversation.turns]


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("IBAN DE89 3704 0044 0532 0130 00.", "IBAN [IBAN_1]."),
        ("de89370400440532013000 or DE89-3704-0044-0532-0130-00", "[IBAN_1] or [IBAN_1]"),
        ("GB29NWBK60161331926819, FR14 2004 1010 0505 0001 3M02 606", "[IBAN_1], [IBAN_2]"),
        ("IBANDE89370400440532013000", "IBAN[IBAN_1]"),
        ("MT84 MALT 0110 0001 2345 MTLC AST0 01S", "[IBAN_1]"),
        ("DE88 3704 0044 0532 0130 00", "DE88 3704 0044 0532 0130 00"),
        ("DE89 3704 0044 0532 0130", "DE89 3704 0044 0532 0130"),
        ("DE89370400440532013000X", "DE89370400440532013000X"),
        ("SSN 219-09-9999", "SSN [SSN_1]"),
        ("219 09 9999, 219\u201109\u20119999", "[SSN_1], [SSN_1]"),
        ("my ssn is 219099999", "my ssn is [SSN_1]"),
        ("Social Security number: 219099999", "Social Security number: [SSN_1]"),
        ("219099999", "219099999"),
        ("000-12-3456 666-12-3456 912-12-3456", "000-12-3456 666-12-3456 912-12-3456"),
        ("219-00-9999 219-09-0000 219-09-99999", "219-00-9999 219-09-0000 219-09-99999"),
        ("4111_1111_1111_1111 or 4111,1111,1111,1111", "[CARD_1] or [CARD_1]"),
        ("3782 822463 10005", "[CARD_1]"),
        ("IMEI 356938035643809, EAN 4006381333931", "IMEI 356938035643809, EAN 4006381333931"),
        ("2026-01-31 2026-02-25", "2026-01-31 2026-02-25"),
        ('"joe b"@shop.com', "[EMAIL_1]"),
    ],
)
def test_numbers_with_a_proof_are_found(said, read):
    assert redacted(said) == [read]


def test_each_countrys_account_is_found_by_its_length():
    chance = random.Random(1)
    for country, length in IBAN_LENGTHS.items():
        account = "".join(chance.choices("0123456789", k=length - 4))
        wanted = 98 - int(account + "".join(str(int(one, 36)) for one in country) + "00") % 97
        iban = f"{country}{wanted:02}{account}"
        assert has_iban_checksum(iban)
        grouped = " ".join(iban[place : place + 4] for place in range(0, length, 4))
        assert redacted(f"{iban}, {grouped}.") == ["[IBAN_1], [IBAN_1]."]


def disguises(plain: str) -> dict[str, str]:
    return {
        "full width": "".join(chr(ord(one) + 0xFEE0) if one > " " else one for one in plain),
        "zero width": ZERO_WIDTH.join(plain),
        "soft hyphens": SOFT_HYPHEN.join(plain),
        "a mark of direction": plain[:3] + "\u202d" + plain[3:],
        "a variant": plain[:5] + "\ufe0f" + plain[5:],
    }


@pytest.mark.parametrize("style", list(disguises("abc")))
@pytest.mark.parametrize(
    ("plain", "read"),
    [
        ("joe@shop.com", "[EMAIL_1]"),
        ("4111 1111 1111 1111", "[CARD_1]"),
        ("+1 201-555-0123", "[PHONE_1]"),
        ("DE89 3704 0044 0532 0130 00", "[IBAN_1]"),
        ("219-09-9999", "[SSN_1]"),
        ("https://x.com/joe", "[URL_1]"),
        ("192.168.1.10", "[IP_1]"),
        ("@joe_smith", "[HANDLE_1]"),
    ],
)
def test_a_disguised_value_is_the_plain_one(plain, read, style):
    assert redacted(f"so {disguises(plain)[style]} it is", plain) == [f"so {read} it is", read]


def test_an_ideographic_stop_is_a_dot_inside_a_domain_only():
    said = "joe@shop\u3002com\u3002\u3042\u308a\u304c\u3068\u3046"
    assert redacted(said) == ["[EMAIL_1]\u3002\u3042\u308a\u304c\u3068\u3046"]


def test_text_around_a_disguised_value_stays_as_written():
    said = "\u2460 \ufb01ne\u2026 jo\u00ade@shop.com \u00bd off\u200b!"
    assert redacted(said) == ["\u2460 \ufb01ne\u2026 [EMAIL_1] \u00bd off\u200b!"]


def test_every_invisible_character_of_unicode_is_known():
    unseen = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) == "Cf" and not HIDDEN.match(chr(code))
    ]
    assert not unseen


def test_stretches_of_folded_text_map_to_the_original():
    written = "a\u200b\u2460\ufb03\uff42\u2026c"
    folded = fold(written)
    assert folded
    assert folded.text == "a1ffib...c"
    places = [folded.original(place, place + 1) for place in range(len(folded.text))]
    read = [written[start:end] for start, end in places]
    assert read == ["a", "\u2460", *["\ufb03"] * 3, "\uff42", *["\u2026"] * 3, "c"]
    assert folded.original(0, len(folded.text)) == (0, len(written))
    assert fold("pl\u00e4in \u2013 text") is None


@pytest.mark.parametrize("theirs", ["[EMAIL_1]", "<EMAIL_1>", "[email_1]", "EMAIL_1", "{EMAIL_1}"])
def test_a_placeholder_in_the_input_is_not_given_out_again(theirs):
    assert redacted(f"I am {theirs}", "joe@shop.com") == [f"I am {theirs}", "[EMAIL_2]"]
    assert redacted("joe@shop.com", f"I am {theirs}") == ["[EMAIL_2]", f"I am {theirs}"]


def test_a_placeholder_in_a_label_is_not_given_out_again():
    assert REDACTOR
    turns = Turn("joe@shop.com", "hi"), Turn("[EMAIL_1]", "hello")
    conversation, _ = redact(Conversation("c", turns, Source("f", 1)), REDACTOR)
    assert [turn.role for turn in conversation.turns] == ["[EMAIL_2]", "[EMAIL_1]"]


def test_a_placeholder_made_up_by_the_model_is_not_given_out_again():
    assert REDACTOR
    turns = (Turn("agent", "a@b.com"),)
    _, placeholders = redact(Conversation("c", turns, Source("f", 1)), REDACTOR)
    assert placeholders.redact_again("[EMAIL_1] and [EMAIL_2] asked eve@x.org") == (
        "[EMAIL_1] and [EMAIL_2] asked [EMAIL_3]"
    )


def test_many_reserved_placeholders_are_counted_as_held():
    assert REDACTOR
    placeholders = Placeholders(REDACTOR)
    placeholders.reserve(" ".join(f"[EMAIL_{number}]" for number in range(1, 1001)))
    assert placeholders.redact("joe@shop.com") == "[EMAIL_1001]"
    assert placeholders.characters > 7000


def test_a_message_is_redacted_where_redaction_is_on():
    said = "role 'Card 4111111111111111' is not one of customer, agent, system"
    assert redact_message(said, REDACTOR) == said.replace("4111111111111111", "[CARD_1]")
    assert redact_message(said, None) == said


@pytest.mark.parametrize(
    "value", ["4111 1111 1111 1111", "joe.smith@shop.com", "4111-1111-1111-1111"]
)
def test_a_message_holds_no_half_of_a_value_that_was_cut(value):
    for length in range(1, len(value)):
        cut = f"no speaker: 'my card is {value[:length].rstrip()}…'; wanted lines"
        assert redact_message(cut, REDACTOR) == "no speaker: 'my card is …'; wanted lines"
