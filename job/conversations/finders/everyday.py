"""Everyday numbers: dates, times, prices, measures, versions.

They must not be replaced as phones or cards. One pattern for each way to write them, in the
languages of Europe and in digits everywhere. All repeats are bounded, so the search is linear in
the text.
"""

import re

# No digit touches the number, neither directly nor over a mark that joins digits.
BEFORE = r"(?<!\d)(?<!\d[.,/:\u2010-\u2015-])(?<!\d\) )"
AFTER = r"(?!\d)(?![.,/:\u2010-\u2015-]\d)"
# Nor over a space or a spaced dash: for what could as well be a group of a longer number.
ALONE_BEFORE = rf"{BEFORE}(?<!\d[ )])(?<!\d [-\u2013] )(?<!\+)"
ALONE_AFTER = rf"{AFTER}(?! (?:[-\u2013] )?\d)"
# Not where a comma parts two longer numbers: 06 12 34 56 78,06 23 45 67 89.
NO_BORDER = r"(?:(?<!\d )|(?!\d{1,9}[.,]\d{2,9} \d))"
TO = r" ?[-/\u2010-\u2015] ?"

YEAR, MONTH, DAY = r"(?:19|20)\d\d", r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])"
SHORT_YEAR = rf"(?:{YEAR}|\d\d)"
DATE = (
    rf"(?:{YEAR}[-./\u2010-\u2015]{MONTH}[-./\u2010-\u2015]{DAY}"
    rf"|{DAY}[-./]{MONTH}[-./]{SHORT_YEAR}"
    rf"|{MONTH}[-./]{DAY}[-./]{SHORT_YEAR}"
    rf"|{DAY}\. {{0,2}}{MONTH}\. {{0,2}}{SHORT_YEAR})"
)
MONTH_OF_YEAR = rf"(?:{MONTH}[-./]{YEAR}|{YEAR}[-./]{MONTH})"
# The first three letters in English, German, French, Spanish, Italian, Portuguese and Polish.
MONTH_NAME = (
    r"(?:jan|feb|f\u00e9v|fev|mar|m\u00e4r|mrt|apr|avr|abr|kwi|may|mai|maj|mei|mag|jun|jui|giu|cze"
    r"|jul|lug|lip|aug|ao\u00fb|aou|ago|sie|sep|set|wrz|oct|okt|ott|out|pa\u017a|nov|lis|dec|dez"
    r"|d\u00e9c|dic|gru|ene|gen|sty|lut)[^\W\d_]{0,8}\.?"
)
NTH = r"(?:\.|st|nd|rd|th|er|\u00ba)?"
CLOCK = r"(?:[01]?\d|2[0-4])"
TIME = rf"{CLOCK}(?:[.:][0-5]\d)?"
TIMES = rf"{TIME}(?:{TO}{TIME})?"
STAMP = rf"{YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:[T ]?{CLOCK}[0-5]\d(?:[0-5]\d)?)?"

# Thousands apart by dots, commas (also by two digits, as in India), apostrophes or spaces.
DOTS = r"[1-9]\d{0,2}(?:\.\d{3}){1,4}(?:,\d{1,2}|,-)?"
COMMAS = r"[1-9]\d{0,2}(?:,\d{2,3}){1,4}(?:\.\d{1,2})?"
QUOTES = r"[1-9]\d{0,2}(?:['\u2019]\d{3}){1,4}(?:[.,]\d{1,2})?"
SPACES = r"[1-9]\d{0,2}(?: \d{3}){1,3}(?:[.,]\d{1,2}|,-)?"
GROUPED = rf"(?:{DOTS}|{COMMAS}|{QUOTES})"
CENTS = r"(?:[.,]\d{1,2}|,-|\.-)"
SIGN = r"(?:[$\u00a3\u00a5\u20a0-\u20bf\u0e3f]|R\$|\u5143|\u5186|\uc6d0)"
CURRENCY = (
    r"(?:EUR|USD|GBP|CHF|JPY|INR|BRL|AUD|CAD|NZD|PLN|SEK|NOK|DKK|MXN|CNY|KRW|CZK|HUF|RUB|TRY|ZAR"
    r"|Fr\.|Euros?|dollars?|pounds?|kr|z\u0142|K\u010d|Ft|Rs\.?)"
)
AFTER_AMOUNT = rf"(?:{SIGN}(?!\d)|{CURRENCY}\b)"
UNIT = (
    r"(?:[%\u2030\u00b0]|(?:mm|cm|km|m[23\u00b2\u00b3]|km/h|kg|mg|ml|kWh?|[KMGT]B|Mbit|Mbps|px"
    r"|[kMG]?Hz|min|mins|minutes?|sec|seconds?|hours?|days?|weeks?|months?|years?|miles?|feet|ft"
    r"|inch(?:es)?|lbs?|oz|items?|pieces|pcs|Stk|St\u00fcck|Std|Stunden|Minuten|Tage|Wochen|Monate"
    r"|Jahre|jours|mois|ans|d\u00edas)\b)"
)
PART = r"(?:0|[1-9]\d{0,3})"  # of a version

FROM_A_DIGIT = (
    rf"{BEFORE}(?:{DAY}[./](?:{MONTH}[./]?)?{TO})?{DATE}(?:{TO}{DATE})?{AFTER}",
    rf"{BEFORE}{DATE}(?=T\d\d:)",
    rf"{BEFORE}{MONTH_OF_YEAR}(?:{TO}{MONTH_OF_YEAR})?{AFTER}",
    rf"{ALONE_BEFORE}{YEAR}(?:{TO}{SHORT_YEAR}|(?:[ /]{YEAR}){{1,5}}){ALONE_AFTER}",
    rf"{BEFORE}{DAY}{NTH}(?:{TO}{DAY}\.?)? ?(?:de |of )?{MONTH_NAME}(?: de|,)? {YEAR}{AFTER}",
    rf"{ALONE_BEFORE}{STAMP}{ALONE_AFTER}",
    rf"{BEFORE}24/7{AFTER}",
    rf"(?<!\d){CLOCK}[:h][0-5]\d(?::[0-5]\d(?:[.,]\d{{1,6}})?)?(?!\d)",
    rf"(?<!\d){TIMES} ?(?:Uhr|o'clock|p\.?m\b|heures?\b|[\u6642\u65f6\u70b9\uc2dc])",
    rf"{ALONE_BEFORE}{TIMES} ?(?:a\.?m|hrs?|h)\b",
    rf"{ALONE_BEFORE}(?:{SPACES}|\d{{1,7}}) ?{AFTER_AMOUNT}",
    rf"{BEFORE}(?:{GROUPED}|\d{{1,7}}{CENTS}) ?{AFTER_AMOUNT}",
    rf"{BEFORE}(?<!\+){NO_BORDER}\d{{1,7}}[.,]\d{{2}}{AFTER}",
    # Not 612.345.678, which is a phone number in Spain.
    rf"{BEFORE}{NO_BORDER}(?:{COMMAS}|[1-9]\d?(?:[.'\u2019]\d{{3}}){{1,2}}(?:,\d{{1,2}})?){AFTER}",
    rf"{ALONE_BEFORE}(?:[1-9] \d{{3}} \d{{3}}|[1-9]\d \d{{3}} 000){ALONE_AFTER}",
    rf"{ALONE_BEFORE}[1-9]\d{{0,2}}(?: \d{{3}}){{0,2}} 000 000{ALONE_AFTER}",
    rf"{ALONE_BEFORE}(?:{SPACES}|{GROUPED}|\d{{1,7}}(?:[.,]\d{{1,3}})?) ?{UNIT}",
    # Versions have a group of one digit inside; phone numbers have so only after a plus.
    rf"{BEFORE}(?<!\+){PART}(?:\.\d{{1,6}}){{0,2}}\.\d\.\d{{1,6}}(?:\.\d{{1,6}}){{0,2}}{AFTER}",
    rf"{ALONE_BEFORE}\d{{5}}-\d{{4}}{ALONE_AFTER}",  # a ZIP code
    rf"{BEFORE}0\.\d{{3,15}}{AFTER}",
    # A latitude and a longitude.
    rf"{BEFORE}[1-8]?\d\.\d{{4,9}}(?:, ?| )-?(?:1[0-7]\d|\d{{1,2}})\.\d{{4,9}}(?!\d|\.\d)",
)
FROM_A_WORD = (
    rf"\b{MONTH_NAME} {DAY}{NTH},? {YEAR}{AFTER}",
    rf"(?<!\d)(?<!\d )(?:{SIGN}|\b{CURRENCY}) ?"
    rf"(?:{SPACES}{ALONE_AFTER}|{GROUPED}{AFTER}|\d{{1,9}}{CENTS}?{AFTER})",
    r"\b(?:version|firmware|build|release|ver\.?|v\.?) ?\d{1,6}(?:\.\d{1,7}){1,5}",
)
NUMBER = rf"(?=\d)(?:{'|'.join(FROM_A_DIGIT)})"
WORD = rf"(?=[^\d\s])(?:{'|'.join(FROM_A_WORD)})"
EVERYDAY = re.compile(f"{NUMBER}|{WORD}", re.IGNORECASE)
# Less is no phone, card or account; most texts have fewer.
SEVEN_DIGITS = re.compile(r"(?:\d\D{0,4}){6}\d")


def without_everyday(text: str) -> str:
    """Return the text at the same length, with `|` for each character of an everyday number."""
    return EVERYDAY.sub(lambda match: "|" * len(match[0]), text)
