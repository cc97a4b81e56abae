"""Claims about a page that only a browser can answer, shared by the tests of all pages."""

from pathlib import Path
from typing import Any

from tests.chromium import Tab

WIDTHS = (390, 1280)
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")
OPEN_ALL = "document.querySelectorAll('details').forEach(element => element.open = true)"
# Wider than the page, and not inside an element that is cut off on purpose.
WIDE = """[...document.body.querySelectorAll('*')]
  .filter(element => element.getBoundingClientRect().right > innerWidth + 0.5)
  .filter(element => !element.closest('.unseen, .skip, svg svg'))
  .map(element => element.tagName + '.' + element.getAttribute('class'))"""


def themes_and_widths(tab: Tab, url: str) -> dict[str, Any]:
    """Return, by width and theme, what is wider than the page and what has too little contrast."""
    found: dict[str, Any] = {}
    for width in WIDTHS:
        for is_dark in (False, True):
            tab.open(url, width, is_dark)
            tab.run(OPEN_ALL)
            where = f"{width} {'dark' if is_dark else 'light'}"
            if tab.run("document.documentElement.scrollWidth") > width or tab.run(WIDE):
                found[f"{where}: scrolls"] = tab.run(WIDE)
            contrast = tab.run(CONTRAST)
            assert contrast["count"] > 50, "nothing was looked at"
            if contrast["found"]:
                found[f"{where}: contrast"] = contrast["found"]
    return found


def requests_and_errors(tab: Tab) -> list[str]:
    """Return what the page has tried to fetch, and what failed, since it was opened."""
    found = []
    for event in tab.events:
        parameters = event["params"]
        if event["method"] == "Network.requestWillBeSent":
            found.append(parameters["request"]["url"])
        elif event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded"):
            found.append(str(parameters))
        elif event["method"] == "Page.javascriptDialogOpening":
            found.append(f"a dialog: {parameters['message']}")
    return found


def focus_stops(tab: Tab, most: int = 400) -> list[str]:
    """Press Tab until the focus leaves the page, and return the text of each stop.

    Fails at a stop whose focus cannot be seen.
    """
    stops = []
    tab.run("document.activeElement.blur(), window.scrollTo(0, 0)")
    while len(stops) < most:
        tab.press("Tab")
        stop = tab.run(
            """(element => element === document.body ? null : {
              text: (element.labels?.[0] ?? element).textContent.trim().slice(0, 60),
              outline: getComputedStyle(element).outlineStyle,
              height: element.getBoundingClientRect().height})(document.activeElement)"""
        )
        if stop is None:
            return stops
        assert stop["outline"] != "none", f"the focus on {stop['text']} cannot be seen"
        assert stop["height"] > 0, f"the focus on {stop['text']} is nowhere"
        stops.append(stop["text"])
    return stops
