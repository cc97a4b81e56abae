"""GPUs by name: their memory, and how fast they multiply, for what is asked before one is rented.

The memory is what torch reports as the total of such a GPU, in its messages when memory runs out;
where they differ by a driver, the least. It is less than the number in the GPU's name.
"""

import difflib
from dataclasses import dataclass, replace
from itertools import pairwise

from job.errors import ConfigError

GIB = 1 << 30


@dataclass(frozen=True)
class Card:
    """A kind of GPU: bytes of memory, compute capability, and what it does in a second.

    `peak_tflops` is of 16-bit products in TFLOP/s, without sparsity, and `memory_rate` how much of
    its memory it reads in GB/s, both as NVIDIA publishes them; None where they are not known. So is
    `kind`, its key in CARDS.
    """

    name: str
    memory: int
    capability: tuple[int, int]
    peak_tflops: float | None = None
    memory_rate: float | None = None
    kind: str | None = None

    @property
    def has_bfloat16(self) -> bool:
        """True if it computes in bfloat16: since Ampere."""
        return self.capability >= (8, 0)


def _card(
    name: str, gib: float, capability: tuple[int, int], tflops: float, memory_rate: float
) -> Card:
    return Card(name, int(gib * GIB), capability, tflops, memory_rate)


_CARDS = {
    "t4": _card("T4", 14.56, (7, 5), 65, 320),
    "v100": _card("V100 16 GB", 15.77, (7, 0), 125, 900),
    "a10g": _card("A10G", 22.03, (8, 6), 70, 600),
    "l4": _card("L4", 22.03, (8, 9), 121, 300),
    "rtx3090": _card("RTX 3090", 23.56, (8, 6), 71, 936),
    "rtx4090": _card("RTX 4090", 23.52, (8, 9), 165, 1008),
    "a100-40gb": _card("A100 40 GB", 39.38, (8, 0), 312, 1555),
    "l40s": _card("L40S", 44.39, (8, 9), 362, 864),
    "a100": _card("A100 80 GB", 79.14, (8, 0), 312, 2039),
    "h100": _card("H100 80 GB", 79.14, (9, 0), 989, 3350),
    "h200": _card("H200", 139.72, (9, 0), 989, 4800),
    "b200": _card("B200", 178.35, (10, 0), 2250, 8000),
}
CARDS = {kind: replace(card, kind=kind) for kind, card in _CARDS.items()}


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
        found[each.name] = found_card(each.name, each.total_memory, (each.major, each.minor))
    return list(found.values())


def found_card(name: str, memory: int, capability: tuple[int, int]) -> Card:
    """Return a GPU of this machine by its driver's name, such as NVIDIA A100-SXM4-80GB.

    If its kind is known, it has that kind's rates.
    """
    words = name.lower().replace("-", " ").split()
    pairs = [first + second for first, second in pairwise(words)]  # RTX 4090
    alike = [card for kind, card in CARDS.items() if kind.split("-")[0] in {*words, *pairs}]
    if not alike:
        return Card(name, memory, capability)
    nearest = min(alike, key=lambda card: abs(card.memory - memory))
    return replace(nearest, name=name, memory=memory, capability=capability)


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").removeprefix("nvidia-").removeprefix("nvidia")
