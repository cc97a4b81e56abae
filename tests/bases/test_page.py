"""Claims about docs/bases.md: it has a row for each base that the tests try, and no other."""

from tests.bases.families import FAMILIES
from tests.bases.page import PAGE, lines_of, wanted_names

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_page_has_exactly_the_bases_of_the_tables():
    for table, names in wanted_names().items():
        listed = [line.split(" | ")[0].removeprefix("| ") for line in lines_of(TEXT, table)]
        assert listed == names, f"{table}: run `make test-bases`"


def test_names_of_families_are_unique():
    names = [entry.name for entry in FAMILIES]
    assert len(names) == len(set(names))
    assert len(names) >= 40
