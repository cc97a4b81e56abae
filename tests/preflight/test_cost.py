"""Claims about the checks of time and cost in a plan."""

from dataclasses import replace
from datetime import date

import pytest

from job.gpus.cards import CARDS, Card, found_card
from job.gpus.instances import AS_OF, PRICES, instances_with
from job.memory.estimate import Estimate, Fit, Need
from job.memory.shape import BaseShape
from job.preflight.checks import Check
from job.preflight.cost import (
    Fitting,
    Places,
    measured_cpu,
    offers_of,
    places_of,
    time_checks,
)
from job.preflight.duration import Work

SHAPE = BaseShape(32, 4096, 14336, 8, 128, 128_256, 7 * 10**9, 5 << 30)
WORK = Work(
    steps=1000,
    tokens=10_000_000,
    learned=500_000,
    training=3e17,
    again=1.5e17,
    evaluations=4,
    evaluation=5e14,
    evaluation_share=0.1,
    samples=3,
    summaries=400,
    prompt=7e12,
    new_tokens=(60.0, 128),
    weight_bytes=16_000_000_000,
    start_bytes=32_000_000_000,
    grows_with_processes=False,
)
ON_L4 = Places([Fitting(CARDS["l4"], 0.0)])
CPU = Card("this CPU", 0, (0, 0), 0.05, 10)


def estimate(*fits: tuple[str, int], on_cpu: bool = False) -> Estimate:
    """Return an answer with the largest number of rows for each GPU of this name."""
    need = Need(1, {"base": 5 << 30}, 8 << 30, 1 << 30)
    found = [
        Fit(CARDS[name], need, "fits" if rows else "does not fit", rows, rows=4)
        for name, rows in fits
    ]
    return Estimate(SHAPE, need if on_cpu else None, tuple(found))


def checks(answer: Estimate, price: float | None = None, processes: int = 1) -> list[Check]:
    return time_checks(WORK, places_of(answer), processes, price, lambda: CPU)


def test_the_time_is_a_table_of_parts_and_devices():
    time, _ = checks(estimate(("l4", 4), ("h100", 9)))
    head, *rows = [line for line in time.found.splitlines() if line[:1] == " " or "  " in line]
    assert head.split("  ")[-1].strip() == "H100 80 GB"
    names = [row[:18].strip() for row in rows]
    assert names == ["start", "1,000 steps", "4 evaluations", "400 summaries", "in all"]
    assert "assumed: 10% to 41%" in time.found
    assert max(map(len, [head, *rows])) <= 80 - 16  # beside the name of the check


def test_the_whole_is_the_sum_of_the_parts():
    time, _ = checks(estimate(("l4", 4)))
    facts = time.facts["devices"]["L4"]
    for end in (0, 1):
        parts = [facts[f"{name}_seconds"][end] for name in ("start", "training", "evaluations")]
        assert abs(sum(parts) + facts["scores_seconds"][end] - facts["total_seconds"][end]) <= 2


def test_a_time_and_a_cost_are_estimates():
    assert [each.state for each in checks(estimate(("l4", 4)))] == ["estimate", "estimate"]


def test_a_gpu_that_holds_no_row_has_no_time_and_no_price():
    time, cost = checks(estimate(("t4", 0), ("l4", 4)))
    assert list(time.facts["devices"]) == ["L4"]
    assert {offer["instance"][:2] for offer in cost.facts["aws"]} == {"g6"}


def test_nothing_is_promised_where_nothing_holds_it():
    (time,) = checks(estimate(("t4", 0)))
    assert "hours and cost, name GPUs that hold it" in time.found
    assert "10,000,000 tokens, 500,000 learned; 300 PFLOP, or 450 PFLOP if all" in time.found
    assert time.state == "well"  # the work is known


def test_a_base_that_gpus_share_is_offered_several():
    places = Places([Fitting(CARDS["l4"], 0.0, min_gpus=2)], is_known=False)
    time, cost = time_checks(WORK, places, None, None, lambda: CPU)
    assert list(time.facts["devices"]) == ["2 x L4"]
    assert [offer["instance"] for offer in cost.facts["aws"]] == ["g6.12xlarge", "g6.48xlarge"]
    assert "whether it fits is not known" in cost.found


def test_machines_of_several_gpus_are_offered_only_if_each_gpu_holds_it():
    (alone,) = estimate(("l4", 4)).fits
    several = replace(alone, gpus=2, verdict="does not fit")
    places = places_of(Estimate(SHAPE, None, (alone, several)))
    assert [offer.instance.name for offer in offers_of(WORK, places, None)] == ["g6.xlarge"]
    places = places_of(Estimate(SHAPE, None, (alone, replace(several, verdict="fits"))))
    assert sorted(offer.instance.gpus for offer in offers_of(WORK, places, None)) == [1, 4, 8]
    time, _ = time_checks(WORK, places, None, None, lambda: CPU)
    assert list(time.facts["devices"]) == ["L4"]


def test_a_known_number_of_processes_is_asked_about_alone():
    (fit,) = estimate(("l4", 4)).fits
    places = places_of(Estimate(SHAPE, None, (replace(fit, gpus=8),)))  # 4 on each of 2 machines
    time, _ = time_checks(WORK, places, 4, None, lambda: CPU)
    assert list(time.facts["devices"]) == ["4 x L4"]
    assert [offer.instance.gpus for offer in offers_of(WORK, places, 4)] == [4, 8]


def test_offers_are_sorted_by_what_the_run_costs():
    places = Places([Fitting(CARDS["h100"], 0.0), Fitting(CARDS["l4"], 1.0)])
    offers = offers_of(WORK, places, processes=1)
    assert {offer.instance.name for offer in offers} >= {"g6.xlarge", "p5.4xlarge"}
    assert [offer.cost[1] for offer in offers] == sorted(offer.cost[1] for offer in offers)


def test_a_machine_with_fewer_gpus_than_processes_is_no_offer():
    offers = offers_of(WORK, ON_L4, processes=4)
    assert [offer.instance.gpus for offer in offers] == [4, 8]
    assert offers[0].total == offers[1].total


def test_a_gpu_of_this_machine_is_offered_like_the_kind_it_is():
    here = found_card("NVIDIA L4", 23_000_000_000, (8, 9))
    named, found = (
        offers_of(WORK, Places([Fitting(card, 0.0)]), processes=1) for card in (CARDS["l4"], here)
    )
    assert [offer.instance.name for offer in found] == [offer.instance.name for offer in named]
    assert [offer.cost for offer in found] == [offer.cost for offer in named]


def test_a_host_with_less_memory_than_the_weights_is_no_offer():
    large = replace(WORK, weight_bytes=30 << 30)
    names = [offer.instance.name for offer in offers_of(large, ON_L4, processes=None)]
    assert sorted(names) == ["g6.12xlarge", "g6.48xlarge"]


def test_without_processes_a_run_takes_all_gpus_of_its_machine():
    offers = offers_of(WORK, ON_L4, processes=None)
    by_gpus = {offer.instance.gpus: offer.total for offer in offers}
    assert by_gpus[8].most < by_gpus[4].most < by_gpus[1].most


def test_a_price_of_a_gpu_is_paid_for_each_process():
    time, cost = checks(estimate(("l4", 4)), price=2.0, processes=3)
    seconds = time.facts["devices"]["3 x L4"]["total_seconds"]
    least, most = cost.facts["by_price"]["3 x L4"]
    assert least == pytest.approx(6.0 * seconds[0] / 3600, abs=0.01)
    assert most == pytest.approx(6.0 * seconds[1] / 3600, abs=0.01)
    assert "at 6 an hour" in cost.found


def test_prices_say_their_date_and_their_doubt():
    _, cost = checks(estimate(("l4", 4)))
    assert f"prices of {AS_OF}" in cost.found
    assert "check before you rely on it" in cost.found
    assert date.fromisoformat(AS_OF) <= date.today()


def test_the_table_of_prices_names_known_gpus():
    assert set(PRICES) <= set(CARDS)
    for card in CARDS.values():
        for instance in instances_with(card):
            assert instance.price / instance.gpus > 0.5


def test_a_cpu_has_a_time_and_no_price():
    (time,) = checks(estimate(on_cpu=True), price=2.0)
    assert list(time.facts["devices"]) == ["this CPU"]
    assert "50 GFLOP/s, measured now" in time.found


def test_the_speed_of_this_cpu_is_measured():
    ticks = iter(range(100))
    card = measured_cpu(lambda: float(next(ticks)))
    assert card.peak_tflops == pytest.approx(2 * 1024**3 / 1e12)
    assert replace(card, name="x").memory_rate == pytest.approx(2 * 4 * (1 << 24) / 1e9)
