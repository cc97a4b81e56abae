"""The demo's base: its training data, the script that makes it, and the one in the repository."""

import re
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.demo.make.base import Recipe, make_base
from examples.demo.make.generator import generate
from examples.demo.make.lookback import documents
from examples.demo.make.wording import load_phrases

BASE = Path(__file__).parents[2] / "examples" / "demo" / "base"
TINY = Recipe(
    steps=3,
    warmup_steps=1,
    batch_rows=2,
    row_tokens=512,
    vocabulary=300,
    tokenizer_documents=20,
    hidden=64,
    layers=2,
    heads=2,
    intermediate=64,
)


def test_documents_hold_no_summary_and_no_heldout_wording() -> None:
    text = "\n".join(part.text for document in islice(documents(1), 1500) for part in document)
    assert "summar" not in text.lower()
    known = {summary for row in generate(3000, 2, "train") for summary in row["summaries"]}
    assert not any(summary in text for summary in known)
    phrases = load_phrases()
    names = [
        name for pool in phrases.values["heldout"].values() for name in pool if name[0].isupper()
    ]
    assert not [name for name in names if re.search(rf"\b{re.escape(name)}\b", text)]
    said = {turn["text"] for row in generate(1000, 2, "heldout") for turn in row["turns"]}
    assert not [turn for turn in said if len(turn.split()) > 4 and f": {turn}\n" in text]


def test_same_seed_makes_the_same_base(tmp_path: Path) -> None:
    losses = [make_base(tmp_path / name, TINY) for name in ("one", "two")]
    assert losses[0] == losses[1]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


def test_the_repository_base_is_small_and_fits_4_bit() -> None:
    assert sum(path.stat().st_size for path in BASE.iterdir()) <= 8_000_000
    model = AutoModelForCausalLM.from_pretrained(BASE, local_files_only=True)
    assert model.config.model_type == "llama"
    assert model.config.hidden_size % 64 == 0
    assert model.config.intermediate_size % 64 == 0


@pytest.mark.parametrize(
    "text", ["customer: Straße 5, 北京 🙂\nagent: ok", "### Response:\n", "a\ttab  two spaces"]
)
def test_the_tokenizer_keeps_every_character(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE, local_files_only=True)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert None not in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)


def test_the_base_answers_what_looks_back_at_conversations_it_never_saw() -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        BASE, local_files_only=True, dtype=torch.float32
    ).eval()
    right = 0
    for question, answer, *_ in islice(documents(99), 40):
        ids = tokenizer.encode(
            f"{tokenizer.bos_token}{question.text}", add_special_tokens=False, return_tensors="pt"
        )
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=96, do_sample=False
        )
        right += (
            tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True) == answer.text
        )
    assert right >= 20, f"{right} of 40 answers are right, word for word"
