"""A night on a base that thinks, by the real command: thoughts are in no summary."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from job.errors import ExitCode
from tests.command_line import Recap
from tests.tiny import make_byte_tokenizer
from tests.training.conftest import records, write_jsonl

pytestmark = pytest.mark.bases

HARMONY = ["<|start|>", "<|channel|>", "<|message|>", "<|return|>"]
PLAIN = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHANNELS = (
    "{% for m in messages %}<|start|>{{ m['role'] }}"
    "{% if m['role'] == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


def make_reciting_base(folder: Path, template: str, controls: list[str], said: Sequence[str]):
    """Write a base that recites: each token of `said` has one that follows it.

    Its layers add nothing, and its head maps the embedding of each token to the next one.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_byte_tokenizer()
    tokenizer.add_tokens(controls)
    tokenizer.chat_template = template
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=1024,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(5)
    model = LlamaForCausalLM(config)
    ids = tokenizer.convert_tokens_to_ids(list(said))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "o_proj" in name or "down_proj" in name or "lm_head" in name:
                weight.zero_()
        embeddings = model.model.embed_tokens.weight.normal_()
        for token, following in pairwise(ids):
            model.lm_head.weight[following] = embeddings[token]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def night(tmp_path: Path, recap: Recap) -> Any:
    """Return a function that summarizes by a base alone: its summaries, and rejects with log."""

    def summarize(
        base: Path, max_new_tokens: int, cut: int = 0
    ) -> tuple[list[str], list[str], str]:
        config = {
            "run": "night",
            "input": str(write_jsonl(tmp_path / "in.jsonl", records(3))),
            "output": f"{tmp_path}/out-{max_new_tokens}/",
            "model": {"base": str(base)},
            "prompt": {"style": "chat", "system": "Sum up."},
            "generation": {"max_new_tokens": max_new_tokens},
            "engine": "transformers",
            "limits": {"max_reject_fraction": 1.0},
        }
        path = tmp_path / "night.yaml"
        path.write_text(yaml.safe_dump(config))
        ended = recap("summarize", path)
        assert ended.code == ExitCode.DONE, ended.err
        output = Path(config["output"])
        found = {}
        for kind in ("parts", "rejects"):
            lines = (output / kind / "part-00000.jsonl").read_text().splitlines()
            found[kind] = [json.loads(line) for line in lines]
        summaries = [each["summary"] for each in found["parts"]]
        details = [f"{each['reason']}: {each['detail']}" for each in found["rejects"]]
        return summaries, details, ended.err

    return summarize


def test_a_base_that_thinks_anyhow_summarizes_without_its_thoughts(tmp_path, night):
    said = ["<|assistant|>", "<think>", "H", "m", "</think>", "P", "a", "i", "d", "</s>"]
    base = tmp_path / "base"
    make_reciting_base(base, PLAIN + "{# <think> #}", ["<think>", "</think>"], said)
    summaries, rejects, log = night(base, 16)
    assert (summaries, rejects) == (["Paid"] * 3, [])
    assert "model.base may think before it answers" in log

    summaries, rejects, _ = night(base, 3)
    assert summaries == []
    remedy = "the model was still thinking after 3 tokens; raise generation.max_new_tokens"
    assert len(rejects) == 3
    assert all(reject.startswith(f"empty_summary: {remedy}") for reject in rejects)


def test_a_base_with_channels_answers_in_the_final_one(tmp_path, night):
    said = ["<|message|>", "P", "a", "i", "d", "</s>"]
    base = tmp_path / "base"
    make_reciting_base(base, CHANNELS, HARMONY, said)
    assert night(base, 16)[:2] == (["Paid"] * 3, [])
