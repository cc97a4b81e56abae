"""Claims about redaction: what is found, the placeholders, and that no text is slow to search."""

import tracemalloc

import pytest

from job.config.commands import SummarizeConfig
from job.config.redaction import RedactionSection
from job.conversations.finders.numbers import has_checksum
from job.conversations.record import Conversation, Source, Turn
from job.conversations.redaction import Placeholders, make_redactor, redact

EVERYTHING = make_redactor(RedactionSection(patterns={"order": "ORD-[0-9]+"}))


def redacted(*texts: str, section: RedactionSection | None = None) -> list[str]:
    turns = tuple(Turn("customer", text) for text in texts)
    redactor = make_redactor(section) if section else EVERYTHING
    assert redactor
    conversation, _ = redact(Conversation("c", turns, Source("f", 1)), redactor)
    return [turn.text for turn in conversation.turns]


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("mail joe.d+x@shop.co.uk.", "mail [EMAIL_1]."),
        ("call +1 415 555 0123 now", "call [PHONE_1] now"),
        ("or (415) 555-2671", "or [PHONE_1]"),
        ("pay 4111 1111 1111 1111 or 4111-1111-1111-1112", "pay [CARD_1] or 4111-1111-1111-1112"),
        ("unit 12 5500005555555559", "unit 12 [CARD_1]"),
        ("from 10.0.0.1, fe80::1. and 1.2.3.999", "from [IP_1], [IP_2]. and 1.2.3.999"),
        ("at 10:30:15 on 12/12/2024", "at 10:30:15 on 12/12/2024"),
        ("see https://x.com/a?b=joe@shop.com, or www.y.org!", "see [URL_1], or [URL_2]!"),
        ("-https://x.com/t, 1.https://x.com ...www.x.com", "-[URL_1], 1.[URL_2] ...[URL_3]"),
        (
            "IP:2001:db8::1, 2001:db8::1: or source:2001:DB8::1",
            "IP:[IP_1], [IP_1]: or source:[IP_1]",
        ),
        ("192.168.001.010 is 192.168.1.10", "[IP_1] is [IP_1]"),
        ("std::deque, std::dead, 10:30:15", "std::deque, std::dead, 10:30:15"),
        ("4111\u20131111\u20131111\u20131111 or 4111/1111/1111/1111", "[CARD_1] or [CARD_1]"),
        ("4111  1111  1111  1111, 4111\r\n1111\n1111 - 1111", "[CARD_1], [CARD_1]"),
        (
            " ".join(["\u0664\u0661\u0661\u0661", *["\u0661" * 4] * 3]),
            "[CARD_1]",
        ),  # in Arabic digits
        ("hi @acme_help, meet me @ 5pm", "hi [HANDLE_1], meet me @ 5pm"),
        ("order ORD-55 for $1,234.00", "order [ORDER_1] for $1,234.00"),
        ("joe@shop.com/ann@shop.com, a@b.com|c@d.com;e@f.com", "[EMAIL_1], [EMAIL_2];[EMAIL_3]"),
        ("4111111111111111,5500005555555559", "[CARD_1],[CARD_2]"),
        ("219-09-9999,219-09-9998/219-09-9997", "[SSN_1],[SSN_2]/[SSN_3]"),
        ("DE89 3704 0044 0532 0130\n00", "[IBAN_1]"),
        ("nothing here", "nothing here"),
    ],
)
def test_each_kind_is_replaced_and_what_looks_like_it_stays(said, read):
    assert redacted(said) == [read]


def test_a_value_has_one_placeholder_however_it_is_written():
    said = ["I am JOE@shop.com", "joe@shop.com or ann@shop.com?", "+14155550123", "(415) 555-0123"]
    assert redacted(*said) == [
        "I am [EMAIL_1]", "[EMAIL_1] or [EMAIL_2]?", "[PHONE_1]", "[PHONE_1]",
    ]  # fmt: skip


def test_what_only_looks_like_a_placeholder_hides_nothing():
    section = RedactionSection(patterns={"ticket": r"\[TKT\] ?[0-9]+"})
    said = ["[TKT] 1", "a@b.com", "[TKT] 2, https://x.com/?q=[ID]&token=abc"]
    assert redacted(*said, section=section) == [
        "[TICKET_1]", "[EMAIL_1]", "[TICKET_2], [URL_1]",
    ]  # fmt: skip
    _, placeholders = redact(
        Conversation("c", (Turn("customer", "a@b.com"),), Source("f", 1)), make_redactor(section)
    )
    assert placeholders.redact_again("[EMAIL_1] [TKT] 2 https://x.com/?q=[ID]&token=abc") == (
        "[EMAIL_1] [TICKET_1] [URL_1]"
    )


def test_redacting_a_turn_takes_memory_by_its_length_alone():
    assert EVERYTHING
    placeholders = Placeholders(EVERYTHING)
    for number in range(4000):
        placeholders.redact(f"a{number}@b.com")
    tracemalloc.start()
    placeholders.redact("hello")
    placeholders.redact_again("hello [EMAIL_7]")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000, held  # a set of all placeholders takes a quarter of a megabyte


def test_only_the_named_kinds_are_replaced():
    section = RedactionSection(kinds=["email"])
    assert redacted("a@b.com @acme 10.0.0.1", section=section) == ["[EMAIL_1] @acme 10.0.0.1"]


def test_a_label_as_somebody_wrote_it_is_redacted_too():
    conversation = Conversation("c", (Turn("ann@shop.com", "hi"),), Source("f", 1))
    assert EVERYTHING
    assert redact(conversation, EVERYTHING)[0].turns[0].role == "[EMAIL_1]"


def test_a_summary_keeps_its_placeholders_and_loses_and_counts_what_leaked():
    assert EVERYTHING
    _, placeholders = redact(
        Conversation("c", (Turn("customer", "joe@shop.com, ORD-1"),), Source("f", 1)), EVERYTHING
    )
    assert placeholders.replaced == 2
    assert placeholders.redact_again("[EMAIL_1] (joe@shop.com) asks, so does eve@x.org") == (
        "[EMAIL_1] ([EMAIL_1]) asks, so does [EMAIL_2]"
    )
    assert placeholders.replaced == 4


def test_a_pattern_that_hangs_other_engines_is_linear():
    section = RedactionSection(kinds=[], patterns={"bomb": "(a+)+$"})
    assert redacted("a" * 20_000 + "b", section=section) == ["a" * 20_000 + "b"]


@pytest.mark.parametrize(
    ("redaction", "said"),
    [
        ({"patterns": {"x": "("}}, "x: not a pattern of RE2.*missing"),
        ({"patterns": {"x": "(?=a)"}}, "no look-around"),
        ({"patterns": {"x": "a*"}}, "x: matches the empty string"),
        ({"patterns": {"x": r"\b"}}, "x: matches the empty string"),
        ({"patterns": {"Nr 1": "a"}}, "'Nr 1' is no name of a pattern"),
        ({"patterns": {"email": "a"}}, "'email' is no name of a pattern"),
        ({"phone_region": "XX"}, "'XX' is no country with phone numbers"),
        ({"kinds": ["name"]}, "email"),
    ],
)
def test_mistakes_in_the_section_are_found_with_the_config(redaction, said):
    least = {"run": "r", "input": "i", "output": "o", "adapter": "a"}
    with pytest.raises(ValueError, match=said):
        SummarizeConfig.model_validate({**least, "redaction": redaction})


def test_a_checksum_is_luhns():
    assert has_checksum("79927398713")
    assert not any(has_checksum(f"7992739871{digit}") for digit in "012456789")
