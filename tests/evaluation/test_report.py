import re
from dataclasses import replace
from pathlib import Path

import pytest

from job.config.gate_sections import GateSection
from job.errors import ExitCode, OutputError
from job.evaluation.gate import not_scored
from job.evaluation.report import ReportContent, report_page, write_report
from job.evaluation.result import NotScored
from job.evaluation.systems import Scored
from tests.evaluation.reports import HISTORY, full_content
from tests.html_page import Element, mistakes, parse
from tests.pages.sample import HOSTILE


@pytest.fixture(scope="module")
def page() -> str:
    return report_page(full_content())


@pytest.fixture(scope="module")
def root(page: str) -> Element:
    return parse(page)


def text_of(root: Element, id: str) -> str:
    found = [element for element in root.all() if element.attributes.get("id") == id]
    assert len(found) == 1, id
    return " ".join(found[0].text.split())


def by_class(root: Element, name: str) -> list[Element]:
    return [e for e in root.all() if name in e.attributes.get("class", "").split()]


def test_hostile_text_from_everywhere_makes_no_element(page: str, root: Element) -> None:
    assert len(root.all("script")) == len(root.all("style")) == 1
    assert root.all("img") == []
    assert root.text.count(HOSTILE.split("\x1b")[0]) > 30
    assert [letter for letter in page if not letter.isprintable() and letter != "\n"] == []


def test_the_report_is_offline_and_made_for_keyboards_and_readers(root: Element) -> None:
    assert mistakes(root) == []


def test_the_report_begins_with_the_verdict(root: Element) -> None:
    verdict = by_class(root, "verdict")[0]
    assert "bad" in verdict.attributes["class"]
    sentence = verdict.all("p")[0].text
    assert sentence.startswith("Not worth using yet: tuned failed 3 of 8 checks of its gate (no ")
    assert re.search(r"the champion.*\[.*\] in ROUGE-L\.$", sentence)


def test_the_report_names_the_settings_that_served_and_departures(root: Element) -> None:
    served = by_class(root, "served")[0].text
    assert served.startswith("Scored as served: quantization none; ")
    assert "dtype <script>" in by_class(root, "warning")[0].text


def test_every_check_of_the_gate_is_a_sentence_with_its_state(root: Element) -> None:
    checks = by_class(root, "checks")[0].all("li")
    states = [check.attributes["class"] for check in checks]
    assert states.count("failed") == 3
    assert len(states) == 8
    assert "failed: Cut: tuned is 0.045 from the best value" in " ".join(checks[-2].text.split())


def test_every_metric_has_a_plot_a_row_and_a_meaning(root: Element) -> None:
    options = [option.text for option in root.all("option")][: len(by_class(root, "pair"))]
    rows = [row.all("th")[0].text.split(" (")[0] for row in by_class(root, "scores")[0].all("tr")]
    meanings = [term.text for term in root.all("dt")]
    assert len(options) > 15
    for title in options:
        assert any(row.startswith(title.split(" (")[0]) for row in rows), title
        assert title in meanings
    shown = [pair for pair in by_class(root, "pair") if "hidden" not in pair.attributes]
    assert [pair.attributes["data-value"] for pair in shown] == ["rougeL"]


def test_a_gate_by_a_metric_that_was_not_measured_still_shows_a_plot() -> None:
    content = full_content()
    assert content.gate is not None
    root = parse(report_page(replace(content, gate=replace(content.gate, metric="bertscore"))))
    shown = [pair for pair in by_class(root, "pair") if "hidden" not in pair.attributes]
    assert len(shown) == 1


def test_the_table_marks_the_best_the_direction_and_the_guards(root: Element) -> None:
    rows = {row.all("th")[0].text: row for row in by_class(root, "scores")[0].all("tr")}
    cut = next(row for title, row in rows.items() if title.startswith("Cut"))
    assert "lower is better" in cut.text
    assert "guard" in cut.text
    best = by_class(next(row for title, row in rows.items() if "ROUGE-1" in title), "best")
    assert [cell.attributes["data-head"] for cell in best] == ["champion"]


def test_the_curves_of_the_training_have_titles_and_numbers(root: Element) -> None:
    titles = [figure.all("h3")[0].text for figure in root.all("figure")]
    for name in ("Loss", "Learning rate", "Gradient norm", "Tokens per second", "Largest memory"):
        assert any(title.startswith(name) for title in titles), titles
    assert "validation 1.4" in text_of(root, "curve-loss")
    assert "step 200" in text_of(root, "selection-plot")
    assert "Words per summary" in text_of(root, "lengths-chart")


def test_invented_numbers_are_marked_and_can_be_listed(root: Element) -> None:
    marks = {(mark.text, mark.attributes["title"]) for mark in root.all("mark")}
    assert ("4711 (invented numbers)", "invented numbers") in marks
    buttons = [button.text for button in root.all("button")]
    assert "Most invented 4" in buttons or "Most invented 3" in buttons


def test_the_data_of_the_training_is_shown_as_its_plan_shows_it(root: Element) -> None:
    shown = by_class(root, "findings")[0].text
    assert "half have at most 7 turns" in shown
    assert "the first: " in shown


def test_what_was_planned_is_beside_what_the_run_did(root: Element) -> None:
    assert text_of(root, "plan").startswith("Plan and run What was planned, and what the run did")
    assert "Optimizer steps 24" in text_of(root, "plan")


def test_an_evaluation_without_a_gate_has_no_empty_sections(scored: Scored) -> None:
    root = parse(report_page(ReportContent("Evaluation e", scored)))
    headings = [heading.text for heading in root.all("h2")]
    assert headings == ["Scores", "Lengths", "Conversations", "Method"]
    assert [link.text for link in root.all("nav")[0].all("a")] == headings
    assert mistakes(root) == []


def test_the_page_warns_of_a_collapsed_model(collapsed_scored: Scored) -> None:
    root = parse(report_page(ReportContent("Run", collapsed_scored)))
    assert len(by_class(root, "warning")) == 3
    assert "The agent <b>helps</b>." in root.text
    assert "bad" in by_class(root, "verdict")[0].attributes["class"]


def test_a_report_without_scores_says_why_and_what_to_do(tmp_path: Path) -> None:
    reason = NotScored("summarizing <failed>", f"ValueError: {HOSTILE}")
    content = full_content()
    gate = not_scored("tuned", GateSection(), reason.why)
    write_report(tmp_path, replace(content, result=reason, gate=gate))
    root = parse((tmp_path / "report.html").read_text(encoding="utf-8"))
    verdict = by_class(root, "verdict")[0].text
    assert "Nobody can tell, as the adapter has no scores: summarizing <failed>." in verdict
    assert "`recap evaluate`" in verdict
    headings = [heading.text for heading in root.all("h2")]
    assert headings == ["Gate", "Training", "Selection", "Plan and run", "Data"]
    assert mistakes(root) == []


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    content = ReportContent("Run", NotScored("why", "detail"), history=HISTORY)
    with pytest.raises(
        OutputError, match=r"taken cannot be written: something else is in the way"
    ) as caught:
        write_report(tmp_path / "taken", content)
    assert caught.value.exit_code == ExitCode.OUTPUT
