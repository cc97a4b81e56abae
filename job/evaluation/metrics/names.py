"""Names in a summary: capitalised words inside its sentences, and abbreviations.

Languages that capitalise every noun, and scripts without capitals, have no names that this can see.
"""

import difflib

import regex

from job.evaluation.metrics.number_words import MONTHS
from job.evaluation.metrics.numbers import Evidence
from job.evaluation.metrics.sentences import sentences

_WORD = regex.compile(r"[\p{L}\p{M}\p{Nd}]+(?:[-'’&.][\p{L}\p{M}\p{Nd}]+)*")
_POSSESSIVE = regex.compile(r"(['’]s|s['’]|['’])$", regex.IGNORECASE)
_OPENING = regex.compile(r"[\p{Ps}\p{Pi}\p{Pd}\"':;•*/]\s*$")
MAX_CAPITALISED = 0.2  # of the words inside sentences: of more, every noun is capitalised
MIN_WORDS_TO_KNOW = 30
MIN_LETTERS_INSIDE = 4  # a name may be a part of a handle: Spotify of SpotifyCares
MIN_LETTERS_TO_MISSPELL = 5
MAX_LETTERS_MORE = 2
SIMILARITY = 0.8  # of a misspelled name; a name of five letters may have one other letter

# Words that people capitalise in summaries and that name nobody.
_NO_NAME_WORDS = (
    "i i'm i've i'd i'll he she they it his her their him them this that these those there the a "
    "an and but so or also then however later further finally because since when while where "
    "which who what customer customers client clients user users caller buyer consumer guest "
    "passenger agent agents representative rep advisor executive support team service care "
    "company mr mrs ms dr sir madam ma'am miss dm dms dming pm pms am ok okay direct message "
    "messages id ids url urls faq faqs asap usd eur gbp aka etc via eta sms tv pc qr pin otp imei "
    "c cs csr cx gps os gb mb tb btw fyi wifi wi-fi app apps email e-mail emails online internet "
    "web website"
)
_NO_NAMES = frozenset(_NO_NAME_WORDS.split())
_ROLES = ("customer", "client", "user", "agent", "representative", "rep", "advisor")
_VERB = regex.compile(r"\p{L}+(?:ed|ing|es)", regex.IGNORECASE)
_PARTS = regex.compile(r"\p{Lu}?\p{Ll}+|\p{Lu}+(?!\p{Ll})|\p{Nd}+")


def names_in(summary: str) -> list[str]:
    """Return the words of the summary that are written as names, once each."""
    found: dict[str, None] = {}
    for line in sentences(summary):
        before = ""
        for match in _WORD.finditer(line):
            word = _POSSESSIVE.sub("", match[0])
            is_first = not before or _OPENING.search(line[: match.start()])
            is_verb = before in _ROLES and _VERB.fullmatch(word)  # "Agent Replied"
            if not is_first and not is_verb and _is_name(word):
                found[word] = None
            before = word.casefold()
    return list(found)


def capitalises_nouns(text: str) -> bool:
    """Return True if so many words inside sentences are capitalised that they are no names."""
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
        self._words = {squash(word) for word in _WORD.findall(folded)}
        self._words |= {squash(word) for word in regex.findall(r"[\p{L}\p{M}\p{Nd}]+", folded)}
        self._squashed = squash(folded)
        self._initials = self._words_of_initials(folded)
        self._evidence = evidence

    def has(self, name: str) -> bool:
        """Return True if the conversation has the name, in another form or spelling too."""
        word = squash(name.casefold())
        if not word or word in self._words:
            return True
        if name.casefold() in MONTHS and MONTHS[name.casefold()] in self._evidence.values:
            return True
        is_long = len(word) >= MIN_LETTERS_INSIDE or not word.isalpha()
        if is_long and word in self._squashed:
            return True
        parts = _PARTS.findall(name)
        if len(parts) > 1 and all(self.has(part) for part in parts):
            return True
        if len(word) > 2 and any(_is_other_form(word, known) for known in self._words):
            return True
        if name.isupper() and word in self._initials:
            return True
        return len(word) >= MIN_LETTERS_TO_MISSPELL and self._has_misspelled(word)

    def _has_misspelled(self, word: str) -> bool:
        # People misspell the middle of a name, and add or lose a letter or two.
        alike = [
            known
            for known in self._words
            if known[:1] == word[0] and abs(len(known) - len(word)) <= MAX_LETTERS_MORE
        ]
        return bool(difflib.get_close_matches(word, alike, n=1, cutoff=SIMILARITY))

    @staticmethod
    def _words_of_initials(text: str) -> str:
        return "".join(word[0] for word in regex.findall(r"[\p{L}\p{M}]+", text))


def squash(text: str) -> str:
    """Return the letters and digits of a text: wi-fi is wifi."""
    squashed: str = regex.sub(r"[^\p{L}\p{Nd}]", "", text)
    return squashed


def _is_name(word: str) -> bool:
    return len(word) > 1 and word[0].isupper() and word.casefold() not in _NO_NAMES


def _is_other_form(word: str, known: str) -> bool:
    """Return True for an abbreviation or a plural: Mon and Monday, iPhones and iPhone."""
    if len(known) < 3:
        return False
    return (word.startswith(known) and len(word) <= len(known) + 6) or known.startswith(word)
