"""Claims about faithfulness of nights: scored once all summaries are there, and no night fails."""

import pytest

from job.errors import ConfigError, MissingError, Stopped
from job.preflight.summarizing import plan_summarizing
from job.summarization import faithfulness, summarize
from job.summarization.chunk_store import ChunkStore
from tests.summarization.conftest import conversation, files_below, write_lines
from tests.summarization.nights import FOLDER, manifest_of, never, run

RECORDS = [conversation(f"c{number}", f"Write to eva{number}@example.com") for number in range(4)]


class Judge:
    """A classifier that was fetched."""

    class base:
        uri = "org/judge"
        digest = "d" * 64


@pytest.fixture
def judged(config, tmp_path, monkeypatch):
    """The config of a night with a classifier, and the samples that it scores with 0 and 1."""
    scored = []

    def measure(samples, model):
        import numpy as np

        scored.extend(samples)
        return np.array([0.0, 1.0, np.nan, 1.0])

    for module in (summarize, faithfulness):
        monkeypatch.setattr(module, "fetch_faithfulness_model", lambda config: Judge)
    monkeypatch.setattr(faithfulness, "measure_faithfulness", measure)
    write_lines(tmp_path / "in.jsonl", RECORDS)
    return config(faithfulness_model={"model": "org/judge"}, redaction={}), scored


def quality(folder):
    return manifest_of(folder)["quality"]


def test_the_sample_is_scored_beside_what_the_model_read(judged, tmp_path):
    night, scored = judged
    run(night)
    block = quality(tmp_path / "out")
    assert block["figures"]["faithfulness"] == {"records": 3, "mean": 0.666667, "sd": 0.57735}
    assert block["faithfulness_model"] == {"model": "org/judge", "digest": "d" * 64}
    assert [sample.conversation.turns[0].text for sample in scored] == ["Write to [EMAIL_1]"] * 4
    assert files_below(tmp_path / "out") == FOLDER, "no note stays"


@pytest.mark.parametrize("error", [RuntimeError("eva0@example.com"), ConfigError("no memory")])
def test_no_night_fails_by_its_scores(judged, tmp_path, monkeypatch, log, error):
    def fail(samples, model):
        raise error

    monkeypatch.setattr(faithfulness, "measure_faithfulness", fail)
    run(judged[0])
    assert "faithfulness" not in quality(tmp_path / "out")["figures"]
    assert files_below(tmp_path / "out") == FOLDER
    fields = [record.fields for record in log.records if "faithfulness is left" in record.message]
    assert [each["why"] for each in fields] == [
        "no memory" if isinstance(error, ConfigError) else "RuntimeError"
    ]


def test_a_night_stopped_while_it_scores_ends_with_the_same_block(judged, tmp_path, monkeypatch):
    night, _ = judged
    with monkeypatch.context() as patch:
        patch.setattr(faithfulness, "measure_faithfulness", stop)
        with pytest.raises(Stopped):
            run(night)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert run(night) == 0, "all summaries were there"
    assert quality(tmp_path / "out")["figures"]["faithfulness"]["records"] == 3


def stop(samples, model):
    raise Stopped


def test_scoring_that_kills_twice_is_left_out(judged, tmp_path, monkeypatch, log):
    night, _ = judged
    with monkeypatch.context() as patch:
        patch.setattr(faithfulness, "measure_faithfulness", stop)
        patch.setattr(ChunkStore, "delete_note", lambda store, name: None)  # as of a killed process
        for _ in range(2):
            with pytest.raises(Stopped):
                run(night)
    run(night)
    assert "faithfulness" not in quality(tmp_path / "out")["figures"]
    assert "faithfulness is left out: processes died while they scored it" in log.text
    assert files_below(tmp_path / "out") == FOLDER


def test_a_missing_classifier_ends_the_night_before_it_begins(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", RECORDS)
    night = config(faithfulness_model={"model": str(tmp_path / "nowhere")})
    with pytest.raises(MissingError, match=r"^faithfulness_model: '.*nowhere'"):
        summarize.summarize(night, never)
    found = {each.name: each for each in plan_summarizing(night).checks}["faithfulness"]
    assert "faithfulness_model: '" in str(found.error)
