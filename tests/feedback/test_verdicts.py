"""Claims about files of verdicts: every kind of file, every reason why a row joins nothing."""

import csv
import gzip
import io
import json
import re

import pyarrow
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from job.config.document import parse_value
from job.config.feedback_sections import FieldsSection
from job.conversations.record import Source
from job.errors import ConfigError, DataError, MissingError
from job.feedback.run import run_feedback
from job.feedback.screen import screen
from job.feedback.verdicts import Unmatched, Verdict, verdict_of
from job.preflight.feedback import plan_feedback
from tests.feedback.world import conversation, corrected, read_lines, verdict

HERE = Source("verdicts.jsonl", 1)
DIGEST = "ab" * 16


@pytest.fixture
def lines(world):
    """The lines of a night of six conversations."""
    return world.night("2026-01-05", [conversation(number) for number in range(6)])


@pytest.fixture
def rows(lines):
    """Three edits, two thumbs up and one down, under the names of another tool."""
    found = []
    for number, line in enumerate(lines):
        edited = corrected(line) if number < 3 else None
        rating = {3: "GOOD", 4: "good", 5: "bad"}.get(number)
        found.append(
            {"Ticket": line["id"], "hash": line["digest"], "rating": rating, "final": edited}
        )
    return found


FIELDS = {
    "names": {"id": "Ticket", "digest": "hash", "verdict": "rating", "edited": "final"},
    "values": {"good": "up", "bad": "down"},
}


def write_jsonl(path, rows):
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_gzip(path, rows):
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(content))


def write_csv(path, rows):
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), delimiter=";")
    table.writeheader()
    table.writerows(rows)
    path.with_suffix(".csv").write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())


def write_parquet(path, rows):
    parquet.write_table(pyarrow.Table.from_pylist(rows), path.with_suffix(".parquet"))


def write_document(path, rows):
    path.with_suffix(".json").write_text(json.dumps(rows, indent=2))


@pytest.mark.parametrize(
    "write", [write_jsonl, write_gzip, write_csv, write_parquet, write_document]
)
def test_every_kind_of_file_gives_the_same_verdicts(world, rows, write):
    (world.folder / "verdicts").mkdir()
    write(world.folder / "verdicts" / "export", rows)
    numbers = run_feedback(world.config(fields=FIELDS))
    counts = {name: numbers["all"][name] for name in ("up", "down", "edited")}
    assert (numbers["joined_rows"], counts) == (6, {"up": 2, "down": 1, "edited": 3})


def test_a_table_without_the_id_is_an_error_with_its_columns(world, rows):
    (world.folder / "verdicts").mkdir()
    write_csv(world.folder / "verdicts" / "export", rows)
    with pytest.raises(DataError, match=r"no column 'id' .*Ticket.*correct fields.names: \{id"):
        run_feedback(world.config())


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        ("up", "up"),
        (" DOWN ", "down"),
        (True, "up"),
        (False, "down"),
        (1, "up"),
        (1.0, "up"),
        ("0", "down"),
        (-1, "down"),
        (-1.0, "down"),
        ("-1.0", "down"),
        ("-1,00", "down"),
        ("\u22121", "down"),
        ("-0.0", "down"),
        (" +1 ", "up"),
        ("1.", "up"),
        ("t", "up"),
    ],
)
def test_usual_values_of_a_thumb_are_known(value, verdict):
    found = verdict_of({"id": 7, "digest": DIGEST, "verdict": value}, HERE, FieldsSection())
    assert isinstance(found, Verdict)
    assert (found.id, found.verdict) == ("7", verdict)


@pytest.mark.parametrize("value", ["1.5", "1,000", "--1", "9" * 5000, "0.5", 2])
def test_other_numbers_are_no_thumb(value):
    found = verdict_of({"id": 7, "digest": DIGEST, "verdict": value}, HERE, FieldsSection())
    assert isinstance(found, Unmatched)
    assert found.unknown_verdict == str(value)


@pytest.mark.parametrize(
    ("value", "known"),
    [("5.0", "5"), (5, "5.0"), ("GREAT", "great"), ("n/a", "N/A"), (0.73, "0.73"), ("a b", "a b ")],
)
def test_a_meaning_is_of_each_way_to_write_a_value(value, known):
    row = {"id": 7, "digest": DIGEST, "verdict": value}
    found = verdict_of(row, HERE, FieldsSection(values={known: "down"}))
    assert isinstance(found, Verdict)
    assert found.verdict == "down"


@pytest.mark.parametrize(
    "value", ["a: b", "#1", '"q"', "it's", "{x}", "[up]", "*", "👎", "yes", "-", "? x", 0.5, "a, b"]
)
def test_the_remedy_for_an_unknown_verdict_can_be_pasted(value):
    row = {"id": 7, "digest": DIGEST, "verdict": value}
    found = verdict_of(row, HERE, FieldsSection())
    assert isinstance(found, Unmatched)
    remedy = re.search(r"\(fields\.values: (.*)\)$", found.detail)
    assert remedy is not None
    pasted = parse_value(remedy[1])
    assert pasted.mistakes == []
    fields = FieldsSection(values=pasted.value)
    assert verdict_of(row, HERE, fields).reason == "not_judged"


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ({"value": "up"}, "name the one that counts (fields.names: {verdict: verdict.value})"),
        ({"of": {"by": 1}}, "verdict is an object, wanted up or down; found of in it"),
        (["up"], "verdict is a list, wanted up or down"),
        ("x" * 80, "say what it means, up, down or none (fields.values)"),
    ],
)
def test_a_verdict_with_parts_says_where_to_look(value, detail):
    found = verdict_of({"id": 7, "digest": DIGEST, "verdict": value}, HERE, FieldsSection())
    assert isinstance(found, Unmatched)
    assert found.detail.endswith(detail)


@pytest.mark.parametrize("values", [{"GOOD": "up", "good": "down"}, {"1": "up", "1.0": "down"}])
def test_a_value_has_one_meaning(values):
    with pytest.raises(ValidationError, match="which are the same value"):
        FieldsSection(values=values)


def test_an_unknown_value_of_many_rows_is_an_error_of_run_as_of_plan(world, lines):
    rows = [
        verdict(line, verdict="down" if number == 0 else "up") for number, line in enumerate(lines)
    ]
    unknown = [verdict(line, verdict="Poor") for line in lines[:3]]
    world.verdicts([*rows * 9, *unknown, verdict(lines[4], verdict="typo")])
    with pytest.raises(DataError, match=r"3 rows have a verdict that means") as ended:
        run_feedback(world.config())
    text = str(ended.value)
    assert "3 rows, such as" in text
    assert "line 55: verdict is 'Poor'" in text
    assert "typo" not in text
    planned = plan_feedback(world.config()).error
    assert str(planned) == text
    named = world.config(fields={"values": {"poor": "none"}})
    assert run_feedback(named)["all"]["down"] == 1


@pytest.mark.parametrize("name", [7, 7.0, "7.0", " 7 "])
def test_an_agent_is_one_however_the_file_writes_the_name(name):
    row = {"id": "a", "digest": DIGEST, "verdict": "up"}
    found = verdict_of(row | {"by": name}, HERE, FieldsSection())
    wanted = verdict_of(row | {"by": "7"}, HERE, FieldsSection())
    assert found == wanted


@pytest.mark.parametrize(
    ("at", "wanted"),
    [
        ("2026-01-31T02:00:00+02:00", "2026-01-31T00:00:00+00:00"),
        ("2026-01-31 02:00", "2026-01-31T02:00:00+00:00"),
        (1769824800, "2026-01-31T02:00:00+00:00"),
        (1769824800000, "2026-01-31T02:00:00+00:00"),
        ("1769824800.0", "2026-01-31T02:00:00+00:00"),
        ("1712012111000", "2024-04-01T22:55:11+00:00"),
        ("20260131", "2026-01-31T00:00:00+00:00"),
    ],
)
def test_times_of_tools_are_read(at, wanted):
    row = {"id": "a", "digest": DIGEST, "verdict": "up", "at": at}
    found = verdict_of(row, HERE, FieldsSection())
    assert isinstance(found, Verdict)
    assert found.at is not None
    assert found.at.isoformat() == wanted


@pytest.mark.parametrize(
    "at",
    [
        "2126-01-31",
        4e9,
        "soon",
        "31.01.2026 09:12",
        "2026-13-01",
        "0001-01-01T00:00:00Z",
        "inf",
        "17",
        17,
        True,
        [],
    ],
)
def test_what_is_no_time_leaves_the_verdict(at):
    row = {"id": "a", "digest": DIGEST, "verdict": "up", "at": at}
    found = verdict_of(row, HERE, FieldsSection())
    assert isinstance(found, Verdict)
    assert (found.at, found.has_unknown_time) == (None, True)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (3, "3"),
        (3.0, "3"),
        (" wrong name ", "wrong name"),
        (["wrong name", "too long"], "wrong name, too long"),
        ({"code": 7}, '{"code": 7}'),
        (True, "true"),
        (None, ""),
    ],
)
def test_a_reason_of_any_kind_leaves_the_verdict(reason, words):
    row = {"id": "a", "digest": DIGEST, "verdict": "down", "reason": reason}
    found = verdict_of(row, HERE, FieldsSection())
    assert isinstance(found, Verdict)
    assert found.reason == words


def test_a_row_in_another_encoding_names_the_key_of_feedback(world, lines):
    (world.folder / "verdicts").mkdir()
    rows = [f"{line['id']},{line['digest']},José" for line in lines]
    text = "\n".join(["id,digest,edited", *rows])
    (world.folder / "verdicts" / "export.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"or name its encoding \(fields\.csv\.encoding\)"):
        run_feedback(world.config())
    fields = {"csv": {"encoding": "latin-1"}}
    assert run_feedback(world.config(fields=fields))["joined_rows"] == 6


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ([], "invalid_row", "the row is a list"),
        ({"digest": DIGEST, "verdict": "up"}, "invalid_row", "has no id"),
        ({"id": "a", "digest": DIGEST}, "invalid_row", "neither a verdict nor an edit"),
        ({"id": "a", "digest": DIGEST, "verdict": "so-so"}, "invalid_row", "fields.values"),
        ({"id": "a", "digest": DIGEST, "edited": 3}, "invalid_row", "edited is a number"),
        ({"id": "a", "verdict": None}, "not_judged", "verdict is blank and edited is missing"),
        ({"id": "a", "edited": " ", "verdict": "skip"}, "not_judged", "is 'skip' and edited is b"),
        ({"id": "a", "verdict": "up"}, "no_digest", "no digest"),
        ({"id": "a", "digest": "ab12", "verdict": "up"}, "no_digest", "of 4 characters"),
        ({"id": 1.5, "digest": DIGEST, "verdict": "up"}, "invalid_row", "1.5"),
    ],
)
def test_a_row_that_is_no_verdict_says_why(row, reason, detail):
    found = verdict_of(row, HERE, FieldsSection(values={"skip": "none"}))
    assert isinstance(found, Unmatched)
    assert found.reason == reason
    assert detail in found.detail


def test_a_file_that_is_no_text_has_a_remedy_that_feedback_has(world, lines):
    (world.folder / "verdicts").mkdir()
    (world.folder / "verdicts" / "export.jsonl").write_bytes(bytes(range(256)) * 40)
    with pytest.raises(DataError, match="move it out of `verdicts`") as error:
        run_feedback(world.config())
    assert "data." not in str(error.value)


def test_summaries_that_nobody_judged_are_counted_and_no_mistake(world, rows):
    skipped = [row | {"rating": "skip", "final": ""} for row in rows]
    fields = FIELDS | {"values": FIELDS["values"] | {"skip": "none"}}
    config = world.config(fields=fields, limits={"max_unmatched_fraction": 0})
    (world.folder / "verdicts").mkdir()
    write_csv(world.folder / "verdicts" / "skipped", skipped)
    with pytest.raises(MissingError, match=r"0 rows with a verdict.* 6 without.*is 'skip'"):
        run_feedback(config)
    write_csv(world.folder / "verdicts" / "judged", rows)
    numbers = run_feedback(config)
    reasons = {each["reason"]: each["rows"] for each in numbers["unmatched"]}
    assert (numbers["joined_rows"], reasons) == (6, {"not_judged": 6})


def test_summaries_that_nobody_judged_hide_no_wrong_digests(world, rows):
    skipped = [row | {"rating": "", "final": ""} for row in rows] * 9
    wrong = [row | {"hash": "f" * 32} for row in rows]
    (world.folder / "verdicts").mkdir()
    write_csv(world.folder / "verdicts" / "export", [*skipped, *wrong])
    with pytest.raises(DataError, match="6 of 6 rows of verdicts join no summary"):
        run_feedback(world.config(fields=FIELDS))


def test_rows_with_an_unknown_time_are_joined_in_their_order(world, lines):
    world.verdicts(
        [
            verdict(lines[0], verdict="up", by="ann", at="31.01.2026 09:12"),
            verdict(lines[0], verdict="down", by="ann", at="31.01.2026 09:15"),
        ]
    )
    numbers = run_feedback(world.config())
    assert (numbers["all"]["up"], numbers["all"]["down"]) == (0, 1)
    assert numbers["unknown_times"]["rows"] == 1
    assert "1 joined row has no time at `at` that can be read" in screen(numbers)


def test_two_fields_of_one_name_are_a_mistake(world, recap):
    path = world.folder / "c.yaml"
    path.write_text("run: f\nverdicts: v\nnights: n\noutput: o\nfields: {names: {verdict: id}}\n")
    ended = recap("feedback", str(path))
    assert ended.code == ConfigError.exit_code
    assert "names gives 'id' to two fields" in ended.err


def test_every_row_ends_in_one_way(world, lines):
    later = world.night("2026-01-06", [conversation(number) for number in range(6, 9)])
    source = world.folder / "conversations" / "2026-01-06.jsonl"
    changed = read_lines(source)
    changed[0]["turns"][0]["text"] += " and one thing more"
    source.write_text("".join(json.dumps(record) + "\n" for record in changed))
    world.verdicts(
        [
            verdict(lines[0], verdict="up", by="ann", at="2026-01-06T08:00:00Z"),
            verdict(lines[0], verdict="down", by="ann", at="2026-01-06T09:00:00Z"),
            verdict(lines[1], edited=corrected(lines[1])),
            verdict(later[0], verdict="up"),
            verdict(lines[2], verdict="up") | {"digest": "f" * 32},
            {"id": "nobody", "digest": "f" * 32, "verdict": "up"},
            {"id": "c3", "verdict": "up"},
            "{broken",
        ]
    )
    numbers = run_feedback(world.config(limits={"max_unmatched_fraction": 1}))
    reasons = {each["reason"]: each["rows"] for each in numbers["unmatched"]}
    assert reasons == {
        "invalid_row": 1,
        "no_digest": 1,
        "unknown_id": 1,
        "other_digest": 1,
        "no_conversation": 1,
        "superseded": 1,
    }
    assert numbers["joined_rows"] + sum(reasons.values()) == numbers["rows"] == 8
    unmatched = read_lines(world.folder / "out" / "unmatched.jsonl")
    assert [row["source"]["line"] for row in unmatched] == [1, 4, 5, 6, 7, 8]


def test_of_two_nights_with_one_line_only_different_texts_are_ambiguous(world, lines):
    folder = world.folder / "nights"
    copied = folder / "dt=2026-01-07"
    for path in sorted((folder / "dt=2026-01-05").rglob("*")):
        target = copied / path.relative_to(folder / "dt=2026-01-05")
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    part = copied / "parts" / "part-00000.jsonl"
    part.write_text(part.read_text().replace("late parcel", "parcel that is late"))
    world.verdicts([verdict(line, verdict="up") for line in lines])
    numbers = run_feedback(world.config())
    reasons = {each["reason"]: each["rows"] for each in numbers["unmatched"]}
    assert reasons == {"ambiguous": 2}
    assert numbers["joined_rows"] == 4


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_nights_in_one_file_are_joined(world, lines, ending):
    world.night("2026-01-05", [conversation(number) for number in range(6)], f"n.{ending}")
    world.verdicts([verdict(line, edited=corrected(line)) for line in lines])
    numbers = run_feedback(world.config(nights=str(world.folder / "nights" / f"n.{ending}")))
    assert numbers["joined_rows"] == 6
    assert numbers["nights"][0]["summaries"] == 6
