"""Claims about the transformers engine, with a real model of random weights."""

import random
from typing import Any

import pytest
import torch

from job.config.sections import AdapterModelSection, GenerationSection, StorageSection
from job.errors import RetryError
from job.inference.batch import generating
from job.inference.decode import decode
from job.inference.open import fetch_with_adapter, load, merge
from job.inference.transformers_engine import TransformersEngine
from job.model.attach import attach_adapter
from job.model.load import load_base
from tests.adapters import publish_adapter
from tests.plain_generate import one_by_one
from tests.tiny import ENDING_IDS

SETTINGS = GenerationSection(max_new_tokens=24)
NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
]


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    draw = random.Random(7)
    return [[0] + [draw.randint(60, 310) for _ in range(draw.randint(3, 60))] for _ in range(24)]


@pytest.fixture
def engine(model: Any, tokenizer: Any) -> TransformersEngine:
    return TransformersEngine(model, tokenizer)


def test_batch_gives_each_prompt_the_answer_it_gets_alone(engine, model, tokenizer, prompts):
    alone = one_by_one(model, prompts, 24)
    ends = {tokenizer.eos_token_id, *ENDING_IDS}
    answers = engine.generate(prompts, SETTINGS)
    lengths = set()
    for answer, tokens in zip(answers, alone, strict=True):
        stopped = tokens[-1] in ends
        kept = tokens[:-1] if stopped else tokens
        assert answer.text == tokenizer.decode(
            kept, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert answer.output_tokens == len(kept)
        assert answer.finish_reason == ("stop" if stopped else "length")
        lengths.add(len(tokens))
    assert len(lengths) > 5, "rows must end at many steps, so that some leave the batch"
    assert {answer.finish_reason for answer in answers} == {"stop", "length"}


@pytest.mark.parametrize(("tokens", "rows"), [(16, 64), (200, 64), (16384, 1), (16384, 5)])
def test_answers_do_not_depend_on_the_size_of_batches(engine, prompts, tokens, rows):
    wanted = engine.generate(prompts, SETTINGS)
    limited = SETTINGS.model_copy(update={"max_batch_tokens": tokens, "max_batch_size": rows})
    assert engine.generate(prompts, limited) == wanted


def test_only_an_answer_cut_at_the_limit_has_reason_length(engine, prompts):
    answers = engine.generate(prompts, GenerationSection(max_new_tokens=5))
    for answer in answers:
        assert (answer.output_tokens == 5) == (answer.finish_reason == "length")
    assert {answer.finish_reason for answer in answers} == {"stop", "length"}


@pytest.mark.parametrize("strange", [-1, 1 << 20])
def test_token_outside_of_the_vocabulary_never_reaches_the_model(
    model, tokenizer, prompts, strange
):
    def never(*_: Any) -> Any:
        raise AssertionError("the model was run")

    with pytest.raises(ValueError, match=f"token {strange} is not among the "):
        TransformersEngine(model, tokenizer, never).generate([*prompts, [0, strange, 5]], SETTINGS)


def test_no_prompts_get_no_answers(engine):
    assert engine.generate([], SETTINGS) == []


def test_progress_counts_every_prompt_once(engine, prompts):
    done: list[int] = []
    engine.generate(prompts, SETTINGS.model_copy(update={"max_batch_size": 7}), done.append)
    assert done == [7, 7, 7, 3]


def test_pad_may_be_the_end_token(model, base_folder, prompts):
    from transformers import AutoTokenizer

    other = AutoTokenizer.from_pretrained(base_folder)
    other.pad_token = other.eos_token
    engine = TransformersEngine(model, other)
    assert engine.generate(prompts, SETTINGS) == [
        engine.generate([prompt], SETTINGS)[0] for prompt in prompts
    ]


def test_sampling_settings_of_the_base_have_no_effect(model, tokenizer, prompts):
    from copy import deepcopy

    sampled = deepcopy(model)
    sampled.generation_config.update(
        do_sample=True, temperature=0.7, top_p=0.8, repetition_penalty=1.3
    )
    wanted = TransformersEngine(model, tokenizer).generate(prompts, SETTINGS)
    assert TransformersEngine(sampled, tokenizer).generate(prompts, SETTINGS) == wanted


def test_sampled_answers_repeat_with_the_seed_and_change_with_it(engine, prompts):
    settings = SETTINGS.model_copy(update={"temperature": 1.0, "top_p": 0.9})
    first = engine.generate(prompts, settings)
    assert engine.generate(prompts, settings) == first
    assert engine.generate(prompts, settings.model_copy(update={"seed": 43})) != first


def test_nucleus_of_one_token_is_greedy(engine, prompts):
    narrow = SETTINGS.model_copy(update={"temperature": 1.0, "top_p": 1e-6})
    assert engine.generate(prompts, narrow) == engine.generate(prompts, SETTINGS)


def test_adapter_on_the_base_answers_through_the_same_engine(base_folder, tokenizer, prompts):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = LoraConfig(
        r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
    )
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base_folder), config).eval()
    engine = TransformersEngine(adapted, tokenizer)
    assert engine.context_tokens == 512
    alone = one_by_one(adapted, prompts[:6], 24)
    assert [answer.output_tokens for answer in engine.generate(prompts[:6], SETTINGS)] == [
        len(tokens) - (tokens[-1] in {1, *ENDING_IDS}) for tokens in alone
    ]


class SmallMemory:
    """Real decoding on a device that holds only so many rows; notes the size of each batch."""

    def __init__(self, rows: int, error: Exception = NO_MEMORY[0]) -> None:
        self.rows, self.error, self.asked = rows, error, []

    def __call__(self, model: Any, prompts: Any, *rest: Any) -> list[list[int]]:
        self.asked.append(len(prompts))
        if len(prompts) > self.rows:
            raise self.error
        return decode(model, prompts, *rest)


@pytest.mark.parametrize("error", NO_MEMORY)
def test_memory_that_runs_out_halves_the_batch_whatever_reports_it(
    model, tokenizer, prompts, error
):
    memory = SmallMemory(rows=2, error=error)
    answers = TransformersEngine(model, tokenizer, memory).generate(prompts[:1] * 4, SETTINGS)
    assert len(set(answers)) == 1
    assert memory.asked == [4, 2, 2]


def test_out_of_memory_halves_the_batch_once_and_changes_no_answer(model, tokenizer, prompts):
    wanted = TransformersEngine(model, tokenizer).generate(prompts, SETTINGS)
    memory = SmallMemory(rows=7)
    engine = TransformersEngine(model, tokenizer, memory)
    same_length = [prompts[0]] * 20
    assert engine.generate(same_length, SETTINGS) == [wanted[0]] * 20
    assert memory.asked == [20, 10, 5, 5, 5, 5]
    memory.asked.clear()
    assert engine.generate(prompts[:1] * 5 + prompts, SETTINGS) == wanted[:1] * 5 + wanted
    assert max(memory.asked[:1]) <= 7, "the size that fits is remembered"


def test_a_single_row_that_does_not_fit_is_an_error(model, tokenizer, prompts):
    memory = SmallMemory(rows=0)
    with pytest.raises(torch.OutOfMemoryError):
        TransformersEngine(model, tokenizer, memory).generate(prompts, SETTINGS)
    assert memory.asked == [24, 12, 6, 3, 1]


def test_a_gpu_that_fails_raises_retry_error(model, tokenizer, prompts):
    def broken(*_arguments: Any) -> list[list[int]]:
        raise torch.AcceleratorError("CUDA error: uncorrectable ECC error")

    with pytest.raises(RetryError, match="uncorrectable ECC error"):
        TransformersEngine(model, tokenizer, broken).generate(prompts, SETTINGS)


def test_model_that_generates_nan_raises(base_folder, tokenizer, prompts):
    from transformers import AutoModelForCausalLM

    broken = AutoModelForCausalLM.from_pretrained(base_folder).eval()
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"NaN in torch.float32; try another model.dtype"):
        TransformersEngine(broken, tokenizer).generate(prompts, SETTINGS)


def test_an_adapter_computes_alike_in_scoring_and_in_summaries(base_folder, tmp_path):
    publish_adapter(base_folder, tmp_path / "work", str(tmp_path / "adapter"))
    section = AdapterModelSection(dtype="bfloat16")
    fetched = fetch_with_adapter(
        str(tmp_path / "adapter"), section, StorageSection(), tmp_path / "fetched"
    )
    assert fetched.adapter is not None
    ids = torch.randint(60, 310, (4, 40), generator=torch.Generator().manual_seed(2))

    summarizing = load(fetched, section)
    in_float32 = attach_adapter(load_base(fetched.base, section), fetched.adapter)
    merged = load(merge(fetched, section, tmp_path / "cache"), section)
    with torch.inference_mode():
        wanted = summarizing(input_ids=ids).logits.float()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(in_float32(input_ids=ids).logits.float(), wanted), "as in training"
        by_merged = merged(input_ids=ids).logits.float()
        by_float32 = in_float32(input_ids=ids).logits.float()
    spread = wanted.std()
    assert (by_merged - wanted).std() < 0.1 * spread
    assert (by_float32 - wanted).std() > 0, "there would be another numerics"
    dtypes = {weight.dtype for name, weight in summarizing.named_parameters() if "lora_" in name}
    assert dtypes == {torch.bfloat16}


def test_an_answer_is_drawn_in_a_training_of_strict_algorithms(model):
    """On a GPU, a sum along the vocabulary has no strict algorithm; on a CPU, `put_` has none."""

    def compute() -> None:
        torch.zeros(2).put_(torch.tensor([0]), torch.tensor([1.0]))

    torch.use_deterministic_algorithms(True)
    try:
        with generating(model):
            compute()
        with pytest.raises(RuntimeError, match="deterministic"):
            compute()
    finally:
        torch.use_deterministic_algorithms(False)
