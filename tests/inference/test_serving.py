"""Claims about the record of serving settings: what it accepts, and what a config takes of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import SummarizeConfig
from job.config.document import ConfigText
from job.config.load import load_config, resolved_yaml
from job.config.redaction import RedactionSection
from job.config.sections import StorageSection
from job.errors import DamagedError
from job.identity import json_digest
from job.inference.serving import (
    AdapterServing,
    Reading,
    Serving,
    differences,
    read_serving,
    write_serving,
)
from job.inference.taken import departures_of_config, fill, take
from job.model.fetch import read_adapter
from job.storage.folders import publish_folder
from job.storage.local import LocalStore
from job.summarization.identity import identity
from job.summarization.summarizer import Digests
from tests.serving import GENERATION, SERVING

JUDGED = AdapterServing(SERVING, is_judged=True)
ORDERS = RedactionSection(
    kinds=["email", "phone"], patterns={"order": "ORD-[0-9]+"}, phone_region="DE"
)


def night(**keys: Any) -> SummarizeConfig:
    content = {"run": "n", "input": "in.jsonl", "output": "out/", "adapter": "a"}
    return SummarizeConfig.model_validate(content | keys)


def publish(folder: Path, content: bytes | None) -> str:
    """Publish a folder like an adapter's, with this as its serving.json."""
    made = folder / "made"
    made.mkdir()
    (made / "adapter_config.json").write_text("{}")
    if content is not None:
        (made / "serving.json").write_bytes(content)
    publish_folder(made, LocalStore(str(folder / "adapter")), "", {"base": {"uri": "b"}})
    return str(folder / "adapter")


def test_the_record_is_read_back_as_it_was_written(tmp_path):
    write_serving(tmp_path, SERVING, is_judged=True)
    uri = publish(tmp_path, (tmp_path / "serving.json").read_bytes())
    assert read_serving(read_adapter(uri, StorageSection())) == JUDGED
    assert "vllm 0.32.0" in SERVING.text()
    assert "\n" not in SERVING.text()


def test_an_adapter_without_the_file_changes_no_config(tmp_path):
    config = night(adapter=publish(tmp_path, None))
    filled = fill(config)
    assert filled.config is config
    assert filled.judged is None
    assert not filled.wish().taken


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "python"},
        {"engine": 1},
        {"dtype": "auto"},
        {"quantization": "../../etc"},
        {"attention": "a b"},
        {"adapter_weights": "auto"},
        {"engine_version": "1\x1b[31m"},
        {"tensor_parallel": 0},
        {"tensor_parallel": True},
        {"prompt": "x"},
        {"trust_remote_code": True},
        {"base": "/etc"},
        {"generation": {}},
        {"generation": GENERATION | {"max_new_tokens": "64"}},
        {"generation": GENERATION | {"max_new_tokens": 0}},
        {"generation": GENERATION | {"temperature": -1.0}},
        {"generation": GENERATION | {"max_batch_size": 1 << 40}},
        {"judged": "yes"},
        {"reading": {"cleaning": ["eval"]}},
        {"reading": {"long_conversations": "drop"}},
        {"reading": {"redaction": {"kinds": ["../x"]}}},
        {"reading": {"redaction": {"patterns": {"../x": "a"}}}},
        {"reading": {"redaction": {"patterns": {"order": "("}}}},
        {"reading": {"path": "/etc"}},
    ],
    ids=str,
)
def test_what_no_config_may_set_is_damage(tmp_path, change):
    content = {"judged": True, **SERVING.to_json()} | change
    uri = publish(tmp_path, json.dumps(content).encode())
    with pytest.raises(DamagedError, match=r"serving\.json"):
        read_serving(read_adapter(uri, StorageSection()))


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 5000, b"x" * 70_000, b'{"judged": true}'])
def test_a_file_that_is_no_record_is_damage(tmp_path, content):
    uri = publish(tmp_path, content)
    with pytest.raises(DamagedError, match=r"serving\.json"):
        read_serving(read_adapter(uri, StorageSection()))


def test_a_file_of_another_manifest_is_damage(tmp_path):
    uri = publish(tmp_path, json.dumps({"judged": True, **SERVING.to_json()}).encode())
    adapter = read_adapter(uri, StorageSection())
    other = json.dumps({"judged": True, **SERVING.to_json(), "engine": "transformers"})
    (Path(uri) / "serving.json").write_text(other)
    with pytest.raises(DamagedError, match="not the file that the manifest names"):
        read_serving(adapter)


def test_a_config_takes_what_it_does_not_set():
    filled = take(night(generation={"max_new_tokens": 99}, model={"dtype": "auto"}), JUDGED)
    assert filled.config.engine == "vllm"
    assert filled.config.model.dtype == "auto"
    assert filled.config.generation.max_new_tokens == 99
    assert {"engine", "tensor_parallel", "quantization", "seed"} <= filled.taken
    assert not {"dtype", "max_new_tokens"} & filled.taken
    assert departures_of_config(filled, ()) == ["max new tokens 99 here, 64 when it was judged"], (
        "what auto becomes is known where the model is opened"
    )


def test_a_resolved_config_takes_the_same_when_it_is_loaded_again():
    config = night(engine="transformers", generation={"seed": 7})
    again = load_config("summarize", ConfigText("night.yaml", resolved_yaml(config)))
    assert take(again, JUDGED) == take(config, JUDGED)
    assert take(again, JUDGED).config.generation.max_new_tokens == 64


@pytest.mark.parametrize(
    ("keys", "serving", "name"),
    [
        ({"adapter_weights": "merged"}, {"quantization": "nf4"}, "quantization"),
        ({"model": {"quantization": "nf4"}}, {"adapter_weights": "merged"}, "adapter_weights"),
        ({}, {"quantization": "nf4", "adapter_weights": "merged"}, "adapter_weights"),
        ({"engine": "transformers"}, {"tensor_parallel": 4}, "tensor_parallel"),
        ({"tensor_parallel": 4}, {"engine": "transformers"}, "engine"),
    ],
)
def test_what_a_set_value_excludes_is_not_taken(keys, serving, name):
    filled = take(night(**keys), replace(JUDGED, serving=replace(SERVING, **serving)))
    assert name not in filled.taken
    SummarizeConfig.model_validate(filled.config.model_dump())


def test_the_identity_of_a_night_has_the_values_that_it_takes():
    digests = Digests("a", "b")
    taken = identity(take(night(), JUDGED).config, [], digests)
    same = night(
        model={"quantization": None, "dtype": "bfloat16"},
        generation=GENERATION,
        adapter_weights="separate",
    )
    assert json_digest(taken) == json_digest(identity(same, [], digests))
    assert json_digest(taken) != json_digest(identity(night(), [], digests))


def test_differences_are_sentences_about_what_decides():
    here = replace(SERVING, dtype="float16", generation=GENERATION | {"seed": 1})
    assert differences(JUDGED, here) == ["dtype float16 here, bfloat16 when it was judged"]
    other = replace(SERVING, engine="transformers", engine_version="5.19.0", attention="sdpa")
    assert differences(JUDGED, other) == ["engine transformers here, vllm when it was judged"]
    unknown = AdapterServing(replace(SERVING, engine_version=""), is_judged=True)
    assert differences(unknown, SERVING) == [], "it was not installed where it was trained"
    drawn = replace(SERVING, generation=GENERATION | {"temperature": 0.7})
    assert differences(JUDGED, drawn) == ["temperature 0.7 here, 0 when it was judged"]
    assert differences(JUDGED, SERVING) == []


def test_an_adapter_that_nobody_judged_departs_from_how_it_was_published():
    never = AdapterServing(SERVING, is_judged=False)
    here = replace(SERVING, dtype="float16")
    sentence = "dtype float16 here, bfloat16 when it was published, and never judged"
    assert differences(never, here) == [sentence]
    filled = take(night(model={"dtype": "float16"}), never)
    assert departures_of_config(filled, ()) == [sentence]


def test_what_is_read_otherwise_departs():
    other = replace(SERVING, reading=Reading(("links",), "hierarchical", ORDERS))
    assert differences(JUDGED, other) == [
        "cleaning links here, as in training when it was judged",
        "long conversations hierarchical here, keep_ends when it was judged",
        "redaction email, phone (DE), order (b41be88c) here, none when it was judged",
    ]
    assert "cleaning links; long conversations hierarchical; redaction email" in other.text()
    assert Serving.from_json(other.to_json()) == other


def test_a_night_reads_as_its_adapter_was_judged_unless_it_says_otherwise():
    reading = Reading(None, "hierarchical", ORDERS)
    judged = AdapterServing(replace(SERVING, reading=reading), True)
    filled = take(night(), judged)
    assert (filled.config.long_conversations, filled.config.redaction) == ("hierarchical", ORDERS)
    assert filled.wish().reading == reading
    assert departures_of_config(filled, ()) == []
    same = night(long_conversations="hierarchical", redaction=ORDERS.model_dump())
    assert departures_of_config(take(same, judged), ()) == []
    digests = Digests("a", "b")
    assert identity(filled.config, [], digests) == identity(take(same, judged).config, [], digests)
    assert identity(filled.config, [], digests) != identity(night(), [], digests)
    again = load_config("summarize", ConfigText("night.yaml", resolved_yaml(night())))
    assert take(again, judged).config.redaction == ORDERS


@pytest.mark.parametrize(
    ("keys", "departs"),
    [
        ({"long_conversations": "keep_ends"}, "long conversations keep_ends here, hierarchical"),
        ({"long_conversations": "reject"}, None),
        ({"redaction": None}, "redaction none here, email, phone (DE), order ("),
        ({"redaction": {"phone_region": "US"}}, "redaction email, phone (US), order ("),
        (
            {"redaction": {"patterns": {"order": "A-[0-9]+"}}},
            "redaction email, phone (DE), order (",
        ),
    ],
    ids=str,
)
def test_any_other_reading_than_that_of_the_judged_departs(keys, departs):
    if keys.get("redaction"):
        keys = {"redaction": ORDERS.model_dump() | keys["redaction"]}
    reading = Reading(None, "hierarchical", ORDERS)
    judged = AdapterServing(replace(SERVING, reading=reading), True)
    found = departures_of_config(take(night(**keys), judged), ())
    assert len(found) == (departs is not None)
    assert not found or found[0].startswith(departs)


def test_the_usual_reading_is_no_part_of_the_record():
    assert "reading" not in SERVING.to_json(), "earlier versions refuse keys that they do not know"
    assert Serving.from_json(SERVING.to_json()) == SERVING


def test_a_config_takes_the_cleaning_that_an_evaluation_had():
    own = JUDGED
    judged = replace(JUDGED, serving=replace(SERVING, reading=Reading(("links",))))
    assert take(night(), own).config.data.cleaning == "auto"
    assert identity(take(night(), own).config, [], Digests("a", "b"))["data"]["cleaning"] == "auto"
    filled = take(night(), judged)
    assert filled.config.data.cleaning == ["links"]
    assert filled.wish().reading == Reading(("links",))
    assert departures_of_config(filled, ("whitespace",)) == []
    asked = take(night(data={"cleaning": "auto"}), judged)
    assert departures_of_config(asked, ("whitespace",)) == [
        "cleaning as in training here, links when it was judged"
    ]
    text = ConfigText("night.yaml", resolved_yaml(night()))
    assert take(load_config("summarize", text), judged).config.data.cleaning == ["links"]


@pytest.mark.parametrize(
    ("keys", "departs"),
    [
        ({"data": {"cleaning": "tweets"}}, "cleaning links, mentions"),
        ({"data": {"cleaning": []}}, "cleaning none here, as in training"),
        ({"data": {"cleaning": ["whitespace"]}}, None),
        ({"long_conversations": "hierarchical"}, "long conversations hierarchical"),
        ({"long_conversations": "reject"}, None),
        ({"redaction": {"kinds": ["email"], "patterns": {"order": "O-1"}}}, "redaction email, ord"),
        ({"redaction": {"kinds": []}}, None),
        ({"model": {"attention": "eager"}}, "attention eager here, sdpa"),
        ({"model": {"attention": "auto"}}, None),
        ({"engine": "vllm", "model": {"attention": "eager"}}, "engine vllm here"),
    ],
    ids=str,
)
def test_a_config_that_reads_or_attends_otherwise_departs(keys, departs):
    serving = replace(SERVING, engine="transformers", attention="sdpa")
    filled = take(night(**keys), AdapterServing(serving, True))
    found = departures_of_config(filled, ("whitespace",))
    assert len(found) == (departs is not None)
    assert not found or found[0].startswith(departs)


def test_an_attention_that_auto_never_becomes_departs():
    serving = replace(SERVING, engine="transformers", attention="flash_attention_2")
    assert departures_of_config(take(night(), AdapterServing(serving, True)), ()) == [
        "attention auto here, flash_attention_2 when it was judged"
    ]
