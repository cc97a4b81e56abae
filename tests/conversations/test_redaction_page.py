"""Claims about docs/redaction.md: its example is what happens, its tables what is measured."""

import re

from benchmarks.redaction_quality import PAGE, page_with, tables
from job.config.redaction import KINDS, RedactionSection
from job.conversations.record import Conversation, Source, Turn
from job.conversations.redaction import make_redactor, redact

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_tables_of_the_page_are_what_is_measured():
    assert page_with(TEXT, "\n".join(tables())) == TEXT, "run `make docs`"


def test_the_example_of_the_page_is_what_happens():
    said, read = re.findall(r"^    (Meine Nummer .*)$", TEXT, re.MULTILINE)
    redactor = make_redactor(RedactionSection(phone_region="DE"))
    assert redactor
    found, _ = redact(Conversation("c", (Turn("customer", said),), Source("f", 1)), redactor)
    assert found.turns[0].text == read


def test_the_page_has_each_kind():
    rows = re.findall(r"^\| `(\w+)` \|", TEXT.partition("## Placeholders")[0], re.MULTILINE)
    assert sorted(rows) == sorted(KINDS)
