"""The share of conversations in another language than that of the first night."""

import math
from collections.abc import Sequence
from dataclasses import replace

from job.summarization.quality import OTHER_LANGUAGE
from job.watch.measured import Measured
from job.watch.nights import WatchedNight


def compare_languages(
    nights: Sequence[WatchedNight], anchors: Sequence[WatchedNight]
) -> tuple[Sequence[WatchedNight], Sequence[WatchedNight]]:
    """Return nights and anchors with their share of other languages than that of the first night.

    That night itself gets none: it has chosen the language, and so is no night like the others,
    which the test assumes.
    """
    for number, night in enumerate(nights):
        if night.languages:
            # Of two that are equally common, one by name: the same each time.
            main = min(night.languages, key=lambda name: (-night.languages[name], name))
            later = [_with_figure(each, main) for each in nights[number + 1 :]]
            compared_anchors = [_with_figure(each, main) for each in anchors]
            return [*nights[: number + 1], *later], compared_anchors
    return nights, anchors


def _with_figure(night: WatchedNight, main: str) -> WatchedNight:
    records = sum(night.languages.values())
    if not records:
        return night
    share = 1 - night.languages.get(main, 0) / records
    measured = Measured(records, share, math.sqrt(share * (1 - share)))
    return replace(night, figures={**night.figures, OTHER_LANGUAGE: measured})
