"""Claims about nights with an adapter that says how it was judged: what serves, what departs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import SummarizeConfig
from job.inference.open import read_prompt
from job.inference.serving import write_serving
from job.model.fetch import BASE_KEY, fetch_base
from job.preflight.summarizing import plan_summarizing
from job.prompt.template import prompt_digest
from job.storage.folders import publish_folder
from job.storage.local import LocalStore
from job.summarization.summarize import summarize
from tests.adapters import NO_STORAGE, publish_adapter
from tests.serving import GENERATION, SERVING
from tests.summarization.conftest import conversation, read_lines, write_lines
from tests.summarization.nights import manifest_of


@pytest.fixture(scope="module")
def unserved(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an adapter that does not say how it was judged."""
    work = tmp_path_factory.mktemp("adapter")
    publish_adapter(base_folder, work, str(work / "published"))
    return work / "adapter"


@pytest.fixture
def judged(unserved: Path, base_folder: Path, tmp_path: Path) -> Any:
    """Return a function that publishes the adapter, judged with changes of these settings."""
    serving = replace(
        SERVING,
        quantization="nf4",
        dtype="float32",
        attention="sdpa",
        engine="transformers",
        engine_version="5.19.0",
        generation={**GENERATION, "max_new_tokens": 5},
        prompt=prompt_digest(read_prompt(unserved)),
    )
    base = fetch_base(str(base_folder), None, NO_STORAGE, tmp_path)

    def publish(is_judged: bool = True, **changes: Any) -> str:
        write_serving(unserved, replace(serving, **changes), is_judged)
        uri = str(tmp_path / "judged")
        publish_folder(unserved, LocalStore(uri), "", {BASE_KEY: base.identity()})
        return uri

    return publish


def night(config: Any, adapter: str, **keys: Any) -> SummarizeConfig:
    """Return a night that sets nothing of serving, but `keys`."""
    plain = config().model_dump(exclude_unset=True) | {"adapter": adapter}
    for key in ("model", "generation"):
        del plain[key]
    return SummarizeConfig.model_validate(plain | keys)


def test_a_night_serves_as_the_adapter_was_judged(config, judged, tmp_path, log):
    write_lines(tmp_path / "in.jsonl", [conversation(f"c{n}") for n in range(3)])
    summarize(night(config, judged()))
    facts = manifest_of(tmp_path / "out")
    assert facts["departures"] == {}
    assert facts["config"]["model"]["quantization"] == "nf4"
    assert facts["identity"]["generation"]["max_new_tokens"] == 5
    lines = read_lines(tmp_path / "out" / "parts" / "part-00000.jsonl")
    assert max(line["output_tokens"] for line in lines) <= 5
    assert "not made as the adapter's settings say" not in log.text


def test_what_departs_is_in_the_log_and_the_manifest(config, judged, tmp_path, log):
    write_lines(tmp_path / "in.jsonl", [conversation(f"c{n}") for n in range(3)])
    uri = judged(engine="vllm", engine_version="0.32.0", attention="vllm")
    keys = {
        "generation": {"max_new_tokens": 7},
        "chunks": {"records": 2},
        "data": {"cleaning": ["links"]},
        "long_conversations": "hierarchical",
        "redaction": {"kinds": ["email"]},
    }
    summarize(night(config, uri, **keys))
    departures = [
        "engine transformers here, vllm when it was judged",
        "max new tokens 7 here, 5 when it was judged",
        "cleaning links here, as in training when it was judged",
        "long conversations hierarchical here, keep_ends when it was judged",
        "redaction email here, none when it was judged",
    ]
    found = manifest_of(tmp_path / "out")["departures"]
    assert found == dict.fromkeys(departures, 2), "by chunks"
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"Not served by the settings of the adapter: {departures[0]} (2 chunks)." in page
    (warning,) = [each for each in log.records if "as the adapter's settings say" in each.message]
    assert warning.fields["departures"] == departures


def test_a_plan_names_what_departs(config, judged, unserved, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("c")])

    def line(**keys: Any) -> str:
        plan = plan_summarizing(night(config, str(tmp_path / "judged"), **keys))
        assert plan.error is None, plan.text()
        (found,) = [check for check in plan.checks if check.name == "serving"]
        return found.found

    judged()
    assert line().startswith("as it was judged: quantization nf4; float32")
    assert "warning" not in line()
    set_here = line(model={"quantization": None})
    assert "warning: departs: quantization null here, nf4 when it was judged" in set_here
    read = line(data={"cleaning": "tweets"}, redaction={"kinds": ["email"]})
    assert "warning: departs: cleaning links, mentions" in read
    assert "warning: departs: redaction email here, none when it was judged" in read
    own = list(read_prompt(unserved).cleaning)
    assert "warning" not in line(data={"cleaning": own}), "the steps of the training, by name"
    attention = line(model={"attention": "eager"})
    assert "warning: departs: attention eager here, sdpa when it was judged" in attention
    judged(is_judged=False, engine="vllm")
    assert line().startswith("never judged, meant for quantization nf4")
    assert "vLLM, which is not installed here" in line()


def test_a_plan_knows_adapters_that_say_nothing(config, unserved, base_folder, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("c")])
    publish_adapter(base_folder, tmp_path, str(tmp_path / "plain"))
    plan = plan_summarizing(night(config, str(tmp_path / "plain")))
    assert "does not say how it was judged" in plan.text()
