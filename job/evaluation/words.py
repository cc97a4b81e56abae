"""Text → the words that ROUGE counts, in any language.

Text in ASCII yields exactly the words of `rouge_score` with its stemmer, so that English scores
stay comparable with everyone's. Other text is cut by Unicode's properties; nobody names a language.
The rules and their reasons are in docs/decisions/0017-words-of-every-language.md.
"""

import re
import unicodedata
from itertools import pairwise

import regex

# Recorded with every evaluation. A change of any rule below changes scores, and so this name.
TOKENIZER = "unicode-words-1"

_ASCII_WORD = re.compile(r"[a-z0-9]+")
_RUN = regex.compile(r"[\p{L}\p{M}\p{Nd}\p{Nl}\p{Cf}]+")
# Joiners, direction marks, soft hyphens, emoji decoration, and the stretch of Arabic calligraphy.
_INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cf}\p{Me}\u0640]")
# Signs that mean something by themselves; U+30FC lengthens the kana before it.
_SIGNS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\u30fc"
# Letters of scripts that only a dictionary cuts into words: Thai, Lao, Khmer, Burmese and others.
_SPACELESS_LETTERS = r"\p{Line_Break=SA}"
_APOSTROPHES = r"\u02bb\u02bc"  # Unicode calls these letters
_UNIT = regex.compile(
    rf"(?P<sign>[{_SIGNS}]\p{{M}}*)"
    rf"|(?P<phrase>(?:{_SPACELESS_LETTERS}\p{{M}}*)+)"
    r"|(?P<word>(?:[[\p{L}\p{Nd}\p{Nl}]"
    rf"--[{_SIGNS}{_SPACELESS_LETTERS}{_APOSTROPHES}]]\p{{M}}*)+)",
    regex.V1,
)
_SPACELESS = regex.compile(rf"[{_SIGNS}{_SPACELESS_LETTERS}]")
_LETTER_WITH_MARKS = regex.compile(r"\P{M}\p{M}*")


def words(text: str) -> list[str]:
    """Return the words of a text in their order, without regard to case, not stemmed."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return [word for run in _RUN.findall(text) for word in _words_of_run(run)]


def has_letters(text: str) -> bool:
    """Return True if a word of the text has a letter: a number alone says nothing of a summary."""
    return any(not word.isdecimal() for word in words(text))


def length(text: str) -> int:
    """Return how many words a person would count: those between spaces, or signs without spaces."""
    pieces = text.split()
    if text.isascii():
        return len(pieces)
    count = 0
    for piece in pieces:
        count += len(words(piece)) if _SPACELESS.search(piece) else 1
    return count


class RougeTokenizer:
    """The words of a text as ROUGE compares them; `rouge_score` takes it as its `tokenizer`.

    It remembers stems, as stemming a word takes 20 times as long as looking it up.
    """

    def __init__(self) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        self._stem = DefaultTokenizer(use_stemmer=True).tokenize
        self._stems: dict[str, list[str]] = {}

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text, with the Porter stem of those that are of a-z and 0-9."""
        return [stem for word in words(text) for stem in self._stems_of(word)]

    def _stems_of(self, word: str) -> list[str]:
        if not word.isascii():
            return [word]
        if word not in self._stems:
            self._stems[word] = self._stem(word)
        return self._stems[word]


def _words_of_run(run: str) -> list[str]:
    """Cut a run where its script changes, and within scripts that write no spaces."""
    if run.isascii():
        return [run.lower()]
    found: list[str] = []
    for unit in _UNIT.finditer(_fold(run)):
        if unit["phrase"]:
            found += _overlapping_pairs(_LETTER_WITH_MARKS.findall(unit["phrase"]))
        else:
            found.append(unit[0])
    return found


def _overlapping_pairs(letters: list[str]) -> list[str]:
    """Stand in for words where only a dictionary could find them.

    Single letters of an alphabet would not do: unrelated texts share nearly all of them.
    """
    if len(letters) == 1:
        return letters
    return [left + right for left, right in pairwise(letters)]


def _fold(run: str) -> str:
    """Return one spelling for what a reader takes for the same letters and digits."""
    text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", run)).casefold()
    text = unicodedata.normalize("NFKC", text)  # case folding may take letters apart
    # Of the Turkish letters i with a dot and i without, either may be the other case of English I.
    text = text.replace("i\u0307", "i").replace("\u0131", "i")
    return "".join(map(_ascii_digit, text))


def _ascii_digit(sign: str) -> str:
    """Return the digit 0-9 of a decimal digit in any script, and any other sign as it is."""
    return str(unicodedata.decimal(sign)) if sign.isdecimal() else sign
