"""HTML of messages → the text that a reader sees. Nothing is loaded and nothing is run."""

import re
from html.parser import HTMLParser

BLOCKS = re.compile(
    "address|article|blockquote|br|d[dlt]|div|fieldset|figure|footer|form|h[1-6]|header|hr|li|main|"
    "nav|[ou]l|p|pre|section|table|tr"
)
UNSEEN = frozenset(("script", "style", "head", "title", "template"))
TAG = re.compile(r"<[a-zA-Z/!]")
SPACE = re.compile(r"[ \t\r\n\f\xa0]+")


def text_of_html(html: str) -> str:
    """Return the text of an HTML fragment: a line for each block, entities resolved."""
    if not TAG.search(html) and "&" not in html:
        return html
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = "".join(reader.pieces).split("\n")
    return "\n".join(line for line in (SPACE.sub(" ", line).strip(" ") for line in lines) if line)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in UNSEEN
        if BLOCKS.fullmatch(tag):
            self.pieces.append("\n")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if BLOCKS.fullmatch(tag):
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._unseen = max(0, self._unseen - (tag in UNSEEN))
        if BLOCKS.fullmatch(tag):
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.pieces.append(SPACE.sub(" ", data))
