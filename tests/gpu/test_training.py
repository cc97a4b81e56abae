"""Claims about training that a GPU alone can show: its kernels, its dtypes, its optimizers."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from benchmarks.gpu.bases import random_base, write_base
from job.config.sections import ModelSection
from job.training.packed_attention import NAME, choose_attention, torch_kernel
from job.training.shortcuts import is_mask_needless

PLAIN = {"optimizer": "adamw_torch"}
# Kernels sum in another order; 6 steps of Adam turn that into this much, as a share.
NOISE = 1e-2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_learn_what_float32_learns(train_steps, dtype, cuda):
    wanted = train_steps("float32", {"model": {"dtype": "float32"}, "training": PLAIN})
    found = train_steps(dtype, {"model": {"dtype": dtype}, "training": PLAIN})
    assert found.losses == pytest.approx(wanted.losses, rel=3 * NOISE)


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_padded_rows_need_no_mask(tmp_path, quantization):
    folder = write_base(tmp_path / "base", "tiny")
    base = random_base(folder, ModelSection(base=str(folder), quantization=quantization))
    assert is_mask_needless(base, base)


def test_attention_without_a_mask_takes_the_flash_kernel(cuda):
    from torch.nn.attention import SDPBackend

    if torch.cuda.get_device_capability(cuda) < (8, 0):
        pytest.skip("this GPU has no flash kernel")
    shape = (2, 8, 512, 64)
    query = torch.randn(shape, dtype=torch.bfloat16, device=cuda, requires_grad=True)
    chosen = torch._fused_sdp_choice(query, query, query, None, 0.0, True)
    fast = {int(SDPBackend.FLASH_ATTENTION), int(SDPBackend.CUDNN_ATTENTION)}
    assert chosen in fast


@pytest.mark.parametrize(
    "optimizer", ["adamw_torch", "adamw_torch_fused", "paged_adamw_32bit", "paged_adamw_8bit"]
)
def test_a_resumed_run_goes_on_with_its_optimizer(train_steps, tmp_path, optimizer):
    """On a GPU the bytes may differ, since kernels sum by atomics; the losses must not."""
    # Of this rank, a matrix of the adapter has 102,400 numbers: smaller ones are not paged.
    sections = {"lora": {"r": 1_600, "alpha": 1_600}, "training": {"optimizer": optimizer}}
    whole = train_steps("whole", sections)
    if torch.cuda.is_available():
        assert whole.optimizer == optimizer
    checkpoint = tmp_path / "whole" / "checkpoints" / "checkpoint-3"
    resumed = train_steps("resumed", sections, checkpoint)
    assert resumed.losses == pytest.approx(whole.losses, rel=NOISE)
    for name, weight in whole.weights.items():
        torch.testing.assert_close(resumed.weights[name], weight, rtol=0.1, atol=1e-3)


def test_deterministic_trainings_resume_byte_for_byte(train_steps, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    strict = {"training": {**PLAIN, "deterministic": True}}
    try:
        whole = train_steps("whole", strict).weights
        checkpoint = tmp_path / "whole" / "checkpoints" / "checkpoint-3"
        resumed = train_steps("resumed", strict, checkpoint).weights
    finally:
        torch.use_deterministic_algorithms(False)
    differing = [name for name, weight in whole.items() if not torch.equal(weight, resumed[name])]
    assert differing == []


def test_activation_checkpointing_changes_no_loss(train_steps):
    losses = {}
    for is_on in (True, False):
        sections = {"training": {**PLAIN, "activation_checkpointing": is_on}}
        losses[is_on] = train_steps(f"checkpointing-{is_on}", sections).losses
    assert losses[True] == pytest.approx(losses[False], rel=NOISE)


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_fused_layers_of_an_adapter_learn_what_those_of_peft_learn(train_steps, quantization):
    losses = {}
    for is_on in (True, False):
        sections = {
            "model": {"quantization": quantization},
            "lora": {"dropout": 0.0},
            "training": {**PLAIN, "fused_lora": is_on},
        }
        losses[is_on] = train_steps(f"fused-{is_on}", sections).losses
    assert losses[True] == pytest.approx(losses[False], rel=NOISE)


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_packed_rows_attend_by_torchs_kernel(tmp_path, cuda, quantization, monkeypatch):
    if torch_kernel() is None:
        pytest.skip("this GPU has no kernel for rows of any length")
    folder = write_base(tmp_path / "base", "tiny")
    base = random_base(folder, ModelSection(base=str(folder), quantization=quantization))
    monkeypatch.setattr(AcceleratorState, "_shared_state", {})  # other tests have other dtypes
    model = Accelerator(mixed_precision="bf16").prepare_model(base)
    choose_attention(model, base, torch.bfloat16, torch_kernel())
    assert base.config._attn_implementation == NAME


def gradient_of(base, batches):
    """Return the gradient of the embeddings for the sum of all tokens' losses."""
    weight = base.get_input_embeddings().weight.requires_grad_(True)
    weight.grad = None
    for batch in batches:
        inputs = {
            name: value.to(base.device) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }
        labels = inputs.pop("labels")[0, 1:]
        logits = base(**inputs, use_cache=False).logits[0, :-1].float()
        torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
    return weight.grad.float()


def test_packed_rows_have_the_gradients_of_rows_alone(tmp_path):
    folder = write_base(tmp_path / "base", "tiny")
    base = random_base(folder, ModelSection(base=str(folder), quantization=None))
    ids = [list(range(10, 10 + length)) for length in (9, 40, 23)]
    rows = [{"input_ids": row, "labels": row} for row in ids]
    alone = [{name: torch.tensor([value]) for name, value in row.items()} for row in rows]
    wanted = gradient_of(base, alone)
    choose_attention(base, base, torch.bfloat16, torch_kernel())
    found = gradient_of(base, [DataCollatorForLanguageModeling(0, padding_free=True)(rows)])
    assert (found - wanted).abs().mean() < 3e-2 * wanted.abs().mean()


def test_packed_rows_learn_on_a_gpu(train_steps):
    packed = {**PLAIN, "packing": True, "max_tokens": 64, "max_steps": 2, "save_every_steps": 2}
    losses = train_steps("packed", {"training": packed}).losses
    assert len(losses) == 2
    assert all(0 < loss < 20 for loss in losses)
