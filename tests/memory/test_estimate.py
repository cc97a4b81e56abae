"""Claims about what fits: from two simulated steps, the needs of others follow."""

from pathlib import Path
from typing import Any

import pytest

from job.config.sections import ModelSection
from job.config.training_sections import LoraSection
from job.gpus.cards import CARDS, Card
from job.memory.devices import Rows
from job.memory.estimate import Line, Question, fit_on, peak_at_level
from job.memory.levels import LEVELS, Filling
from job.memory.step import Peak

GIB = 1 << 30
LAYERS = 8


def question(**changes: Any) -> Question:
    values: dict[str, Any] = {
        "folder": Path("base"),
        "model": ModelSection(base="org/base"),
        "lora": LoraSection(),
        "optimizer": "adamw_torch_fused",
        "rows": Rows(count=4, tokens=1000, learned=400),
        "levels": LEVELS,
        "filling": None,
        "processes": (1,),
        "cards": (),
        "host_bytes": None,
    }
    return Question(**values | changes)


def peak(activations: float, working: float, base: float = 4) -> Peak:
    parts = {"base": base, "activations": activations, "gradients": 0.25}
    forward = {name: round(size * GIB) for name, size in parts.items()}
    backward = forward | {"backward": round(working * GIB)}
    return Peak({"forward": forward, "backward": backward}, sum(backward.values()))


def lines(activations: float, kept: float, working: float) -> dict[int | None, Line]:
    """Return what four and eight rows need without recomputation and with all of it, in GiB."""
    return {
        None: Line(4, peak(activations, working / 4), 8, peak(2 * activations, working / 2)),
        1: Line(4, peak(kept, working), 8, peak(2 * kept, 2 * working)),
    }


def card(gib: float) -> Card:
    return Card("a card", round(gib * GIB), (8, 0))


def test_half_of_the_layers_keep_half_of_the_activations():
    found = peak_at_level({None: peak(8, 0.5), 1: peak(1, 2)}, 2, LAYERS)
    assert found.parts["activations"] == 4.5 * GIB


def test_one_layer_that_recomputes_is_there_whole():
    found = peak_at_level({None: peak(8, 0.5), 1: peak(1, 2)}, 4, LAYERS)
    assert found.parts["backward"] == 2 * GIB


@pytest.mark.parametrize(("gib", "level"), [(40, None), (17.5, 4), (15, 3), (8, 1), (4, 1)])
def test_as_few_layers_recompute_as_a_training_would_choose(gib: float, level: int | None) -> None:
    fit = fit_on(question(), card(gib), lines(10, 0.5, 1), LAYERS)
    assert fit.need.recomputed == level


@pytest.mark.parametrize(("gib", "verdict"), [(40, "fits"), (6.5, "tight"), (5, "does not fit")])
def test_a_step_fits_barely_or_not(gib: float, verdict: str) -> None:
    fit = fit_on(question(levels=(1,)), card(gib), lines(10, 0.5, 1), LAYERS)
    assert fit.verdict == verdict


def test_the_largest_micro_batch_fits_and_one_more_does_not():
    of_rows = lines(10, 0.5, 1)  # 0.375 GiB a row, beside 4.25
    largest = fit_on(question(levels=(1,)), card(10), of_rows, LAYERS).largest_rows
    beyond = 10 * GIB - 0.55 * GIB
    assert of_rows[1].peak(largest).tensors < beyond < of_rows[1].peak(largest + 2).tensors


@pytest.mark.parametrize(("gib", "rows"), [(40, 11), (400, 16)])
def test_a_pass_has_as_many_rows_as_take_the_least_time(gib: float, rows: int) -> None:
    filling = Filling(most_rows=16, share_of_a_pass=0.5)
    fit = fit_on(question(filling=filling), card(gib), lines(10, 0.5, 1), LAYERS)
    assert (fit.rows, fit.need.recomputed) == (rows, None)


def test_several_processes_have_their_gradients_twice():
    alone = fit_on(question(levels=(1,)), card(40), lines(10, 0.5, 1), LAYERS)
    shared = fit_on(question(levels=(1,)), card(40), lines(10, 0.5, 1), LAYERS, processes=2)
    assert shared.need.tensors - alone.need.tensors == GIB // 4


def test_several_processes_recompute_earlier():
    # Where memory runs out on one of them, the run ends.
    alone = fit_on(question(), card(19), lines(10, 0.5, 1), LAYERS)
    shared = fit_on(question(), card(19), lines(10, 0.5, 1), LAYERS, processes=2)
    assert (alone.need.recomputed, shared.need.recomputed) == (None, 2)


def test_a_gpu_needs_more_than_its_tensors():
    need = fit_on(question(), CARDS["h100"], lines(10, 0.5, 1), LAYERS).need
    assert need.with_context >= need.tensors + GIB // 2
