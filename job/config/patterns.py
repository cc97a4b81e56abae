"""Glob patterns for files below an input.

A pattern without a slash is matched against the name of a file at any depth, one with a slash
against the whole key relative to the input. `*`, `?` and `[…]` match within a name, `**` matches
across folders.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

CHOICE = re.compile(r"\{[^{}]*,[^{}]*\}")  # `*.{jsonl,csv}`, which a shell would expand


def regex_of(glob: str) -> str:
    """Return a regular expression for whole keys that matches what the pattern matches."""
    *folders, name = glob.split("/")
    if not folders and name != "**":
        return f"(?:.*/)?{_within_a_name(name)}"
    regex = ""
    for folder in folders:
        regex += "(?:.*/)?" if folder == "**" else f"{_within_a_name(folder)}/"
    return regex + (".*" if name in ("", "**") else _within_a_name(name))


def check_glob(glob: str) -> str:
    """Return the pattern itself. Raise ValueError if it can hardly match what is meant."""
    if glob.startswith(("/", "./", "../")) or "://" in glob:
        raise ValueError(
            f"'{glob}' is no pattern below the input; wanted one relative to it, such as tmp/** "
            "or *.csv"
        )
    if CHOICE.search(glob):
        raise ValueError(
            f"'{glob}' has a choice in braces, which is not expanded; give a list of patterns "
            "instead"
        )
    try:
        re.compile(regex_of(glob))
    except re.error as error:
        raise ValueError(f"'{glob}' is no pattern ({error}); wanted *, ?, [a-z] and **") from error
    return glob


def _within_a_name(part: str) -> str:
    translated = ""
    index = 0
    while index < len(part):
        character = part[index]
        # A set holds at least one character, which may be a bracket.
        end = part.find("]", index + 2)
        if character == "[" and end > 0:
            translated += f"(?!/){_character_set(part[index + 1 : end])}"
            index = end
        else:
            translated += {"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character))
        index += 1
    return translated


def _character_set(content: str) -> str:
    negation = "^" if content.startswith("!") else ""
    # Also the characters of set operations, which Python reserves.
    escaped = re.sub(r"[\\\[^&~|]", r"\\\g<0>", content.removeprefix("!"))
    return f"[{negation}{escaped}]"


Glob = Annotated[str, Field(min_length=1), AfterValidator(check_glob)]
Globs = Glob | list[Glob]
