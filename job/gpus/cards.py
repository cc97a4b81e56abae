"""GPUs by name: their memory, and how fast they multiply, for what is asked before one is rented.

The memory is what torch reports as the total of such a GPU, in its messages when memory runs out;
where they differ by a driver, the least. It is less than the number in the GPU's name.
"""

import difflib
from dataclasses import dataclass

from job.errors import ConfigError

GIB = 1 << 30


@dataclass(frozen=True)
class Card:
    """A kind of GPU: bytes of memory, compute capability, peak of 16-bit products a second.

    The peak is in TFLOP/s, without sparsity, as NVIDIA publishes it; None where it is not known.
    """

    name: str
    memory: int
    capability: tuple[int, int]
    peak_tflops: float | None = None

    @property
    def has_bfloat16(self) -> bool:
        """True if it computes in bfloat16: since Ampere."""
        return self.capability >= (8, 0)


def _card(name: str, gib: float, capability: tuple[int, int], tflops: float) -> Card:
    return Card(name, int(gib * GIB), capability, tflops)


CARDS = {
    "t4": _card("T4", 14.56, (7, 5), 65),
    "v100": _card("V100 16 GB", 15.77, (7, 0), 125),
    "a10g": _card("A10G", 22.03, (8, 6), 70),
    "l4": _card("L4", 22.03, (8, 9), 121),
    "rtx3090": _card("RTX 3090", 23.56, (8, 6), 71),
    "rtx4090": _card("RTX 4090", 23.52, (8, 9), 165),
    "a100-40gb": _card("A100 40 GB", 39.38, (8, 0), 312),
    "l40s": _card("L40S", 44.39, (8, 9), 362),
    "a100": _card("A100 80 GB", 79.14, (8, 0), 312),
    "h100": _card("H100 80 GB", 79.14, (9, 0), 989),
    "h200": _card("H200", 139.72, (9, 0), 989),
    "b200": _card("B200", 178.35, (10, 0), 2250),
}


def card_named(name: str) -> Card:
    """Return the GPU of this name. Raise ConfigError, with all the names, for another."""
    card = CARDS.get(_plain(name))
    if card is not None:
        return card
    near = difflib.get_close_matches(_plain(name), CARDS, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"--gpu {name} is not known: {meant}The names are {', '.join(CARDS)}")


def found_cards() -> list[Card]:
    """Return the kinds of GPUs that torch can use on this machine. Imports torch."""
    import torch

    if not torch.cuda.is_available():
        return []
    found: dict[str, Card] = {}
    for index in range(torch.cuda.device_count()):
        each = torch.cuda.get_device_properties(index)
        found[each.name] = Card(
            each.name, each.total_memory, (each.major, each.minor), _peak_of(each.name)
        )
    return list(found.values())


def _peak_of(name: str) -> float | None:
    """Return the peak of a GPU by the name that its driver has for it, such as NVIDIA A10G."""
    words = name.lower().replace("-", " ").split()
    for key, card in CARDS.items():
        if key.split("-")[0] in words:
            return card.peak_tflops
    return None


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").removeprefix("nvidia-").removeprefix("nvidia")
