"""Claims about the predicted memory and time in a plan."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import TrainConfig
from job.config.sections import AdapterModelSection, GenerationSection
from job.errors import ConfigError
from job.gpus.cards import CARDS, Card
from job.memory.estimate import Estimate, Fit, Need, Question, Unknown
from job.memory.shape import BaseShape
from job.model.skeleton import make_skeleton
from job.preflight.devices import (
    Devices,
    Lengths,
    find_devices,
    generation_check,
    memory_check,
    question_of,
    unknown_memory_check,
)
from job.preflight.duration import Steps

GIB = 1 << 30
SHAPE = BaseShape(32, 4096, 14336, 8, 128, 128_256, 7 * 10**9, 5 * GIB)
L4 = CARDS["l4"]
LENGTHS = Lengths(longest=2048, most_learned=100, splits={}, steps=Steps(10, 10))


def config_with(**training: Any) -> TrainConfig:
    values = {
        "run": "tiny",
        "model": {"base": "org/base"},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
        "output": "runs",
        "training": training,
    }
    return TrainConfig.model_validate(values)


def question(host_bytes: int | None = None, **training: Any) -> Question:
    asked = question_of(config_with(**training), Path("base"), LENGTHS, Devices((L4,)))
    return replace(asked, host_bytes=host_bytes)


def estimate_on(card: Card, verdict: Any, rows: int, on_cpu: Need | None = None) -> Estimate:
    need = Need(1, {"base": 5 * GIB, "activations": 2 * GIB}, 8 * GIB, GIB)
    return Estimate(SHAPE, on_cpu, (Fit(card, need, verdict, rows, rows=4),))


def test_the_cpu_is_a_device_like_gpus():
    assert find_devices(["l4", "cpu", "l4"]) == Devices((L4,), has_cpu=True)


def test_an_unknown_gpu_ends_the_plan():
    with pytest.raises(ConfigError, match="--gpu"):
        find_devices(["l5"])


def test_the_largest_micro_batch_is_asked_about():
    asked = question(batch_size=6)
    assert (asked.rows.count, asked.rows.tokens) == (6, 2048)


def test_a_refused_step_is_a_warning_and_one_that_ends_its_process_is_not():
    why = "RuntimeError: dropout probability has to be between 0 and 1, but got 2"
    refused = unknown_memory_check(Unknown(why, was_refused=True))
    (warning,) = refused.warnings()
    assert "may refuse the first of the training, which then ends with 64" in warning
    assert why in warning
    assert unknown_memory_check(Unknown("it took more than 10 minutes")).state == "unknown"


@pytest.mark.parametrize(
    ("processes", "nodes", "wanted"),
    [(None, 1, (1, 2)), (4, 1, (4,)), (4, 2, (8,)), (1, 1, (1,)), (None, 3, (3,))],
)
def test_memory_is_asked_of_one_gpu_and_of_several(processes, nodes, wanted):
    config = config_with(processes=processes)
    asked = question_of(config, Path("base"), LENGTHS, Devices((L4,)), nodes)
    assert asked.processes == wanted


def test_what_several_gpus_need_is_a_line_of_its_own():
    (fit,) = estimate_on(L4, "fits", 7).fits
    several = replace(fit, gpus=2, verdict="tight", largest_rows=5)
    found = memory_check(question(), Estimate(SHAPE, None, (fit, several)))
    assert "several L4, each tight: 9.0 GiB with CUDA's context; all layers" in found.found
    assert found.state == "warning"
    assert [each["gpus"] for each in found.facts["gpus"]] == [1, 2]


def test_less_than_a_gib_is_shown_in_mib():
    need = Need(None, {"base": 700 << 20, "gradients": 3 << 20}, 800 << 20, 600 << 20)
    text = memory_check(question(), Estimate(SHAPE, None, (Fit(L4, need, "fits", 9, 4),))).found
    assert "fits: 703 MiB of tensors, about 800 MiB held by torch, 1.4 GiB with" in text
    assert "base 700 MiB, gradients 3 MiB" in text


def test_packed_rows_are_joined():
    rows = question(packing=True, batch_size=3).rows
    assert (rows.count, rows.tokens, rows.learned, rows.are_joined) == (3, 2048, 300, True)


@pytest.mark.parametrize(("setting", "levels"), [(True, (1,)), (False, (None,))])
def test_a_config_that_decides_on_recomputation_is_heeded(setting: bool, levels: Any) -> None:
    assert question(activation_checkpointing=setting).levels == levels


def test_the_memory_is_shown_by_part():
    text = memory_check(question(), estimate_on(L4, "fits", 7)).found
    assert "L4 (22.0 GiB) fits: 7.0 GiB of tensors, about 8.0 GiB held by torch" in text
    assert "base 5.0 GiB, activations 2.0 GiB" in text
    assert "at most about 7 such rows" in text


def test_what_does_not_fit_is_a_warning():
    check = memory_check(question(), estimate_on(L4, "does not fit", 0))
    assert check.mark == "!"
    assert "warning: L4 (22.0 GiB) does not fit" in check.found


def test_a_cpu_without_the_memory_is_a_warning():
    need = Need(None, {"base": 16 * GIB}, 16 * GIB, 0)
    answer = estimate_on(L4, "fits", 7, on_cpu=need)
    assert "warning: on a CPU" in memory_check(question(15 * GIB), answer).found
    assert "warning" not in memory_check(question(17 * GIB), answer).found


def test_a_night_is_told_of_the_memory_of_a_cpu(base_folder: Path) -> None:
    section = AdapterModelSection(base=str(base_folder))
    model = make_skeleton(base_folder, section)
    on_cpu = Devices((), has_cpu=True)
    check = generation_check(model, section, GenerationSection(), on_cpu)
    assert re.search(r"on a CPU: [\d.]+ GiB of the host's memory for each worker", check.found)
    assert check.state == "estimate"
    assert "beside the model" not in check.found
    beside = generation_check(model, section, GenerationSection(), on_cpu, lambda size: size * GIB)
    assert "with 4.0 GiB of a challenger or a reward model" in beside.found
    on_l4 = find_devices(["l4"])
    scoring = generation_check(model, section, GenerationSection(), on_l4, lambda _: 0, 2 * GIB)
    plain, vllm = scoring.found.splitlines()[1:3]
    assert "other models" not in plain
    assert "2.0 of other models" in vllm


def test_gpus_that_share_a_base_are_asked_about_by_their_number():
    assert question(distribution="fsdp").sharing == (2, 4, 8)
    assert question(distribution="fsdp", processes=3).sharing == (3,)
    assert question(distribution="fsdp").levels == (1,)


def test_what_gpus_share_is_derived_and_counted_by_gpu():
    asked = question(distribution="fsdp")
    two = replace(estimate_on(L4, "does not fit", 0).fits[0], gpus=2, is_shared=True)
    four = replace(estimate_on(L4, "fits", 7).fits[0], gpus=4, is_shared=True)
    check = memory_check(asked, Estimate(SHAPE, None, (two, four)))
    assert "\n2 x L4 (22.0 GiB each) does not fit" in check.found
    assert "4 x L4 (22.0 GiB each) fits: 7.0 GiB of tensors on each" in check.found
    assert "nothing of it was measured" in check.found
    assert check.state == "estimate"
    too_few = memory_check(asked, Estimate(SHAPE, None, (two,)))
    assert "warning: 2 x L4" in too_few.found
