"""Fill a config with the serving settings that its adapter was judged with, where it is silent.

A value that the config sets stays. What is filled in is the same on every machine, so that it can
be part of a night's identity; what one machine lacks is left to `open_engine` there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from job.config.commands import EvaluateConfig, SummarizeConfig
from job.config.data_sections import CleaningStep
from job.config.serving_section import READING_KEYS, SERVING_KEYS, SERVING_KEYS_BY_SECTION
from job.conversations.cleaning import resolve_steps
from job.inference.serving import (
    AS_TRAINED,
    AdapterServing,
    Reading,
    Serving,
    ServingWish,
    departure,
    departure_of_candidates,
    read_serving,
)
from job.inference.vllm_start import is_installed
from job.model.champion import Pointer
from job.model.fetch import Adapter, read_adapter

Config = TypeVar("Config", SummarizeConfig, EvaluateConfig)

ALL_KEYS = (*SERVING_KEYS, *READING_KEYS)  # of a config's top level
OF_READING = (*READING_KEYS, "cleaning")
SERVING = "serving"  # the key of the settings in the evaluation of a champion
OF_AUTO = ("sdpa", "eager")  # what `model.attention: auto` may become
# What `model.quantization` can name. A base's own quantization needs no key.
QUANTIZATIONS = {"none": None, "nf4": "nf4", "nf4-double": "nf4-double"}


@dataclass(frozen=True)
class Filled(Generic[Config]):
    """A config with the values of its adapter's serving.json, and the names of these values.

    `judged` is the content of that file, None if there is none. `conversations` is the number of
    those that are to be summarized, None for scores: they are taken with the engine of long nights.
    `challenger_judged` is what `judged` is, of the challenger.
    """

    config: Config
    taken: frozenset[str] = frozenset()
    judged: AdapterServing | None = None
    conversations: int | None = None
    challenger_judged: AdapterServing | None = None

    def wish(self) -> ServingWish:
        """Return how the model is to be served."""
        config = self.config
        return ServingWish(
            config.model,
            config.generation,
            config.engine,
            config.adapter_weights,
            config.tensor_parallel,
            self.reading(),
            self.taken,
            self.conversations,
        )

    def reading(self) -> Reading:
        """Return what the config does to conversations before they are prompts."""
        config = self.config
        cleaning = None if config.data.cleaning == "auto" else resolve_steps(config.data)
        long = config.long_conversations
        if long == "reject":
            # It changes no summary that is written, so it is no other way of reading.
            judged = AS_TRAINED if self.judged is None else self.judged.serving.reading
            long = judged.long_conversations
        return Reading(cleaning, long, config.redaction)


def fill(config: Config, evaluated: Mapping[str, Any] | None = None) -> Filled[Config]:
    """Read the serving settings of the config's adapter, and take what the config does not set.

    `evaluated` are those with which a champion was let in; a pointer as the adapter has them too.
    Without an adapter, or if it carries none, the config stays. Raise what `read_adapter` and
    `read_serving` raise.
    """
    if config.adapter is None:
        return Filled(config)
    judged = judged_serving(read_adapter(config.adapter, config.storage), evaluated)
    return Filled(config) if judged is None else take(config, judged)


def serving_of(pointer: Pointer | None) -> Mapping[str, Any] | None:
    """Return the settings with which a champion was let in, None if its pointer has none."""
    return None if pointer is None else pointer.champion.evaluation.get(SERVING)


def judged_serving(
    adapter: Adapter, evaluated: Mapping[str, Any] | None = None
) -> AdapterServing | None:
    """Return the settings that an adapter was judged with, None if nobody knows them.

    `evaluated` are those with which a champion was let in, if its pointer was read before. Raise
    DamagedError if they are no such settings.
    """
    if adapter.pointer is not None:
        evaluated = serving_of(adapter.pointer)
    if evaluated is not None:
        # What let the champion in is a later word than that of its training: it may have been
        # evaluated on the machine that serves.
        return AdapterServing(Serving.from_json(evaluated, adapter.uri), True)
    return read_serving(adapter)


def take(config: Config, judged: AdapterServing) -> Filled[Config]:
    """Return the config with each value of `judged` that it does not set itself."""
    there = _values(judged.serving)
    taken = {name: there[name] for name in there if name in _unset(config)}
    _drop_contradictions(_present(config), taken)

    update: dict[str, Any] = {name: taken[name] for name in ALL_KEYS if name in taken}
    for section, names in SERVING_KEYS_BY_SECTION.items():
        values = {name: taken[name] for name in names if name in taken}
        update[section] = getattr(config, section).model_copy(update=values)
    return Filled(config.model_copy(update=update), frozenset(taken), judged)


def wish_as_judged(wish: ServingWish, serving: Serving) -> ServingWish:
    """Return the wish with every value of `serving`, as far as this machine has it."""
    values = _values(serving)
    section = SERVING_KEYS_BY_SECTION["model"]
    generation = SERVING_KEYS_BY_SECTION["generation"]

    def chosen(names: Sequence[str]) -> dict[str, Any]:
        return {name: values[name] for name in names if name in values}

    return replace(
        wish,
        section=wish.section.model_copy(update=chosen(section)),
        generation=wish.generation.model_copy(update=chosen(generation)),
        reading=serving.reading,
        taken=frozenset(values),
        **chosen(SERVING_KEYS),
    )


def departures_of_config(filled: Filled[Any], trained: tuple[CleaningStep, ...]) -> list[str]:
    """Return a sentence for each value that the config sets otherwise than the adapter carries it.

    `trained` is the cleaning of the adapter's training. `auto` is no departure where what becomes
    of it is known only when the model is opened.
    """
    if filled.judged is None:
        return []
    judged = filled.judged.serving
    is_judged = filled.judged.is_judged
    here = _present(filled.config)
    sentences = []
    for name, there in _values(judged).items():
        if name in filled.taken or name in OF_READING:
            continue
        if here[name] not in (there, "auto"):
            sentences.append(departure(name, here[name], there, is_judged))

    sentences += departure_of_candidates(filled.config.generation, is_judged)
    attention = filled.config.model.attention
    usual = (judged.attention, "auto") if judged.attention in OF_AUTO else (judged.attention,)
    engine = filled.config.engine
    is_plain = engine == "transformers" or (engine == "auto" and not is_installed())
    if judged.engine == "transformers" and is_plain and attention not in usual:
        sentences.append(departure("attention", attention, judged.attention, is_judged))

    there = judged.reading.shown()
    for name, value in filled.reading().of(trained).shown().items():
        if value != there[name]:
            sentences.append(departure(name, value, there[name], is_judged))
    return sentences


def _values(serving: Serving) -> dict[str, Any]:
    """Return the settings as values of a config's keys."""
    values: dict[str, Any] = {name: getattr(serving, name) for name in (*SERVING_KEYS, "dtype")}
    values |= {name: getattr(serving.reading, name) for name in READING_KEYS}
    if serving.quantization in QUANTIZATIONS:
        values["quantization"] = QUANTIZATIONS[serving.quantization]
    if serving.reading.cleaning is not None:
        values["cleaning"] = list(serving.reading.cleaning)
    return values | dict(serving.generation)


def _present(config: SummarizeConfig | EvaluateConfig) -> dict[str, Any]:
    """Return the values of all keys of serving."""
    values = {name: getattr(config, name) for name in ALL_KEYS}
    for section, names in SERVING_KEYS_BY_SECTION.items():
        values |= {name: getattr(getattr(config, section), name) for name in names}
    return values


def _unset(config: SummarizeConfig | EvaluateConfig) -> set[str]:
    """Return the names of the keys of serving that the config does not set."""
    unset = set(ALL_KEYS) - config.model_fields_set
    for section, names in SERVING_KEYS_BY_SECTION.items():
        unset |= set(names) - getattr(config, section).model_fields_set
    return unset


def _drop_contradictions(present: Mapping[str, Any], taken: dict[str, Any]) -> None:
    """Remove from `taken` what the values that the config sets exclude."""
    values = {**present, **taken}
    if values["adapter_weights"] == "merged" and values["quantization"] is not None:
        taken.pop("adapter_weights" if "adapter_weights" in taken else "quantization", None)
    if values["engine"] == "transformers" and values["tensor_parallel"] > 1:
        taken.pop("tensor_parallel" if "tensor_parallel" in taken else "engine", None)
