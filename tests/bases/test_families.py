"""Claims about families of bases: each goes through every command, or is refused in `plan`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from job.errors import ExitCode
from tests.bases.base import Family, make_base
from tests.bases.checks import (
    check_adapter,
    check_commands,
    refused_row,
    row_of,
)
from tests.bases.families import GROUPS, family
from tests.bases.journey import Journey
from tests.bases.page import PAGE, Row, lines_of, write_row

# Libraries warn on stderr, as they do outside of tests.
pytestmark = pytest.mark.filterwarnings("ignore")

# One of each kind that other tests lack: their base is a dense Llama. `make test-bases` tries all.
KINDS = {
    "Conv1D, learned positions, no chat template": "GPT-2",
    "template that opens a thought, shared experts": "DeepSeek V3 / R1",
    "channels, attention that sdpa lacks": "gpt-oss",
    "state space and attention in one layer": "Falcon-H1",
    "multimodal without a causal class, template without system role": "Mistral Small 3.x",
}
EVERY = [(table, entry) for table, entries in GROUPS.items() for entry in entries]


@pytest.mark.quality  # each goes through every command
@pytest.mark.parametrize("kind", KINDS)
def test_a_family_of_each_kind_does_what_the_page_says(kind, travel, tmp_path):
    entry = family(KINDS[kind])
    table = next(table for table, entries in GROUPS.items() if entry in entries)
    row = try_family(entry, table, travel, tmp_path / "base")
    assert row.line in lines_of(PAGE.read_text("utf-8"), table), "run `make test-bases`"


@pytest.mark.bases
@pytest.mark.parametrize(
    ("table", "entry"), EVERY, ids=[entry.name.replace(" ", "-") for _, entry in EVERY]
)
def test_every_family_goes_through_every_command(table, entry, travel, tmp_path):
    row = try_family(entry, table, travel, tmp_path / "base")
    assert row.name == entry.name
    write_row(row)


def try_family(entry: Family, table: str, travel: Callable[..., Journey], base: Path) -> Row:
    """Take a family through every command, and return its row of the page."""
    make_base(entry, base)
    journey = travel(base, entry.style, settings=entry.settings, max_tokens=entry.max_tokens)
    plan = journey.plan()
    if entry.refused:
        assert plan.code == ExitCode.CONFIG
        assert entry.refused in plan.err
        return refused_row(entry, table)

    assert plan.code == ExitCode.DONE, plan.out + plan.err
    is_packable = check_commands(journey)
    return row_of(entry, table, check_adapter(journey), is_packable=is_packable)
