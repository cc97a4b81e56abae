"""Tags and text of HTML, for tests of what a browser would show."""

from html.parser import HTMLParser


class HtmlText(HTMLParser):
    """Tags and text of a page, or of a piece of one."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data
