"""Claims about families whose past is not that of plain attention: a batch equals one by one.

Each is the smallest model of its kind. tests/bases has the families as they are published.
"""

import random
from collections import Counter
from typing import Any

import pytest
import torch
import transformers

from job.config.sections import GenerationSection
from job.inference.batch import divide
from job.inference.decode import decode, greedy
from job.inference.sharing import Sharing, find_sharing
from job.inference.transformers_engine import TransformersEngine
from job.model.families import all_configs
from tests.plain_generate import one_by_one

VOCABULARY = 300
ENDS = frozenset(range(60, 120))  # so many that rows end at different steps and leave the batch
NEW_TOKENS = 10
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,  # else so small a model repeats its last token
}
MAMBA = {
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "mamba_chunk_size": 8,
}
DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "attention": ("LlamaForCausalLM", {}),
    "sliding window": ("MistralForCausalLM", {"sliding_window": 8}),
    "convolution": (
        "Lfm2ForCausalLM",
        {"layer_types": ["conv", "full_attention"], "block_ff_dim": 64},
    ),
    "linear attention": ("Qwen3_5ForCausalLM", DELTA),
    "both in one layer": ("FalconH1ForCausalLM", MAMBA | {"mamba_d_ssm": 64}),
    "states by another name": ("MambaForCausalLM", {"state_size": 8}),
    "no positions": ("BloomForCausalLM", {}),
    "positions by column": ("MptForCausalLM", {"d_model": 32, "n_heads": 4, "n_layers": 2}),
}
WRONG_BESIDE_OTHERS = {
    "padding in a convolution": (
        "RecurrentGemmaForCausalLM",
        {"block_types": ["recurrent", "attention"], "attention_window_size": 8, "lru_width": 32},
        Sharing.EQUAL,
    ),
    "no mask after the first token": (
        "MiniMaxForCausalLM",
        EXPERTS | {"layer_types": ["linear_attention", "full_attention"], "block_size": 8},
        Sharing.EQUAL,
    ),
    "rows mixed up": ("RwkvForCausalLM", {"attention_hidden_size": 32}, Sharing.NONE),
}
EXPERTS_OF = {
    "mixture of experts": ("MixtralForCausalLM", EXPERTS),
    "mixture in a multimodal model": (
        "Qwen3VLMoeForConditionalGeneration",
        {
            "text_config": SIZES
            | {
                "num_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 32,
                "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
            },
            "vision_config": {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 32},
        },
    ),
}
# Of a base whose config was saved in training, and of TRL.
SAVED_IN_TRAINING = {
    "use_cache": False,
    "output_router_logits": True,
    "output_hidden_states": True,
    "return_dict": False,
}


@pytest.fixture(autouse=True)
def unwarned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was warned of before."""
    monkeypatch.setattr("job.telemetry._WARNED", set())


def make(name: str, **keys: Any) -> Any:
    """Return a model with weights so large that answers differ, and end at different steps."""
    architecture = getattr(transformers, name)
    config = architecture.config_class(**keys if "text_config" in keys else SIZES | keys)
    torch.manual_seed(3)
    model = architecture(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.2)
    return model


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    draw = random.Random(7)
    return [[1] + [draw.randint(3, 299) for _ in range(draw.randint(2, 30))] for _ in range(9)]


def alone(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """The answers of plain `generate` to each prompt alone, with their end tokens."""
    found = one_by_one(model, prompts, NEW_TOKENS, eos_token_id=sorted(ENDS))
    assert len({len(answer) for answer in found}) > 3, "rows must end at different steps"
    return found


def note_rows(model: Any) -> list[int]:
    """The rows of each forward pass from now on."""
    rows: list[int] = []
    model.register_forward_pre_hook(
        lambda _, __, named: rows.append(len(named["input_ids"])), with_kwargs=True
    )
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_unequal_rows_equals_one_by_one(kind, prompts):
    name, keys = KINDS[kind]
    model = make(name, **keys)
    wanted = alone(model, prompts)
    assert find_sharing(model, prompts[0]) is Sharing.ALL
    rows = note_rows(model)
    assert decode(model, prompts, ENDS, NEW_TOKENS, greedy) == wanted
    assert (rows[0], rows[-1] < len(prompts) / 2) == (len(prompts), True), "rows leave the batch"


@pytest.mark.parametrize("shared", [0, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_computed_in_parts_equal_one_by_one(kind, shared, prompts, monkeypatch):
    monkeypatch.setattr("job.inference.batch.PART_TOKENS", 60)
    monkeypatch.setattr("job.inference.roomy_cache.ROOM", 3)  # so that it fills up several times
    name, keys = KINDS[kind]
    model = make(name, **keys)
    prompts = [[*range(50, 50 + shared), *prompt] for prompt in prompts]
    wanted = alone(model, prompts)
    assert find_sharing(model, prompts[0]) is Sharing.ALL
    rows = note_rows(model)
    assert decode(model, prompts, ENDS, NEW_TOKENS, greedy) == wanted
    parts = [len(part) for part in divide(prompts)]
    assert len(parts) > 3
    passes = [1, *parts] if shared and kind == "attention" else parts
    has_keys_alone = kind in ("attention", "no positions", "positions by column")
    assert rows[: len(passes)] == passes if has_keys_alone else rows[0] == len(prompts)


class Numbers:
    """A tokenizer whose texts are ids."""

    eos_token_id = 2
    model_max_length = 512

    def get_added_vocab(self) -> dict[str, int]:
        return {}

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


@pytest.mark.parametrize("kind", WRONG_BESIDE_OTHERS)
def test_a_model_that_is_wrong_beside_others_gets_prompts_of_its_own(kind, prompts, caplog):
    name, keys, sharing = WRONG_BESIDE_OTHERS[kind]
    model = make(name, **keys)
    prompts = [*prompts, [2] * len(prompts[0])]
    wanted = alone(model, prompts)
    assert decode(model, prompts, ENDS, NEW_TOKENS, greedy) != wanted

    assert find_sharing(model, prompts[0]) is sharing
    model.generation_config.eos_token_id = sorted(ENDS)
    engine = TransformersEngine(model, Numbers())
    settings = GenerationSection(max_new_tokens=NEW_TOKENS)
    answers = engine.generate(prompts, settings)
    assert [answer.text.split() for answer in answers] == [
        [str(id) for id in answer if id not in ENDS] for answer in wanted
    ]
    rows = note_rows(model)
    assert engine.generate(prompts, settings) == answers
    largest = Counter(map(len, prompts)).most_common()[0][1]
    assert max(rows) == (largest if sharing is Sharing.EQUAL else 1) < len(prompts)
    assert sum(sharing.value in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("kind", ["mixture of experts", "mixture in a multimodal model"])
def test_a_config_that_was_saved_in_training_generates(kind, prompts):
    name, keys = EXPERTS_OF[kind]
    model = make(name, **keys)
    wanted = alone(model, prompts)
    configs = all_configs(model)
    for config in configs:
        for key, value in SAVED_IN_TRAINING.items():
            setattr(config, key, value)
    assert decode(model, prompts, ENDS, NEW_TOKENS, greedy) == wanted
    for config in configs:
        assert {key: getattr(config, key) for key in SAVED_IN_TRAINING} == SAVED_IN_TRAINING


def test_a_config_that_asks_for_attentions_generates_by_sdpa(prompts):
    model = make("LlamaForCausalLM")
    wanted = decode(model, prompts, ENDS, NEW_TOKENS, greedy)
    model.config._output_attentions = True  # as read from a config.json
    assert model.config.output_attentions
    assert decode(model, prompts, ENDS, NEW_TOKENS, greedy) == wanted


def test_rows_of_a_foreign_cache_stay_until_the_batch_ends(prompts, caplog):
    class Foreign(transformers.DynamicCache):
        """As in code from the Hub."""

    model = make("LlamaForCausalLM")
    wanted = alone(model, prompts)
    forward = model.forward
    model.forward = lambda past_key_values=None, **named: forward(
        past_key_values=Foreign() if past_key_values is None else past_key_values, **named
    )
    rows = note_rows(model)
    for _ in range(2):
        assert decode(model, prompts, ENDS, NEW_TOKENS, greedy) == wanted
    assert set(rows) == {len(prompts)}
    assert ["cannot be taken apart" in record.getMessage() for record in caplog.records] == [True]


def test_a_foreign_cache_is_never_made_in_parts(prompts, monkeypatch):
    class Foreign(transformers.DynamicCache):
        """As in code from the Hub."""

    monkeypatch.setattr("job.inference.batch.PART_TOKENS", 60)
    model = make("LlamaForCausalLM")
    wanted = alone(model, prompts)
    forward = model.forward
    model.forward = lambda past_key_values=None, **named: forward(
        past_key_values=Foreign() if past_key_values is None else past_key_values, **named
    )
    rows = note_rows(model)
    assert decode(model, prompts, ENDS, NEW_TOKENS, greedy) == wanted
    assert rows[:2] == [len(divide(prompts)[0]), len(prompts)]


def test_a_model_without_a_cache_computes_whole_rows(prompts):
    model = make("OpenAIGPTLMHeadModel", n_positions=64)
    wanted = alone(model, prompts)
    assert decode(model, prompts, ENDS, NEW_TOKENS, greedy) == wanted
