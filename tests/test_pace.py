"""Claims about predictions of repeated work."""

from job.pace import Pace


def test_nothing_is_predicted_before_anything_was_measured():
    pace = Pace()
    assert pace.unit_seconds is None
    assert pace.seconds_for(10) is None


def test_the_first_measurements_do_not_count_beside_later_ones():
    pace = Pace(warm_up=2)
    pace.add(1, seconds=60)
    pace.add(1, seconds=20)
    pace.add(4, seconds=8)
    assert pace.seconds_for(10) == 20


def test_the_first_measurements_count_while_there_are_no_others():
    pace = Pace()
    pace.add(2, seconds=10)
    assert not pace.is_steady
    assert pace.seconds_for(3) == 15


def test_a_unit_takes_the_mean_over_units():
    pace = Pace(warm_up=0)
    pace.add(9, seconds=9)
    pace.add(1, seconds=11)
    assert pace.unit_seconds == 2
