"""Claims about feedback on nights with a challenger: a canary's lines join, a shadow's are none."""

import pytest

from job.config.commands import SummarizeConfig
from job.config.sections import StorageSection
from job.feedback.nights import find_nights, read_lines
from job.feedback.originals import find_originals
from job.summarization.summarize import summarize
from tests.champions import put_adapter
from tests.feedback.world import conversation, write_lines
from tests.stand_in import StandInEngine, stand_in

IDS = [f"c{number}" for number in range(30)]


@pytest.mark.parametrize("name", ["out", "day.jsonl"])
@pytest.mark.parametrize("how", [{"canary": 0.4}, {"shadow": 1.0}])
def test_each_delivered_line_joins_its_conversation_by_its_adapter(tmp_path, places, how, name):
    digests = {each: put_adapter(f"{tmp_path}/{each}", tmp_path / "work") for each in ("a", "b")}
    write_lines(tmp_path / "in.jsonl", [conversation(number) for number in range(len(IDS))])
    config = {
        "run": "night",
        "input": f"{tmp_path}/in.jsonl",
        "output": f"{tmp_path}/nights/{name}",
        "adapter": f"{tmp_path}/a",
        "challenger": {"adapter": f"{tmp_path}/b", **how},
        "report": False,
    }
    opened = stand_in(StandInEngine(), challenger=StandInEngine(mark="!"))
    summarize(SummarizeConfig.model_validate(config), opened)

    nights = find_nights([f"{tmp_path}/nights/"], StorageSection())
    written = read_lines(nights, IDS)
    lines = [line for same in written.lines.values() for line in same]
    assert sorted(line.id for line in lines) == sorted(IDS)
    writers = {line.adapter for line in lines}
    assert writers == (set(digests.values()) if "canary" in how else {digests["a"]})
    found = find_originals(lines, nights, [], StorageSection())
    assert {line.digest for line in lines} == set(found)
