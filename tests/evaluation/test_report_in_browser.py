"""A whole report in a real Chromium: `make test-quality`."""

from pathlib import Path

import pytest

from job.evaluation.report import report_page
from tests.browser import OPEN_ALL, focus_stops, requests_and_errors, themes_and_widths
from tests.chromium import Tab
from tests.evaluation.reports import full_content

pytestmark = pytest.mark.quality


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report_page(full_content()), encoding="utf-8")
    return path.as_uri()


def test_nothing_scrolls_sideways_and_all_text_has_contrast(tab: Tab, url: str) -> None:
    assert themes_and_widths(tab, url) == {}


def test_hostile_text_runs_nothing_and_fetches_nothing(tab: Tab, url: str) -> None:
    tab.open(url)
    tab.run(OPEN_ALL)
    assert tab.run("document.title").startswith("Training run <script>")
    assert requests_and_errors(tab) == [url]


def test_the_chosen_metric_shows_its_plots_alone(tab: Tab, url: str) -> None:
    tab.open(url)
    shown = """[...document.querySelectorAll('.pair')].filter(pair => pair.checkVisibility())
      .map(pair => pair.dataset.value)"""
    assert tab.run(shown) == ["rougeL"]
    following = "document.querySelector('#metric').selectedOptions[0].nextElementSibling.value"
    expected = tab.run(following)
    tab.run("document.querySelector('#metric').focus()")
    tab.press("ArrowDown")
    assert tab.run(shown) == [expected]


def test_the_most_invented_are_one_click_away(tab: Tab, url: str) -> None:
    tab.open(url)
    tab.click("[data-tag=invented]")
    tab.click("[data-open=yes]")
    shown = """[...document.querySelectorAll('.conversation:not([hidden]) .judged mark')]
      .map(mark => mark.firstChild.data)"""
    assert tab.run(shown)[:3] == ["4711", "4711", "4711"]


def test_the_whole_report_is_reached_by_the_keyboard(tab: Tab, url: str) -> None:
    tab.open(url)
    stops = focus_stops(tab)
    for name in ("Gate", "Scores", "Training", "Metric", "Search", "Worst 10", "Open all"):
        assert name in stops, stops
    assert sum(stop.startswith("c-0") for stop in stops) == 21


def test_paper_has_the_verdict_the_scores_and_every_conversation(tab: Tab, url: str) -> None:
    tab.open(url)
    text = tab.text_on_paper()
    for part in (
        "Not worth using yet: tuned failed",
        "Scored as served",
        "tuned is better than the constant sentence",
        "Invented numbers",
        "against the best reference",
        "Gradient norm",
        "ROUGE-L of each candidate",
        "Words per summary",
        "How it was measured",
        *(f"c-0{number:02d}" for number in range(21)),
    ):
        assert part in text, part
    assert "Open all" not in text
