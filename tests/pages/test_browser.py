"""The kit in a real Chromium: `make test-quality`."""

from pathlib import Path

import pytest

from job.printable import visible
from tests.browser import focus_stops, requests_and_errors, themes_and_widths
from tests.chromium import Tab
from tests.pages.sample import HOSTILE

pytestmark = pytest.mark.quality

SHOWN = """[...document.querySelectorAll('.conversation:not([hidden]) h3')]
  .map(heading => heading.textContent)"""


@pytest.fixture(scope="module")
def url(sample: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("page") / "sample.html"
    path.write_text(sample, encoding="utf-8")
    return path.as_uri()


def test_nothing_scrolls_sideways_and_all_text_has_contrast(tab: Tab, url: str) -> None:
    assert themes_and_widths(tab, url) == {}


def test_hostile_text_runs_nothing_and_fetches_nothing(tab: Tab, url: str) -> None:
    tab.open(url)
    tab.run("document.querySelectorAll('details').forEach(element => element.open = true)")
    assert tab.run("document.title").startswith("Run <script>")
    assert tab.run("document.scripts.length") == 1
    assert requests_and_errors(tab) == [url]
    shown = " ".join(visible(HOSTILE).split())
    heading = tab.run("[...document.querySelectorAll('h3')].at(-1).textContent")
    assert " ".join(heading.split()) == shown


def test_markup_that_was_not_escaped_would_run_nothing(
    tab: Tab, sample: str, tmp_path: Path
) -> None:
    code = "document.title = 'ran'"
    markup = f'<script>{code}</script><img src="a.png" onerror="{code}"><style>*{{}}</style>'
    path = tmp_path / "page.html"
    path.write_text(sample.replace("</main>", f"{markup}</main>"), encoding="utf-8")
    tab.open(path.as_uri())
    assert tab.run("document.images.length") == 1
    assert tab.run("document.title").startswith("Run <script>")
    assert sum("Content Security Policy" in line for line in requests_and_errors(tab)) >= 3
    writes = "try { document.body.innerHTML = '<b>x</b>' } catch (error) { error.name }"
    assert tab.run(writes) == "TypeError"


def test_search_filters_and_order(tab: Tab, url: str) -> None:
    tab.open(url)
    assert len(tab.run(SHOWN)) == 13
    tab.press("/", "/")
    tab.type("ORDER 11 late")
    assert tab.run(SHOWN) == ["c-11"]
    assert tab.run("document.querySelector('.count').textContent") == (
        "1 of 13 conversations, chosen from 200"
    )
    assert tab.run("CSS.highlights.get('found').size") > 2
    tab.type(" nowhere")
    assert tab.run(SHOWN) == []
    assert tab.run("document.querySelector('.none').hidden") is False
    tab.press("Escape")
    assert len(tab.run(SHOWN)) == 13

    tab.click("[data-tag=best]")
    assert tab.run(SHOWN) == ["c-00", "c-01", "c-02"]
    assert tab.run("document.querySelector('[data-tag=best]').ariaPressed") == "true"
    tab.click("[data-tag='']")
    tab.run(
        """(select => { select.value = 'score';
        select.dispatchEvent(new Event('change')); })(document.querySelector('.filters select'))"""
    )
    assert tab.run(SHOWN)[0] == "c-00"
    assert tab.run(SHOWN)[-1].startswith("<script>")  # it has no score


def test_every_control_is_reached_by_the_keyboard(tab: Tab, url: str) -> None:
    tab.open(url)
    stops = focus_stops(tab)
    assert stops[0] == "Skip to the content"
    for name in ("Curves", "Numbers of Loss", "Search", "Order", "All 13", "Best 3", "Open all"):
        assert name in stops, stops
    assert sum(stop.startswith("c-") for stop in stops) == 12

    tab.run("document.activeElement.blur()")
    tab.press("j", "j")
    tab.press("j", "j")
    assert tab.run("document.activeElement.textContent.trim().slice(0, 4)") == "c-01"
    tab.press("Enter", "\r")
    assert tab.run("document.activeElement.parentElement.open") is True
    tab.press("k", "k")
    assert tab.run("document.activeElement.textContent.trim().slice(0, 4)") == "c-00"


def test_a_link_to_a_conversation_opens_it(tab: Tab, url: str) -> None:
    tab.open(f"{url}#conversations-7")
    assert tab.run("document.querySelector('#conversations-7 details').open") is True


def test_without_a_script_everything_is_there(tab: Tab, url: str) -> None:
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(url)
        assert tab.run("document.querySelector('.filters').hidden") is True
        assert len(tab.run(SHOWN)) == 13
    finally:
        tab.send("Emulation.setScriptExecutionDisabled", value=False)


def test_paper_has_every_conversation_open(tab: Tab, url: str) -> None:
    tab.open(url)
    text = tab.text_on_paper()
    assert text.count("Order 11 is late by 42 days") == 1
    assert "Search" not in text
    # It closes them again.
    assert tab.run("document.querySelectorAll('.conversation details[open]').length") == 1
