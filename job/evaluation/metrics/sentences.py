"""Text → its sentences, as ROUGE-Lsum, faithfulness and the metrics of facts read them.

By rules: nltk would download models.
"""

import regex

# A space must follow the marks of English, which stand in numbers and names too. The marks of other
# scripts (as in Chinese, Japanese, Arabic, Hindi, Burmese) end sentences and nothing else.
_OTHER_MARK = r"[\p{Sentence_Terminal}--[.!?\uff0e]]"
_SENTENCE_END = regex.compile(
    r"(?<=[.!?])[\"')\]]*\s+"
    rf"|(?<={_OTHER_MARK})(?!{_OTHER_MARK})[\p{{Pe}}\p{{Pf}}\"']*\s*"
    r"|\s*\n\s*",
    regex.V1,
)
# After these a sentence goes on: "Mr. Smith", "5 vs. 10", "bzw."
_ABBREVIATIONS = (
    "mr mrs ms mx messrs dr prof st rev hon capt lt col gen sgt vs approx e.g i.e eg cf "
    "hr fr bzw z.b d.h u.a ca evtl inkl zzgl mme mlle sra srta dra dña ud uds sig dott avv dhr mevr"
)
# "No. 5", but "He said no."
_BEFORE_NUMBERS = "no nos nr nº tel ext art fig ref p pp vol ver"
# "10 a.m. on Monday", but "at 10 a.m. The agent"
_BEFORE_SMALL_LETTERS = "etc a.m p.m am pm inc ltd co corp jr sr dept acct est u.s u.k usw"
# These words begin a sentence, so that a capital letter before them ended one: "plan B. The agent".
_BEGINNINGS = (
    "the a an i it he she they we you this that these those there then customer agent client user "
    "representative later after before when however but and so if in on as at for to"
)
LONGEST = 20  # characters, more than any of these
_LAST_WORD = regex.compile(r"(?<![\p{L}\p{M}\p{Nd}])([\p{L}\p{M}.]*[\p{L}\p{M}]º?)\.$")
_LIST_NUMBER = regex.compile(r"\(?(?:\p{Nd}{1,2}|\p{L})[.)]+")
_NEXT_WORD = regex.compile(r"[\p{L}\p{M}]+")


def sentences(text: str) -> list[str]:
    """Return the sentences of a text; abbreviations, initials and list numbers end none."""
    found, start, text = [], 0, text.strip()
    for end in _SENTENCE_END.finditer(text):
        before = text[start : end.start()]
        if "\n" not in end[0] and _goes_on(before, text[end.end() :]):
            continue
        found.append(before)
        start = end.end()
    found.append(text[start:])
    return [sentence for sentence in found if sentence]


def _goes_on(before: str, after: str) -> bool:
    """Return True if the full stop after which the text is cut ends no sentence."""
    if _LIST_NUMBER.fullmatch(before):
        return True
    last = _LAST_WORD.search(before[-LONGEST:])
    if last is None or not after:
        return False
    word, following = last[1].lower(), _NEXT_WORD.match(after)
    if word in _BEFORE_SMALL_LETTERS.split():
        return after[0].islower()
    if word in _BEFORE_NUMBERS.split():
        return after[0].isdecimal()
    if word == "st" or (len(word) == 1 and last[1].isupper()):  # a street, an initial
        return following is not None and following[0].lower() not in _BEGINNINGS.split()
    return word in _ABBREVIATIONS.split()
