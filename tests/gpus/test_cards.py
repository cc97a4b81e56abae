"""Claims about GPUs by name."""

import pytest

from job.errors import ConfigError
from job.gpus.cards import CARDS, GIB, Card, card_named, found_card


@pytest.mark.parametrize("name", ["a10g", "A10G", "nvidia-a10g", "NVIDIA A10G"])
def test_a_gpu_is_known_by_any_spelling(name: str) -> None:
    assert card_named(name) is CARDS["a10g"]


def test_an_unknown_gpu_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="--gpu h10 is not known: did you mean h100"):
        card_named("h10")


def test_a_gpu_has_less_memory_than_its_name_promises():
    promised = {"t4": 16, "a10g": 24, "l4": 24, "a100-40gb": 40, "l40s": 48, "h100": 80}
    assert all(CARDS[name].memory < gib * GIB for name, gib in promised.items())


@pytest.mark.parametrize(
    ("name", "gib", "kind"),
    [
        ("Tesla T4", 14.6, "t4"),
        ("NVIDIA L40S", 44.4, "l40s"),
        ("NVIDIA A100-SXM4-40GB", 39.4, "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", 79.3, "a100"),
        ("NVIDIA GeForce RTX 4090", 23.5, "rtx4090"),
        ("NVIDIA H100 80GB HBM3", 79.1, "h100"),
    ],
)
def test_a_gpu_is_known_by_the_name_of_its_driver(name: str, gib: float, kind: str) -> None:
    found = found_card(name, int(gib * GIB), (8, 0))
    assert (found.name, found.memory) == (name, int(gib * GIB))
    assert (found.kind, found.peak_tflops) == (kind, CARDS[kind].peak_tflops)


def test_a_gpu_of_no_known_kind_has_no_rates():
    assert found_card("NVIDIA X9", GIB, (12, 0)) == Card("NVIDIA X9", GIB, (12, 0))


def test_gpus_before_ampere_have_no_bfloat16():
    without = {name for name, card in CARDS.items() if not card.has_bfloat16}
    assert without == {"t4", "v100"}
