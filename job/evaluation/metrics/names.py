"""Names in a summary: capitalised words inside its sentences, abbreviations, and English subjects.

Languages that capitalise every noun, and scripts without capitals, have no names that this can see.
The first word of a sentence is capitalised in any case. It is seen as a name only where English
says what somebody did ("Andrew said"), and it is no usual word for people or texts.
"""

import difflib
from itertools import pairwise

import regex

from job.evaluation.metrics.number_words import MONTHS
from job.evaluation.metrics.numbers import Evidence
from job.evaluation.metrics.sentences import sentences
from job.evaluation.metrics.subjects import is_subject

_WORD = regex.compile(r"[\p{L}\p{M}\p{Nd}]+(?:[-'’&.][\p{L}\p{M}\p{Nd}]+)*")
_POSSESSIVE = regex.compile(r"(['’]s|s['’]|['’])$", regex.IGNORECASE)
_OPENING = regex.compile(r"[\p{Ps}\p{Pi}\p{Pd}\"':;•*/]\s*$")
MAX_CAPITALISED = 0.2  # of the words inside sentences: of more, every noun is capitalised
MIN_WORDS_TO_KNOW = 30
MIN_GERMAN_WORDS = 2
MIN_GERMAN_SHARE = 0.1  # of all words; German texts have more than twice as many
MIN_LETTERS_IN_A_HANDLE = 4  # a name may be a part of a handle: amazon of @amazonhelp
MIN_LETTERS_IN_A_PAIR = 4  # "face book"; but "has an" is no Hasan
MIN_LETTERS_TO_MISSPELL = 5
MAX_LETTERS_MORE = 2
SIMILARITY = 0.85  # of a misspelled name: of six letters, one may be missing but none another

# Words that people capitalise in summaries and that name nobody.
_NO_NAME_WORDS = (
    "i i'm i've i'd i'll he she they it his her their him them this that these those there the a "
    "an and but so or also then however later further finally because since when while where "
    "which who what customer customers client clients user users caller buyer consumer guest "
    "passenger agent agents representative rep advisor executive support team service care "
    "company mr mrs ms dr sir madam ma'am miss prof st no is dm dms dming pm pms am ok okay direct "
    "message messages id ids url urls faq faqs asap usd eur gbp aka etc via eta sms tv pc qr pin "
    "otp imei c cs csr cx gps os gb mb tb btw fyi wifi wi-fi app apps email e-mail emails online "
    "internet web website"
)
_NO_NAMES = frozenset(_NO_NAME_WORDS.split())
_ROLES = ("customer", "client", "user", "agent", "representative", "rep", "advisor")
_VERB = regex.compile(r"\p{L}+(?:ed|ing|es)", regex.IGNORECASE)
_PARTS = regex.compile(r"\p{Lu}?\p{Ll}+|\p{Lu}+(?!\p{Ll})|\p{Nd}+")
_PLAIN_WORD = regex.compile(r"[\p{L}\p{M}\p{Nd}]+")
_LETTERS = regex.compile(r"[\p{L}\p{M}]+|\p{Nd}+")
_HANDLE = regex.compile(r"[@#_]|https?:|www\.|\.(?:com|org|net)\b")
# Capitalised words in a row, which an abbreviation may stand for: Bank of America.
_TITLE = regex.compile(r"\p{Lu}\p{Ll}+(?:[ \-](?:(?:of|the|and|for|&) )?\p{Lu}\p{Ll}+)+")
# How a name changes: a plural or a possessive, the people and the language of a country.
_ENDINGS = (
    ("", "s"), ("", "es"), ("y", "ies"), ("", "ian"), ("a", "an"), ("a", "ian"), ("y", "ian"),
    ("", "ese"),
)  # fmt: skip
MIN_LETTERS_OF_A_STEM = 3
_NO_LETTER = regex.compile(r"[^\p{L}\p{Nd}]")
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
# Words of German texts that are rare in texts of any other language.
_GERMAN_WORDS = (
    "der das dem und ist nicht ich mein meine meinen wir mit auf für von sie auch bei nach "
    "eine einen einem wird wurde haben hat zur zum bitte kein keine"
)
_GERMAN = frozenset(_GERMAN_WORDS.split())


def names_in(summary: str) -> list[str]:
    """Return the words of the summary that are written as names, once each."""
    found: dict[str, None] = {}
    for line in sentences(summary):
        before = ""
        for match in _WORD.finditer(line):
            word = _POSSESSIVE.sub("", match[0])
            start = match.start()
            is_first = not before or _OPENING.search(line[max(start - 4, 0) : start])
            is_verb = before in _ROLES and _VERB.fullmatch(word)  # "Agent Replied"
            is_seen = is_subject(word, line[match.end() :]) if is_first else not is_verb
            if is_seen and _is_name(word):
                found[word] = None
            before = word.casefold()
    return list(found)


def capitalises_nouns(text: str) -> bool:
    """Return True if capitalised words inside sentences are no names: German, or far too many.

    A few sentences have too few words to count capitals, and people write German without them.
    """
    words = [word.lower() for word in _WORD.findall(text)]
    german = [word for word in words if word in _GERMAN]
    if len(set(german)) >= MIN_GERMAN_WORDS and len(german) >= MIN_GERMAN_SHARE * len(words):
        return True
    inside = [
        word
        for line in sentences(text)
        for word in _WORD.findall(line)[1:]
        if word.isalpha() and not (word.isupper() and len(word) > 1)
    ]
    if len(inside) < MIN_WORDS_TO_KNOW:
        return False
    capitalised = sum(word[0].isupper() and word.lower() not in _NO_NAMES for word in inside)
    return bool(capitalised > MAX_CAPITALISED * len(inside))


def has_capitals(text: str) -> bool:
    """Return True if the text is in a script that has capitals at all."""
    return any(character.islower() for character in text)


class KnownWords:
    """The words of a conversation, to look names up in."""

    def __init__(self, text: str, evidence: Evidence) -> None:
        folded = text.casefold()
        plain = _PLAIN_WORD.findall(text)
        self._words = {squash(word) for word in _WORD.findall(folded)}
        for word in plain:
            self._words |= {part.casefold() for part in (*_PARTS.findall(word), word)}
            self._words |= {part.casefold() for part in _LETTERS.findall(word)}
        self._pairs = {
            (one + other).casefold()
            for one, other in pairwise(plain)
            if min(len(one), len(other)) >= MIN_LETTERS_IN_A_PAIR
        }
        handles = [piece for piece in folded.split() if _HANDLE.search(piece)]
        self._handles = " ".join(squash(handle) for handle in handles)
        self._initials = [row for title in _TITLE.findall(text) for row in _initials(title)]
        self._evidence = evidence

    def has(self, name: str) -> bool:
        """Return True if the conversation has the name, in another form or spelling too."""
        word = squash(name.casefold())
        if not word or word in self._words or word in self._pairs:
            return True
        if name.casefold() in MONTHS and MONTHS[name.casefold()] in self._evidence.values:
            return True
        if len(word) >= MIN_LETTERS_IN_A_HANDLE and word in self._handles:
            return True
        parts = _PARTS.findall(name)
        if len(parts) > 1 and all(self.has(part) for part in parts):
            return True
        if any(_is_other_form(word, known) for known in self._words):
            return True
        if name.isupper() and len(word) > 1 and any(word in row for row in self._initials):
            return True
        return len(word) >= MIN_LETTERS_TO_MISSPELL and self._has_misspelled(word)

    def _has_misspelled(self, word: str) -> bool:
        # People misspell the middle of a name, and add or lose a letter or two.
        alike = [
            known
            for known in self._words
            if known[:1] == word[0]
            and known[-1:] == word[-1]
            and abs(len(known) - len(word)) <= MAX_LETTERS_MORE
        ]
        return bool(difflib.get_close_matches(word, alike, n=1, cutoff=SIMILARITY))


def squash(text: str) -> str:
    """Return the letters and digits of a text: wi-fi is wifi."""
    if text.isascii() and text.isalnum():  # as most words are
        return text
    squashed: str = _NO_LETTER.sub("", text)
    return squashed


def _is_name(word: str) -> bool:
    return len(word) > 1 and word[0].isupper() and word.casefold() not in _NO_NAMES


def _initials(title: str) -> list[str]:
    """Return the initials of all words, and of the capitalised ones: BOA and BA."""
    letters = [word[0] for word in regex.findall(r"[\p{L}\p{M}]+", title)]
    capitals = [letter for letter in letters if letter.isupper()]
    return ["".join(row).casefold() for row in (letters, capitals)]


def _is_other_form(word: str, known: str) -> bool:
    """Return True for a plural, for Mon and Monday, for Canada and Canadian."""
    short, long = sorted((word, known), key=len)
    if long in _DAYS:
        return len(short) > 2 and long.startswith(short)
    for without, ending in _ENDINGS:
        stem = long.removesuffix(ending)
        if len(stem) >= MIN_LETTERS_OF_A_STEM and stem != long and short == stem + without:
            return True
    return False
