"""Claims about memory that runs out on a GPU, in the shapes in which CUDA reports it."""

import pytest
import torch

from benchmarks.gpu.decoding import make_model
from job.config.sections import GenerationSection
from job.errors import is_out_of_memory
from job.inference import budget
from job.inference.transformers_engine import TransformersEngine

MIB = 1 << 20
PLAIN = {
    "shape": "tiny",
    "quantization": None,
    "adapter": "compute",
    "target_modules": "all-linear",
}


def test_the_allocators_error_is_recognized(cuda, limited_memory):
    limited_memory(16 * MIB)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(64 * MIB, dtype=torch.uint8, device=cuda)
    assert is_out_of_memory(caught.value)


def test_a_tensor_larger_than_the_card_is_recognized(cuda):
    total = torch.cuda.get_device_properties(cuda).total_memory
    with pytest.raises(RuntimeError) as caught:
        torch.cuda.caching_allocator_alloc(2 * total, cuda)
    assert is_out_of_memory(caught.value)


def test_batches_are_halved_until_they_fit(tmp_path, limited_memory, monkeypatch):
    failed = []
    monkeypatch.setattr(budget, "warn", lambda text, **facts: failed.append(facts["rows"]))
    model, tokenizer = make_model(PLAIN, tmp_path)
    engine = TransformersEngine(model, tokenizer)
    prompts = [[10 + row % 50] * 400 for row in range(64)]
    settings = GenerationSection(max_new_tokens=4, max_batch_tokens=64 * 404, max_batch_size=64)
    wanted = engine.generate(prompts[:1], settings)
    # A layer's keys are 1.6 MiB in a batch of all rows: the allocator would ask for 20 MiB.
    limited_memory(8 * MIB)
    found = engine.generate(prompts, settings)
    assert failed[0] == len(prompts)
    assert len(found) == len(prompts)
    assert found[0].text == wanted[0].text
