"""Claims about compiled layers: the same gradients within rounding, evaluations as before."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._dynamo.utils import counters

from job.config.sections import ModelSection
from job.errors import ConfigError
from job.model.fetch import Base
from job.model.load import load_base
from job.training import compiled
from job.training.compiled import compile_layers
from tests.training.conftest import first_step, gradients_of, learn_by

LENGTHS = (20, 33, 48, 17)


def make(folder: Path, quantization: str | None) -> Any:
    base = Base(str(folder), None, "d", folder)
    torch.manual_seed(1)
    section = ModelSection(base=base.uri, quantization=quantization)
    adapter = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(load_base(base, section), adapter).train()


def gradients(model: Any, ids: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return gradients_of(model)


@pytest.mark.quality  # 25 CPU seconds each
@pytest.mark.filterwarnings("default")  # torch's compiler imports what torch has deprecated
@pytest.mark.parametrize("is_recomputed", [False, True])
@pytest.mark.parametrize("quantization", ["nf4-double", None])
def test_compiled_layers_have_the_gradients_of_plain_ones(base_folder, quantization, is_recomputed):
    plain, ours = make(base_folder, quantization), make(base_folder, quantization)
    if is_recomputed:
        ours.get_base_model().gradient_checkpointing_enable()
    compile_layers(ours)
    counters.clear()
    for length in LENGTHS:
        ids = torch.randint(60, 310, (3, length))
        wanted = gradients(plain, ids)
        difference = (gradients(ours, ids) - wanted).norm() / wanted.norm()
        print(f"{length} tokens: the gradients differ by {difference:.1e} of their norm")
        assert difference < 1e-5
    assert not counters["graph_break"]
    # One for the first layer, whose input has no gradient, and one for the others. A test before
    # may have compiled them.
    graphs = counters["stats"]["unique_graphs"]
    assert graphs <= 2, "of all layers and lengths"

    ids = torch.randint(60, 310, (1, 30))
    with torch.inference_mode():
        assert torch.equal(ours.eval()(input_ids=ids).logits, plain.eval()(input_ids=ids).logits)
    assert counters["stats"]["unique_graphs"] == graphs, "evaluations are not compiled"


@pytest.mark.quality
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("places", "one_thread")
@pytest.mark.parametrize("method", ["sft", "dpo", "kto", "reward"])
def test_a_compiled_training_has_the_gradients_of_a_plain_one(
    method, config, trainer_of, tmp_path, monkeypatch
):
    # What is traced, and when it is traced anew, without minutes of a C++ compiler.
    traced = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(compiled.torch, "compile", traced)
    torch.compiler.reset()
    counters.clear()
    learn_by(method, config, tmp_path)
    losses, found = [], []
    for is_compiled in (False, True):
        torch.manual_seed(2)
        trainer = trainer_of(config, compile=is_compiled)
        loss, gradients_of_step = first_step(trainer)
        losses.append(loss)
        found.append(gradients_of_step)
    graphs = counters["stats"]["unique_graphs"]
    plain, ours = found
    difference = (ours - plain).norm() / plain.norm()
    print(f"{method}: {graphs} graphs; losses {losses}, gradients differ by {difference:.1e}")
    assert 0 < graphs < torch._dynamo.config.recompile_limit
    assert not counters["graph_break"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    # The losses of thumbs and of a reward model do not depend on the layers before the first step.
    assert difference < 1e-5


def test_without_a_compiler_the_config_is_refused(monkeypatch):
    monkeypatch.setattr(compiled.shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match=r"^training\.compile: needs a compiler \(g\+\+, clang"):
        compile_layers(torch.nn.Linear(2, 2))


def test_a_base_without_layers_of_transformers_is_refused(monkeypatch):
    monkeypatch.setattr(compiled.shutil, "which", lambda name: name)
    with pytest.raises(ConfigError, match="no layers that can be compiled"):
        compile_layers(torch.nn.Linear(2, 2))
