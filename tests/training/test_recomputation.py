"""Claims about recomputed activations: as few as fit into memory, and the same gradients."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

from job.memory.levels import LEVELS, Filling, Pass, PassNeed, fastest_pass, least_level
from job.training import recomputation
from job.training.recomputation import Recomputation, levels_of, measure_need, set_level

LAYERS = 8


class Adapted(torch.nn.Module):
    """A base of eight layers, as an adapter around it shows it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        config = LlamaConfig(
            vocab_size=40,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            initializer_range=0.2,
        )
        self.base = LlamaForCausalLM(config)
        add_fused_lm_head(self.base, outputs=("log_probs",))

    def get_base_model(self) -> Any:
        return self.base

    def forward(self, **inputs: Any) -> Any:
        return self.base(**inputs)


def recomputing(model: Adapted) -> list[int]:
    layers = model.base.model.layers
    return [number for number, layer in enumerate(layers) if layer.gradient_checkpointing]


def gradients(model: Adapted) -> list[torch.Tensor]:
    ids = torch.arange(30)[None]
    model.train()
    model.zero_grad()
    model(input_ids=ids, labels=ids, use_cache=False, fused_lm_head=True).loss.backward()
    return [weight.grad.clone() for weight in model.parameters()]


def test_gradients_are_the_same_at_each_level():
    model = Adapted()
    wanted = gradients(model)
    for level in levels_of(model.base):
        set_level(model.base, level)
        assert all(map(torch.equal, gradients(model), wanted)), level
    assert levels_of(model.base) == list(LEVELS)


def test_what_is_measured_grows_with_rows_and_their_length():
    model = Adapted()
    needs = [measure_need(model, model.base, tokens, rows) for tokens, rows in TOKENS_AND_ROWS]
    one, longer, two = (need.activation_bytes for need in needs if need)
    assert longer == pytest.approx(4 * one, rel=0.1)
    assert two == 2 * one
    # Of each layer: at least its input, what attention reads, and the inner states, in float32.
    assert one > LAYERS * 64 * 4 * (64 + 4 * 64 + 2 * 128)


TOKENS_AND_ROWS = [(64, 1), (256, 1), (64, 2)]


def test_measuring_changes_neither_mode_nor_random_state():
    model = Adapted().eval()
    before = torch.get_rng_state()
    measure_need(model, model.base, 16, 1)
    assert not model.training
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("free", "wanted"), [(1000, None), (999, 4), (874, 3), (749, 2), (624, 1), (0, 1)]
)
def test_less_memory_makes_more_layers_recompute(free, wanted):
    need = PassNeed(activation_bytes=800, other_bytes=0, layers=LAYERS)
    assert least_level(need, LEVELS, free, margin=1.25) == wanted


@pytest.mark.parametrize(
    ("free", "wanted"),
    [
        (1 << 20, Pass(16, None)),  # the whole step
        (3000, Pass(3, None)),  # passes cost less than recomputation
        (1999, Pass(1, None)),
        (999, Pass(1, 4)),
        (0, Pass(1, 1)),
    ],
)
def test_rows_that_pass_at_once_take_the_least_time(free, wanted):
    need = PassNeed(activation_bytes=800, other_bytes=0, layers=LAYERS)
    assert fastest_pass(need, LEVELS, free, 1.25, Filling(16, share_of_a_pass=0.1)) == wanted


def test_rows_share_a_pass_by_recomputation_where_passes_are_dear():
    need = PassNeed(activation_bytes=800, other_bytes=0, layers=LAYERS)
    found = fastest_pass(need, LEVELS, 1999, 1.25, Filling(16, share_of_a_pass=10))
    assert found == Pass(15, 1)


@pytest.mark.parametrize(("free", "wanted"), [(1 << 40, 16), (0, 1)])
def test_a_micro_batch_is_as_large_as_its_memory_allows(free, wanted, monkeypatch):
    monkeypatch.setattr(recomputation, "free_bytes", lambda: free)
    chosen = Recomputation(Adapted(), is_by_memory=True)
    assert chosen.fill(30, Filling(16, share_of_a_pass=1)) == wanted
    assert chosen.is_chosen


@pytest.mark.parametrize(("ranks", "wanted"), [(1, []), (2, [0, 3, 6])])
def test_several_ranks_keep_more_memory_free(ranks, wanted, monkeypatch):
    model = Adapted()
    need = measure_need(model, model.base, 30, 4)
    monkeypatch.setattr(recomputation, "free_bytes", lambda: int(need.bytes_at(None, 1.7)))
    Recomputation(model, True, ranks).choose(30, 4)
    assert recomputing(model) == wanted


@pytest.mark.parametrize(("free", "wanted"), [(1 << 40, []), (0, list(range(LAYERS)))])
def test_a_training_begins_with_what_its_memory_asks_for(free, wanted, monkeypatch):
    monkeypatch.setattr(recomputation, "free_bytes", lambda: free)
    model = Adapted()
    chosen = Recomputation(model, is_by_memory=True)
    chosen.choose(row_tokens=30, rows=4)
    assert chosen.is_chosen
    assert recomputing(model) == wanted
    assert chosen.add() == (not wanted)


def test_want_of_memory_adds_recomputation_until_all_layers_have_it(monkeypatch):
    monkeypatch.setattr(recomputation, "free_bytes", lambda: 1 << 40)
    model = Adapted()
    chosen = Recomputation(model, is_by_memory=True)
    chosen.choose(30, 4)
    counts = []
    while chosen.add():
        counts.append(len(recomputing(model)))
    assert counts == [2, 3, 4, 8]


def test_a_config_that_has_decided_is_left_alone():
    model = Adapted()
    fixed = Recomputation(model, is_by_memory=False)
    assert fixed.is_chosen
    assert not fixed.add()


def test_a_row_that_does_not_fit_makes_all_layers_recompute(monkeypatch):
    model = Adapted()

    def run_out(**inputs: Any) -> Any:
        raise torch.OutOfMemoryError("on purpose")

    monkeypatch.setattr(model.base, "forward", run_out)
    Recomputation(model, is_by_memory=True).choose(30, 4)
    assert len(recomputing(model)) == LAYERS
