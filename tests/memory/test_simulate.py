"""Claims about simulated steps: of few layers as of all, and what a GPU does otherwise."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from job.config.sections import ModelSection
from job.config.training_sections import LoraSection
from job.memory import simulate as simulation
from job.memory.devices import Device, Rows
from job.memory.simulate import extrapolate, layers_to_simulate, make_subject, simulate
from job.memory.step import Peak, Step
from job.model.skeleton import make_skeleton

LAYERS = 10
AMPERE = Device((8, 0))
TURING = Device((7, 5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a Llama of ten layers, and no weights."""
    folder = tmp_path_factory.mktemp("config")
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 100,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@cache  # tests ask for some of them twice, and each takes a second or two
def peak_of(folder: Path, device: Device = AMPERE, recomputed: int | None = 1) -> Peak:
    dtype = "bfloat16" if device.has_flash else "float16"
    section = ModelSection.model_validate({"base": str(folder), "dtype": dtype})
    subject = make_subject(folder, section, LoraSection(r=4))
    rows = Rows(count=2, tokens=512, learned=8)
    return simulate(subject, Step(rows, device, "adamw_torch_fused", recomputed))


@pytest.mark.quality  # 9 CPU seconds
def test_few_layers_are_simulated_as_exactly_as_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_few = peak_of(folder)
    monkeypatch.setattr(simulation, "MIN_LAYERS_TO_SKIP", LAYERS + 1)
    assert of_few.parts == peak_of.__wrapped__(folder).parts


def test_recomputing_layers_keep_less(folder: Path) -> None:
    kept = {level: peak_of(folder, recomputed=level).parts["activations"] for level in (None, 2, 1)}
    assert kept[None] > kept[2] > kept[1]


def test_scores_are_in_memory_where_flash_attention_is_not(folder: Path) -> None:
    # (rows, heads, tokens, tokens) in 32 bits.
    scores = 2 * 4 * 512 * 512 * 4
    more = peak_of(folder, TURING, None).tensors - peak_of(folder, AMPERE, None).tensors
    assert more > LAYERS * scores


def test_layers_that_recompute_in_turns_are_a_period(folder: Path) -> None:
    section = ModelSection.model_validate({"base": str(folder), "dtype": "float32"})
    skeleton: Any = make_skeleton(folder, section)
    assert layers_to_simulate(skeleton, None) == (2, 3)
    assert layers_to_simulate(skeleton, 3) == (4, 7)


def test_each_part_grows_by_its_own_difference():
    small = Peak({"backward": {"base": 10, "activations": 4}}, 20)
    large = Peak({"backward": {"base": 12, "activations": 7}}, 38)
    found = extrapolate(small, large, times=3)
    assert found.parts == {"base": 16, "activations": 13}
    assert found.reserved == 29 * 2
