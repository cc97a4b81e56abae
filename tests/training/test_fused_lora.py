"""Claims about fused layers of an adapter: peft's results within rounding, in training alone."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch.profiler import profile

from job.config.sections import ModelSection
from job.config.training_sections import TrainingSection
from job.model.fetch import Base
from job.model.load import load_base
from job.training.fused_lora import fuse_adapter, is_wanted
from tests.training.conftest import first_step, gradients_of, learn_by

ROUNDING = 2e-6  # of a norm, in float32


def make(folder: Path, quantization: str | None, **lora: Any) -> Any:
    base = Base(str(folder), None, "d", folder)
    torch.manual_seed(1)
    section = ModelSection(base=base.uri, quantization=quantization)
    adapter = LoraConfig(
        r=4, lora_alpha=12, target_modules="all-linear", init_lora_weights=False, **lora
    )
    return get_peft_model(load_base(base, section), adapter).train()


def layers_of(model: Any) -> list[LoraLayer]:
    return [each for each in model.modules() if isinstance(each, LoraLayer)]


def gradients(model: Any, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    model.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return gradients_of(model)


def difference(some: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((some - wanted).norm() / wanted.norm())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("is_recomputed", [False, True])
@pytest.mark.parametrize("quantization", ["nf4-double", "nf4", None])
def test_fused_layers_have_the_gradients_of_peft(base_folder, quantization, is_recomputed):
    plain, ours = make(base_folder, quantization), make(base_folder, quantization)
    fuse_adapter(ours)
    if is_recomputed:
        ours.get_base_model().gradient_checkpointing_enable()
        ours.enable_input_require_grads()
    ids = torch.randint(60, 310, (3, 33))
    exact = gradients(plain, ids, torch.float32)
    assert 0 < difference(gradients(ours, ids, torch.float32), exact) < ROUNDING
    # Under mixed precision, both round to 8 bits, in other places.
    error_of_peft, error = (
        difference(gradients(model, ids, torch.bfloat16), exact) for model in (plain, ours)
    )
    assert error <= 1.2 * error_of_peft < 0.2


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("dtypes", [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_an_input_of_another_dtype_has_the_gradients_of_peft(has_bias, dtypes):
    """Under mixed precision, a base's norms may return float32 to layers in bfloat16."""
    of_input, of_base = (getattr(torch, name) for name in dtypes)
    torch.manual_seed(1)
    base = torch.nn.Sequential(torch.nn.Linear(24, 40, bias=has_bias)).to(of_base)
    adapter = LoraConfig(r=4, target_modules=["0"], init_lora_weights=False)
    model = get_peft_model(base, adapter).train()
    x = torch.randn(5, 7, 24, dtype=of_input).transpose(0, 1).requires_grad_()
    found = []
    for is_fused in (False, True):
        if is_fused:
            fuse_adapter(model)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = model(x)
        y.backward(torch.ones_like(y))
        found.append((y.detach(), torch.cat([gradients_of(model), x.grad.flatten()])))
        x.grad = None
    (y, plain), (our_y, ours) = found
    assert (our_y.dtype, our_y.shape) == (y.dtype, y.shape)
    assert difference(our_y.float(), y.float()) < 0.01
    assert difference(ours, plain) < 0.01


def test_a_fused_layer_reads_less_and_keeps_no_more(base_folder):
    read, kept = [], []
    ids = torch.randint(60, 310, (3, 33))
    for is_fused in (False, True):
        model = make(base_folder, None)
        if is_fused:
            fuse_adapter(model)
        sizes: list[int] = []

        def note(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        with profile(record_shapes=True) as seen:
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        # The elements of all sums and products of two tensors of a shape.
        names = ("aten::mul", "aten::add", "aten::add_", "aten::mul_")
        read.append(
            sum(
                each.count * math.prod(each.input_shapes[0])
                for each in seen.key_averages(group_by_input_shape=True)
                if each.key in names
            )
        )
        kept.append(sum(sizes))
    print(read, kept)
    assert read[1] < 0.6 * read[0]
    assert kept[1] <= kept[0]


@pytest.mark.filterwarnings("ignore:Merge lora module")
@pytest.mark.usefixtures("one_thread")
def test_all_but_training_with_one_adapter_stays_that_of_peft(base_folder):
    plain, ours = make(base_folder, "nf4-double"), make(base_folder, "nf4-double")
    fuse_adapter(ours)
    ids = torch.randint(60, 310, (1, 30))
    for model in (plain, ours):
        torch.manual_seed(3)
        model.add_adapter("other", LoraConfig(r=2, init_lora_weights=False))

    def both(compute: Any) -> bool:
        return torch.equal(compute(plain), compute(ours))

    def logits(model: Any) -> torch.Tensor:
        return model(input_ids=ids).logits.detach()

    def without_adapter(model: Any) -> torch.Tensor:
        with model.disable_adapter():
            return logits(model)

    def with_the_other(model: Any) -> torch.Tensor:
        model.set_adapter("other")
        with torch.no_grad():
            found = logits(model)
        model.set_adapter("default")
        return found

    assert not both(logits), "in training they round otherwise"
    assert both(without_adapter)
    assert both(with_the_other)
    assert both(lambda model: logits(model.eval()))
    assert both(lambda model: logits(model.merge_and_unload().train()))


@pytest.mark.parametrize("lora", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}])
@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
def test_layers_of_another_kind_stay_those_of_peft(base_folder, lora):
    model = make(base_folder, None, **lora)
    fuse_adapter(model)
    assert not [each for each in layers_of(model) if "forward" in vars(each)]


@pytest.mark.parametrize(
    ("section", "has_gpu", "wanted"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"fused_lora": True}, True, True),
        ({"fused_lora": False}, False, False),
        ({"compile": True}, False, False),
        ({"distribution": "fsdp"}, False, False),
    ],
)
def test_without_a_wish_it_is_for_cpus(section, has_gpu, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert is_wanted(TrainingSection(**section)) is wanted


@pytest.mark.usefixtures("places", "one_thread")
@pytest.mark.parametrize("method", ["sft", "dpo", "kto", "reward"])
def test_a_fused_training_has_the_gradients_of_a_plain_one(method, config, trainer_of, tmp_path):
    learn_by(method, config, tmp_path)
    losses, found = [], []
    for is_fused in (False, True):
        torch.manual_seed(2)
        trainer = trainer_of(config, fused_lora=is_fused)
        loss, gradients_of_step = first_step(trainer)
        losses.append(loss)
        found.append(gradients_of_step)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert difference(found[1], found[0]) < 1e-5
