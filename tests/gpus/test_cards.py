"""Claims about GPUs by name."""

import pytest

from job.errors import ConfigError
from job.gpus.cards import CARDS, GIB, card_named


@pytest.mark.parametrize("name", ["a10g", "A10G", "nvidia-a10g", "NVIDIA A10G"])
def test_a_gpu_is_known_by_any_spelling(name: str) -> None:
    assert card_named(name) is CARDS["a10g"]


def test_an_unknown_gpu_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="--gpu h10 is not known: did you mean h100"):
        card_named("h10")


def test_a_gpu_has_less_memory_than_its_name_promises():
    promised = {"t4": 16, "a10g": 24, "l4": 24, "a100-40gb": 40, "l40s": 48, "h100": 80}
    assert all(CARDS[name].memory < gib * GIB for name, gib in promised.items())


def test_gpus_before_ampere_have_no_bfloat16():
    without = {name for name, card in CARDS.items() if not card.has_bfloat16}
    assert without == {"t4", "v100"}
