"""HTML of messages becomes the text that a reader sees, in one pass."""

import random
import time

import pytest

from job.conversations.formats.tickets import text_of_html


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("plain  text\nas it is", "plain  text\nas it is"),
        ("<p>One</p><p>two<br>three<br/>four</p>", "One\ntwo\nthree\nfour"),
        ("a <b>bold</b> word&nbsp;&amp;&lt;more&gt;", "a bold word &<more>"),
        ('<a href="x?a=1&amp;b=2" title="a > b">link</a>', "link"),
        ("<ul>\n <li>one</li>\n <li>two</li>\n</ul>", "one\ntwo"),
        ("<style>p { x: y }</style><SCRIPT>alert('<p>')</SCRIPT>Seen<!-- <p>not</p> -->", "Seen"),
        ("<!doctype html><html><head><title>t</title></head><body>Hi</body></html>", "Hi"),
        ("2 < 3 and <3", "2 < 3 and <3"),
        ("cut <a href='x", "cut <a href='x"),
        ("open <!-- comment", "open <!-- comment"),
        ("&#233;&#x1F60A;&unknown;", "é😊&unknown;"),
        ("<p></p>", ""),
    ],
)
def test_html_becomes_text(html, text):
    assert text_of_html(html) == text


PIECES = ("<!", "<!--", "<a ", "</", "<a b='", '<a b="', "&#", "<script>", "<?", "<p><", "<", ">")


@pytest.mark.parametrize("piece", PIECES)
def test_what_a_stranger_writes_takes_one_pass(piece):
    started = time.process_time()
    text_of_html(piece * 300_000)
    assert time.process_time() - started < 30, "quadratic work would take minutes"


def test_random_marks_lose_no_word_between_tags():
    rng = random.Random(2)
    for _ in range(200):
        words = [f"word{number}" for number in range(6)]
        tags = rng.choices(["<p>", "</p>", "<b class='x'>", "<br>", "&nbsp;", "\n"], k=6)
        html = "".join(f"{tag} {word} " for tag, word in zip(tags, words, strict=True))
        assert text_of_html(html).split() == words
