"""Checks of each stage of a base's journey through the commands."""

import random
from typing import Any

import torch

from job.config.sections import AdapterModelSection, GenerationSection, StorageSection
from job.errors import ExitCode
from job.inference.engine import to_answer
from job.inference.open import FetchedModel, fetch_with_adapter, load, merge
from job.inference.sharing import Sharing, find_sharing
from job.inference.transformers_engine import TransformersEngine
from job.model.families import forbid_repacking
from job.model.quantization import four_bit_share
from job.storage.scratch import cache_folder
from tests.bases.base import Family, architecture_of
from tests.bases.journey import PROBE, Journey, logits_of
from tests.bases.page import Row, code, settings_text
from tests.bases.vllm_models import vllm_cell
from tests.plain_generate import one_by_one

BATCHES = {
    Sharing.ALL: "yes",
    Sharing.EQUAL: "of equal lengths",
    Sharing.NONE: "no, one by one",
}
PROMPTS = 8
NEW_TOKENS = 16
# The largest difference between the logits of a merged adapter and of one beside its base, as a
# share of their standard deviation.
MERGED_TOLERANCE = 2e-3
# A kind of weights with less than this share of the parameters is not worth a word on the page.
SMALL_SHARE = 0.04


def check_commands(journey: Journey) -> bool:
    """Assert that training, evaluation and both ways to summarize end with 0 and in batches.

    Return whether packed rows are trained, too: else they are refused, as rows that see each other.
    """
    for ended in (journey.train("padded"), journey.evaluate()):
        assert ended.code == ExitCode.DONE, ended.err
    packed = journey.train("packed")
    is_packable = packed.code == ExitCode.DONE
    if not is_packable:
        assert packed.code == ExitCode.CONFIG, packed.err
        assert "would see each other in this base: set packing: false" in packed.err
    for weights in ("separate", "merged"):
        check_summaries(journey, weights)
    check_batches(journey)
    return is_packable


def check_summaries(journey: Journey, weights: str) -> None:
    """Assert that each record got an answer."""
    ended = journey.summarize(weights)
    assert ended.code == ExitCode.DONE, ended.err
    assert journey.summarized(weights) == journey.records


def check_batches(journey: Journey) -> None:
    """Assert that no batch of the commands failed, and that rows of one ended at different steps.

    A batch that fails is halved, down to single prompts: right answers, in many times the time.
    """
    calls = journey.calls()
    assert [call.error for call in calls if call.error] == []
    assert any(len(set(call.output_tokens)) > 1 for call in calls), calls


def check_adapter(journey: Journey) -> Any:
    """Assert that the adapter gives the same logits however it is loaded, and in a batch.

    Return the model as it was trained.
    """
    section = AdapterModelSection(**journey.settings.get("model", {}))
    fetched = fetch_with_adapter(str(journey.adapter), section, StorageSection(), cache_folder())
    trained = _check_as_trained(journey, fetched, section)

    model = load(fetched, section)
    wanted = logits_of(model)
    assert torch.equal(logits_of(_without_recap(journey, None)), wanted)

    merged = load(merge(fetched, section, cache_folder()), section)
    tolerance = MERGED_TOLERANCE * float(wanted.std())
    torch.testing.assert_close(logits_of(merged), wanted, rtol=0, atol=tolerance)
    check_batched_as_alone(model, fetched.tokenizer)
    return trained


def check_batched_as_alone(model: Any, tokenizer: Any) -> None:
    """Assert that the engine's batch answers each prompt as plain `generate` does it alone."""
    draw = random.Random(7)
    prompts = [[draw.randint(1, 300) for _ in range(draw.randint(3, 60))] for _ in range(PROMPTS)]
    settings = GenerationSection(max_new_tokens=NEW_TOKENS)
    together = TransformersEngine(model, tokenizer).generate(prompts, settings)

    alone = one_by_one(model, prompts, NEW_TOKENS)
    ends = model.generation_config.eos_token_id
    assert together == [to_answer(row, ends, tokenizer) for row in alone]
    assert len({len(row) for row in alone}) > 1, "rows must end at different steps"


def row_of(entry: Family, table: str, model: Any, *, is_packable: bool) -> Row:
    """Return the row of a family that went through all commands. `model` is as it was trained."""
    architecture = architecture_of(entry)
    cells = [
        f"`{architecture}`",
        "yes" if is_packable else "unpacked",
        _in_four_bits(model),
        code(_adapted(model)),
        "yes",
        BATCHES[find_sharing(model, PROBE[0])],
        vllm_cell(architecture),
        settings_text(entry),
    ]
    return Row(table, entry.name, cells)


def refused_row(entry: Family, table: str) -> Row:
    """Return the row of a family that `plan` refuses."""
    return Row(table, entry.name, [f"`{architecture_of(entry)}`", f"64: … {entry.refused}"])


def _check_as_trained(journey: Journey, fetched: FetchedModel, section: AdapterModelSection) -> Any:
    """Assert that the adapter on its base in 4 bits has the logits that the training ended with."""
    in_four_bits = section.model_copy(update={"quantization": "nf4-double"})
    trained = load(fetched, in_four_bits)
    wanted = journey.trained_logits()
    assert torch.equal(logits_of(trained), wanted)

    # Where bitsandbytes alone quantizes as much as recap does, peft alone does the same.
    plain = _without_recap(journey, "nf4-double")
    if four_bit_share(plain).four_bit == four_bit_share(trained).four_bit:
        assert torch.equal(logits_of(plain), wanted)
    return trained


def _without_recap(journey: Journey, quantization: str | None) -> Any:
    """Return the adapter on its base as transformers and peft load them."""
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        BitsAndBytesConfig,
    )

    options: dict[str, Any] = {"dtype": torch.float32}
    if quantization:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
    config = AutoConfig.from_pretrained(journey.base)
    if type(config) in AutoModelForCausalLM._model_mapping:
        model = AutoPeftModelForCausalLM.from_pretrained(str(journey.adapter), **options)
    else:
        base = AutoModelForImageTextToText.from_pretrained(journey.base, **options)
        model = PeftModel.from_pretrained(base, str(journey.adapter))
    forbid_repacking(model)
    return model


def _in_four_bits(model: Any) -> str:
    """Return which weights of the language model are in 4 bits, without embeddings and head."""
    from torch.nn import Embedding

    outside = {id(module.weight) for module in model.modules() if isinstance(module, Embedding)}
    outside.add(id(model.get_output_embeddings().weight))
    sizes: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        is_of_tower = any(word in name for word in ("vision", "visual", "audio"))
        is_packed = not parameter.is_floating_point()
        if "lora_" in name or is_of_tower or is_packed or id(parameter) in outside:
            continue
        kind = name.removesuffix(".weight").rpartition(".")[2]
        sizes[kind] = sizes.get(kind, 0) + parameter.numel()

    packed = four_bit_share(model).four_bit
    if not packed:
        return "none"
    total = packed + sum(sizes.values())
    left = sorted(kind for kind, size in sizes.items() if size > SMALL_SHARE * total)
    return f"not {code(left)}" if left else "all"


def _adapted(model: Any) -> list[str]:
    """Return the last words of the names of the modules that have an adapter."""
    names = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    return sorted({_last_word(name) for name in names})


def _last_word(name: str) -> str:
    """Return the last part of a name that is no number, as modules in a list have it."""
    return [part for part in name.split(".") if not part.isdecimal()][-1]
