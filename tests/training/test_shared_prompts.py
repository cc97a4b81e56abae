"""Claims about pairs in one row: both answers are computed as in sequences of their own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from job.errors import ConfigError
from job.model.shared_prompt import UNLIMITED, SharedRows, max_shared_tokens
from job.training import shared_prompts
from job.training.shared_prompts import is_sharing_right, row_to_measure, shared_tensors
from tests.training.conftest import judged_records, write_jsonl
from tests.training.pairs import PAIRS
from tests.training.shared import apart, check_same, in_one_row

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
}
GROUPED = {"num_key_value_heads": 1, "head_dim": 8}
ODD_PAIRS = [
    {"prompt_ids": [3], "chosen_ids": [4, 1], "rejected_ids": [5, 6, 7, 1]},
    {"prompt_ids": [3, 8], "chosen_ids": [1], "rejected_ids": [9] * 11},
    {"prompt_ids": [3, 8, 9], "chosen_ids": [], "rejected_ids": [10, 1]},
    {"prompt_ids": [3, 8, 9], "chosen_ids": [10, 1], "rejected_ids": []},
]


def llama(attention: str = "sdpa") -> Any:
    config = LlamaConfig(**SIZES, attn_implementation=attention)
    return seeded(LlamaForCausalLM, config)


def seeded(kind: type, config: Any) -> Any:
    torch.manual_seed(3)
    return kind(config).eval()


def gpt2() -> Any:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 64, "n_positions": 20}
    return seeded(GPT2LMHeadModel, GPT2Config(**sizes, initializer_range=0.3))


def mistral(window: int | None) -> Any:
    config = MistralConfig(**SIZES, **GROUPED, sliding_window=window)
    return seeded(MistralForCausalLM, config)


def gemma3(window: int) -> Any:
    config = Gemma3TextConfig(**SIZES, **GROUPED, sliding_window=window)
    return seeded(Gemma3ForCausalLM, config)


def qwen3() -> Any:
    return seeded(Qwen3ForCausalLM, Qwen3Config(**SIZES, **GROUPED))


MODELS = {
    "Llama": llama,
    "Llama, eager": lambda: llama("eager"),
    "GPT-2, learned positions": gpt2,
    "Mistral, a window of all tokens": lambda: mistral(20),
    "Gemma 3": lambda: gemma3(20),
    "Qwen 3": qwen3,
}


@pytest.mark.parametrize("name", MODELS)
def test_answers_and_gradients_are_those_of_sequences(name: str) -> None:
    model = MODELS[name]()
    for pairs in (PAIRS, ODD_PAIRS, [*PAIRS[:2], *ODD_PAIRS]):
        check_same(in_one_row(model, pairs), apart(model, pairs))


def test_layers_that_recompute_give_the_same_gradients() -> None:
    model = llama()
    wanted = apart(model, PAIRS)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    model.train()
    check_same(in_one_row(model, PAIRS), wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_16_bits_answers_differ_by_rounding(dtype: torch.dtype) -> None:
    model = llama()
    wanted = apart(model, PAIRS)
    with torch.autocast("cpu", dtype=dtype):
        rounded = apart(model, PAIRS)
        found = in_one_row(model, PAIRS, dtype)
    error = (found.values - wanted.values).abs().max()
    assert error <= 3 * (rounded.values - wanted.values).abs().max()
    with torch.autocast("cpu", dtype=dtype):
        assert is_sharing_right(model, model, dtype)


def test_an_idle_row_adds_nothing() -> None:
    model = llama()
    idle = {"prompt_ids": [0, 0], "chosen_ids": [], "rejected_ids": []}
    found = in_one_row(model, [idle])
    assert not found.values.any()
    assert not any(each.any() for each in found.gradients.values())


def test_what_a_base_can_share_follows_from_its_config() -> None:
    assert max_shared_tokens(llama()) == UNLIMITED
    assert max_shared_tokens(gpt2()) == UNLIMITED
    assert max_shared_tokens(qwen3()) == UNLIMITED
    assert max_shared_tokens(mistral(None)) == UNLIMITED
    assert max_shared_tokens(mistral(7)) == 7
    assert max_shared_tokens(gemma3(7)) == 7
    flash = llama()
    flash.config._attn_implementation = "flash_attention_2"
    assert max_shared_tokens(flash) == 0
    small = {"hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 64}
    assert max_shared_tokens(MambaForCausalLM(MambaConfig(**small, state_size=4))) == 0
    assert max_shared_tokens(BloomForCausalLM(BloomConfig(**small, n_head=2))) == 0
    alibi = FalconConfig(**small, num_attention_heads=2, alibi=True)
    assert max_shared_tokens(FalconForCausalLM(alibi)) == 0


def leaking(rows: SharedRows, dtype: torch.dtype) -> torch.Tensor:
    tokens = rows.ids.shape[1]
    causal = torch.full((tokens, tokens), torch.finfo(dtype).min, dtype=dtype).triu(1)
    return causal.expand(len(rows.ids), 1, tokens, tokens)


def test_a_base_is_tried_and_a_leak_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(is_sharing_right(model, model, torch.float32) for model in (llama(), gpt2()))
    monkeypatch.setattr(SharedRows, "mask", leaking)
    assert not is_sharing_right(llama(), llama(), torch.float32)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            assert not is_sharing_right(llama(), llama(), dtype)


def test_a_base_that_ignores_positions_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = shared_prompts._inputs
    without = lambda *given: {**plain(*given), "position_ids": None}  # noqa: E731
    monkeypatch.setattr(shared_prompts, "_inputs", without)
    assert not is_sharing_right(gpt2(), gpt2(), torch.float32)


@pytest.mark.usefixtures("places")
def test_a_base_that_errs_ends_a_training_with_the_remedy(
    config: dict[str, Any], trainer_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, first in (("train", 0), ("validation", 40)):
        write_jsonl(tmp_path / f"{name}.jsonl", judged_records("dpo", 8, first))
    of_pairs = config | {"method": "dpo"}
    monkeypatch.setattr(shared_prompts, "is_sharing_right", lambda *_: False)
    for begin in ("train", "evaluate"):  # a run that resumes may begin with an evaluation
        trainer = trainer_of(of_pairs)
        assert trainer.shares_prompts
        with pytest.raises(ConfigError, match=r"training\.dpo\.share_prompts: .* set it to false"):
            getattr(trainer, begin)()
    apart = trainer_of(of_pairs, dpo={"share_prompts": False})
    assert not apart.shares_prompts
    assert np.isfinite(apart.train().training_loss)


def test_a_row_to_measure_has_no_position_beyond_its_half() -> None:
    for tokens in (1, 2, 9, 40):
        inputs = row_to_measure(tokens, torch.device("cpu"), torch.float32)
        assert inputs["position_ids"].shape == (1, tokens)
        assert int(inputs["position_ids"].max()) <= tokens // 2
        assert inputs["attention_mask"].shape == (1, 1, tokens, tokens)
    assert gpt2()(torch.arange(39)[None] % 64, **row_to_measure(39, "cpu", torch.float32))  # type: ignore[arg-type]


def test_a_pair_has_one_row_with_its_prompt_once() -> None:
    batch = shared_tensors(PAIRS[:2], pad_id=0)
    assert batch["input_ids"].tolist() == [
        [5, 6, 7, 8, 9, 10, 1, 8, 11, 1],
        [12, 13, 14, 1, 13, 15, 16, 17, 18, 1],
    ]
    assert batch["position_ids"].tolist() == [
        [0, 1, 2, 3, 4, 5, 6, 3, 4, 5],
        [0, 1, 2, 3, 1, 2, 3, 4, 5, 6],
    ]
