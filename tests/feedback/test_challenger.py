"""Claims about feedback on nights with a challenger: a canary's lines join, a shadow's are none."""

import json

import pytest

from job.cli import run
from job.config.commands import SummarizeConfig
from job.config.sections import StorageSection
from job.errors import ExitCode
from job.feedback.nights import find_nights, read_lines
from job.feedback.originals import find_originals
from job.summarization.summarize import summarize
from tests.champions import put_adapter
from tests.feedback import world
from tests.feedback.world import conversation, verdict, write_lines
from tests.stand_in import StandInEngine, stand_in

IDS = [f"c{number}" for number in range(30)]
FIRST, SECOND = "dt=2026-01-05", "dt=2026-01-12"
MARK = "!"  # ends what the challenger writes


def night(folder, name, how, first=0):
    """Summarize conversations of their own by `a`, with `b` as the challenger."""
    source = write_lines(
        folder / f"in-{first}.jsonl", [conversation(first + number) for number in range(len(IDS))]
    )
    config = {
        "run": "night",
        "input": str(source),
        "output": f"{folder}/nights/{name}",
        "adapter": f"{folder}/a",
        "challenger": {"adapter": f"{folder}/b", **how},
        "report": False,
    }
    opened = stand_in(StandInEngine(), challenger=StandInEngine(mark=MARK))
    summarize(SummarizeConfig.model_validate(config), opened)


@pytest.fixture
def digests(tmp_path, places):
    """Publish two adapters without weights, and return their digests."""
    return {each: put_adapter(f"{tmp_path}/{each}", tmp_path / "work") for each in ("a", "b")}


@pytest.mark.parametrize("name", ["out", "day.jsonl"])
@pytest.mark.parametrize("how", [{"canary": 0.4}, {"shadow": 1.0}])
def test_each_delivered_line_joins_its_conversation_by_its_adapter(tmp_path, digests, how, name):
    night(tmp_path, name, how)
    nights = find_nights([f"{tmp_path}/nights/"], StorageSection())
    written = read_lines(nights, IDS)
    lines = [line for same in written.lines.values() for line in same]
    assert sorted(line.id for line in lines) == sorted(IDS)
    writers = {line.adapter for line in lines}
    assert writers == (set(digests.values()) if "canary" in how else {digests["a"]})
    found = find_originals(lines, nights, [], StorageSection())
    assert {line.digest for line in lines} == set(found)


def read(folder, name, file="parts/part-00000.jsonl"):
    return world.read_lines(folder / "nights" / name / file)


def feedback(folder, rows, capsys, **keys):
    """Run the command on verdicts; return its report, and the rows of data by kind and side."""
    write_lines(folder / "verdicts.jsonl", rows)
    content = {
        "run": "feedback",
        "verdicts": f"{folder}/verdicts.jsonl",
        "nights": f"{folder}/nights",
        "output": f"{folder}/out",
    }
    write_lines(folder / "feedback.yaml", [json.dumps(content | keys)])
    assert run(["feedback", str(folder / "feedback.yaml"), "--json"]) == ExitCode.DONE
    report = json.loads(capsys.readouterr().out)
    files = (folder / "out").glob("*/*.jsonl")
    return report, {f"{file.parent.name}/{file.stem}": world.read_lines(file) for file in files}


def test_verdicts_on_a_canary_are_its_own_in_the_report_and_the_data(tmp_path, digests, capsys):
    night(tmp_path, FIRST, {"canary": 0.4})
    night(tmp_path, SECOND, {"canary": 0.4}, first=len(IDS))
    lines = [*read(tmp_path, FIRST), *read(tmp_path, SECOND)]
    rows = []
    for line in lines:
        # Agents like what the challenger writes, and correct all else.
        is_canary = line["adapter"] == digests["b"]
        given = {"verdict": "up"} if is_canary else {"edited": f"{line['summary']} indeed"}
        rows.append(verdict(line, by="agent", **given))
    of_canary = [line for line in lines if line["adapter"] == digests["b"]]
    one = of_canary[0]
    rows.append(verdict(one, edited="A better one.", by="agent"))

    report, data = feedback(tmp_path, rows, capsys)
    assert report["unmatched"] == []
    by_adapter = {each["name"]: each for each in report["adapters"]}
    canary, own = (by_adapter[digests[name][:12]] for name in ("b", "a"))
    assert canary["summaries"] == canary["judged"] == canary["up"] == len(of_canary)
    assert (canary["down"], canary["edited"]) == (0, 1)
    assert own["judged"] == own["edited"] == len(lines) - len(of_canary)
    pairs = [row for name, rows in data.items() if name.startswith("pairs/") for row in rows]
    shown = {line["digest"]: line for line in lines}
    for row in pairs:
        line = shown[row["metadata"]["digest"]]
        assert row["rejected"] == line["summary"]
        assert row["metadata"]["adapter"] == line["adapter"]
    (better,) = [row for row in pairs if row["chosen"] == "A better one."]
    assert better["rejected"].endswith(MARK)
    assert better["metadata"]["adapter"] == digests["b"]
    assert report["test_weeks"] == ["2026-W03"]
    train, test = ({row["id"] for row in data[f"pairs/{side}"]} for side in ("train", "test"))
    assert train
    assert test
    assert not train & test


def test_a_verdict_on_a_shadow_joins_nothing(tmp_path, digests, capsys):
    night(tmp_path, FIRST, {"shadow": 1.0})
    shadow = read(tmp_path, FIRST, "shadow.jsonl")
    delivered = read(tmp_path, FIRST)
    assert len(shadow) == len(delivered) == len(IDS)
    rows = [verdict(line, edited="Never shown.") for line in shadow[:5]]
    rows += [verdict(line, edited=f"{line['summary']} indeed") for line in delivered]
    report, data = feedback(tmp_path, rows, capsys, limits={"max_unmatched_fraction": 0.5})
    assert [(each["reason"], each["rows"]) for each in report["unmatched"]] == [("other_digest", 5)]
    assert [each["name"] for each in report["adapters"]] == [digests["a"][:12]]
    pairs = [row for name, rows in data.items() if name.startswith("pairs/") for row in rows]
    assert len(pairs) == len(IDS)
    assert not any(row["rejected"].endswith(MARK) for row in pairs)
    assert not any(row["chosen"] == "Never shown." for row in pairs)


def test_a_conversation_of_a_canary_that_an_evaluation_has_is_left_out(tmp_path, digests, capsys):
    night(tmp_path, FIRST, {"canary": 0.4})
    lines = read(tmp_path, FIRST)
    canaries = [line["id"] for line in lines if line["adapter"] == digests["b"]]
    held_out = [conversation(int(id[1:])) for id in canaries[:3]]
    write_lines(tmp_path / "test.jsonl", held_out)
    rows = [verdict(line, edited=f"{line['summary']} indeed") for line in lines]
    report, data = feedback(tmp_path, rows, capsys, evaluation_sets=f"{tmp_path}/test.jsonl")
    assert report["left_out"]["in_evaluation"] == 3
    used = {row["metadata"]["id"] for rows in data.values() for row in rows if "metadata" in row}
    assert used == set(IDS) - set(canaries[:3])
