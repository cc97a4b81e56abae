"""Claims about odd bases: each trains and summarizes, or is refused in `plan` by its sentence."""

import pytest

from job.errors import ExitCode
from tests.bases.checks import check_batches, check_summaries
from tests.bases.odd import ODD, Odd, make_odd_base
from tests.bases.page import Row, write_row

pytestmark = [pytest.mark.bases, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("entry", ODD, ids=[entry.name.replace(" ", "-") for entry in ODD])
def test_odd_base_works_or_is_refused_in_the_plan(entry, travel, tmp_path):
    make_odd_base(entry, tmp_path / "base")
    journey = travel(tmp_path / "base", entry.style, entry.settings)
    plan = journey.plan()
    if entry.refused is not None:
        assert plan.code == entry.code, plan.out + plan.err
        assert entry.refused in plan.err
        write_row(row_of(entry))
        return

    assert plan.code == ExitCode.DONE, plan.out + plan.err
    for ended in (journey.train("padded"), journey.evaluate()):
        assert ended.code == ExitCode.DONE, ended.err
    check_summaries(journey, "separate")
    check_batches(journey)
    write_row(row_of(entry))


def row_of(entry: Odd) -> Row:
    outcome = "works" if entry.refused is None else f"refused with {entry.code}: … {entry.refused}"
    return Row("Odd bases", entry.name, [outcome])
