"""The summarizer of a night: an engine with the encoder and the cleaning that belong to it.

This is the only module of the package that knows which engine generates and how it was loaded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from job.config.commands import SummarizeConfig
from job.config.data_sections import CleaningStep
from job.config.sections import PromptSection
from job.conversations.record import Conversation
from job.errors import DamagedError, naming_key
from job.inference.choose import for_this_machine, open_engine
from job.inference.engine import Engine
from job.inference.open import (
    FetchedModel,
    cleaning_of,
    fetch_with_adapter,
    fetch_without_adapter,
    fitting_into_memory,
    model_on_disk,
)
from job.inference.reward import FetchedRewardModel, RewardModel, fetch_reward_model
from job.inference.serving import (
    AdapterServing,
    Serving,
    ServingWish,
    departure_of_candidates,
    differences,
)
from job.inference.summaries import check_budget, input_budget
from job.inference.taken import Filled
from job.inference.vllm_start import is_installed
from job.model.fetch import (
    check_adapter_digest,
    check_same_base,
    fetch_adapter,
    fetch_base,
    read_adapter,
)
from job.prompt.encode import Encoder
from job.prompt.seen_tokens import SeenTokens, read_seen_tokens
from job.prompt.template import prompt_digest
from job.summarization.reward import SECTION as REWARD
from job.summarization.reward import is_loaded_alike, resolve_reward
from job.telemetry import event, warn


@dataclass(frozen=True)
class Digests:
    """Digests of the weights: of the adapter (None for the base alone) and of its base."""

    adapter: str | None
    base: str


@dataclass(frozen=True)
class Scorer:
    """A reward model: its digest, and a function that returns the rewards of summaries.

    It takes the conversation of each summary, as the summarizer read it. None is the reward of what
    cannot be scored.
    """

    digest: str
    score: Callable[[Sequence[Conversation], Sequence[str]], Sequence[float | None]]


@dataclass(frozen=True)
class Summarizer:
    """Everything that is needed to turn a conversation into a summary, loaded.

    `departures` are sentences about what differs on this machine from the settings that the adapter
    carries. `seen` are the tokens of the conversations that it was trained on, if it records them.
    `challenger` is that of the night's challenger, on the same base. Both have the same `scorer`,
    in a night with candidates.
    """

    engine: Engine
    encoder: Encoder
    cleaning: tuple[CleaningStep, ...]
    digests: Digests
    engine_name: str  # with its version, as in `vllm 0.32.0`
    departures: tuple[str, ...] = ()
    seen: SeenTokens | None = None
    challenger: "Summarizer | None" = None
    scorer: Scorer | None = None


class SummarizerLoader:
    """Loads the summarizer when it is first needed.

    A night whose records are all skipped loads no model.
    """

    def __init__(self, open_summarizer: Callable[[], Summarizer]) -> None:
        self._open_summarizer = open_summarizer
        self._summarizer: Summarizer | None = None

    def load(self) -> Summarizer:
        """Return the summarizer. Load it on the first call."""
        if self._summarizer is None:
            self._summarizer = self._open_summarizer()
        return self._summarizer

    @property
    def is_loaded(self) -> bool:
        """True once the summarizer is loaded."""
        return self._summarizer is not None

    @property
    def engine_name(self) -> str:
        """The engine's name with its version, or `none` if nothing was loaded yet."""
        return "none" if self._summarizer is None else self._summarizer.engine_name

    @property
    def departures(self) -> tuple[str, ...]:
        """The differences from how the adapter was judged; none until the model is loaded."""
        if self._summarizer is None:
            return ()
        found = list(self._summarizer.departures)
        if self._summarizer.challenger is not None:
            found += [f"challenger: {each}" for each in self._summarizer.challenger.departures]
        return tuple(found)

    @property
    def cleaning(self) -> tuple[CleaningStep, ...] | None:
        """The cleaning of conversations; None until the model is loaded."""
        return None if self._summarizer is None else self._summarizer.cleaning


def fetch_digests(config: SummarizeConfig, cache: Path) -> Digests:
    """Return the digests of an adapter and its base, or of the base alone. Loads no model.

    An adapter's manifest records both. Downloads a base that has no adapter if it is not local.
    Raise DataError if the adapter is not the one of `adapter_digest`.
    """
    if config.adapter is not None:
        adapter = read_adapter(config.adapter, config.storage)
        check_adapter_digest(adapter, config.adapter_digest)
        return Digests(adapter.digest, str(adapter.base.get("digest")))
    model = config.model
    assert model.base is not None
    base = fetch_base(model.base, model.revision, config.storage, cache, model.trust_remote_code)
    return Digests(None, base.digest)


def open_summarizer(filled: Filled[SummarizeConfig], cache: Path) -> Summarizer:
    """Load the model and everything around it, served as its adapter was judged.

    What the config sets otherwise, or this machine lacks, is a departure, and logged. Raise
    ConfigError if the model's context has no room for a conversation beside the answer.
    """
    config = filled.config
    model = _fetch(config, cache)
    second = _fetch_challenger(config, model, cache)
    wish = for_this_machine(filled.wish())
    reward = _fetch_reward_model(config, cache)
    is_shared = reward is not None and _shares_base(wish, model, reward)
    judge = None
    if reward is not None and not is_shared:
        # Before the engine: vLLM takes what memory is left.
        with naming_key(REWARD):
            judge = reward.load()
        wish = replace(wish, bytes_beside=judge.bytes_on_gpu())
    opened = open_engine(model, wish, cache, second)
    if reward is not None and is_shared:
        event("the reward model shares the base of the summarizer")
        with naming_key(REWARD), fitting_into_memory(model.base.uri, reward.section):
            judge = reward.put_on(opened.model)
    scorer = _scorer(judge, config)
    check_budget(config.generation, opened.engine.context_tokens)
    challenger = None
    if second is not None:
        assert opened.second is not None, "it was opened with both"
        reading = filled.reading().of(second.prompt.cleaning)
        serving = replace(opened.serving, prompt=prompt_digest(second.prompt), reading=reading)
        challenger = _summarizer(second, opened.second, serving, filled, filled.challenger_judged)
    ours = _summarizer(model, opened.engine, opened.serving, filled, filled.judged)
    if challenger is not None:
        challenger = replace(challenger, scorer=scorer)
    return replace(ours, challenger=challenger, scorer=scorer)


def _summarizer(
    model: FetchedModel,
    engine: Engine,
    serving: Serving,
    filled: Filled[SummarizeConfig],
    judged: AdapterServing | None,
) -> Summarizer:
    """Return the summarizer of one adapter; log how it departs from how that was judged."""
    departures: list[str] = []
    if judged is not None:
        departures = differences(judged, serving)
        departures += departure_of_candidates(filled.config.generation, judged.is_judged)
    if departures:
        adapter = model.adapter_digest
        what = "these summaries are not made as the adapter's settings say"
        warn(what, adapter=adapter, departures=departures)
    max_tokens = input_budget(engine.context_tokens, filled.config.generation)
    return Summarizer(
        engine=engine,
        encoder=Encoder(model.prompt, model.tokenizer, max_tokens),
        cleaning=cleaning_of(model.prompt, filled.config.data),
        digests=Digests(model.adapter_digest, model.base.digest),
        engine_name=serving.engine_name,
        departures=tuple(departures),
        seen=_seen_tokens(model),
    )


def _seen_tokens(model: FetchedModel) -> SeenTokens | None:
    """Return the adapter's record of tokens, None without one. No night fails by it."""
    if model.adapter is None:
        return None
    try:
        return read_seen_tokens(model.adapter)
    except DamagedError as error:
        warn("the share of unseen tokens is left out", why=str(error))
        return None


def _fetch_challenger(
    config: SummarizeConfig, model: FetchedModel, cache: Path
) -> FetchedModel | None:
    """Fetch the challenger, if there is one, for the base of the night."""
    if config.challenger is None:
        return None
    adapter = read_adapter(config.challenger.adapter, config.storage)
    check_same_base(adapter, config.model, model.base)
    folder = fetch_adapter(adapter, cache)
    return model_on_disk(model.base, folder, adapter.digest, config.model)


def _fetch_reward_model(config: SummarizeConfig, cache: Path) -> FetchedRewardModel | None:
    """Bring the reward model of a night with candidates to disk, with its base."""
    section = config.generation.reward_model
    adapter = resolve_reward(config)
    if adapter is None or section is None:
        return None
    event("loading the reward model", adapter=adapter.uri, digest=adapter.digest)
    with naming_key(REWARD):
        return fetch_reward_model(adapter, section, config.storage, cache)


def _shares_base(wish: ServingWish, model: FetchedModel, reward: FetchedRewardModel) -> bool:
    """Return True if the reward model can score on the base that transformers summarizes with.

    vLLM has its own weights, and merged ones are another base.
    """
    is_in_this_process = wish.engine == "transformers" or not is_installed()
    is_plain = model.adapter is None or wish.adapter_weights == "separate"
    is_same_base = model.base.digest == reward.on_disk.base.digest
    is_alike = is_loaded_alike(wish.section, reward.section)
    return is_in_this_process and is_plain and is_same_base and is_alike


def _scorer(judge: RewardModel | None, config: SummarizeConfig) -> Scorer | None:
    if judge is None:
        return None
    if config.generation.deterministic:
        judge.max_rows = 1
    assert judge.digest is not None, "it was published"
    return Scorer(judge.digest, judge.score_texts)


def _fetch(config: SummarizeConfig, cache: Path) -> FetchedModel:
    if config.adapter is not None:
        return fetch_with_adapter(config.adapter, config.model, config.storage, cache)
    prompt = config.prompt or PromptSection()
    return fetch_without_adapter(config.model, prompt, config.storage, cache)
