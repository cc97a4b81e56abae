"""Claims about numbers: phones are found in every region, everyday numbers stay."""

import random

import phonenumbers
import pytest

from benchmarks.redaction_corpus import EVERYDAY, REGIONS, phone_numbers, styles_of
from job.config.redaction import RedactionSection
from job.conversations.record import Conversation, Source, Turn
from job.conversations.redaction import make_redactor, redact


def redacted(text: str, region: str) -> str:
    redactor = make_redactor(RedactionSection(phone_region=region))
    assert redactor
    conversation, _ = redact(Conversation("c", (Turn("agent", text),), Source("f", 1)), redactor)
    return conversation.turns[0].text


def test_a_german_turn_loses_its_number_alone():
    said = (
        "Meine Nummer ist 0151 23456789, bitte um 10 Uhr anrufen, Zimmer 12. "
        "Lieferung am 2026-01-31, Preis 49,90 EUR."
    )
    assert redacted(said, "DE") == said.replace("0151 23456789", "[PHONE_1]")


@pytest.mark.parametrize(
    "said",
    [
        "2026-01-31", "31.01.2026", "1/31/2026", "31 January 2026", "January 31st, 2026",
        "2024-2026", "03/2015 \u2013 03/2016", "01.02.-05.02.2026", "2026-01-31T10:15:00+01:00",
        "20260131 101500", "31. 1. 2026", "10:15", "10 Uhr", "17h30", "8.30-17 Uhr", "49,90",
        "1 250 000", "$1,299.00", "1.299,00 \u20ac", "R$ 1.200", "\u20b912,34,567", "12-345 67",
        "EUR 1 299,00", "CHF 1'299.90", "order 4155550123", "order no. 112-1234567-1234567",
        "ORD-4155550123", "ticket #4155550123", "1Z4155550123", "0x08498112", "version 10.0.19045",
        "10.0.19045.5247", "120.0.6099.1", "CA 94105-1234", "120 x 60 x 75 cm", "125000 km",
        "+1 250 000", "2019 2020 2021", "100 000 000", "1990\u20132000", "#4155550123",
        "52.520008, 13.404954", "48.858370,2.294481", "48.858370 2.294481", "0.1234567",
        "Kundennummer 0151 2345 678", "Vertragsnr. 4930123456", "N\u00b0 client 0612345678",
        "policy number 1234567890", "account no. 4155550123",
        "\u0437\u0430\u043a\u0430\u0437 \u21169161234567", "\u8a02\u55ae\u865f 0912345678",
        "sipari\u015f no 05321234567", "objedn\u00e1vka \u010d. 601234567",
        "comanda nr. 0721234567", "ordre 20123456", "AWB 1234567890", "GTIN 00012345600012",
        "Bestellnummer: 015123456789", "room 101, 102, 103 and 104",
    ],
)  # fmt: skip
def test_everyday_numbers_stay_in_every_region(said):
    everywhere = {redacted(f"It is {said}, yes", region) for region in REGIONS}
    assert everywhere == {f"It is {said}, yes"}


@pytest.mark.parametrize("region", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_examples_of_every_region_are_found(region):
    for number in phone_numbers(region, random.Random(1)):
        style = phonenumbers.PhoneNumberFormat.NATIONAL
        written = phonenumbers.format_number(number, style)
        if sum(map(str.isdigit, written)) < 7:
            continue  # too short to be told from other numbers, unless with its country's code
        if region in {"BO", "TJ", "BT", "SC"}:
            continue  # they write theirs as others write an SSN, or a million
        assert redacted(f"It is {written}.", region) == "It is [PHONE_1]."
        abroad = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
        assert redacted(f"It is {abroad}.", region) == "It is [PHONE_1]."


@pytest.mark.parametrize("region", ["DE", "US", "BR", "DK", "JP"])
def test_a_number_has_one_placeholder_in_all_its_styles(region):
    number = next(phone_numbers(region, random.Random(1)))
    written = [text for _, text in styles_of(number, random.Random(1)) if "ext" not in text]
    found = redacted(", ".join(written), region)
    assert found.replace("tel:", "") == ", ".join(["[PHONE_1]"] * len(written))


@pytest.mark.parametrize(
    ("said", "region", "read"),
    [
        ("0044 20 7946 0958 or 011 44 20 7946 0958", "US", "[PHONE_1] or [PHONE_1]"),
        ("0033 1 23 45 67 89", "BR", "[PHONE_1]"),
        ("+49 (0)151 23456789", "US", "[PHONE_1]"),
        ("tel:+1-201-555-0123;ext=12", "US", "tel:[PHONE_1]"),
        ("(201) 555-0123 x45, 201-555-0123 ext. 45", "US", "[PHONE_1], [PHONE_1]"),
        ("call 555-0123", "US", "call [PHONE_1]"),
        ("Tel.: 030 1234567", "US", "Tel.: [PHONE_1]"),
        ("555-0123", "US", "555-0123"),
        ("phone # 2015550123", "US", "phone # [PHONE_1]"),
        ("call4155550123please", "US", "call[PHONE_1]please"),
        ("\u306f03-1234-5678\u3067\u3059", "JP", "\u306f[PHONE_1]\u3067\u3059"),
        ("651-234-2345/332-445-1234", "US", "[PHONE_1]/[PHONE_2]"),
        ("Haus 12 0151 23456789 10 Uhr", "DE", "Haus 12 [PHONE_1] 10 Uhr"),
        ("24/7 010 1234 5678", "CN", "24/7 [PHONE_1]"),
        ("167,87 EUR 0120 120 564", "JP", "167,87 EUR [PHONE_1]"),
        ("01.23.45.67.89", "FR", "[PHONE_1]"),
        ("206.223.154.1", "US", "[IP_1]"),
        ("+36 (0)20 123 4567", "HU", "[PHONE_1]"),
        ("+49 1234567", "US", "[PHONE_1]"),
        ("order 12345 (201) 555-0123", "US", "order 12345 [PHONE_1]"),
        ("call 10.20.30.140", "US", "call [IP_1]"),
        ("(415-555-2671) or ((415) 555-2671)", "US", "([PHONE_1]) or ([PHONE_1])"),
        ("612 345 678,612 345 679", "ES", "[PHONE_1],[PHONE_2]"),
        ("091 234 56 78,091 234 56 79", "VN", "[PHONE_1],[PHONE_2]"),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(said, region, read):
    assert redacted(said, region) == read


def test_no_phone_is_found_among_everyday_numbers():
    chance = random.Random(7)
    for region in ("DE", "GB", "US", "FR", "JP"):
        for kind in ("dates", "times", "prices"):
            for said in EVERYDAY[kind](chance):
                assert redacted(f"It is {said}.", region) == f"It is {said}."
