"""Lists inside a text, as CSV files and careless JSON hold them.

Text → list, or None for a text that is just text. Reads JSON, and lists as Python, pandas and numpy
print them: literals only, nothing is evaluated.
"""

import ast
import re
import warnings
from typing import Any

from job.conversations.draft import RecordError, plain
from job.conversations.json_text import parse_json

# A summary or a transcript may well begin with a bracketed word, but hardly with a bracketed quote.
NOTHING = r"(?:None|nan|null)(?:\s*[,\]]|\s+['\"{])"
LIST = re.compile(rf"\s*\[\s*(?:[\[{{\]]|\(?\s*[bBuU]?['\"]|array\(|{NOTHING})")
TUPLE_OR_SET = re.compile(r"\s*(?:\(\s*['\"].*\)|\{\s*['\"].*\})\s*", re.DOTALL)
MAX_PYTHON_CHARACTERS = 1 << 20  # Python's parser needs some hundred bytes for each
STRING = r"'(?:[^'\\\n]|\\.)*+'|\"(?:[^\"\\\n]|\\.)*+\""
TOKEN = re.compile(
    rf"(?P<value>{STRING}|\b(?:nan|None|True|False)\b|-?\d[\d.eE+-]*+)"
    r"|(?P<open>[\[({])|(?P<close>[\])}])|(?P<between>[,:])|\s+"
)


def list_in(text: str, where: str) -> list[Any] | None:
    """Return the list that the text of `where` holds; None if it is not a list.

    Raise RecordError for a text that begins as a list does and cannot be read as one, and for a
    set, which has no order.
    """
    begins = LIST.match(text)
    if begins:
        try:
            value = parse_json(text)
        except RecordError as error:
            value = _python_value(text)
            if not isinstance(value, list):
                raise RecordError(
                    f"{where} begins like a list ({begins[0].strip()} …), but is neither JSON "
                    f"({error.detail}) nor what Python prints of a list of texts or objects, of at "
                    f"most {MAX_PYTHON_CHARACTERS:,} characters; write it as JSON"
                ) from None
        return list(plain(value))
    value = _python_value(text) if TUPLE_OR_SET.fullmatch(text) else None
    if isinstance(value, set):
        raise RecordError(f"{where} is a set, which has no order; write a JSON list")
    return list(plain(value)) if isinstance(value, tuple) else None


def _python_value(text: str) -> Any:
    """Return the value of a Python literal (lists, dicts, texts, numbers); None for other text."""
    literal = _with_commas(text.strip()) if len(text) <= MAX_PYTHON_CHARACTERS else None
    if literal is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of escapes that Python does not know
            return ast.literal_eval(literal)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _with_commas(text: str) -> str | None:
    """Return the literal with a comma between each two elements; None if it holds anything else.

    numpy prints no commas, and Python would join two texts without one. A loop over tokens, as a
    search for quotes that are never closed would take quadratic time.
    """
    written: list[str] = []
    offset = 0
    after_element = False
    while offset < len(text):
        token = TOKEN.match(text, offset)
        if token is None:
            return None
        offset = token.end()
        kind = token.lastgroup
        if kind is None:  # space
            continue
        if after_element and kind in ("value", "open"):
            written.append(",")
        written.append("None" if token[0] == "nan" else token[0])
        after_element = kind in ("value", "close")
    return "".join(written)
