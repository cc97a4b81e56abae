"""Claims about a challenger over the nights: whose lines are compared, and what the table has."""

import json
from dataclasses import asdict
from datetime import date

import pytest

from job.config.watch_config import WatchConfig
from job.storage.folders import Manifest
from job.watch.challengers import Tried, find_trial
from job.watch.measured import Measured
from job.watch.page import page
from job.watch.screen import screen, to_json
from job.watch.watch import judge_nights
from tests.watch.streams import Team

DIGEST = "c" * 64
LONG = Measured(30, 300.0, 40.0)  # characters of the challenger
SHORT = Measured(170, 180.0, 40.0)  # of the adapter
MIXED = Measured(200, 198.0, 60.0)  # of all delivered lines


def facts(night, mode, digest=DIGEST, adapter="a" * 64):
    """Return a manifest's facts of a night with a challenger whose summaries are longer."""
    figures = {name: asdict(one) for name, one in night.figures.items()}
    quality = {"figures": figures | {"characters": asdict(MIXED)}, "measured_by": "m"}
    beside = {name: one for name, one in figures.items() if name != "rejected"}
    block = {
        "digest": digest,
        "mode": mode,
        "figures": beside | {"characters": asdict(LONG)},
        "beside": {"figures": beside | {"characters": asdict(SHORT)}},
    }
    return {
        "quality": quality,
        "identity": {"weights": {"adapter": adapter, "base": "b"}, "input": {}},
        "counts": {"records": 200, "summaries": 200},
        "engines": {},
        "challenger": block,
    }


@pytest.fixture
def judged(tmp_path):
    """Return a function that judges three nights with a challenger in this mode."""

    def judge(mode):
        for night in Team(3).nights(3):
            path = tmp_path / f"dt={night.day}" / "manifest.json"
            path.parent.mkdir(parents=True)
            path.write_bytes(Manifest({}, facts(night, mode)).to_json())
        return judge_nights(WatchConfig.model_validate({"run": "w", "nights": str(tmp_path)}))

    return judge


@pytest.mark.parametrize(("mode", "wanted"), [("canary", SHORT), ("shadow", MIXED)])
def test_nights_are_compared_by_the_lines_of_the_adapter(judged, mode, wanted):
    verdict = judged(mode)
    assert [night.figures["characters"] for night in verdict.nights] == [wanted] * 3
    assert all("rejected" in night.figures for night in verdict.nights), "of all records"


def test_the_screen_has_the_challenger_beside_the_adapter(judged):
    verdict = judged("canary")
    text = screen(verdict)
    title = "challenger cccccccccccc (canary) beside aaaaaaaaaaaa, 3 nights from 2026-01-01 to"
    assert title in text
    (row,) = [line for line in text.splitlines() if "+120.00" in line]
    assert row.split()[-6:] == ["180.00", "300.00", "+120.00", "[+111.04,", "+128.96]", "outside"]
    found = json.loads(json.dumps(to_json(verdict)))["challenger"]["figures"]["characters"]
    assert found["challenger"] == {"records": 90, "mean": 300.0}
    assert found["difference"]["low"] == pytest.approx(111.04, abs=0.01)


def tried(digest, mode="canary", hits=0.0):
    share = {"empty": Measured(10, hits, 0.0)}
    return Tried(digest, mode, "a", share, {"empty": Measured(90, 0.0, 0.0)})


def test_only_nights_of_the_last_pair_count():
    nights = [tried("c"), None, tried("d", "shadow"), tried("c"), tried("d"), tried("d")]
    trial = find_trial([(date(2026, 1, n + 1), each) for n, each in enumerate(nights)])
    assert trial.days == [date(2026, 1, 5), date(2026, 1, 6)]
    assert find_trial([(date(2026, 1, 1), None)]) is None


def test_the_page_has_the_challenger_beside_the_adapter(judged):
    config = WatchConfig.model_validate({"run": "w", "nights": "nights"})
    text = page(config, judged("canary"))
    title = "Challenger cccccccccccc (canary) beside aaaaaaaaaaaa, 3 nights from 2026-01-01 to"
    assert title in text
    section = text[text.index('id="challenger"') : text.index('id="courses"')]
    assert "+120.00 [+111.04, +128.96]" in section
    assert 'href="#challenger"' in text


def test_shares_of_equal_records_leave_a_doubt():
    (none,) = find_trial([(date(2026, 1, 1), tried("c"))]).figures
    assert none.low < 0 < none.high
    assert not none.is_outside
    (all_of_them,) = find_trial([(date(2026, 1, 1), tried("c", hits=1.0))]).figures
    assert all_of_them.is_outside
    assert all_of_them.low > 0.6
