"""Claims about summaries on a GPU: the adapter's dtypes, merged weights, and 4-bit kernels."""

import pytest
import torch

from benchmarks.gpu.bases import random_base, write_base
from benchmarks.gpu.decoding import NO_ENDS, make_model
from job.config.sections import ModelSection
from job.inference.decode import decode, greedy

PROMPTS = [[10 + (row * 7 + place) % 900 for place in range(20 + 5 * row)] for row in range(6)]
FORM = {"shape": "tiny", "quantization": "nf4", "target_modules": "all-linear"}


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.tensor([PROMPTS[-1]], device=next(model.parameters()).device)
    with torch.inference_mode():
        return model(input_ids=ids).logits[0].float().cpu()


def test_an_adapter_in_the_compute_dtype_answers_as_in_float32(tmp_path):
    logits = {}
    for form in ("float32", "compute"):
        model, _ = make_model({**FORM, "adapter": form}, tmp_path / form)
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                drawn = torch.randn(parameter.shape) * 0.02
                parameter.data.copy_(drawn)
        logits[form] = logits_of(model)
    change = (logits["compute"] - logits["float32"]).abs().mean()
    assert change < 0.03 * logits["float32"].abs().mean()


def test_rows_of_a_batch_answer_as_alone(tmp_path):
    model, _ = make_model({**FORM, "quantization": None, "adapter": "merged"}, tmp_path)
    model = model.float()  # in 16 bits, other shapes round otherwise
    together = decode(model, PROMPTS, NO_ENDS, 8, greedy)
    alone = [decode(model, [prompt], NO_ENDS, 8, greedy)[0] for prompt in PROMPTS]
    assert together == alone


@pytest.mark.parametrize("quantization", ["nf4", "nf4-double"])
def test_four_bit_kernels_agree_with_those_of_a_cpu(tmp_path, monkeypatch, cuda, quantization):
    folder = write_base(tmp_path / "base", "tiny")
    section = ModelSection(base=str(folder), quantization=quantization, dtype="float32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    here, there = (random_base(folder, section) for _ in range(2))  # equal: from one seed
    wanted = logits_of(here)
    monkeypatch.undo()
    found = logits_of(there.to(cuda))
    assert (found - wanted).abs().mean() < 1e-3 * wanted.abs().mean()
