"""Lists that stand in a text, as CSV files and careless JSON hold them.

Text → list, or None for a text that is just text. Reads JSON, and what Python, pandas and numpy
print of a list: literals only, nothing is evaluated.
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
# numpy prints no commas between elements, and Python would join two strings without one.
ELEMENT = re.compile(rf"({STRING}|\b(?:nan|None)\b|[}}\])])(\s+(?=['\"{{\[(]|nan\b|None\b))?")
OUTSIDE_STRINGS = re.compile(r"(?:[\[\]{}(),:\s]|None|True|False|-?\d[\d.eE+-]*+)*+")


def list_in(text: str, where: str) -> list[Any] | None:
    """Return the list that the text of `where` holds; None if it is no list.

    RecordError for a text that begins as a list does and cannot be read as one, and for a set,
    which has no order.
    """
    if LIST.match(text):
        try:
            value = parse_json(text)
        except RecordError as error:
            value = _python_value(text)
            if value is None:
                raise RecordError(
                    f"{where} begins like a list ({text.strip()[:20]} …), but is neither JSON "
                    f"({error.detail}) nor what Python prints of a list of texts or objects, of at "
                    f"most {MAX_PYTHON_CHARACTERS:,} characters; write it as JSON"
                ) from None
        return value if isinstance(value, list) else None
    if not TUPLE_OR_SET.fullmatch(text):
        return None
    value = _python_value(text)
    if isinstance(value, set):
        raise RecordError(f"{where} is a set, which has no order; write a JSON list")
    return value if isinstance(value, list) else None


def _python_value(text: str) -> Any:
    """Return the value of a Python literal (lists, dicts, texts, numbers); None if it is none."""
    if len(text) > MAX_PYTHON_CHARACTERS:
        return None
    literal = ELEMENT.sub(_with_comma, text.strip())
    if not OUTSIDE_STRINGS.fullmatch(re.sub(STRING, "", literal)):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of escapes that Python does not know
            value = ast.literal_eval(literal)
        return value if isinstance(value, set) else plain(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _with_comma(element: re.Match[str]) -> str:
    written = "None" if element[1] == "nan" else element[1]
    return f"{written},{element[2]}" if element[2] else written
