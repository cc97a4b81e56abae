"""Claims about the measurements for a GPU and the tables of their results."""

import pytest

from benchmarks.gpu.goals import GOALS, verdicts
from benchmarks.gpu.measurements import measurements, merged
from benchmarks.gpu.tables import ratios, tables
from benchmarks.plots import figures

MACHINE = {"gpu": "H100", "cpus": 16, "versions": {"torch": "2.13.0"}, "revision": "abc"}


def line(variant: str, number: int, **found: object) -> dict[str, object]:
    return {
        "measurement": "training",
        "group": 0,
        "variant": variant,
        "round": number,
        **found,
    }


def test_the_most_telling_measurements_come_first():
    names = [each.name for each in measurements()]
    assert names[:3] == ["ceilings", "training", "summaries"]
    assert len(set(names)) == len(names) >= 8


def test_the_limits_of_the_first_five_fit_into_nine_minutes():
    first = measurements()[:5]
    assert sum(group.seconds for each in first for group in each.groups) <= 9 * 60


@pytest.mark.parametrize("shape", ["7b", "tiny"])
def test_variants_of_a_measurement_have_names_of_their_own(shape):
    for measurement in measurements(shape):
        names = [name for group in measurement.groups for name in group.variants]
        assert len(set(names)) == len(names)


def test_a_run_that_was_cut_off_has_the_tables_of_what_it_measured():
    lines = [
        {"machine": MACHINE},
        line("classic recipe", 0, conversations_per_second=1.0),
        line("recap, fast", 0, conversations_per_second=1.0),
        line("classic recipe", 1, conversations_per_second=10.0),
        line("recap, fast", 1, conversations_per_second=25.0),
        line("trl sft", 0, failed="out of memory"),
    ]
    text = tables(lines, measurements())
    assert text.startswith("H100, 16 CPUs; torch 2.13.0; recap abc")
    assert "| classic recipe | 10 |" in text
    assert "2.50 (2.50 to 2.50)" in text
    assert "| trl sft | out of memory |" in text
    assert "A token step" not in text
    assert "training / classic recipe: 2.50 (wanted: at least 2.5)" in text
    assert "training / trl sft, the faster of its batch sizes: not measured (wanted" in text


def test_recap_must_be_faster_than_the_fastest_way_of_trl():
    lines = [line("recap, fast", 1, conversations_per_second=10.0)]
    lines.append(line("trl sft", 1, conversations_per_second=5.0))
    (found,) = [each for each in verdicts(lines) if each.startswith("training / trl")]
    assert ": 2.00 (" in found
    lines.append(line("trl sft, 16 rows a pass", 1, conversations_per_second=9.0))
    (found,) = [each for each in verdicts(lines) if each.startswith("training / trl")]
    assert ": 1.11 (" in found
    assert found.endswith("MISSED")


def test_every_goal_is_of_a_variant_that_is_measured():
    there = {
        (measurement.name, variant)
        for measurement in measurements()
        for group in measurement.groups
        for variant in group.variants
    }
    places = [place[:2] for goal in GOALS for place in (goal.one, *goal.others)]
    assert set(places) <= there


def test_ratios_are_of_the_same_round():
    lines = [
        line("first", 1, speed=1.0),
        line("first", 2, speed=2.0),
        line("other", 2, speed=3.0),
        line("other", 1, speed=4.0),
    ]
    assert sorted(ratios(lines, "speed", "other", "first", 0)) == [1.5, 4.0]


def test_sections_are_merged_key_by_key():
    one = {"lora": {"r": 4, "alpha": 8}, "run": "a"}
    assert merged(one, {"lora": {"r": 2}}) == {"lora": {"r": 2, "alpha": 8}, "run": "a"}
    assert one["lora"]["r"] == 4


def test_a_curve_needs_two_points():
    points = [
        {"curve": "night", "size": size, "cpu_seconds": size / 9, "peak_mib": 200.0}
        for size in (1_000, 1_000_000)
    ]
    assert sorted(figures(points)) == ["scale-night-memory.svg", "scale-night-time.svg"]
    assert figures(points)["scale-night-time.svg"].count("<circle") == 2
    assert figures(points[:1]) == {}
