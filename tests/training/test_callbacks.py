"""Claims about what happens at the trainer's steps, where a run cannot be met at the right moment."""

from types import SimpleNamespace

import pytest

from job.errors import PreemptedError
from job.training.callbacks import SampleSummaries, StopAfterEvaluation


class Told:
    """A stop signal that came."""

    requested = True

    def check(self, what: str) -> None:
        raise PreemptedError(what)


@pytest.mark.parametrize("told", [False, True])
def test_a_stop_spares_the_samples_and_waits_for_no_further_step(told):
    written = []
    stop = Told() if told else SimpleNamespace(requested=False)
    conversation = SimpleNamespace(id="c", turns=[], references=["short"])
    samples = SampleSummaries(
        [conversation], lambda some: ["said"] * len(some), lambda *text: written.append(text), lambda: stop.requested
    )
    state = SimpleNamespace(global_step=3, max_steps=9)
    samples.on_evaluate(None, state, None)
    assert bool(written) != told
    if told:
        with pytest.raises(PreemptedError, match="after evaluating"):
            StopAfterEvaluation(stop).on_evaluate(None, state, None)
    else:
        StopAfterEvaluation(stop).on_evaluate(None, state, None)
