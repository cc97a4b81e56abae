"""Plan the models that metrics read texts with, and the labels of people. Reads no weights."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from job.config.data_sections import ReadingSection
from job.config.gate_sections import MIN_CONVERSATIONS
from job.config.scoring_sections import (
    MetricModelSection,
    ScoringRewardModelSection,
    ScoringSection,
)
from job.config.sections import StorageSection
from job.conversations.record import Conversation
from job.evaluation.metrics.bertscore import check_encoder
from job.evaluation.metrics.faithfulness import check_classifier
from job.evaluation.metrics.labels import read_labels
from job.evaluation.metrics.models import MetricModel, errors_about
from job.evaluation.metrics.named_models import sections_by_metric
from job.evaluation.metrics.reward import KEY as REWARD_KEY
from job.evaluation.reward_pairs import read_reward_pairs
from job.model.adapter_files import check_adapter_config
from job.model.fetch import Base, check_small_files, fetch_base_of, name_base_of
from job.model.files import ADAPTER_CONFIG
from job.model.reward import read_reward_model
from job.preflight.access import describe_base, small_files
from job.preflight.beside import alone_lines
from job.preflight.checks import Check, Found, check, check_value
from job.preflight.devices import NONE_NAMED, Devices
from job.printable import number_of
from job.storage.open import list_inputs

AS_READ = ReadingSection()


def metric_model_checks(
    options: ScoringSection,
    storage: StorageSection,
    conversations: Sequence[Conversation],
    reading: ReadingSection = AS_READ,
    devices: Devices | None = NONE_NAMED,
    train: Iterable[Conversation] = (),
) -> list[Check]:
    """Return a check of each model that a metric needs, and one of the labels, if there are any.

    `train` is what the config of an evaluation names as trained on.
    `devices` are those that the job might run on; with None, no memory is asked, which loads torch.
    """
    checks = []
    for metric, section in sections_by_metric(options).items():
        key = f"evaluation.{metric}_model"

        def describe(key: str = key, section: MetricModelSection = section) -> str:
            return describe_metric_model(key, section, storage)

        checks.append(check(metric, describe, key))
    checks += _reward_checks(options, storage, reading, devices, train)
    uri = options.faithfulness_labels
    if uri is not None:

        def read() -> str:
            labels = read_labels(list_inputs([uri], storage), uri, conversations)
            faithful = sum(label.is_faithful for label in labels)
            return f"{len(labels):,} labels, {faithful:,} faithful"

        checks.append(check("labels", read, "evaluation.faithfulness_labels"))
    return checks


def _reward_checks(
    options: ScoringSection,
    storage: StorageSection,
    reading: ReadingSection,
    devices: Devices | None,
    train: Iterable[Conversation],
) -> list[Check]:
    """Return the checks of the reward model and of the pairs that show what it is worth, if any."""
    section = options.reward_model
    if section is None:
        return []

    def read() -> Found[None]:
        given = read_reward_pairs(section, reading, storage, train)
        assert given is not None, "asked only with a reward model"
        count = len(given.pairs.conversations)
        text = f"{number_of(len(given.pairs.pairs), 'pair', 'pairs')} of {count:,} conversations"
        why = []
        if given.not_compared:
            text += f", perhaps trained on ({given.not_compared})"
            why.append("they may flatter the reward model")
        else:
            text += ", none of them trained on"
        if count < MIN_CONVERSATIONS:
            why.append(f"fewer than {MIN_CONVERSATIONS} hardly show what the reward model is worth")
        if not why:
            return Found(text, None)
        return Found(f"warning: {text}: {', and '.join(why)}", None, is_known=False)

    pairs, _ = check_value("reward pairs", read, f"{REWARD_KEY}.pairs")
    return [
        check("reward", lambda: describe_reward_model(section, storage, devices), REWARD_KEY),
        pairs,
    ]


def describe_reward_model(
    section: ScoringRewardModelSection, storage: StorageSection, devices: Devices | None
) -> str:
    """Return reward model, base and memory, for people.

    Raise what its job raises for wrong ones. Without devices, the memory is not asked.
    """
    with errors_about(REWARD_KEY):
        adapter = read_reward_model(section.adapter, storage, REWARD_KEY)
        check_adapter_config(adapter.store.read(ADAPTER_CONFIG), adapter.uri, True)
        name, revision = name_base_of(adapter, section)
        with small_files(name, revision, storage) as small:
            base = describe_base(name, revision, storage, None, section.trust_remote_code)
            if Path(name).is_dir():
                fetch_base_of(adapter, section, storage, Path(name))
            else:  # reading all weights is cheap only in a folder of this machine
                check_small_files(adapter, section, small.folder)
        memory = []
        if devices is not None:
            memory = alone_lines(section, adapter, storage, devices)
    run = adapter.manifest.extra.get("run")
    return "\n".join([f"{adapter.uri}  of run {run}", f"base {base}", *memory])


def describe_metric_model(key: str, section: MetricModelSection, storage: StorageSection) -> str:
    """Return the files of the model that the config names by `key`, for people.

    Raise what its job raises for a model that is missing or cannot serve.
    """
    uri, revision = section.model, section.revision
    with errors_about(key), small_files(uri, revision, storage) as small:
        line = describe_base(uri, revision, storage)
        model = MetricModel(key, section, Base(uri, None, "", small.folder))
        if key.endswith("faithfulness_model"):
            check_classifier(model)
        else:
            check_encoder(model)
    return line
