"""Engines of transformers for two adapters on one base, of which each call activates its own."""

from collections.abc import Callable, Sequence

from job.config.sections import GenerationSection
from job.inference.engine import Engine, Generated
from job.model import Model
from job.model.attach import active_adapter


class EngineOfAdapter:
    """An `Engine` of one adapter on a model with several; None is that of the base alone."""

    prompts_ahead = 0  # a call ends before another adapter is active

    def __init__(self, engine: Engine, model: Model, name: str | None) -> None:
        self._engine = engine
        self._model = model
        self._name = name
        self.context_tokens: int = engine.context_tokens

    def generate(
        self,
        prompts: Sequence[list[int]],
        settings: GenerationSection,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """Return an answer of this adapter to each prompt, in order."""
        with active_adapter(self._model, self._name):
            return self._engine.generate(prompts, settings, on_done)

    def expect(self, prompts: Sequence[list[int]], settings: GenerationSection) -> None:
        """Do nothing: this engine asks for no prompts ahead."""
