"""The adapter that a training starts from: resolved once per run, and what the run takes from it.

run.json records which one it is. A run that resumes follows the record, even if the pointer was
switched meanwhile. LoRA settings, prompt and cleaning are those of the adapter: a config that names
others is refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from job.config.commands import TrainConfig
from job.config.sections import Section
from job.config.training_sections import LoraSection
from job.conversations.cleaning import resolve_steps
from job.errors import ConfigError, DamagedError, DataError, naming_key
from job.model.adapter_files import lora_section_of
from job.model.champion import now
from job.model.fetch import Adapter, read_adapter
from job.model.files import ADAPTER_CONFIG
from job.model.reward import read_reward_model
from job.prompt.seen_tokens import FILE as SEEN_FILE
from job.prompt.seen_tokens import SeenTokens, parse_seen_tokens
from job.prompt.template import FILE as PROMPT_FILE
from job.prompt.template import REMEDY, Prompt, instruction_of, parse_prompt
from job.training.journal import Journal

KEY = "training.start_from"
FACT = "start"  # of run.json's facts
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class StartPin:
    """The record of the adapter that a run starts from.

    `named` is what the config names: the adapter or its pointer, whose `version` it was then.
    """

    named: str
    adapter: str
    digest: str
    version: int | None
    resolved_at: str

    def facts(self) -> dict[str, Any]:
        """Return the record as JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """Return which adapter it is, for people, without a full stop."""
        champion = f", version {self.version} of {self.named}" if self.version else ""
        return f"{self.adapter} (digest {self.digest[:12]}{champion})"


@dataclass(frozen=True)
class Start:
    """The adapter that a run starts from: its record, its manifest, and what the run takes."""

    pin: StartPin
    adapter: Adapter
    lora: LoraSection
    prompt: Prompt
    seen: SeenTokens | None = None  # of the conversations that it was trained on, if it says so

    def name(self) -> str:
        """Return the adapter as a public page may name it: by its run and its digest."""
        return f"adapter of run {self.adapter.manifest.extra.get('run')} (digest {self.pin.digest})"


def recorded_pin(config: TrainConfig, found: Journal | None) -> StartPin | None:
    """Return the record of a run that began with what the config names; None without one.

    Raise DamagedError if run.json has something else in its place.
    """
    raw = found.facts.get(FACT) if found else None
    if config.training.start_from is None or raw is None:
        return None
    try:
        pin = StartPin(**raw)
    except TypeError as error:
        raise DamagedError(
            f"run.json records no adapter to start from ({error}): give the run another name (run)"
        ) from error
    return pin if pin.named == config.training.start_from else None


def pin_start(config: TrainConfig, found: Journal | None) -> StartPin | None:
    """Return the record of the run's journal `found`, or else a new one of what is there now.

    Return None if the config names no adapter. Raise what `read_adapter` raises.
    """
    named = config.training.start_from
    pin = recorded_pin(config, found)
    if named is None or pin is not None:
        return pin
    adapter = _read(config, named)
    version = adapter.pointer.champion.version if adapter.pointer else None
    return StartPin(named, adapter.uri, adapter.digest, version, now())


def open_start(config: TrainConfig, pin: StartPin) -> Start:
    """Read the adapter of a record: its manifest, its LoRA settings and its prompt.

    Raise DataError if it was replaced since, DamagedError if it is no adapter that recap trained.
    """
    adapter = _read(config, pin.adapter)
    with naming_key(KEY):
        if adapter.digest != pin.digest:
            raise DataError(
                f"{pin.adapter} has digest {adapter.digest[:12]}, and this run began with digest "
                f"{pin.digest[:12]}: it was replaced; put it back, or give the run another name "
                "(run)"
            )
        for name in (ADAPTER_CONFIG, PROMPT_FILE):
            if name not in adapter.manifest.files:
                raise DamagedError(
                    f"{pin.adapter} has no {name}: it is no adapter that recap trained. Of a run, "
                    "name the folder adapter, which is beside the merged weights"
                )
        content = adapter.store.read(ADAPTER_CONFIG)
        lora = lora_section_of(content, pin.adapter, not config.writes_summaries)
        prompt = parse_prompt(adapter.store.read(PROMPT_FILE), pin.adapter, REMEDY)
        seen = None
        if SEEN_FILE in adapter.manifest.files:
            seen = parse_seen_tokens(adapter.store.read(SEEN_FILE), pin.adapter)
    return Start(pin, adapter, lora, prompt, seen)


def _read(config: TrainConfig, uri: str) -> Adapter:
    """Read the manifest of an adapter, of a reward model for method: reward, which has a head."""
    if not config.writes_summaries:
        return read_reward_model(uri, config.storage, KEY)
    with naming_key(KEY):
        return read_adapter(uri, config.storage)


def take_from_start(config: TrainConfig, start: Start | None) -> TrainConfig:
    """Return the config with the LoRA settings, prompt and cleaning of the adapter.

    `lora.target_modules: all-linear` stays, as it takes the base to know what that means: see
    `check_all_linear`. Raise ConfigError if the config names other values.
    """
    if start is None:
        return config
    wrong = [
        *_wrong_lora(config.lora, start.lora),
        *_wrong_prompt(config, start.prompt),
        *_wrong_cleaning(config, start.prompt),
    ]
    if wrong:
        raise ConfigError(
            f"{KEY}: the config names other values than {start.pin.adapter} has: "
            f"{'; '.join(wrong)}; leave these keys out, or start from another adapter"
        )
    prompt: dict[str, Any] = {"style": _style(start.prompt), "labels": start.prompt.labels}
    instruction = instruction_of(start.prompt)
    if instruction is not None:
        prompt["system"] = instruction
    lora = dict(start.lora)
    if _names_all_linear(config.lora):
        lora["target_modules"] = ALL_LINEAR
    update = {
        "lora": _with_values(config.lora, lora),
        "prompt": _with_values(config.prompt, prompt),
        "data": _with_values(config.data, {"cleaning": list(start.prompt.cleaning)}),
    }
    return config.model_copy(update=update)


def check_all_linear(config: TrainConfig, start: Start | None, folder: Path) -> None:
    """Raise ConfigError if the config names all-linear, and the adapter is not on those modules.

    `folder` has the small files of the base.
    """
    if start is None or not _names_all_linear(config.lora):
        return
    from job.model.adapter import adapted_modules
    from job.model.skeleton import make_skeleton

    # Only names are asked for: some kinds of attention need a GPU.
    section = config.model.model_copy(update={"attention": "auto"})
    model = make_skeleton(folder, section)
    wanted = adapted_modules(config.lora, model)
    there = adapted_modules(start.lora, model)
    if there != wanted:
        raise ConfigError(
            f"{KEY}: the config names lora.target_modules all-linear, which are {len(wanted)} "
            f"modules of the base, and {start.pin.adapter} is on {len(there)}: leave "
            "lora.target_modules out, or start from another adapter"
        )


def _names_all_linear(section: LoraSection) -> bool:
    is_named = "target_modules" in section.model_fields_set
    return is_named and section.target_modules == ALL_LINEAR


def _with_values(section: Section, values: Mapping[str, Any]) -> Section:
    """Return a section with other values, which do not count as set by the config."""
    named = set(section.model_fields_set)
    return type(section).model_construct(named, **dict(section) | dict(values))


def _wrong_lora(named: LoraSection, there: LoraSection) -> Iterator[str]:
    for key in sorted(named.model_fields_set):
        wanted, value = getattr(named, key), getattr(there, key)
        if key == "target_modules" and wanted == ALL_LINEAR:
            continue
        if key == "target_modules" and not isinstance(wanted, str):
            wanted = sorted(wanted)
        if wanted != value:
            yield f"lora.{key} {_shown(wanted)}, which is {_shown(value)} there"


def _wrong_prompt(config: TrainConfig, prompt: Prompt) -> Iterator[str]:
    named = config.prompt
    is_set = named.model_fields_set
    if "style" in is_set and named.style != _style(prompt):
        yield f"prompt.style {named.style}, which is {_style(prompt)} there"
    if "labels" in is_set and named.labels != prompt.labels:
        yield f"prompt.labels {_shown(named.labels)}, which is {_shown(prompt.labels)} there"
    instruction = instruction_of(prompt)
    if instruction is not None:
        is_there = named.system == instruction
    else:  # the base's template has put it somewhere
        is_there = named.system.strip() in f"{prompt.before}{prompt.after}"
    if "system" in is_set and not is_there:
        yield "prompt.system, which is another text there"
    elif config.publish.merged and instruction is None and not is_there:
        # They carry no prompt: their card has the section that a night needs.
        yield "prompt.system, which publish.merged needs: give the text that the adapter has"


def _wrong_cleaning(config: TrainConfig, prompt: Prompt) -> Iterator[str]:
    if config.data.cleaning != "auto":
        steps = resolve_steps(config.data)
        if steps != prompt.cleaning:
            yield f"data.cleaning {_shown(steps)}, which is {_shown(prompt.cleaning)} there"


def _style(prompt: Prompt) -> str:
    return "chat" if prompt.control_tokens else "instruction"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value)
