"""Claims about families of bases: each goes through every command, or is refused in `plan`."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from job.config.sections import AdapterModelSection, GenerationSection, StorageSection
from job.errors import ExitCode
from job.inference.open import fetch_with_adapter, load, merge
from job.model.families import forbid_repacking
from job.model.four_bit import quantizing_experts
from job.storage.scratch import cache_folder
from tests.bases.base import Family, make_base
from tests.bases.families import FAMILIES, family
from tests.bases.journey import Journey, logits_of

# Libraries warn on stderr, as they do outside of tests.
pytestmark = pytest.mark.filterwarnings("ignore")

# One for each kind; `make test-bases` tries all.
KINDS = [
    "Llama 3.x",
    "GPT-2",
]
PROMPTS = 8
NEW_TOKENS = 24


def name_of(entry: Family) -> str:
    return entry.name.replace(" ", "-").replace(".", "_")


@pytest.mark.parametrize("name", KINDS)
def test_a_family_of_each_kind_goes_through_every_command(name, travel, tmp_path):
    check_every_command(family(name), travel, tmp_path / "base")


@pytest.mark.bases
@pytest.mark.parametrize("entry", FAMILIES, ids=name_of)
def test_every_family_goes_through_every_command(entry, travel, tmp_path):
    check_every_command(entry, travel, tmp_path / "base")


def check_every_command(entry: Family, travel: Callable[..., Journey], base: Path) -> None:
    make_base(entry, base)
    journey = travel(base, entry.style, entry.settings)
    plan = journey.plan()
    if entry.refused:
        assert plan.code == ExitCode.CONFIG
        assert entry.refused in plan.err
        return
    assert plan.code == ExitCode.DONE, plan.out + plan.err

    for name in ("padded", "packed"):
        ended = journey.train(name)
        assert ended.code == ExitCode.DONE, ended.err
        check_batches(journey)
    assert journey.evaluate().code == ExitCode.DONE
    check_batches(journey)
    check_same_logits_without_recap(journey)

    for weights in ("separate", "merged"):
        ended = journey.summarize(weights)
        assert ended.code == ExitCode.DONE, ended.err
        assert journey.summarized(weights) == journey.records
        check_batches(journey)
    check_merged_and_batched(journey)


def check_batches(journey: Journey) -> None:
    """Assert that no batch failed, and that rows of one batch ended at different steps."""
    calls = journey.calls()
    assert [call.error for call in calls if call.error] == []
    assert any(len(set(call.output_tokens)) > 1 for call in calls), calls


def check_same_logits_without_recap(journey: Journey) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    # Without it, transformers leaves experts in 16 bits.
    with quantizing_experts():
        model = AutoPeftModelForCausalLM.from_pretrained(
            str(journey.adapter), quantization_config=quantization, dtype=torch.float32
        )
    forbid_repacking(model)
    assert torch.equal(logits_of(model), journey.trained_logits())


def check_merged_and_batched(journey: Journey) -> None:
    section = AdapterModelSection(**journey.settings.get("model", {}))
    fetched = fetch_with_adapter(str(journey.adapter), section, StorageSection(), cache_folder())
    model = load(fetched, section)
    merged = load(merge(fetched, section, cache_folder()), section)
    wanted = logits_of(model)
    torch.testing.assert_close(logits_of(merged), wanted, rtol=0, atol=2e-3 * float(wanted.std()))
    check_batched_as_alone(model, fetched.tokenizer)


def check_batched_as_alone(model: Any, tokenizer: Any) -> None:
    """Assert that the engine's batch ends each row where plain `generate` ends it alone."""
    from job.inference.transformers_engine import TransformersEngine

    draw = random.Random(7)
    prompts = [[draw.randint(1, 300) for _ in range(draw.randint(3, 60))] for _ in range(PROMPTS)]
    settings = GenerationSection(max_new_tokens=NEW_TOKENS)
    together = TransformersEngine(model, tokenizer).generate(prompts, settings)
    alone = [generated_alone(model, prompt) for prompt in prompts]
    ends = model.generation_config.eos_token_id
    kept = [row[:-1] if row[-1] in ends else row for row in alone]
    assert [answer.output_tokens for answer in together] == [len(row) for row in kept]
    decode = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    assert [answer.text for answer in together] == [tokenizer.decode(row, **decode) for row in kept]
    assert len({len(row) for row in alone}) > 2, "rows must end at different steps"


def generated_alone(model: Any, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
    )
    found: list[int] = output[0, len(prompt) :].tolist()
    return found
