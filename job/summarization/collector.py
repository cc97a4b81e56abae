"""Python's garbage collector while records go through: seldom, and only over what they bring. Knows nothing of them."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = 50_000, 20, 50  # objects made since, and collections of the generation below


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Collect garbage seldom while the block lasts, and never among what is there when it begins.

    Records live until their window's outcomes are written, and hold no cycles: at Python's own thresholds, much of the
    work is to look through them, and through the libraries, again and again. What was frozen before stays so.
    """
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if not frozen:
            gc.unfreeze()
