"""The page about a night: what it shows, what it never shows, and that no night fails by it."""

import html
import json
import logging
import re
from pathlib import Path

import pytest

from job.errors import DataError
from job.inference.engine import Generated
from job.summarization import finish
from job.summarization.summarize import summarize
from job.summarization.summarizer import SummarizerLoader
from tests.pages.sample import HOSTILE
from tests.stand_in import StandInEngine, stand_in
from tests.summarization.conftest import conversation, files_below, write_lines
from tests.summarization.nights import FOLDER, manifest_of, never, run

SHOWN = 20  # summaries at random


def page_of(folder: Path, name: str = "report.html") -> str:
    return (folder / name).read_text(encoding="utf-8")


def text_of(page: str) -> str:
    """Return what a reader sees of a page, without style and script."""
    body = re.sub(r"(?s)<(style|script)>.*?</\1>", "", page)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_page_shows_counts_rejects_and_random_summaries(config, tmp_path):
    records = [conversation(f"c{number}", f"word{number} is late") for number in range(50)]
    write_lines(tmp_path / "in.jsonl", [*records, "no JSON", "[1"])
    run(config(cost_per_hour=3.6))
    page = page_of(tmp_path / "out")
    text = text_of(page)
    assert "50 of 52 new conversations were summarized; 3.8% were rejected" in text
    assert "invalid_record 2 3.85%" in text
    assert f"{tmp_path}/in.jsonl line 51" in text, "an example of a reject"
    shown = [number for number in range(50) if f"word{number} is late" in text]
    assert len(shown) == SHOWN == page.count('<article class="conversation"')
    assert shown != list(range(SHOWN)), "at random, not the first ones"
    assert "for 1,000 records" in text
    assert manifest_of(tmp_path / "out")["summary_characters"]["median"] > 10, (
        "later nights compare with it"
    )


def test_the_page_shows_quality_with_what_it_counts(config, tmp_path):
    records = [conversation(f"c{number}", "My parcel is late.") for number in range(4)]
    write_lines(tmp_path / "in.jsonl", records)
    run(config())
    page = page_of(tmp_path / "out")
    text = text_of(page)
    assert "Of 4 sampled records, chosen by id" in text
    assert "Turns of a conversation 1.00 0.00 4" in text
    assert "Rejected records 0.00% 4" in text
    assert "Rejected records Of all records that were not skipped." in text
    assert "Languages of the conversations en 4" in text
    assert 'href="#quality"' in page


def test_a_redacted_night_has_a_redacted_page(config, tmp_path):
    texts = [f"write to eva{number}@example.com" for number in range(5)]
    records = [conversation(f"c{number}", text) for number, text in enumerate(texts)]
    bad = {"id": "bad", "turns": [{"role": "boss of eva9@example.com", "text": "hi"}]}
    write_lines(tmp_path / "in.jsonl", [*records, bad])
    run(config(redaction={}))
    text = text_of(page_of(tmp_path / "out"))
    assert "@example.com" not in text
    assert text.count("write to [EMAIL_1]") == 5
    assert "after cleaning and redaction. Ids stay as they are" in text


def test_what_cleaning_uncovers_is_redacted_on_the_page(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("c", "write to  eva&#64;example.com")])
    run(config(redaction={}, data={"cleaning": "tweets"}))
    text = text_of(page_of(tmp_path / "out"))
    assert "eva" not in text
    assert "write to [EMAIL_1]" in text, "also without the blank that cleaning takes away"


def test_no_turns_are_shown_of_a_chunk_whose_cleaning_is_not_known(config, tmp_path, monkeypatch):
    monkeypatch.setattr(SummarizerLoader, "cleaning", None)  # as earlier versions did not note it
    write_lines(tmp_path / "in.jsonl", [conversation("c", "write to  eva&#64;example.com")])
    run(config(redaction={}))
    text = text_of(page_of(tmp_path / "out"))
    assert "eva" not in text
    assert "It is not known how it was read." in text


def test_one_of_a_kind_is_said_in_the_singular(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("eva@example.com", "a day late")])
    run(config(generation={"max_new_tokens": 1}, redaction={}))
    text = text_of(page_of(tmp_path / "out"))
    assert "1 of 1 new conversation was summarized" in text
    assert "1 record 1 summary 0 rejects" in text
    assert not re.search(r"\b1 (summaries|conversations|records|chunks|values|turns)\b", text)
    assert "eva@example.com" in text, "an id stays"


class Chatty(StandInEngine):
    """Never ends by itself, and writes an address that nobody gave it."""

    def generate(self, prompts, settings, on_done=None):
        return [Generated("write to eva@example.com", 3, "length") for _ in prompts]


def test_the_page_says_what_to_know_before_trusting_the_night(config, tmp_path):
    write_lines(tmp_path / "in" / "a.jsonl", [conversation(f"c{number}") for number in range(2)])
    (tmp_path / "in" / "scan.pdf").write_bytes(b"%PDF")
    keys = {"input": f"{tmp_path}/in/", "data": {"exclude": "*.pdf"}, "redaction": {}}
    summarize(config(**keys), stand_in(Chatty()))
    text = text_of(page_of(tmp_path / "out"))
    assert "2 summaries were cut off at generation.max_new_tokens." in text
    assert "2 values were redacted in what the model had written." in text
    assert "1 file below the input was not read." in text
    assert text.count("1 value redacted") == 2, "beside each of them"


def test_a_night_of_too_many_rejects_says_so(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("c"), "no JSON"])
    with pytest.raises(DataError):
        run(config(limits={"max_reject_fraction": 0.25}))
    text = text_of(page_of(tmp_path / "out"))
    assert "50.0% were rejected, more than the limit of 25.0%." in text


def test_hostile_text_is_only_text_on_the_page(config, tmp_path):
    evil = HOSTILE.replace("\ud800", "")  # no JSON file can have it
    records = [conversation(evil, evil), {"id": evil, "turns": evil}]
    write_lines(tmp_path / "in.jsonl", records)
    run(config())
    page = page_of(tmp_path / "out")
    assert page.count("<script>") == 1 == page.count("</script>")
    for raw in ("<img", "\x1b", "\u202e"):
        assert raw not in page
    assert '<script>document.title="ran"</script>' in text_of(page), "as text"


def test_a_night_is_compared_with_those_before_it(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("c", "hello")])
    for date in ("2026-01-01", "2026-01-29", "2026-01-30"):
        run(config(output=f"{tmp_path}/out/dt={date}"))
    run(config(output=f"{tmp_path}/out/dt=2026-01-31/day.jsonl"))
    text = text_of(page_of(tmp_path / "out" / "dt=2026-01-30"))
    assert "2026-01-29" in text
    assert "2026-01-01" not in text, "14 days at the most"
    assert "median [10th to 90th percentile]: this night" in text, "for who cannot see the plot"
    assert "95%" not in text, "it has no mean, and no interval of one"
    text = text_of(page_of(tmp_path / "out" / "dt=2026-01-31", "day.report.html"))
    assert "No night before is known" in text, "an output of another form"


def test_a_night_before_by_another_version_costs_no_page(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("c", "hello")])
    for date in ("2026-01-28", "2026-01-29"):
        run(config(output=f"{tmp_path}/out/dt={date}"))
    path = tmp_path / "out" / "dt=2026-01-29" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["extra"]["counts"]["renamed"] = 1
    path.write_text(json.dumps(manifest), encoding="utf-8")
    run(config(output=f"{tmp_path}/out/dt=2026-01-30"))
    text = text_of(page_of(tmp_path / "out" / "dt=2026-01-30"))
    assert "2026-01-28" in text
    assert "2026-01-29" not in text


def test_a_night_without_records_is_not_one_that_was_done_before(config, tmp_path):
    (tmp_path / "in.jsonl").write_text("")
    run(config(limits={"min_records": 0}))
    text = text_of(page_of(tmp_path / "out"))
    assert "The input has no records." in text
    assert "summarized before" not in text


def test_a_cost_has_no_exponent(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("c", "hello")])
    run(config(cost_per_hour=1e12))
    text = text_of(page_of(tmp_path / "out"))
    assert re.search(r"[0-9],[0-9]{3}\.[0-9]{2} for 1,000 records", text)
    assert not re.search(r"\de[+-]\d", text)


def test_without_report_there_is_none_and_an_old_one_goes(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("c", "hello"), "no JSON"])
    run(config(limits={"max_reject_fraction": 1}, report=False))
    assert files_below(tmp_path / "out") == FOLDER[:-1]

    empty = config(output=f"{tmp_path}/empty", limits={"min_records": 0})
    (tmp_path / "in.jsonl").write_text("")
    run(empty)
    assert "report.html" in files_below(tmp_path / "empty")
    write_lines(tmp_path / "in.jsonl", [conversation("c", "hello")])
    run(empty.model_copy(update={"report": False}))
    assert files_below(tmp_path / "empty") == FOLDER[:-1]


def test_a_night_that_had_no_report_stays_done(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("c", "hello")])
    run(config(report=False))
    summarize(config(), never)
    assert files_below(tmp_path / "out") == FOLDER[:-1]


def test_an_output_with_a_report_is_read_by_skip_done(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("c", "hello")])
    run(config())
    run(config(output=f"{tmp_path}/next", skip_done=str(tmp_path / "out")))
    assert manifest_of(tmp_path / "next")["counts"]["skipped"] == 1
    assert "Nothing new" in text_of(page_of(tmp_path / "next"))


def test_a_report_that_fails_costs_no_night(config, tmp_path, monkeypatch, caplog):
    def fail(*_arguments):
        raise ValueError("about eva@example.com")

    monkeypatch.setattr(finish, "write_night_report", fail)
    write_lines(tmp_path / "in.jsonl", [conversation("c", "hello")])
    with caplog.at_level(logging.WARNING):
        summarize(config(redaction={}), stand_in(StandInEngine()))
    assert files_below(tmp_path / "out") == FOLDER[:-1]
    (warned,) = [record for record in caplog.records if "without its report" in record.msg]
    assert "eva@" not in str(warned.__dict__)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_beside_one_file_the_page_has_its_name(config, tmp_path, suffix):
    write_lines(tmp_path / "in.jsonl", [conversation("c", "hello")])
    run(config(output=f"{tmp_path}/out/day{suffix}"))
    assert "1 of 1 new conversation was" in text_of(page_of(tmp_path / "out", "day.report.html"))
