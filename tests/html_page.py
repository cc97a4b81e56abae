"""An HTML page as the tests ask about it: its elements, their attributes and its text."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

VOID = frozenset(("meta", "img", "source", "input", "br", "link"))
# Without an end tag in SVG, as the templates write them.
SELF_CLOSING = frozenset(("line", "circle", "rect", "polyline"))


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parent: "Element | None"
    children: list["Element"] = field(default_factory=list)
    text: str = ""  # with that of the elements inside

    def all(self, *tags: str) -> list["Element"]:
        """Return the elements below this one, in order, of these tags if any are named."""
        found = []
        for child in self.children:
            if not tags or child.tag in tags:
                found.append(child)
            found += child.all(*tags)
        return found


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {}, None)
        self.at = self.root

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"<{tag}> has an attribute twice"
        element = Element(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.children.append(element)
        if tag not in VOID:
            self.at = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SELF_CLOSING, f"<{tag}/>"
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag, f"</{tag}> ends <{self.at.tag}>"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        element: Element | None = self.at
        while element is not None:
            element.text += data
            element = element.parent


def parse(page: str) -> Element:
    """Return the root of the page. Fails unless each element is closed where it must be."""
    builder = _Builder()
    builder.feed(page)
    builder.close()
    assert builder.at is builder.root, f"<{builder.at.tag}> is not closed"
    return builder.root


def mistakes(root: Element) -> list[str]:
    """Return what keeps a page from being read offline, by a keyboard or by a screen reader."""
    found = []
    ids = [element.attributes["id"] for element in root.all() if "id" in element.attributes]
    found += [f"id {id} twice" for id in set(ids) if ids.count(id) > 1]
    for element in root.all():
        for name in ("for", "aria-labelledby", "aria-describedby"):
            if element.attributes.get(name, ids[0]) not in ids:
                found.append(f"{name}={element.attributes[name]} names no element")
        href = element.attributes.get("href", "#" + ids[0])
        if not href.startswith("#") or href[1:] not in ids:
            found.append(f"a link to {href}")
        for name in element.attributes:
            if name in ("src", "srcset", "style", "action") or name.startswith("on"):
                found.append(f"<{element.tag} {name}>")
    found += _without_names(root)

    levels = [int(heading.tag[1]) for heading in root.all("h1", "h2", "h3", "h4", "h5", "h6")]
    if levels[:1] != [1] or levels.count(1) != 1:
        found.append("not one h1, first of all headings")
    for above, below in pairwise(levels):
        if below > above + 1:
            found.append(f"h{below} after h{above}")
    return found


def _without_names(root: Element) -> list[str]:
    found = []
    labelled = {label.attributes.get("for") for label in root.all("label")}
    for field_ in root.all("input", "select"):
        if field_.attributes.get("id") not in labelled:
            found.append(f"<{field_.tag}> without a label")
    for button in root.all("button", "summary", "a", "th"):
        corner = button.tag == "th" and not button.text.strip()
        if not button.text.strip() and not corner:
            found.append(f"<{button.tag}> without text")
    for drawing in root.all("svg"):
        is_part = drawing.parent is not None and drawing.parent.tag == "svg"
        own = [child.tag for child in drawing.children]
        if not is_part and (
            drawing.attributes.get("role") != "img" or own[:2] != ["title", "desc"]
        ):
            found.append("a drawing without a title and a description")
    for table in root.all("table"):
        if not table.all("caption"):
            found.append("a table without a caption")
    return found
