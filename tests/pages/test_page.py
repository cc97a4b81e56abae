import re
from base64 import b64encode
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from jinja2.exceptions import TemplateError

from job.conversations.record import Turn
from job.pages import conversations as records
from job.pages.charts import Curve, Group, Spread, histograms, interval_plot, line_chart, ticks
from job.pages.conversations import Segment, ShownConversation, ShownSummary, fit, segments
from job.pages.render import render
from tests.html_page import mistakes, parse
from tests.pages.sample import HOSTILE

TEMPLATES = Path(records.__file__).parent / "templates"


def test_hostile_text_makes_no_element_and_stays_text(sample: str) -> None:
    root = parse(sample)
    assert [script.parent.tag for script in root.all("script") if script.parent] == ["body"]
    assert root.all("img", "b c", "iframe", "object", "base", "form") == []
    shown = HOSTILE.split("\x1b")[0]
    assert root.text.count(shown) > 20
    assert "49" not in root.all("title")[0].text


def test_control_characters_and_directions_are_shown_as_codes(sample: str) -> None:
    assert [letter for letter in sample if not letter.isprintable() and letter != "\n"] == []
    assert "\\x1b[31m\\x07\\x00\\u202egnp.exe\\u2028\\ud800 &amp;lt;b&amp;gt;" in sample


def test_the_page_is_offline_and_made_for_keyboards_and_readers(sample: str) -> None:
    assert mistakes(parse(sample)) == []
    style, script = (parse(sample).all(tag)[0].text for tag in ("style", "script"))
    assert not re.search(r"https?:|//[a-z]|@import|url\(", style)
    assert not re.search(r"https?:|fetch|XMLHttp|innerHTML|insertAdjacent|document\.write", script)


def test_the_policy_allows_this_style_and_this_script_alone(sample: str) -> None:
    root = parse(sample)
    metas = [meta for meta in root.all("meta") if "http-equiv" in meta.attributes]
    policy = metas[0].attributes["content"]
    for tag in ("style", "script"):
        digest = b64encode(sha256(root.all(tag)[0].text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_no_template_can_switch_escaping_off(tmp_path: Path, monkeypatch) -> None:
    for template in TEMPLATES.glob("*.html"):
        assert not re.search(r"\|\s*safe|autoescape|=\{\{", template.read_text(encoding="utf-8"))
    (tmp_path / "unsafe_page").mkdir()
    (tmp_path / "unsafe_page" / "__init__.py").touch()
    (tmp_path / "unsafe_page" / "page.html").write_text("{{ text|safe }}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TemplateError, match="safe"):
        render("unsafe_page", "page.html", text="<b>")


def test_a_chart_has_its_numbers_as_a_table(sample: str) -> None:
    root = parse(sample)
    figures = root.all("figure")
    assert [len(figure.all("table")) for figure in figures] == [1, 1, 1]
    assert "0.300[0.280, 0.320]" in re.sub(r"\s", "", figures[1].all("table")[0].text).replace(
        ",", ", "
    )


def test_a_long_line_keeps_its_spikes() -> None:
    points = [(float(step), 1.0) for step in range(10_000)]
    points[7_777] = (7_777.0, 9.0)
    chart = line_chart("id", "Gradient norm", [Curve("norm", points)], "steps")
    assert chart is not None
    drawn = [point.split(",") for point in chart.lines[0].path.split()]
    assert len(drawn) <= 600
    ends = max(float(y) for _, y in drawn), min(float(y) for _, y in drawn)
    assert ends == (162.0, 18.0)  # of 1 and of 9, on an axis of 180 pixels from 0 to 10
    assert len(chart.table.rows) <= 100
    assert chart.table.note == "One of each 100 rows of 10,000."


@pytest.mark.parametrize("values", [[], [float("nan")], [float("inf")]])
def test_a_chart_without_finite_numbers_is_none(values: list[float]) -> None:
    assert line_chart("id", "Loss", [Curve("loss", [(1, v) for v in values])], "steps") is None
    assert histograms("id", "Lengths", [Group("tuned", [])], "words") is None


def test_a_chart_of_one_number_has_a_scale() -> None:
    chart = line_chart("id", "Loss", [Curve("loss", [(5, 2.0)])], "steps")
    assert chart is not None
    assert [dot.label for dot in chart.lines[0].dots] == ["loss 2 at 5"]


def test_differences_are_drawn_around_zero() -> None:
    plot = interval_plot("id", "Difference", [Spread("base", 0.02, 0.01, 0.03)], has_zero=True)
    assert plot.zero == 0
    assert plot.rows[0].text == "+0.020"


@pytest.mark.parametrize("largest", [1, 7, 24, 31, 180])
def test_the_bars_of_lengths_are_of_whole_numbers_without_overlap(largest: int) -> None:
    chart = histograms("id", "Lengths", [Group("tuned", list(range(largest + 1)))], "words")
    assert chart is not None
    bars = chart.rows[0].bars
    spans = [re.findall(r"\d+", bar.label.split(" words")[0]) for bar in bars]
    bounds = [(int(span[0]), int(span[-1])) for span in spans]
    assert all(before[1] + 1 == after[0] for before, after in pairwise(bounds))
    assert len({last - first for first, last in bounds[:-1]}) <= 1  # the last has all that follow
    assert bars[-1].x + bars[-1].width <= 100.1
    labels = [tick.label for tick in chart.ticks]
    assert len(set(labels)) == len(labels)
    assert chart.ticks[-1].at <= 100


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (3, 3, [3, 4, 5, 6]), (-0.01, 0.03, [-0.01, 0, 0.01, 0.02])],
)
def test_ticks_are_round_and_cover_the_range(low, high, expected) -> None:
    found = ticks(low, high, 4)
    assert found[: len(expected)] == expected
    assert found[0] <= low
    assert found[-1] >= high


def test_marks_are_found_in_a_script_without_spaces() -> None:
    assert segments("订单4711已退款", {"4711": "number"}) == [
        Segment("订单"),
        Segment("4711", "number"),
        Segment("已退款"),
    ]


def test_a_conversation_that_does_not_fit_hides_no_other() -> None:
    def shown(id: str, length: int) -> ShownConversation:
        summary = ShownSummary("tuned", "x" * length)
        return ShownConversation(id, [Turn("agent", "hello")], summaries=[summary])

    found = fit([shown("a", 10), shown("large", records.MAX_GALLERY_CHARACTERS), shown("b", 10)])
    assert [conversation.id for conversation in found] == ["a", "b"]


def test_marks_are_whole_words_and_the_longest_wins() -> None:
    found = segments("42 of 142, 42 days", {"42": "number", "42 days": "time"})
    assert found == [
        Segment("42", "number"),
        Segment(" of 142, "),
        Segment("42 days", "time"),
    ]
    assert segments("a+b", {"": "x"}) == [Segment("a+b")]
    assert "".join(piece.text for piece in segments("x (a|b) y", {"(a|b)": "r"})) == "x (a|b) y"


def test_a_gallery_has_hundreds_of_conversations_and_a_bound() -> None:
    turns = [Turn("customer", "word " * 40)] * 12
    summaries = [ShownSummary(f"system {number}", "word " * 40) for number in range(5)]
    many = [
        ShownConversation(str(number), turns, ["word " * 30], summaries) for number in range(400)
    ]
    huge = ShownConversation("huge", [Turn("agent", "x" * 10_000_000)])
    fitting = fit([huge, *many])
    assert len(fitting) > 200
    assert fitting[0].left_out == 10_000_000 - records.MAX_CHARACTERS
    assert sum(conversation.size for conversation in fitting) <= records.MAX_GALLERY_CHARACTERS
