"""Claims about a base's context: whatever its config calls it, a row of that many tokens fits.

A row of one more does not where positions are a table.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3Config,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2_5OmniConfig,
)

from job.model.families import max_positions
from job.model.load import context_tokens

LIMIT = 24
SMALL = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
LLAMA = SMALL | {"intermediate_size": 16}
GPT = {"n_positions": LIMIT, "vocab_size": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
TABLES = {
    "gpt2": GPT,
    "openai-gpt": GPT,
    "ctrl": GPT | {"dff": 16},
    "gptj": GPT | {"rotary_dim": 4},
    "gpt_neo": {
        "max_position_embeddings": LIMIT,
        "vocab_size": 32,
        "hidden_size": 16,
        "num_layers": 1,
        "attention_types": [[["global"], 1]],
        "num_heads": 2,
    },
    "opt": LLAMA | {"max_position_embeddings": LIMIT, "ffn_dim": 16, "word_embed_proj_dim": 16},
    "biogpt": LLAMA | {"max_position_embeddings": LIMIT},
    "mpt": {"max_seq_len": LIMIT, "vocab_size": 32, "d_model": 16, "n_layers": 1, "n_heads": 2},
}
WITHOUT_TABLE = {
    "xglm": {
        "max_position_embeddings": LIMIT,
        "vocab_size": 32,
        "d_model": 16,
        "ffn_dim": 16,
        "num_layers": 1,
        "attention_heads": 2,
    },
    "llama": LLAMA | {"max_position_embeddings": LIMIT},
    "mistral": LLAMA
    | {"max_position_embeddings": LIMIT, "sliding_window": 8, "num_key_value_heads": 2},
    "bloom": {"seq_length": LIMIT, "vocab_size": 32, "hidden_size": 16, "n_layer": 1, "n_head": 2},
}
UNLIMITED = {
    "bloom": {"vocab_size": 32, "hidden_size": 16, "n_layer": 1, "n_head": 2},
    "mamba": {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4},
}


def save(folder: Path, kind: str, config: dict[str, Any]) -> Any:
    """Write the config to a folder, and return a model of it."""
    made = AutoConfig.for_model(kind, **config)
    made.save_pretrained(folder)
    return AutoModelForCausalLM.from_config(made).eval()


def answer(model: Any, tokens: int) -> None:
    with torch.no_grad():
        model(input_ids=torch.ones(2, tokens, dtype=torch.long), use_cache=False)


@pytest.mark.parametrize("kind", TABLES)
def test_a_row_of_the_limit_fits_a_table_of_positions_exactly(tmp_path, kind):
    model = save(tmp_path, kind, TABLES[kind])
    assert context_tokens(tmp_path) == LIMIT
    assert max_positions(model.config) == LIMIT
    answer(model, LIMIT)
    with pytest.raises((IndexError, RuntimeError)):
        answer(model, LIMIT + 1)


@pytest.mark.parametrize("kind", WITHOUT_TABLE)
def test_a_row_of_the_limit_fits(tmp_path, kind):
    model = save(tmp_path, kind, WITHOUT_TABLE[kind])
    assert context_tokens(tmp_path) == max_positions(model.config) == LIMIT
    answer(model, LIMIT)


@pytest.mark.parametrize("kind", UNLIMITED)
def test_a_model_without_position_embeddings_has_no_limit(tmp_path, kind):
    model = save(tmp_path, kind, UNLIMITED[kind])
    assert context_tokens(tmp_path) is None
    assert max_positions(model.config) is None
    answer(model, 100)


def test_the_limit_that_a_file_leaves_out_is_its_familys(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mpt", "n_layers": 1}')
    assert context_tokens(tmp_path) == 2048


@pytest.mark.parametrize(
    "content",
    [
        {"max_position_embeddings": LIMIT},
        {"max_position_embeddings": None, "n_positions": LIMIT},
        {"seq_length": LIMIT},
        {"max_sequence_length": LIMIT, "hidden_size": 8},
        {"model_max_length": LIMIT},
        {"text_config": {"n_positions": LIMIT}},
        {"llm_config": {"max_position_embeddings": LIMIT}, "vision_config": {"n_ctx": 7}},
        {"language_config": {"max_position_embeddings": LIMIT}},
        {"thinker_config": {"text_config": {"max_position_embeddings": LIMIT}}},
        # That of the language model, if the outer config has one of its own.
        {"max_position_embeddings": 7, "text_config": {"max_position_embeddings": LIMIT}},
    ],
)
def test_every_name_and_nesting_in_an_unknown_config_is_found(tmp_path, content):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "of its own"} | content))
    assert context_tokens(tmp_path) == LIMIT
    assert max_positions(PreTrainedConfig(**content)) == LIMIT


@pytest.mark.parametrize("limit", [None, 0, -1, True, "many", [4], 10**30, 1e30])
def test_what_is_no_number_of_positions_is_no_limit(limit):
    assert max_positions({"max_position_embeddings": limit}) is None
    assert max_positions({"text_config": limit}) is None
    assert max_positions(SimpleNamespace()) is None


def test_the_limit_of_a_multimodal_base_is_that_of_its_language_model():
    config = Gemma3Config(text_config={"max_position_embeddings": LIMIT})
    assert max_positions(config) == max_positions(config.to_dict()) == LIMIT
    omni = Qwen2_5OmniConfig()
    assert max_positions(omni) == omni.get_text_config().max_position_embeddings


@pytest.mark.parametrize(
    ("rope", "wanted"),
    [
        ({"rope_type": "linear", "factor": 4.0}, 4 * LIMIT),
        ({"type": "dynamic", "factor": 2.0}, 2 * LIMIT),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 20}, 80),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 6}, LIMIT),
        (
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "original_max_position_embeddings": 8,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
            },
            LIMIT,
        ),
    ],
)
def test_positions_that_a_factor_stretches_count(tmp_path, rope, wanted):
    content = {"model_type": "llama", "max_position_embeddings": LIMIT, "rope_scaling": rope}
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | content))
    assert context_tokens(tmp_path) == wanted
    assert max_positions(content) == wanted
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    answer(model, wanted)


def test_a_factor_of_one_type_of_layer_stretches_nothing():
    # As Gemma 3 is published: its limit is the stretched one.
    scaling = {"factor": 8.0, "rope_type": "linear"}
    config = Gemma3Config(text_config={"max_position_embeddings": LIMIT, "rope_scaling": scaling})
    assert max_positions(config) == LIMIT


def test_the_limit_is_no_sliding_window():
    assert max_positions(LlamaConfig(max_position_embeddings=LIMIT, sliding_window=4)) == LIMIT
    assert max_positions(GPT2Config(n_positions=8)) == 8
