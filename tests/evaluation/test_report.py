import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from job.conversations.record import Conversation, Source, Turn
from job.errors import ExitCode, OutputError
from job.evaluation.charts import dot_chart, loss_pictures
from job.evaluation.report import Example, choose_examples, report_page, write_report
from job.evaluation.result import Evaluation, NotScored

HISTORY = [
    *(
        {"step": step, "loss": 3 - step / 50, "learning_rate": 1e-4, "epoch": step / 50}
        for step in range(10, 101, 10)
    ),
    {"step": 50, "eval_loss": 2.2},
    {"step": 100, "eval_loss": 1.4},
    {"step": 100, "train_runtime": 12.0, "train_loss": 2.0},
]
EVIL = '<script>alert("x")</script> & "quoted"'


class Elements(HTMLParser):
    """Collects tags and references to other resources; checks that each element is closed."""

    VOID = frozenset(("meta", "img", "source", "line", "circle"))

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "style")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: str) -> Elements:
    elements = Elements()
    elements.feed(page)
    elements.close()
    assert elements.open == []
    return elements


def evil_example() -> Example:
    conversation = Conversation(f"id {EVIL}", (Turn(EVIL, EVIL),), Source("f", 1), (EVIL,))
    return Example(conversation, {"tuned": EVIL, f"base {EVIL}": ""})


def test_a_script_in_a_conversation_stays_text(good: Evaluation) -> None:
    page = parsed(report_page(good, [evil_example()], None, f"Run {EVIL}"))
    assert "script" not in page.tags
    assert page.text.count('<script>alert("x")</script> & "quoted"') == 8


def test_markup_in_a_models_most_common_summary_stays_text(collapsed: Evaluation) -> None:
    page = parsed(report_page(collapsed, [], None, "Run"))
    assert "The agent <b>helps</b>." in page.text


def test_the_page_needs_nothing_from_outside(good: Evaluation) -> None:
    page = report_page(good, [evil_example()], loss_pictures(HISTORY), "Run")
    assert all(link.startswith(("data:image/png;base64,", "margin")) for link in parsed(page).links)
    assert not re.search(r"https?://|@import|url\(", page)


def test_the_page_says_who_beats_whom_and_how_it_was_measured(good: Evaluation) -> None:
    text = parsed(report_page(good, [], None, "Run")).text.replace("\xa0", " ")
    assert re.search(r"tuned beats the constant sentence by 0\.\d\d \[0\.\d\d, ?0\.\d\d\]\.", text)
    assert "40 conversations, 80 reference summaries" in text
    assert "1,000 resamples, seed 0" in text
    assert "rouge-score 0.1.2" in text


def test_the_page_warns_of_a_collapsed_model(collapsed: Evaluation) -> None:
    page = report_page(collapsed, [], None, "Run")
    assert page.count('class="warning"') == 3
    assert 'class="card loses"' in page


def test_examples_show_every_system_every_reference_and_empty_summaries(good: Evaluation) -> None:
    conversation = Conversation(
        "c", (Turn("customer", "hi"),), Source("f", 1), ("first one", "second one")
    )
    page = report_page(
        good, [Example(conversation, {"tuned": "what it said", "base": ""})], None, "Run"
    )
    assert all(
        text in page
        for text in ("first one", "second one", "what it said", "<em>(empty)</em>", "references")
    )


def test_the_chart_has_a_dot_and_an_interval_for_every_system(good: Evaluation) -> None:
    chart = dot_chart(good)
    assert chart.count('class="dot"') == chart.count('class="bar"') == len(good.systems)
    spots = [float(x) for x in re.findall(r'cx="([\d.]+)"', chart)]
    assert spots == sorted(spots, reverse=True)
    assert spots[0] <= 960


def test_examples_are_drawn_with_a_seed_from_conversations_with_references(
    conversations: list[Conversation],
) -> None:
    summaries = {"tuned": [conversation.id for conversation in conversations]}
    drawn = choose_examples(conversations, summaries, count=4)
    assert drawn == choose_examples(conversations, summaries, count=4)
    assert all(example.summaries["tuned"] == example.conversation.id for example in drawn)
    assert len(choose_examples(conversations[:2], summaries, count=4)) == 2


def test_the_report_and_the_loss_curve_are_files(tmp_path: Path, good: Evaluation) -> None:
    write_report(tmp_path / "new" / "report", good, [], HISTORY, "Run")
    folder = tmp_path / "new" / "report"
    assert sorted(path.name for path in folder.iterdir()) == ["loss.png", "report.html"]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_loss_history_there_is_no_curve(tmp_path: Path, good: Evaluation) -> None:
    write_report(tmp_path, good, [], None, "Evaluation of tuned")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert "<title>Evaluation of tuned</title>" in (tmp_path / "report.html").read_text(
        encoding="utf-8"
    )


def test_a_folder_that_cannot_be_written_is_an_output_error(
    tmp_path: Path, good: Evaluation
) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(
        OutputError, match=r"taken: the report cannot be written \(File exists\)"
    ) as caught:
        write_report(tmp_path / "taken", good, [], None, "Run")
    assert caught.value.exit_code == ExitCode.OUTPUT


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"step": 1, "loss": 2.0}],
        [{"step": 1, "eval_loss": math.nan}],
        [{"step": 1, "learning_rate": 0.0}],
    ],
)
def test_a_short_or_broken_history_still_makes_a_picture(history: list[dict[str, float]]) -> None:
    assert all(picture.startswith(b"\x89PNG") for picture in loss_pictures(history))


def test_a_report_holds_no_control_characters_and_lets_nothing_be_fetched(good):
    evil = "a\x1b[2J\x07\r\n\tb\x9b\u2028\u202ec"
    conversation = Conversation(evil, (Turn(evil, evil),), Source("f", 1), (evil,))
    page = report_page(good, [Example(conversation, {"adapter": evil})], None, evil)
    assert [c for c in page if not c.isprintable() and c != "\n"] == []
    assert "\\x1b[2J\\x07" in parsed(page).text
    policy = page.index("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert policy < page.index("<style>")  # it holds for what comes after it


def test_pictures_that_fail_leave_a_report_without_them(
    good: Evaluation, tmp_path, monkeypatch, caplog
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr("job.evaluation.report.loss_pictures", fail)
    write_report(tmp_path, good, [], HISTORY, "Run")
    assert "<h2>Scores</h2>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / "loss.png").exists()
    assert "the loss could not be drawn" in caplog.text


def test_a_report_without_scores_has_the_reason_and_the_loss(tmp_path: Path) -> None:
    reason = NotScored("summarizing <failed>", f"ValueError: {EVIL}")
    write_report(tmp_path, reason, [], HISTORY, "Run")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The adapter has no scores: summarizing &lt;failed&gt;." in page
    assert "<script" not in page
    assert "<h2>Training</h2>" in page
