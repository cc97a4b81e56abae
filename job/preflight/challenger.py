"""Check the challenger of a night: that it fits beside the adapter, and what it takes."""

from pathlib import Path

from job.config.commands import SummarizeConfig
from job.config.data_sections import CleaningStep
from job.inference.taken import Filled, departures_of_config, fill, judged_serving
from job.model.adapter_files import ADAPTER_WEIGHTS, check_adapter_config
from job.model.fetch import Adapter, check_small_files, name_base_of, read_adapter
from job.model.files import ADAPTER_CONFIG
from job.preflight.access import small_files
from job.preflight.checks import Check, Found, check_value
from job.printable import number_of
from job.prompt.template import FILE as PROMPT_FILE
from job.prompt.template import REMEDY as PROMPT_REMEDY
from job.prompt.template import parse_prompt
from job.storage.scratch import cache_folder
from job.summarization.challenger import Challenger, resolve_challenger, with_challenger
from job.summarization.champion import PinnedChampion, find_followed_challenger
from job.summarization.output import open_output
from job.summarization.summarizer import fetch_digests


def challenger_checks(
    config: SummarizeConfig, followed: SummarizeConfig, records: int | None
) -> list[Check]:
    """Return the check of the challenger, none if the night has none.

    `followed` is the config with the champion that the night follows as its adapter, and `records`
    the number of records, None if it is not known.
    """
    section = config.challenger
    if section is None:
        return []

    def describe() -> Found[None]:
        pointed = find_followed_challenger(config, open_output(config.output, config.storage))
        is_known = config.adapter is not None or Path(str(config.model.base)).is_dir()
        digests = fetch_digests(followed, cache_folder()) if is_known else None
        challenger, adapter = resolve_challenger(section, pointed, digests, config.storage)
        filled = fill(followed)
        with_challenger(filled.config, challenger)
        _check_files(adapter, followed)
        lines = _lines(challenger, adapter, records)
        lines += _departures(filled, adapter, pointed)
        if digests is None:
            lines.append("not compared with the base, which a plan does not download")
        is_well = digests is not None and not any(line.startswith("warning") for line in lines)
        return Found("\n".join(lines), None, is_known=is_well)

    found, _ = check_value("challenger", describe, "challenger.adapter")
    return [found]


def _check_files(adapter: Adapter, followed: SummarizeConfig) -> None:
    """Raise what the night will about the challenger's files and the small files of its base."""
    if ADAPTER_CONFIG in adapter.manifest.files:
        check_adapter_config(adapter.store.read(ADAPTER_CONFIG), adapter.uri)
    ours = adapter
    if followed.adapter is not None:
        ours = read_adapter(followed.adapter, followed.storage)
    name, revision = name_base_of(ours, followed.model)
    with small_files(name, revision, followed.storage) as small:
        check_small_files(adapter, followed.model, small.folder)


def _lines(challenger: Challenger, adapter: Adapter, records: int | None) -> list[str]:
    lines = [f"{adapter.uri}  of run {adapter.manifest.extra.get('run')}"]
    if challenger.is_champion:
        return [*lines, "warning: it is the adapter that serves: this night tries no challenger"]
    choice = challenger.choice
    what = "summarizes, too, beside the adapter" if choice.mode == "shadow" else "summarizes alone"
    share = f"{choice.share:.2%} of the conversations"
    if records is not None:
        share += f", about {number_of(choice.count(records), 'record', 'records')}"
    lines.append(f"{choice.mode}: it {what}: {share} (seed {choice.seed})")
    weights = adapter.manifest.files.get(ADAPTER_WEIGHTS)
    if weights is not None:
        megabytes = weights.size / 1e6
        lines.append(f"about {megabytes:,.3g} MB more of memory in each worker, on the same base")
    return lines


def _departures(
    filled: Filled[SummarizeConfig], adapter: Adapter, pointed: PinnedChampion | None
) -> list[str]:
    """Return what of this night is not as the challenger was judged, a warning each."""
    judged = judged_serving(adapter, None if pointed is None else pointed.serving)
    trained: tuple[CleaningStep, ...] = ()
    if judged is not None and filled.config.data.cleaning != "auto":
        prompt = adapter.store.read(PROMPT_FILE)
        trained = parse_prompt(prompt, adapter.uri, PROMPT_REMEDY).cleaning
    departures = departures_of_config(Filled(filled.config, judged=judged), trained)
    return [f"warning: departs: {each}" for each in departures]
