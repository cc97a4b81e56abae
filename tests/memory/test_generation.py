"""Claims about the memory of a generation, by formula."""

from dataclasses import replace

import pytest

from job.config.sections import GenerationSection
from job.gpus.cards import CARDS
from job.memory.generation import need_of_transformers, need_of_vllm, need_on_a_cpu, text_of
from job.memory.shape import BaseShape

GIB = 1 << 30

# Llama 3.1 8B.
SHAPE = BaseShape(
    layers=32,
    width=4096,
    inner_width=14336,
    key_heads=8,
    head_size=128,
    vocabulary=128_256,
    layer_parameters=6_979_584_000,
    weights=16 * 10**9,
)
SECTION = GenerationSection()


def test_a_token_of_an_8b_base_takes_128_kib_of_cache():
    assert SHAPE.cache_of_a_token == 128 * 1024


def test_the_cache_that_vllm_logged_for_a_large_base_is_predicted():
    # A share of Qwen3-235B over 4 GPUs: 1 of 4 heads each. vLLM logged 178,880 tokens in 8.11 GiB.
    share = replace(SHAPE, layers=94, key_heads=1)
    assert 8.11 * GIB / share.cache_of_a_token == pytest.approx(178_880, rel=0.02)


def test_batches_are_no_larger_than_the_config_allows():
    section = GenerationSection(max_batch_tokens=16_384)
    need = need_of_transformers(SHAPE, section, 2048 - section.max_new_tokens, CARDS["h200"])
    assert need.sequences == 16_384 // 2048


def test_batches_without_a_limit_fill_the_gpu():
    at_once = [need_of_transformers(SHAPE, SECTION, 2048, CARDS[name]) for name in ("l4", "h100")]
    assert 0 < at_once[0].sequences < at_once[1].sequences <= SECTION.max_batch_size


def test_a_base_that_exceeds_the_gpu_runs_nothing():
    small = CARDS["t4"]
    needs = [need(SHAPE, SECTION, 2048, small) for need in (need_of_transformers, need_of_vllm)]
    assert [need.sequences for need in needs] == [0, 0]
    assert text_of(needs).count("not one of the longest conversations fits") == 2
    assert text_of(needs).count("warning: ") == 2


def test_longer_prompts_leave_room_for_fewer_conversations():
    at_once = [need_of_vllm(SHAPE, SECTION, n, CARDS["l4"]).sequences for n in (1000, 2000, 4000)]
    assert at_once[0] > at_once[1] > at_once[2] > 0


def test_a_cpu_holds_weights_and_a_batch_of_fixed_size_in_float32():
    shape = replace(SHAPE, number_bytes=4, weights=2 * SHAPE.weights)
    need = need_on_a_cpu(shape, SECTION, 2048 - SECTION.max_new_tokens, 64 * GIB)
    assert need.sequences == 8  # of 2,048 tokens in 16,384
    # 256 KiB a token in all layers, and a layer's beside it.
    assert need.cache == 16_384 * (256 + 8) * 1024
    assert need.total == need.weights + need.cache + need.working


def test_what_is_beside_the_base_leaves_room_for_fewer_conversations():
    card = CARDS["l4"]
    for need_of in (need_of_transformers, need_of_vllm):
        alone = need_of(SHAPE, SECTION, 2048, card)
        beside = need_of(SHAPE, SECTION, 2048, card, 2 * GIB)
        assert 0 < beside.sequences < alone.sequences
        assert "2.0 of other models" in text_of([beside])
        assert "other models" not in text_of([alone])
    on_cpu = [need_on_a_cpu(SHAPE, SECTION, 2048, 64 * GIB, size) for size in (0, GIB)]
    assert on_cpu[1].total - on_cpu[0].total == GIB
