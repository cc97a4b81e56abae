"""HTML of messages → the text that a reader sees. Nothing is loaded and nothing is run.

Not by Python's HTMLParser: 300 kB of `<a <a <a …`, which anybody can write into a chat, keeps it
busy for minutes. This takes one pass.
"""

import re
from html import unescape

TAG = re.compile(r"/?([a-zA-Z][a-zA-Z0-9]*)(?:[^>\"']|\"[^\"]*\"|'[^']*')*+>")
BLOCKS = re.compile(
    "address|article|blockquote|br|d[dlt]|div|fieldset|figure|footer|form|h[1-6]|header|hr|li|main|"
    "nav|[ou]l|p|pre|section|table|tr"
)
UNSEEN = frozenset(("script", "style", "head", "title", "template"))
SPACE = re.compile(r"[ \t\r\n\f\xa0]+")


def text_of_html(html: str) -> str:
    """Return the text of an HTML fragment: a line for each block, entities resolved."""
    if "<" not in html and "&" not in html:
        return html
    before, *pieces = _without_comments(html).split("<")
    text = [SPACE.sub(" ", before)]
    hidden = 0  # how many elements are open whose text nobody sees
    for piece in pieces:
        tag = TAG.match(piece)
        said = piece[tag.end() :] if tag else f"<{piece}"
        name = tag[1].lower() if tag else ""
        if name in UNSEEN:
            hidden = max(0, hidden + (-1 if piece.startswith("/") else 1))
        if BLOCKS.fullmatch(name):
            text.append("\n")
        if not hidden:
            text.append(SPACE.sub(" ", said))
    lines = (SPACE.sub(" ", unescape(line)).strip(" ") for line in "".join(text).split("\n"))
    return "\n".join(line for line in lines if line)


def _without_comments(html: str) -> str:
    """The HTML without `<!-- … -->` and `<!doctype …>`; one that is not closed stays text."""
    kept, end = [], 0
    while (start := html.find("<!", end)) >= 0:
        closing = "-->" if html.startswith("<!--", start) else ">"
        found = html.find(closing, start)
        if found < 0:
            break
        kept.append(html[end:start])
        end = found + len(closing)
    return "".join([*kept, html[end:]])
