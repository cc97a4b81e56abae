"""Claims about scores by vLLM: in a process of its own, by the engine of a night."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from job.conversations.record import Conversation, Source, Turn
from job.errors import ConfigError
from job.inference.from_disk import Candidate, Place, summarize_candidates
from job.inference.reader import Reader
from job.inference.serving import ServingWish
from job.inference.summaries import input_budget, summarize_conversations
from job.prompt.encode import Encoder
from tests.vllm.engines import SECTION, SETTINGS

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]
CONVERSATIONS = [
    Conversation(f"c{n}", (Turn("customer", f"Parcel {n} is late"),), Source("in.jsonl", n))
    for n in range(4)
]


def test_adapter_and_base_share_one_process_of_vllm(fetched, engine, tmp_path):
    wish = ServingWish(SECTION, SETTINGS, "vllm")
    alone = replace(fetched, adapter=None, adapter_digest=None)
    found = summarize_candidates(
        [
            Candidate("base", alone, wish, CONVERSATIONS),
            Candidate("tuned", fetched, wish, CONVERSATIONS),
        ],
        Place(tmp_path, tmp_path),
    )
    assert not psutil.Process(os.getpid()).children(recursive=True)
    assert found["tuned"].serving.engine == "vllm"
    assert found["tuned"].serving.attention == "vllm"

    reader = Reader(
        Encoder(fetched.prompt, fetched.tokenizer, input_budget(engine.context_tokens, SETTINGS))
    )
    here = {"tuned": engine, "base": engine.with_adapter(None)}
    for name, each in here.items():
        expected = summarize_conversations(CONVERSATIONS, each, reader, SETTINGS)
        assert found[name].summaries == expected
    assert found["tuned"].summaries.texts != found["base"].summaries.texts


def test_what_vllm_cannot_serve_is_an_error_of_the_config(fetched, tmp_path):
    section = SECTION.model_copy(update={"attention": "eager"})
    wish = ServingWish(section, SETTINGS, "vllm")
    candidate = Candidate("tuned", fetched, wish, CONVERSATIONS)
    with pytest.raises(ConfigError, match="eager is transformers'"):
        summarize_candidates([candidate], Place(tmp_path, tmp_path))


def test_what_was_judged_with_vllm_departs_where_it_cannot_serve(fetched, tmp_path: Path):
    section = SECTION.model_copy(update={"attention": "eager"})
    wish = ServingWish(section, SETTINGS, "vllm", taken=frozenset({"engine"}))
    candidate = Candidate("tuned", fetched, wish, CONVERSATIONS)
    found: Any = summarize_candidates([candidate], Place(tmp_path, tmp_path))
    assert found["tuned"].serving.engine == "transformers"


def test_a_training_is_scored_by_the_vllm_that_will_serve(vllm_base, trials, tmp_path):
    records = []
    for n in range(12):
        turns = [{"role": "customer", "text": f"Parcel {n} is late."}]
        records.append({"id": f"c{n}", "turns": turns, "summaries": [f"Parcel {n} is late."]})
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "train.jsonl").write_text(lines)
    config = {
        "run": "served",
        "model": {"base": str(vllm_base)},
        "data": {"train": str(tmp_path / "train.jsonl")},
        "output": str(tmp_path / "runs"),
        "lora": {"r": 4, "alpha": 8},
        "training": {"max_steps": 2, "batch_size": 4, "max_tokens": 256, "sample_summaries": 0},
        "generation": {"max_new_tokens": 8},
        "serve": {"engine": "vllm", "dtype": "float32"},
        "evaluation": {"bootstrap_samples": 100, "base_without_adapter": True},
        "publish": {"verify": False},
    }
    code, log = trials.run(config)
    assert code == 0, log
    run = tmp_path / "runs" / "served"
    serving = json.loads((run / "adapter" / "serving.json").read_text())
    assert serving["judged"] is True, log
    assert (serving["engine"], serving["quantization"]) == ("vllm", "none")
    systems = json.loads((run / "report" / "evaluation.json").read_text())["systems"]
    assert systems["base without adapter"]["serving"] == systems["tuned"]["serving"]
