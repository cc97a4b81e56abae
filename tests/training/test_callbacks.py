"""Claims about callbacks at moments that a real run does not reach reliably."""

from collections.abc import Callable
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest
from markdown import markdown

from job.errors import PreemptedError
from job.training.callbacks import SampleSummaries
from job.training.interruptions import StopAfterEvaluation


class Stop:
    """A stop signal, received or not."""

    def __init__(self, requested: bool) -> None:
        self.requested = requested

    def check(self, what: str) -> None:
        if self.requested:
            raise PreemptedError(what)


class Samples:
    """Samples of one conversation, and what they wrote."""

    def __init__(
        self, conversation: Any, summarize: Callable[..., list[str]], **rules: Any
    ) -> None:
        self.written: list[tuple[str, str, int]] = []
        self._callback = SampleSummaries(
            [conversation],
            summarize,
            lambda *text: self.written.append(text),
            rules.get("is_stopping", lambda: False),
            rules.get("ends_run", lambda error: False),
        )

    def evaluate(self, step: int = 3) -> None:
        self._callback.on_evaluate(None, SimpleNamespace(global_step=step, max_steps=9), None)


CONVERSATION = SimpleNamespace(id="c", turns=[], references=["short"])


def test_an_evaluation_writes_samples_and_the_training_goes_on():
    samples = Samples(CONVERSATION, lambda some: ["said"] * len(some))
    samples.evaluate()
    assert len(samples.written) == 1
    StopAfterEvaluation(Stop(False)).on_evaluate(None, None, None)


def test_a_stop_skips_the_samples():
    samples = Samples(CONVERSATION, lambda some: ["said"], is_stopping=lambda: True)
    samples.evaluate()
    assert samples.written == []


def test_a_stop_late_in_an_evaluation_waits_for_no_step():
    with pytest.raises(PreemptedError, match="after evaluating"):
        StopAfterEvaluation(Stop(True)).on_evaluate(None, None, None)


@pytest.mark.parametrize(
    "text",
    [
        "![p](http://evil.example/p.png) [l](http://evil.example) "
        "<img src=http://evil.example/p.png>",
        "[r]: http://evil.example\n![r][r] <http://evil.example>",
        "```\ncode\n```\n~~~\ncode\n~~~\n# head\n\n===\n| a | b |\n|---|---|",
        "* li\n- li\n+ li\n\n**b** _i_ `c` &amp; \\*\n\nhead\n---",
    ],
)
def test_samples_show_customers_markdown_and_html_as_text(text):
    turns = [SimpleNamespace(role=text, text=text)]
    conversation = SimpleNamespace(id="c", turns=turns, references=[text])
    samples = Samples(conversation, lambda some: [text])
    samples.evaluate()
    # As TensorBoard renders it, before it removes what it knows to be unsafe.
    page = Page(markdown(samples.written[0][1], extensions=["tables", "fenced_code"]))
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


def fail_to_summarize(_: object) -> list[str]:
    raise ValueError("tensor a (2) must match tensor b (296)")


def test_samples_that_fail_end_no_training(caplog):
    samples = Samples(CONVERSATION, fail_to_summarize)
    samples.evaluate()
    assert samples.written == []
    assert "no sample summaries at this evaluation" in caplog.text


def test_samples_raise_an_error_that_ends_the_run():
    samples = Samples(CONVERSATION, fail_to_summarize, ends_run=lambda error: True)
    with pytest.raises(ValueError, match="tensor a"):
        samples.evaluate()
