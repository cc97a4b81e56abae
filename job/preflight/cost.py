"""Say how long a training takes on the devices of a plan, and what that costs.

The prices are those of a user, or of a dated table of what AWS rents.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from job.gpus.cards import Card
from job.gpus.instances import AS_OF, REGION, Instance, instances_with
from job.preflight.checks import Check
from job.preflight.duration import (
    ASSUMPTION,
    CPU,
    HOUR,
    Durations,
    Range,
    Work,
    durations_on,
    facts_of,
    table_of,
)

if TYPE_CHECKING:  # it imports torch
    from job.memory.estimate import Estimate

COLUMNS = 2  # of a table that fits into a terminal of 80 columns
MAX_INSTANCES = 8
NO_DEVICE = "for hours and cost, name GPUs that hold it with --gpu"
SIZE_OF_A_PRODUCT = 1024
SIZE_OF_A_COPY = 1 << 24  # numbers
TRIALS = 3
GIB = 1 << 30
UNITS = {"EFLOP": 1e18, "PFLOP": 1e15, "TFLOP": 1e12, "GFLOP": 1e9}


@dataclass(frozen=True)
class Fitting:
    """A GPU that holds a training, and the share of layers that recompute there.

    At least `min_gpus` of them share it, and at most `max_gpus` if there is such a number.
    """

    card: Card
    recomputed: float
    min_gpus: int = 1
    max_gpus: int | None = None


@dataclass(frozen=True)
class Offer:
    """A machine that holds a training, with the time and the cost of a run on all its GPUs."""

    instance: Instance
    total: Range
    cost: tuple[float, float]


@dataclass(frozen=True)
class Places:
    """The devices that may hold a training.

    `cpu` is the share of layers that recompute on a CPU; None if that is not asked about. Whether
    they hold the training `is_known`, or nobody could find out.
    """

    gpus: Sequence[Fitting]
    cpu: float | None = None
    is_known: bool = True


def places_of(answer: "Estimate") -> Places:
    """Return the GPUs that hold at least one row at once: a run goes on with as many as fit.

    Several GPUs end if the memory of one runs out: each must hold all rows.
    """
    asked = Counter(fit.card for fit in answer.fits)
    gpus: list[Fitting] = []
    for fit in answer.fits:
        holds = fit.largest_rows if fit.gpus == 1 else fit.verdict != "does not fit"
        if not holds:
            continue
        found = Fitting(fit.card, _share(fit.need.recomputed))
        if fit.is_shared:
            # Fewer of them may have been found to hold the base.
            if fit.card not in [each.card for each in gpus]:
                gpus.append(replace(found, min_gpus=fit.gpus))
        elif asked[fit.card] == 1:
            gpus.append(found)
        elif fit.gpus == 1:
            gpus.append(replace(found, max_gpus=1))
        else:
            gpus.append(replace(found, min_gpus=fit.gpus))
    on_cpu = answer.on_cpu
    return Places(gpus, None if on_cpu is None else _share(on_cpu.recomputed))


def _share(level: int | None) -> float:
    return 1 / level if level else 0.0


def time_checks(
    work: Work,
    places: Places,
    processes: int | None,
    price: float | None,
    measure_cpu: Callable[[], Card],
) -> list[Check]:
    """Return the checks of time and cost on the devices that may hold the training.

    `processes` are those that the config asks for. With a price of an hour of one GPU, the cost is
    by that, else by AWS's prices. `measure_cpu` returns this machine's CPU with its speed.
    """
    columns: dict[str, Durations] = {}
    counts: dict[str, int] = {}
    for each in _fewest_of_each(places.gpus):
        gpus = processes or each.min_gpus
        found = durations_on(each.card, work, each.recomputed, gpus)
        if found is not None:
            name = _several(gpus, each.card)
            columns[name] = found
            counts[name] = gpus
    on_gpus = dict(columns)
    lines = [
        f"{work.tokens:,} tokens, {work.learned:,} learned; {_shown(work.training)}, or "
        f"{_shown(work.training + work.again)} if all layers recompute"
    ]
    if places.cpu is not None:
        cpu = measure_cpu()
        found = durations_on(cpu, work, places.cpu, rates=CPU)
        assert found is not None
        columns[cpu.name] = found
        lines.append(f"{cpu.name}: {1000 * (cpu.peak_tflops or 0):,.0f} GFLOP/s, measured now")
    lines += [*_tables(work, columns), ASSUMPTION] if columns else [NO_DEVICE]
    facts = {
        "tokens": work.tokens,
        "learned_tokens": work.learned,
        "steps": work.steps,
        "operations": work.training,
        "devices": {name: facts_of(found) for name, found in columns.items()},
    }
    checks = [Check("time", "\n".join(lines), facts=facts, is_estimate=bool(columns))]
    if on_gpus and price is not None:
        checks.append(_cost_by_price(on_gpus, counts, price))
    elif on_gpus:
        checks.append(_cost_by_instance(work, places, processes))
    return checks


def _fewest_of_each(gpus: Sequence[Fitting]) -> Iterator[Fitting]:
    """Yield the first of each card, which is that of the fewest GPUs."""
    seen = set()
    for each in gpus:
        if each.card not in seen:
            seen.add(each.card)
            yield each


def _several(gpus: int, card: Card) -> str:
    return card.name if gpus == 1 else f"{gpus} x {card.name}"


def offers_of(work: Work, places: Places, processes: int | None) -> list[Offer]:
    """Return AWS's machines that may hold the training, the cheapest run first by its most.

    Without `processes`, a run has one for each GPU of its machine. One whose host has less memory
    than the weights is none of them: that is not proven to be too little, but nobody tried it.
    """
    found = []
    for each in places.gpus:
        for instance in instances_with(each.card):
            gpus = processes or instance.gpus
            is_enough = each.min_gpus <= gpus <= min(instance.gpus, each.max_gpus or gpus)
            has_memory = work.weight_bytes <= instance.host_gib * GIB
            durations = durations_on(each.card, work, each.recomputed, gpus)
            if is_enough and has_memory and durations is not None:
                total = durations.total
                hourly = instance.price / HOUR
                cost = (total.least * hourly, total.most * hourly)
                found.append(Offer(instance, total, cost))
    return sorted(found, key=lambda offer: offer.cost[1])


def measured_cpu(clock: Callable[[], float] = time.perf_counter) -> Card:
    """Return the CPU of this machine with its speed: of a product of matrices, and of a copy.

    Takes some tenths of a second.
    """
    import torch

    square = torch.ones(SIZE_OF_A_PRODUCT, SIZE_OF_A_PRODUCT)
    numbers = torch.ones(SIZE_OF_A_COPY)
    copy = torch.empty_like(numbers)
    product = _fastest(lambda: square @ square, clock)
    copying = _fastest(lambda: copy.copy_(numbers), clock)
    tflops = 2 * SIZE_OF_A_PRODUCT**3 / product / 1e12
    rate = 2 * numbers.nbytes / copying / 1e9
    return Card("this CPU", 0, (0, 0), tflops, rate)


def _fastest(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    work()  # memory is allocated
    seconds = []
    for _ in range(TRIALS):
        start = clock()
        work()
        seconds.append(clock() - start)
    return min(seconds)


def _shown(operations: float) -> str:
    """Return floating-point operations for people."""
    unit = next((name for name, size in UNITS.items() if operations >= size), "GFLOP")
    count = operations / UNITS[unit]
    decimals = 0 if count >= 10 else 1
    return f"{count:,.{decimals}f} {unit}"


def _tables(work: Work, columns: Mapping[str, Durations]) -> Iterator[str]:
    names = list(columns)
    for start in range(0, len(names), COLUMNS):
        yield from table_of(work, {name: columns[name] for name in names[start : start + COLUMNS]})


def _cost_by_price(
    columns: Mapping[str, Durations], counts: Mapping[str, int], price: float
) -> Check:
    """Return the cost on each device, of so many GPUs, by the price of an hour of one."""
    lines = []
    facts = {}
    for name, found in columns.items():
        hourly = price * counts[name]
        least, most = (seconds / HOUR * hourly for seconds in (found.total.least, found.total.most))
        facts[name] = [round(least, 2), round(most, 2)]
        lines.append(f"{name}: {least:,.2f} to {most:,.2f} at {hourly:g} an hour")
    return Check("cost", "\n".join(lines), facts={"by_price": facts}, is_estimate=True)


def _cost_by_instance(work: Work, places: Places, processes: int | None) -> Check:
    offers = offers_of(work, places, processes)
    if not offers:
        why = (
            "not known: no machine of the table has so many of these GPUs, and the host's memory "
            "for these weights; name a price with"
        )
        return Check("cost", f"{why} --price-per-hour", is_known=False)
    lines = [f"{'':32}{'host':>9}"]
    for offer in offers[:MAX_INSTANCES]:
        least, most = offer.cost
        instance = offer.instance
        gpus = _several(instance.gpus, instance.card)
        lines.append(
            f"{instance.name:17}{gpus:15}{instance.host_gib:>5,} GiB  ${least:,.2f} to "
            f"${most:,.2f}, {offer.total.text()} at ${instance.price:,.2f} an hour"
        )
    basis = "" if places.is_known else "whether it fits is not known; "
    lines.append(
        f"{basis}of each number of GPUs, the smallest machine; on demand in {REGION}, prices of "
        f"{AS_OF} or before: check before you rely on it"
    )
    facts = [
        {
            "instance": offer.instance.name,
            "gpus": offer.instance.gpus,
            "host_gib": offer.instance.host_gib,
            "usd_per_hour": offer.instance.price,
            "usd": [round(cost, 2) for cost in offer.cost],
        }
        for offer in offers
    ]
    known = {"aws": facts, "prices_of": AS_OF}
    return Check("cost", "\n".join(lines), facts=known, is_estimate=True)
