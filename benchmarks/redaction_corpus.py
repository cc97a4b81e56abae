"""Sentences with personal data of known places, and with everyday numbers, made from a seed.

Phone numbers are libphonenumber's examples with other last digits; no number was taken from a
person. Everything else is made up by its rules.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from job.conversations.finders.numbers import IBAN_LENGTHS, has_checksum

REGIONS = (
    "AR", "AT", "AU", "BE", "BR", "CA", "CH", "CN", "CZ", "DE", "DK", "ES", "FI", "FR", "GB", "GR",
    "HK", "HU", "IE", "IL", "IN", "IT", "JP", "KR", "MX", "NL", "NO", "NZ", "PL", "PT", "RO", "SE",
    "SG", "TR", "UA", "US", "ZA",
)  # fmt: skip


def phone_numbers(region: str, chance: random.Random) -> Iterator[Any]:
    """Yield valid numbers of a region: examples of each type, some with other last digits."""
    for kind in (PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE, PhoneNumberType.TOLL_FREE):
        example = phonenumbers.example_number_for_type(region, kind)
        if example is None:
            continue
        yield example
        national = phonenumbers.national_significant_number(example)
        for _ in range(3):
            other = national[:-4] + "".join(chance.choices("0123456789", k=4))
            number = phonenumbers.parse(f"+{example.country_code}{other}")
            if phonenumbers.is_valid_number(number):
                yield number


def styles_of(number: Any, chance: random.Random) -> Iterator[tuple[str, str]]:
    """Yield a number as programs and as people write it: style, text."""
    national = phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)
    abroad = phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL)
    plus = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    digits = "".join(filter(str.isdigit, national))
    yield "national", national
    yield "international", abroad
    yield "international", plus
    yield "international", phonenumbers.format_number(number, PhoneNumberFormat.RFC3966)
    yield "international", "00" + abroad[1:]
    yield "international", "00" + plus[1:]
    yield "international", "011 " + abroad[1:]
    if digits.startswith("0"):
        code, _, rest = abroad.partition(" ")
        yield "international", f"{code} (0){rest}"
    yield "by hand", digits
    groups = "".join(char if char.isdigit() else " " for char in national).split()
    for separator in (" ", ".", "-"):
        yield "by hand", separator.join(groups)
    if len(groups) > 1:
        yield "by hand", f"{groups[0]}/{' '.join(groups[1:])}"
        yield "by hand", f"({groups[0]}) {'-'.join(groups[1:])}"
    pairs = [digits[-2 * end : len(digits) - 2 * (end - 1)] for end in range(1, len(digits) // 2)]
    head = digits[: len(digits) - 2 * len(pairs)]
    yield "by hand", " ".join([head, *reversed(pairs)])
    yield "by hand", f"{national} ext. {chance.randint(1, 9999)}"


def dates(chance: random.Random) -> Iterator[str]:
    """Yield a day as different countries write it."""
    year, month, day = chance.randint(1950, 2035), chance.randint(1, 12), chance.randint(1, 28)
    later = chance.randint(day, 28)
    name = chance.choice(("January", "March", "mai", "luglio"))
    kurz = chance.choice(("Jan", "M\u00e4rz", "mayo", "oktober"))
    yield f"{year}-{month:02}-{day:02}"
    yield f"{day:02}.{month:02}.{year}"
    yield f"{day}.{month}.{year}"
    yield f"{day}. {month}. {year}"
    yield f"{day:02}.{month:02}.{year % 100:02}"
    yield f"{month}/{day}/{year}"
    yield f"{day:02}/{month:02}/{year}"
    yield f"{day:02}-{month:02}-{year}"
    yield f"{year}/{month:02}/{day:02}"
    yield f"{year}.{month:02}.{day:02}"
    yield f"{day} {name} {year}"
    yield f"{name} {day}, {year}"
    yield f"{day}. {kurz} {year}"
    yield f"{day} de {kurz} de {year}"
    yield f"{day}\u2013{later} {name} {year}"
    yield f"{day:02}.\u2013{later:02}.{month:02}.{year}"
    yield f"{day:02}.{month:02}.-{later:02}.{month:02}.{year}"
    yield f"{day:02}.{month:02}.{year} - {later:02}.{month:02}.{year}"
    yield f"{year}-{month:02}-{day:02}/{year}-{month:02}-{later:02}"
    yield f"{month:02}/{year} \u2013 {month:02}/{year + 1}"
    yield f"{year}-{year + 2}"
    yield f"{year}/{(year + 1) % 100:02}"
    yield f"{year}-{month:02}-{day:02}T10:15:{day:02}Z"
    yield f"{year}-{month:02}-{day:02} 10:15:{day:02}.{chance.randint(100, 999)}"
    yield f"{day:02}.{month:02}.{year} 17:{day:02}"
    yield f"{day:02}/{month:02}/{year} 09h{day:02}"
    yield f"{year}{month:02}{day:02}"
    yield f"{year}{month:02}{day:02}101500"
    yield f"{year}\u5e74{month}\u6708{day}\u65e5"


def times(chance: random.Random) -> Iterator[str]:
    """Yield times of day and spans of them."""
    hour, minute = chance.randint(1, 12), chance.randint(10, 59)
    yield f"{hour}:{minute}"
    yield f"{hour}:{minute} pm"
    yield f"{hour} Uhr"
    yield f"{hour}.{minute} Uhr"
    yield f"{hour}h{minute}"
    yield f"{hour:02}:{minute}:{minute}"
    yield f"{hour:02}:{minute}-{hour + 1:02}:{minute}"
    yield f"{hour}-{hour + 1} Uhr"
    yield f"{hour} a.m. to {hour + 2} p.m."


def prices(chance: random.Random) -> Iterator[str]:
    """Yield amounts of money as different countries write them."""
    whole, cents = chance.randint(1, 999), chance.randint(10, 99)
    thousands = chance.randint(100, 999)
    yield f"{whole},{cents}"
    yield f"{whole}.{cents}"
    yield f"\u20ac{whole},{cents}"
    yield f"${whole},{thousands}.00"
    yield f"{whole}.{thousands},{cents} \u20ac"
    yield f"{whole} {thousands},{cents} EUR"
    yield f"R$ {whole}.{thousands}"
    yield f"{whole} {thousands} K\u010d"
    yield f"{whole % 9 + 1} {thousands} 000"
    yield f"{whole % 9 + 1} {thousands} {thousands} z\u0142"
    yield f"{whole % 9 + 1},{thousands},000"
    yield f"{whole % 9 + 1}.{thousands}.000"
    yield f"CHF {whole % 9 + 1}'{thousands}.{cents}"
    yield f"\u20b9{whole % 9 + 1},{cents},{thousands}"
    yield f"{whole}{thousands} USD"
    yield f"{whole},- kr"
    yield f"\u00a5{whole},{thousands}"


def others(chance: random.Random) -> Iterator[str]:
    """Yield order numbers, addresses, versions and measures."""
    draw = lambda count: "".join(chance.choices("0123456789", k=count))  # noqa: E731
    yield f"order {draw(10)}"
    yield f"order number {draw(9)}"
    yield f"order #{draw(8)}"
    yield f"Bestellnummer {draw(10)}"
    yield f"ticket no. {draw(7)}"
    yield f"invoice 2026-{draw(6)}"
    yield f"ORD-{draw(9)}"
    yield f"order {draw(3)}-{draw(7)}-{draw(7)}"
    yield f"1Z{draw(3)}AA1{draw(10)}"
    yield f"room {draw(3)}, {chance.randint(1, 99)} Main Street"
    yield f"Hauptstra\u00dfe {chance.randint(1, 99)}, {chance.randint(10115, 99998)} Berlin"
    yield f"San Jose, CA {chance.randint(90001, 96162)}-{draw(4)}"
    yield f"{chance.randint(1, 99)} rue de Lyon, 75{draw(3)} Paris"
    yield f"version {chance.randint(1, 19)}.{chance.randint(0, 9)}.{draw(4)}"
    yield f"v10.0.{chance.randint(10000, 29999)}.{draw(4)}"
    yield f"Chrome 1{draw(2)}.0.{chance.randint(1000, 9999)}.{draw(3)}"
    yield f"iOS 17.{chance.randint(0, 9)}.{chance.randint(0, 9)}"
    yield f"{draw(2)} x {draw(3)} x {draw(2)} cm"
    yield f"1920x1080 px, {draw(3)} kg"
    yield f"{chance.randint(100, 9000)} km, {draw(2)},5 %"
    yield f"EAN 40{draw(11)}"
    yield f"UPS 1Z{draw(6)}03{draw(8)}"
    yield f"DHL JJD0{draw(16)}"
    yield f"{chance.randint(-80, 80)}.{draw(4)}, {chance.randint(-170, 170)}.{draw(4)}"
    yield f"LH{draw(3)} at gate {draw(2)}, seat {draw(2)}A"
    yield f"error {draw(3)}-{draw(4)}, code 0x{draw(8)}"
    yield f"model WH-{draw(4)}XM{draw(1)}, serial {draw(9)}"
    yield f"{draw(4)}{chr(65 + int(draw(1)))}{draw(6)}"
    yield f"ISBN 978-3-16-{draw(6)}-{draw(1)}"
    yield "3:2, 6-4 7-5, 12 of 20"
    yield "rooms 101, 102, 103, 104 and 105"
    yield f"{chance.randint(1, 5)} of 5 stars, 24/7"


def bare(chance: random.Random) -> Iterator[str]:
    """Yield numbers without a word in front: nobody can tell them from phones of their length."""
    draw = lambda count: "".join(chance.choices("0123456789", k=count))  # noqa: E731
    for length in range(7, 17):
        yield draw(length)
    yield f"{draw(3)}-{draw(4)}"
    yield f"{draw(4)} {draw(4)}"
    yield f"{draw(3)} {draw(3)} {draw(3)}"
    yield str(chance.randint(1_700_000_000, 1_790_000_000))


EVERYDAY: dict[str, Callable[[random.Random], Iterator[str]]] = {
    "dates": dates, "times": times, "prices": prices, "others": others,
}  # fmt: skip


def values_of(chance: random.Random) -> Iterator[tuple[str, str]]:
    """Yield a value of each kind but phones in each way to write it: kind, text."""
    draw = lambda count: "".join(chance.choices("0123456789", k=count))  # noqa: E731
    name = chance.choice(("joe", "ann.lee", "j\u00f6rg_m", "info+x", "m-a"))
    host = chance.choice(("shop.com", "mail.example.org", "firma.de", "co.uk.net"))
    card = _with_check_digit(chance.choice(("4", "51", "2221", "6011")), 16, chance)
    yield "card", card
    for separator in (" ", "-", ".", "_", ",", "  ", " - "):
        yield "card", separator.join(card[place : place + 4] for place in range(0, 16, 4))
    amex = _with_check_digit("37", 15, chance)
    yield "card", f"{amex[:4]} {amex[4:10]} {amex[10:]}"
    country = chance.choice(sorted(IBAN_LENGTHS))
    account = draw(IBAN_LENGTHS[country] - 4)
    digits = "".join(str(int(one, 36)) for one in f"{account}{country}00")
    iban = f"{country}{98 - int(digits) % 97:02}{account}"
    yield "iban", iban
    yield "iban", iban.lower()
    for separator in (" ", "-"):
        groups = [iban[place : place + 4] for place in range(0, len(iban), 4)]
        yield "iban", separator.join(groups)
    area, group = chance.randint(1, 665), chance.randint(1, 99)
    for mark in "- ":
        yield "ssn", f"{area:03}{mark}{group:02}{mark}{chance.randint(1, 9999):04}"
    yield "email", f"{name}@{host}"
    yield "email", f"{name.upper()}\uff20{host}"
    yield "email", f'"{name} x"@{host}'
    yield "ip", ".".join(str(chance.randint(0, 255)) for _ in range(4))
    yield "ip", f"2001:db8::{chance.randint(1, 0xFFFF):x}"
    yield "url", f"https://{host}/{name}?id={draw(8)}"
    yield "url", f"www.{host}/{draw(3)}"
    yield "handle", f"@{chance.choice(('acme_help', 'ann', 'joe1'))}{draw(2)}"


def _with_check_digit(start: str, length: int, chance: random.Random) -> str:
    digits = start + "".join(chance.choices("0123456789", k=length - 1 - len(start)))
    return next(f"{digits}{last}" for last in "0123456789" if has_checksum(f"{digits}{last}"))
