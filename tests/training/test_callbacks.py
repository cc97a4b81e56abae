"""Claims about callbacks at moments that a real run does not reach reliably."""

import json
from collections.abc import Callable, Iterator
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from markdown import markdown

from job.errors import PreemptedError
from job.gpus.nvml import Use
from job.telemetry import configure_logging
from job.training.callbacks import LogMetrics, LogProgress
from job.training.interruptions import StopAfterEvaluation
from job.training.samples import SampleSummaries
from tests.html_text import HtmlText


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
            rules.get("is_skipped", lambda: False),
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
    samples = Samples(CONVERSATION, lambda some: ["said"], is_skipped=lambda: True)
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
    page = HtmlText(markdown(samples.written[0][1], extensions=["tables", "fenced_code"]))
    assert page.tags == {"p", "strong", "hr"}
    for line in filter(None, text.splitlines()):
        assert page.text.count(line) >= 4


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


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def state_at(step: int, tokens: int = 0) -> Any:
    return SimpleNamespace(
        global_step=step, max_steps=100, num_input_tokens_seen=tokens, log_history=[{"step": step}]
    )


@pytest.fixture
def log() -> Iterator[StringIO]:
    """Return a stream that has what is logged, as JSON lines."""
    stream = StringIO()
    configure_logging(stream, person=False)
    yield stream
    configure_logging()


def metrics_in(log: StringIO) -> list[dict[str, float]]:
    """Return the metrics of each line "training", by name."""
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    found = []
    for line in lines:
        assert line["message"] == "training"
        names = [metric["Name"] for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]]
        found.append({name: line[name] for name in names})
    return found


def test_steps_are_metrics_once_a_minute(log: StringIO):
    clock = Clock()
    callback = LogMetrics(clock)
    callback.on_train_begin(None, state_at(0), None)
    for step in range(1, 14):  # ten seconds each
        clock.now += 10
        callback.on_step_end(None, state_at(step, tokens=step * 500), None)
        callback.on_log(None, state_at(step), None, {"loss": 2.0 / step})
    assert metrics_in(log) == [
        {"step": 6, "steps": 100, "loss": 0.4, "tokens_per_second": 50},
        {"step": 12, "steps": 100, "loss": 0.181818, "tokens_per_second": 50},
    ]


def test_the_last_step_is_a_metric_however_short_the_training(log: StringIO):
    callback = LogMetrics(Clock())
    callback.on_train_begin(None, state_at(7), None)
    callback.on_train_end(None, state_at(9), None)
    assert metrics_in(log) == [{"step": 9, "steps": 100}]


def test_a_long_evaluation_is_no_silence_and_no_slow_training(log: StringIO):
    clock = Clock()
    callback = LogMetrics(clock)
    callback.on_train_begin(None, state_at(0), None)
    clock.now = 600
    callback.on_prediction_step(None, state_at(5, tokens=100), None)
    callback.on_evaluate(None, state_at(5, tokens=100), None)
    clock.now = 660
    callback.on_step_end(None, state_at(6, tokens=700), None)
    assert [found.get("tokens_per_second") for found in metrics_in(log)] == [None, 10]


def test_a_loss_that_is_not_finite_is_no_metric(log: StringIO):
    callback = LogMetrics(Clock())
    callback.on_log(None, state_at(1), None, {"loss": float("nan")})
    callback.on_train_end(None, state_at(1), None)
    assert metrics_in(log) == [{"step": 1, "steps": 100}]


def test_curves_show_the_use_of_gpus():
    written: dict[str, float] = {}
    callback = LogProgress(
        lambda name, value, step: written.update({name: value}),
        lambda: [Use(memory=30, utilization=90, gpu=0), Use(memory=40, utilization=70, gpu=1)],
    )
    state = state_at(3)
    callback.on_log(None, state, None, {"loss": 1.0})
    assert (written["gpu/utilization"], written["gpu/memory"]) == (80, 40)
    assert written["train/memory_gib"] == state.log_history[-1]["memory_gib"] > 0
