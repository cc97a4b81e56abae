"""Serving settings: everything that decides a summary besides the weights and the conversation.

The record is made by `open_engine`, from what is loaded. It stands beside every score, and travels
with an adapter in serving.json: a night takes from there what its config does not set.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from job.config.candidates_section import NightGenerationSection
from job.config.data_sections import CleaningStep
from job.config.redaction import RedactionSection
from job.config.sections import AdapterModelSection, GenerationSection
from job.config.serving_section import (
    SERVING_KEYS_BY_SECTION,
    AdapterWeights,
    EngineName,
    LongConversations,
)
from job.errors import DamagedError
from job.identity import sha256_of
from job.model.fetch import Adapter

FILE = "serving.json"
MAX_FILE_BYTES = 1 << 16
JUDGED_KEY = "judged"

DECIDING = SERVING_KEYS_BY_SECTION["generation"]

Quantization = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")]
DType = Annotated[str, Field(pattern=r"^(bfloat16|float16|float32)$")]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]{0,39}$")]
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9.+!_-]{0,60}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PATTERN_DIGITS = 8  # of the digest by which a pattern is shown


@dataclass(frozen=True)
class Reading:
    """The changes that a conversation goes through before it is a prompt.

    `cleaning` is None for that of the adapter's training. `long_conversations` does not say
    `reject`: no summary that is written is another one by that.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    cleaning: tuple[CleaningStep, ...] | None = None
    long_conversations: LongConversations = "keep_ends"
    redaction: RedactionSection | None = None

    def of(self, trained: tuple[CleaningStep, ...]) -> "Reading":
        """Return the same, of an adapter that was trained with this cleaning."""
        return replace(self, cleaning=None) if self.cleaning == trained else self

    def steps(self, trained: tuple[CleaningStep, ...]) -> tuple[CleaningStep, ...]:
        """Return the cleaning of an adapter that was trained with this one."""
        return trained if self.cleaning is None else self.cleaning

    def shown(self) -> dict[str, str]:
        """Return the values in words, by name."""
        cleaning = "as in training" if self.cleaning is None else _listed(self.cleaning)
        return {
            "cleaning": cleaning,
            "long_conversations": self.long_conversations,
            "redaction": _listed(_redacted(self.redaction)),
        }

    def unusual(self) -> list[str]:
        """Return in words what a training does not do."""
        usual = AS_TRAINED.shown()
        parts = []
        for name, value in self.shown().items():
            if value != usual[name]:
                parts.append(f"{name.replace('_', ' ')} {value}")
        return parts


AS_TRAINED = Reading()  # what a training does, and what serves unless somebody asks for more


@dataclass(frozen=True)
class Serving:
    """The settings with which summaries were made, each as it was resolved: never "auto"."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    quantization: Quantization  # of the weights in memory: none, nf4, nf4-double, the base's own
    dtype: DType
    attention: Word  # transformers' name of it, or vllm for vLLM's own
    adapter_weights: AdapterWeights
    engine: Literal["transformers", "vllm"]
    engine_version: Version
    tensor_parallel: Annotated[int, Field(ge=1, le=1024)]
    generation: Mapping[str, Any]  # by the keys in DECIDING
    prompt: Digest
    reading: Reading = AS_TRAINED

    @property
    def engine_name(self) -> str:
        """The engine with its version, as in `vllm 0.32.0`."""
        return f"{self.engine} {self.engine_version}".rstrip()

    def text(self) -> str:
        """Return the settings in one line, for people."""
        generation = self.generation
        how = "greedy"
        if generation["temperature"]:
            how = (
                f"temperature {generation['temperature']:g}, top_p {generation['top_p']:g}, "
                f"seed {generation['seed']}"
            )
        parts = [
            f"quantization {self.quantization}",
            self.dtype,
            f"attention {self.attention}",
            f"adapter {self.adapter_weights}",
            self.engine_name,
        ]
        if self.tensor_parallel > 1:
            parts.append(f"{self.tensor_parallel} GPUs")
        parts.append(f"{how}, at most {generation['max_new_tokens']} tokens")
        if generation["max_input_tokens"] is not None:
            parts.append(f"prompts of at most {generation['max_input_tokens']} tokens")
        return "; ".join([*parts, *self.reading.unusual()])

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON types, without a reading that is the usual one.

        Earlier versions, which know no other, read them too.
        """
        plain: dict[str, Any] = TypeAdapter(Serving).dump_python(self, mode="json")
        if self.reading == AS_TRAINED:
            del plain["reading"]
        return plain

    @staticmethod
    def from_json(plain: Any, where: str = FILE) -> "Serving":
        """Return the settings that `to_json` wrote; raise DamagedError for anything else.

        `where` names the source in the error.
        """
        try:
            # As JSON, since strict types would want a Serving of Python.
            serving = TypeAdapter(Serving).validate_json(json.dumps(plain))
            generation = serving.generation
            if set(generation) != set(DECIDING):
                raise DamagedError(
                    f"{where}: generation has {', '.join(map(str, generation)) or 'no keys'}, "
                    f"wanted {', '.join(DECIDING)}: {REMEDY}"
                )
            # The bounds of the config hold here, too.
            GenerationSection.model_validate(generation, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "JSON"
            raise DamagedError(
                f"{where}: these are no serving settings ({key}: {first['msg']}): {REMEDY}"
            ) from error
        return serving


REMEDY = "train the adapter again, or remove the file and publish the folder again"


@dataclass(frozen=True)
class ServingWish:
    """The serving that a config wants; what is "auto" in it is resolved when a model is opened.

    `tensor_parallel` is the number of GPUs that share the weights. The values named in `taken` come
    from an adapter's serving.json, not from a person: a machine that lacks them departs from them,
    and does not refuse. `conversations` is the number of those that the engine is for, None where
    it is to be as for many. `bytes_beside` of GPU memory are for another model, loaded before.
    """

    section: AdapterModelSection
    generation: GenerationSection
    engine: EngineName = "auto"
    adapter_weights: AdapterWeights = "separate"
    tensor_parallel: int = 1
    reading: Reading = AS_TRAINED
    taken: frozenset[str] = frozenset()
    conversations: int | None = None
    bytes_beside: int = 0


@dataclass(frozen=True)
class AdapterServing:
    """The content of serving.json. `is_judged` is True if the adapter's scores are of these."""

    serving: Serving
    is_judged: bool


def deciding_generation(section: GenerationSection) -> dict[str, Any]:
    """Return the values of `generation` that decide a summary."""
    return {key: getattr(section, key) for key in DECIDING}


def differences(carried: AdapterServing, serving: Serving) -> list[str]:
    """Return a sentence for each setting that departs from those that an adapter carries."""
    judged = carried.serving
    there = _flat(judged)
    here = _flat(serving)
    # One sentence is enough for another engine: each has a version and an attention of its own.
    if judged.engine != serving.engine:
        for name in ("attention", "engine_version"):
            del here[name]
    elif not judged.engine_version:
        del here["engine_version"]  # it was not installed where the adapter was trained
    if not judged.generation["temperature"] and not serving.generation["temperature"]:
        # Of sampling, of which there is none.
        del here["top_p"], here["seed"]
    different = [name for name in here if here[name] != there[name]]
    return [departure(name, here[name], there[name], carried.is_judged) for name in different]


def departure(name: str, here: Any, there: Any, is_judged: bool) -> str:
    """Return the sentence for a setting with another value `there`, where the adapter was made."""
    when = "when it was judged" if is_judged else "when it was published, and never judged"
    return f"{name.replace('_', ' ')} {_shown(here)} here, {_shown(there)} {when}"


def departure_of_candidates(section: GenerationSection, is_judged: bool) -> list[str]:
    """Return the sentence for a night that draws several candidates; none for any other command."""
    if not isinstance(section, NightGenerationSection) or section.candidates == 1:
        return []
    return [departure("candidates", section.candidates, 1, is_judged)]


def write_serving(folder: Path, serving: Serving, is_judged: bool) -> None:
    """Write serving.json in an adapter's folder."""
    content = {JUDGED_KEY: is_judged, **serving.to_json()}
    (folder / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_serving(adapter: Adapter) -> AdapterServing | None:
    """Return the serving settings of a published adapter; None if it carries none.

    Raise DamagedError if the file is not the one of the manifest, or has no such settings. Its
    values can only be what a config may set: they name no path, and allow no code to run.
    """
    entry = adapter.manifest.files.get(FILE)
    if entry is None:
        return None
    where = f"{adapter.uri}/{FILE}"
    if entry.size > MAX_FILE_BYTES:
        raise DamagedError(f"{where} has {entry.size:,} bytes, which are no serving settings")
    content = adapter.store.read(FILE)
    if sha256(content).hexdigest() != entry.sha256:
        raise DamagedError(f"{where} is not the file that the manifest names: publish it again")
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{where} is no JSON ({error}): {REMEDY}") from error
    if not isinstance(plain, dict) or not isinstance(plain.get(JUDGED_KEY), bool):
        raise DamagedError(f"{where} does not say if it was {JUDGED_KEY}: {REMEDY}")
    is_judged = plain.pop(JUDGED_KEY)
    return AdapterServing(Serving.from_json(plain, where), is_judged)


def _flat(serving: Serving) -> dict[str, Any]:
    """Return all settings by name, those of generation and of reading among them."""
    plain = asdict(serving)
    generation: dict[str, Any] = plain.pop("generation")
    del plain["reading"]
    return plain | generation | serving.reading.shown()


def _redacted(section: RedactionSection | None) -> list[str]:
    """Return what is replaced, by kind and by the name and digest of a pattern."""
    if section is None:
        return []
    kinds = [f"phone ({section.phone_region})" if k == "phone" else k for k in section.kinds]
    patterns = section.patterns.items()
    return [*kinds, *(f"{name} ({sha256_of(text)[:PATTERN_DIGITS]})" for name, text in patterns)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)
