"""Claims about what happens at the trainer's steps, where a run cannot be met at the right moment."""

from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from markdown import markdown

from job.errors import PreemptedError
from job.training.callbacks import SampleSummaries, StopAfterEvaluation


class Told:
    """A stop signal that came."""

    requested = True

    def check(self, what: str) -> None:
        raise PreemptedError(what)


@pytest.mark.parametrize("told", [False, True])
def test_a_stop_spares_the_samples_and_waits_for_no_further_step(told):
    written = []
    stop = Told() if told else SimpleNamespace(requested=False)
    conversation = SimpleNamespace(id="c", turns=[], references=["short"])
    samples = SampleSummaries(
        [conversation],
        lambda some: ["said"] * len(some),
        lambda *text: written.append(text),
        lambda: stop.requested,
        lambda error: False,
    )
    state = SimpleNamespace(global_step=3, max_steps=9)
    samples.on_evaluate(None, state, None)
    assert bool(written) != told
    if told:
        with pytest.raises(PreemptedError, match="after evaluating"):
            StopAfterEvaluation(stop).on_evaluate(None, state, None)
    else:
        StopAfterEvaluation(stop).on_evaluate(None, state, None)


@pytest.mark.parametrize(
    "text",
    [
        "![p](http://evil.example/p.png) [l](http://evil.example) <img src=http://evil.example/p.png>",
        "[r]: http://evil.example\n![r][r] <http://evil.example>",
        "```\ncode\n```\n~~~\ncode\n~~~\n# head\n\n===\n| a | b |\n|---|---|",
        "* li\n- li\n+ li\n\n**b** _i_ `c` &amp; \\*\n\nhead\n---",
    ],
)
def test_samples_show_customers_markdown_and_html_as_text(text):
    turns = [SimpleNamespace(role=text, text=text)]
    conversation = SimpleNamespace(id="c", turns=turns, references=[text])
    written = []
    samples = SampleSummaries(
        [conversation],
        lambda some: [text],
        lambda *told: written.append(told),
        lambda: False,
        lambda error: True,
    )
    samples.on_evaluate(None, SimpleNamespace(global_step=1), None)
    # As TensorBoard renders it, before it takes out what it knows to be unsafe.
    page = Page(markdown(written[0][1], extensions=["tables", "fenced_code"]))
    assert page.tags == {"p", "strong", "hr"}
    for line in filter(None, text.splitlines()):
        assert page.text.count(line) >= 4


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("ends", [False, True])
def test_samples_that_fail_end_no_training(ends, caplog):
    def fail(_):
        raise ValueError("tensor a (2) must match tensor b (296)")

    conversation = SimpleNamespace(id="c", turns=[], references=["short"])
    samples = SampleSummaries([conversation], fail, print, lambda: False, lambda error: ends)
    state = SimpleNamespace(global_step=3, max_steps=9)
    if ends:
        with pytest.raises(ValueError, match="tensor a"):
            samples.on_evaluate(None, state, None)
        return
    samples.on_evaluate(None, state, None)
    assert "no sample summaries at this evaluation" in caplog.text
