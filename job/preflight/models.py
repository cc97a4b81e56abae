"""Check the base of a training, or the adapter with its base of a command that generates.

The model is made without weights from the base's small files, and the questions are asked of that:
a plan fetches no weights. It runs no code that a base brings along.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from job.config.commands import EvaluateConfig, SummarizeConfig, TrainConfig
from job.config.data_sections import CleaningStep
from job.config.sections import (
    AdapterModelSection,
    ModelSection,
    PromptSection,
    StorageSection,
)
from job.inference.open import CLEANING
from job.inference.taken import Filled, fill
from job.model import Model
from job.model.adapter_files import check_adapter_config
from job.model.champion import Pointer
from job.model.control_tokens import recorded_end_ids
from job.model.fetch import (
    check_adapter_digest,
    check_small_files,
    fetch_base_of,
    name_base_of,
    open_base,
    read_adapter,
)
from job.model.files import ADAPTER_CONFIG, hub_id_of
from job.model.quantization import FourBitShare
from job.preflight.access import SmallFiles, describe_base, small_files
from job.preflight.beside import bytes_beside, bytes_to_score
from job.preflight.checks import Check, Found, check, check_value
from job.preflight.devices import NONE_NAMED, Devices, generation_check
from job.preflight.duration import Base
from job.preflight.prompts import Prompting, prompts_checks
from job.preflight.serving import (
    describe_engine,
    describe_serving_of_adapter,
    describe_serving_of_training,
)
from job.printable import visible
from job.prompt.template import FILE as PROMPT_FILE
from job.prompt.template import REMEDY as PROMPT_REMEDY
from job.prompt.template import Prompt, make_prompt, parse_prompt
from job.prompt.vocabulary import check_prompt, check_vocabulary
from job.telemetry import event

LOADING = "loading torch, to ask the base as a model without its weights: some seconds"
NOT_ASKED = "not asked: the base brings its own code, which is not run for a plan"
MAX_CHARACTERS_OF_A_PROMPT = 300

GPU_GB = 80
# Of such a GPU: the rest is for activations, which are recomputed, and for what kernels need.
MAX_WEIGHTS_GB = 60
BYTES_IN_4_BITS = (
    0.5625  # with a scale of 4 bytes for each 64 weights; double quantization has less
)


Look = Callable[[Prompting], Found[None]]
AnyModelSection = TypeVar("AnyModelSection", ModelSection, AdapterModelSection)


@dataclass(frozen=True)
class Rendered:
    """The prompt of a training, the number of tokens with an embedding, and what its base costs."""

    prompt: Prompt
    embeddings: int
    base: Base


def announce(uri: str, trust_remote_code: bool) -> None:
    """Log that the base at `uri` will be asked. Called before anything loads torch for that."""
    if not trust_remote_code:
        event(LOADING, base=uri)


def training_checks(
    config: TrainConfig,
    small: SmallFiles,
    cleaning: Iterable[CleaningStep],
    begun: Prompt | None,
) -> tuple[list[Check], Rendered | None]:
    """Return the checks of model, adapter and prompt of a training, by the base's small files.

    `begun` is the prompt of a run that has begun. Return the prompt too, None if it is not known.
    """
    if config.model.trust_remote_code:
        return [Check("model", NOT_ASKED, is_known=False)], None

    def examine() -> Found[Any]:
        from job.training.examine import examine_base

        section, doubts = _as_asked_here(small.folder, config.model)
        examined = examine_base(small.folder, config.model_copy(update={"model": section}))
        lines = [examined.base.text(), examined.adapter_text(), *doubts]
        if config.training.distribution == "fsdp":
            lines += advice_against_sharding(examined.base.four_bit)
        facts = {"trained_parameters": examined.trained_parameters}
        return Found("\n".join(lines), examined, is_known=not doubts, facts=facts)

    model, examined = check_value("model", examine, "model.base")
    if examined is None:
        return [model], None
    facts = examined.base
    embeddings = facts.embeddings
    parameters = facts.four_bit.total
    serving, _ = check_value(
        "serving", lambda: describe_serving_of_training(config, parameters, small.folder), "serve"
    )
    has_start = config.training.start_from is not None
    asked, prompt = check_value(
        "prompt",
        lambda: _describe_trained_prompt(
            config.prompt, small, embeddings, cleaning, begun, has_start
        ),
        "model.base",
    )
    # The training asks its tokenizer first, and its weights once it loads them.
    weights = weights_check(small, config.model, config.storage)
    trained = examined.trained_parameters
    base = Base(facts.products, parameters, trained, facts.max_shared_tokens)
    rendered = Rendered(prompt, embeddings, base) if prompt and not weights.error else None
    served = [serving] if config.writes_summaries else []
    return [model, *served, asked, weights], rendered


def advice_against_sharding(share: FourBitShare) -> list[str]:
    """Return the advice, if any, to hold a base in one GPU in place of a share in each of several.

    Weights that are not in 4 bits have 16.
    """
    size = (BYTES_IN_4_BITS * share.four_bit + 2 * (share.total - share.four_bit)) / 1e9
    if size > MAX_WEIGHTS_GB:
        return []
    return [
        f"one GPU of {GPU_GB} GB holds these weights (about {size:.2g} GB): there, "
        "training.distribution: ddp trains without waiting for the weights of other GPUs"
    ]


def generating_checks(
    config: SummarizeConfig | EvaluateConfig,
    devices: Devices = NONE_NAMED,
    look: Look | None = None,
) -> list[Check]:
    """Return the checks of adapter or base, and of the model; none for given summaries.

    `devices` are those that the command might run on. `look` says of how many conversations prompts
    can be made, once it is known how; it is not asked where another check has failed.
    """
    if config.adapter is not None:
        return _adapter_checks(config.adapter, config, devices, look)
    uri = config.model.base
    if uri is None:
        return []
    section = config.model
    named = config.prompt if isinstance(config, SummarizeConfig) else None
    prompt = named or PromptSection()
    announce(uri, section.trust_remote_code)
    with small_files(uri, section.revision, config.storage) as small:
        base = check(
            "base",
            lambda: describe_base(
                uri, section.revision, config.storage, prompt, section.trust_remote_code, small
            ),
            "model.base",
        )
        if base.error:
            return [base]
        checks = [
            base,
            *_engine_checks(small, config, config),
            *_model_checks(small, config, prompt, devices),
        ]
        if look and not any(each.error for each in checks):
            checks += prompts_checks(
                small, config, lambda: make_prompt(prompt, small.tokenizer, CLEANING), look
            )
        return checks


def _adapter_checks(
    uri: str, config: SummarizeConfig | EvaluateConfig, devices: Devices, look: Look | None
) -> list[Check]:
    with ExitStack() as stack:

        def describe() -> Found[SmallFiles]:
            adapter = read_adapter(uri, config.storage)
            if isinstance(config, SummarizeConfig):
                check_adapter_digest(adapter, config.adapter_digest)
            if ADAPTER_CONFIG in adapter.manifest.files:
                check_adapter_config(adapter.store.read(ADAPTER_CONFIG), uri)
            name, revision = name_base_of(adapter, config.model)
            trust = config.model.trust_remote_code
            base = describe_base(name, revision, config.storage, None, trust)
            small = stack.enter_context(small_files(name, revision, config.storage))
            if Path(name).is_dir():
                fetch_base_of(adapter, config.model, config.storage, Path(name))
            else:  # reading all weights is cheap only in a folder of this machine
                check_small_files(adapter, config.model, small.folder)
            run = adapter.manifest.extra.get("run")
            pointed = f"{describe_champion(adapter.pointer)}\n" if adapter.pointer else ""
            return Found(f"{pointed}{adapter.uri}  of run {run}\nbase {base}", small)

        adapter, small = check_value("adapter", describe, "adapter")
        if small is None:
            return [adapter]
        serving, filled = _serving_check(config)
        announce(small.uri, config.model.trust_remote_code)
        checks = [adapter, serving, *_engine_checks(small, config, filled)]
        checks += _model_checks(small, filled, None, devices)
        if look and not any(each.error for each in checks):
            checks += prompts_checks(small, filled, lambda: _trained_prompt(config), look)
        return checks


def _serving_check(
    config: SummarizeConfig | EvaluateConfig,
) -> tuple[Check, SummarizeConfig | EvaluateConfig]:
    """Return the check of how the adapter serves, and the config with what is taken from it."""

    def describe() -> Found[SummarizeConfig | EvaluateConfig]:
        filled: Filled[Any] = fill(config)
        described = describe_serving_of_adapter(filled, _trained_cleaning(filled))
        return Found(described.text, filled.config, described.is_known)

    serving, filled_config = check_value("serving", describe, "adapter")
    return serving, filled_config or config


def _trained_cleaning(filled: Filled[Any]) -> tuple[CleaningStep, ...]:
    """Return the cleaning that the adapter was trained with, if the config asks for any."""
    config = filled.config
    if filled.judged is None or config.data.cleaning == "auto":
        return ()
    return _trained_prompt(config).cleaning


def _trained_prompt(config: SummarizeConfig | EvaluateConfig) -> Prompt:
    adapter = read_adapter(str(config.adapter), config.storage)
    return parse_prompt(adapter.store.read(PROMPT_FILE), adapter.uri, PROMPT_REMEDY)


def describe_champion(pointer: Pointer) -> str:
    """Return what the pointer means now, in one line."""
    champion = pointer.champion
    doubts = "".join(f", although {doubt}" for doubt in champion.doubts())
    return (
        f"{pointer.uri}, version {champion.version}: {champion.adapter}, since {champion.at} by "
        f"{champion.by}{doubts}"
    )


def _engine_checks(
    small: SmallFiles,
    config: SummarizeConfig | EvaluateConfig,
    filled: SummarizeConfig | EvaluateConfig,
) -> list[Check]:
    """Return the check of the engine, if the config insists on one or nothing can be generated.

    An engine that is taken from the adapter gives way to another one.
    """
    insists_on_vllm = config.engine == "vllm" or config.tensor_parallel > 1
    engine, _ = check_value(
        "engine", lambda: describe_engine(small.folder, filled, insists_on_vllm), "engine"
    )
    return [engine] if engine.error or insists_on_vllm else []


def _model_checks(
    small: SmallFiles,
    config: SummarizeConfig | EvaluateConfig,
    prompt: PromptSection | None,
    devices: Devices,
) -> list[Check]:
    """Return the checks of a model that generates: its memory, its prompt if it has no adapter."""
    engine = config.engine
    if engine == "vllm":
        return [Check("model", "not asked: vLLM has models of its own", is_known=False)]
    section = config.model.model_copy(update={"base": small.uri})
    if section.trust_remote_code:
        return [Check("model", NOT_ASKED, is_known=False)]
    model, described = check_value("model", lambda: _describe_model(small.folder, section), "model")
    if engine == "auto" and model.error:
        # vLLM may be where the job runs, and know this base.
        why = f"warning: with the transformers engine: {model.error}"
        model = Check("model", why, is_known=False)
    if described is None:
        return [model]
    facts, skeleton = described
    checks = [model, weights_check(small, section, config.storage)]
    look_at_memory = partial(generation_check, skeleton, section, config.generation, devices)
    if isinstance(config, SummarizeConfig):
        checks.append(look_at_memory(partial(bytes_beside, config), bytes_to_score(config)))
    elif devices.are_named:
        checks.append(look_at_memory())
    if prompt is not None:
        embeddings = facts.embeddings
        checks.append(
            check_value(
                "prompt", lambda: _describe_prompt(prompt, small, embeddings), "model.base"
            )[0]
        )
    return checks


def _describe_model(folder: Path, section: AdapterModelSection) -> Found[tuple[Any, Model]]:
    from job.model.describe import facts_of

    section, doubts = _as_asked_here(folder, section)
    facts, model = facts_of(folder, section)
    return Found("\n".join([facts.text(), *doubts]), (facts, model), is_known=not doubts)


def weights_check(
    small: SmallFiles, section: ModelSection | AdapterModelSection, storage: StorageSection
) -> Check:
    """Return the check that the weights are those of the model, by the headers of their files."""

    def compare() -> Found[None]:
        from job.model.fit import check_headers
        from job.model.load import read_quantization

        if hub_id_of(small.uri, None) is not None:
            return Found("not compared: headers on the Hub are not read", None, is_known=False)
        _, files = open_base(small.uri, None, storage)
        quantization = read_quantization(small.folder, small.uri, section)
        unused = check_headers(files, small.folder, section, quantization)
        if unused is None:
            return Found("not compared: the base is quantized already", None, is_known=False)
        text = "names and shapes of all tensors are those of its config.json"
        if unused:
            text += f"\nwarning: the model does not use {len(unused):,} of them ({unused[0]})"
        return Found(text, None)

    return check_value("weights", compare, "model.base")[0]


def _as_asked_here(folder: Path, section: AnyModelSection) -> tuple[AnyModelSection, list[str]]:
    """Return the section without an attention that only a GPU has, and what is not known by that.

    Raise ConfigError if the base has no such attention. A machine with a GPU is asked for it.
    """
    import torch

    from job.model.architecture import model_config

    if not section.attention.startswith("flash_") or torch.cuda.is_available():
        return section, []
    model_config(folder, section.base or str(folder), section)
    doubt = (
        f"not asked: {section.attention}, which needs a GPU and its package where the job runs; "
        "without them, the job ends with 64"
    )
    return section.model_copy(update={"attention": "auto"}), [doubt]


def _describe_trained_prompt(
    section: PromptSection,
    small: SmallFiles,
    embeddings: int,
    cleaning: Iterable[CleaningStep],
    begun: Prompt | None,
    is_of_start: bool,
) -> Found[Prompt]:
    """Return the prompt of a training; its text is the style and what is around a conversation."""
    ends = recorded_end_ids(small.folder)
    prompt = begun or make_prompt(section, small.tokenizer, cleaning, ends)
    check_vocabulary(small.tokenizer, prompt, embeddings)
    since = ""
    if begun:
        since = ", that of training.start_from" if is_of_start else ", as the run began with it"
    return Found(f"style {section.style}{since}: {_shown(prompt)}", prompt)


def _describe_prompt(section: PromptSection, small: SmallFiles, embeddings: int) -> Found[Prompt]:
    """Return the prompt of a base without an adapter, and the same text of it."""
    prompt = make_prompt(section, small.tokenizer)
    check_prompt(small.tokenizer, prompt, embeddings)
    return Found(f"style {section.style}: {_shown(prompt)}", prompt)


def _shown(prompt: Prompt) -> str:
    """Return the text around a conversation in one line, without the middle of a long one."""
    text = visible(f"{prompt.before}⟨conversation⟩{prompt.after}", one_line=True)
    if len(text) <= MAX_CHARACTERS_OF_A_PROMPT:
        return text
    half = MAX_CHARACTERS_OF_A_PROMPT // 2
    return f"{text[:half]} … {text[-half:]}"
