"""Claims about a base that GPUs share: what each holds, by hand."""

import json
from pathlib import Path

import pytest
import torch

from job.config.sections import ModelSection
from job.config.training_sections import LoraSection
from job.gpus.cards import Card
from job.memory.devices import Rows
from job.memory.estimate import Line, Question, estimate, fits_shared
from job.memory.sharded import Stored, shared, stored_of
from job.memory.step import Peak
from job.model.skeleton import make_skeleton

LAYERS = 4
HIDDEN, INNER, VOCABULARY = 64, 160, 100
# Query, key, value, output; gate, up, down.
IN_4_BITS = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * HIDDEN // 2 + 3 * HIDDEN * INNER
LAYER = IN_4_BITS // 2 + 2 * HIDDEN * 2  # two norms in 16 bits
OUTSIDE = 2 * (2 * VOCABULARY * HIDDEN + HIDDEN)  # embeddings, head, norm
# In bytes. The adapter is in float32, and gathered in 16 bits.
STORED = Stored(weights=8000, outside=800, layer=1800, layers=4, dtype=torch.bfloat16)
WHOLE = {"base": 9000, "adapter": 160, "optimizer": 320, "gradients": 160, "activations": 500}


@pytest.fixture
def section(tmp_path: Path) -> ModelSection:
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return ModelSection(base=str(tmp_path), quantization="nf4-double", dtype="bfloat16")


def test_weights_are_counted_as_they_are_stored(section: ModelSection, tmp_path: Path) -> None:
    stored = stored_of(make_skeleton(tmp_path, section, sharded=True))
    assert (stored.layer, stored.outside, stored.layers) == (LAYER, OUTSIDE, LAYERS)
    assert stored.weights == OUTSIDE + LAYERS * LAYER


def test_a_gpu_holds_its_share_and_gathers_layers():
    whole = Peak({"forward": WHOLE, "backward": WHOLE | {"backward": 700}}, 12000)
    found = shared(whole, STORED, gpus=4)
    in_backward = {
        "base": 8000 // 4 + 1000,  # constants of quantization are whole
        "gathered": 800 + 2 * (1800 + 160 // 2 // 4),
        "adapter": 40,
        "optimizer": 80,
        "gradients": 160 + 40,
        "activations": 500,
        "backward": 700,
    }
    assert found.phases["backward"] == in_backward
    assert found.phases["forward"]["gathered"] == 800 + 3 * (1800 + 160 // 2 // 4)
    assert found.reserved / found.tensors == pytest.approx(12000 / whole.tensors, rel=1e-3)


def question(tmp_path: Path, section: ModelSection, card: Card) -> Question:
    return Question(
        folder=tmp_path,
        model=section,
        lora=LoraSection(r=4),
        optimizer="adamw_torch",
        rows=Rows(count=2, tokens=64, learned=8),
        levels=(1,),
        filling=None,
        processes=(1,),
        cards=(card,),
        host_bytes=None,
        sharing=(2, 4, 8),
    )


def test_the_least_number_of_gpus_that_fits_is_the_last(
    section: ModelSection, tmp_path: Path
) -> None:
    def peak(rows: int) -> Peak:
        return Peak({"backward": {"base": 64 << 30, "activations": rows << 28}}, 0)

    stored = Stored(64 << 30, 0, 1 << 20, 80, torch.bfloat16)
    card = Card("a card", 24 << 30, (8, 0))
    lines = {1: Line(2, peak(2), 4, peak(4))}
    found = fits_shared(question(tmp_path, section, card), card, lines, stored)
    assert [(fit.gpus, fit.verdict) for fit in found] == [(2, "does not fit"), (4, "fits")]


@pytest.mark.quality
def test_more_gpus_need_less_each_of_a_simulated_step(
    section: ModelSection, tmp_path: Path
) -> None:
    card = Card("a card", 1 << 28, (8, 0))  # less than CUDA's context
    fits = estimate(question(tmp_path, section, card)).fits
    assert [fit.gpus for fit in fits] == [2, 4, 8]
    two, four, eight = (fit.need.parts["base"] for fit in fits)
    weights = OUTSIDE + LAYERS * LAYER
    assert (two - four, four - eight) == (weights // 4, weights // 8)
