"""The examples of docs/formats.md are read as they stand."""

import re
from pathlib import Path

from job.config.sections import ReadingSection
from job.conversations.read import read_strictly

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
EXAMPLE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_example_of_the_formats_page_is_read(put):
    read = [
        read_strictly([put(kind, text)], ReadingSection()) for kind, text in EXAMPLE.findall(PAGE.read_text("utf-8"))
    ]
    assert [len(conversations) for conversations in read] == [3, 3, 1, 1]
    assert [len(one.turns) for conversations in read for one in conversations] == [2, 1, 1, 2, 2, 1, 2, 2]
    assert [len(one.references) for conversations in read for one in conversations] == [0, 2, 1, 0, 0, 1, 2, 1]
