"""Machines with GPUs that AWS rents, and their prices at a date: for what a plan says of costs.

Of each number of GPUs, the smallest machine of a family: those with more CPUs and host memory for
the same GPUs (g5 and g6 from 2xlarge to 16xlarge) are left out. Prices of Linux on demand in
us-east-1, without disks, addresses and transfers. They are from public copies of AWS's list, not
from AWS itself, and they change: a plan says so. Machines with GPUs on which torch's wheels do not
run (V100) are left out, and so is p5e.48xlarge, which has no price on demand.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from job.gpus.cards import Card

REGION = "us-east-1"
AS_OF = "2026-11-09"  # of A100, H100 and H200; the copy with the others has no date


@dataclass(frozen=True)
class Instance:
    """A type of machine: how many GPUs of which kind, its host's GiB, and its USD an hour."""

    name: str
    card: Card
    gpus: int
    host_gib: int
    price: float


# By the kind of the GPU: type, GPUs, GiB of the host's memory, price.
PRICES = {
    "t4": [
        ("g4dn.xlarge", 1, 16, 0.526),
        ("g4dn.12xlarge", 4, 192, 3.912),
        ("g4dn.metal", 8, 384, 7.824),
    ],
    "a10g": [
        ("g5.xlarge", 1, 16, 1.006),
        ("g5.12xlarge", 4, 192, 5.672),
        ("g5.48xlarge", 8, 768, 16.288),
    ],
    "l4": [
        ("g6.xlarge", 1, 16, 0.8048),
        ("g6.12xlarge", 4, 192, 4.6016),
        ("g6.48xlarge", 8, 768, 13.3504),
    ],
    "l40s": [
        ("g6e.xlarge", 1, 32, 1.861),
        ("g6e.12xlarge", 4, 384, 10.49264),
        ("g6e.48xlarge", 8, 1536, 30.13118),
    ],
    "a100-40gb": [("p4d.24xlarge", 8, 1152, 21.95764)],
    "a100": [("p4de.24xlarge", 8, 1152, 27.44705)],
    "h100": [("p5.4xlarge", 1, 256, 6.88), ("p5.48xlarge", 8, 2048, 55.04)],
    "h200": [("p5en.48xlarge", 8, 2048, 63.296)],
    "b200": [("p6-b200.48xlarge", 8, 2048, 113.9328)],
}


def instances_with(card: Card) -> Iterator[Instance]:
    """Yield the types of machines that have GPUs of this kind."""
    for name, gpus, host_gib, price in PRICES.get(card.kind or "", []):
        yield Instance(name, card, gpus, host_gib, price)
