"""The identity of a night: two nights of the same identity write the same records."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from typing import Any

from job.config.candidates_section import NightGenerationSection
from job.config.commands import SummarizeConfig
from job.config.data_sections import reading_identity
from job.config.sections import (
    CsvOutputSection,
    GenerationSection,
    as_list,
    model_identity,
    names_one_file,
    to_plain,
)
from job.conversations.record import Conversation
from job.identity import json_digest
from job.storage.open import InputFile
from job.summarization.summarizer import Digests

DIGEST_BYTES = 16  # of the digest of a conversation with its settings
FINGERPRINT_DIGITS = 16  # of folders' names

# The key of the challenger: of the config, of the identity, and of the manifest's facts.
CHALLENGER = "challenger"

# Keys of `generation` that decide how fast a night is, and no summary.
SPEED_ONLY = {"max_batch_tokens", "max_batch_size"}

# A key that was added after some outputs were finished: with its default, it is no part of the
# identity, and theirs is that of today.
LATER_KEY = "deterministic"

# Keys of `data` that select files. The identity lists the selected files themselves.
SELECTION = ("include", "exclude")

# Keys of `generation` that are in the identity apart, where they mean anything.
OF_CANDIDATES = NightGenerationSection.model_fields.keys() - GenerationSection.model_fields.keys()
CANDIDATES = "candidates"  # key of them, and of the manifest's facts

# Keys of the config that are part of the identity as they are.
OTHERS = ("adapter_weights", "long_conversations", "cut_summaries", "redaction", "skip_done")

# Keys of the identity that decide no summary.
NOT_OF_A_SUMMARY = ("input", "skip_done", "csv_output", CHALLENGER)


def identity(
    config: SummarizeConfig,
    files: Sequence[InputFile],
    digests: Digests,
    challenger: str | None = None,
) -> dict[str, Any]:
    """Return the input's versions, the weights' digests, and every setting that decides a row.

    `challenger` is what the challenger is known by, if not by the digest in the config.
    """
    plain = to_plain(config)
    model = model_identity(config.model)
    reading = reading_identity(config.data)
    generation = plain["generation"]
    left_out = SPEED_ONLY | OF_CANDIDATES
    if not config.generation.deterministic:
        left_out.add(LATER_KEY)
    return {
        "input": {file.uri: f"{file.size} bytes, version {file.version}" for file in files},
        "weights": asdict(digests),
        "model": {key: model[key] for key in ("quantization", "dtype", "attention")},
        "data": {key: reading[key] for key in reading if key not in SELECTION},
        "prompt": plain["prompt"],
        "generation": {key: generation[key] for key in generation if key not in left_out},
        **{key: plain[key] for key in OTHERS},
        **_csv_output(config),
        **_candidates(config),
        **_challenger(config, challenger),
    }


def settings_fingerprint(
    config: SummarizeConfig, digests: Digests, challenger: str | None = None
) -> str:
    """Return a short digest of everything that decides the outcomes of chunks, but the files.

    It names the folder of all chunks that are made with these settings. `challenger` is what the
    challenger is known by, if not by the digest in the config.
    """
    content = identity(config, [], digests, challenger)

    # With other patterns, a night that has begun is cut anew.
    data = to_plain(config)["data"]
    content |= {key: data[key] for key in SELECTION if data[key]}

    content |= {"input": as_list(config.input), "output": config.output}
    return json_digest(content)[:FINGERPRINT_DIGITS]


def hash_settings(config: SummarizeConfig, digests: Digests) -> blake2b:
    """Return a hash of everything that decides a summary, but the conversation."""
    return hash_identity(identity(config, [], digests))


def hash_identity(content: Mapping[str, Any]) -> blake2b:
    """Return the hash of the settings of a night of this identity, as its manifest has it."""
    deciding = {key: content[key] for key in content if key not in NOT_OF_A_SUMMARY}
    text = json.dumps(deciding, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=DIGEST_BYTES)


def hash_identity_of_challenger(content: Mapping[str, Any]) -> blake2b | None:
    """Return the hash of the settings by which the challenger of such a night summarizes.

    It is that of a night in which the challenger is the adapter. None without a challenger.
    """
    challenger = content.get(CHALLENGER)
    if challenger is None:
        return None
    weights = {**content["weights"], "adapter": challenger["digest"]}
    return hash_identity({**content, "weights": weights, "prompt": None})


def conversation_digest(conversation: Conversation, settings: blake2b) -> str:
    """Return 32 hexadecimal digits of the settings, the id, and the turns with their roles.

    Metadata is left out: it decides no summary.
    """
    texts = ["", conversation.id]
    for turn in conversation.turns:
        texts += turn.role, turn.text

    # The settings are hashed once a night. A copy of that hash goes on with the conversation.
    digest = settings.copy()
    digest.update("\0".join(texts).encode())  # no text of a record has this character
    return digest.hexdigest()


def _challenger(config: SummarizeConfig, known_by: str | None) -> Mapping[str, Any]:
    """Return the challenger if there is one: identities of other nights have no such key."""
    section = config.challenger
    if section is None:
        return {}
    digest = known_by or section.adapter_digest
    return {CHALLENGER: {"digest": digest, section.mode: section.share, "seed": section.seed}}


def _candidates(config: SummarizeConfig) -> Mapping[str, Any]:
    """Return the candidates and their reward model; identities of other nights have no such key."""
    reward = config.generation.reward_model
    if reward is None:
        return {}
    model = model_identity(reward)
    loading = {key: model[key] for key in ("quantization", "dtype", "attention")}
    judge = {"digest": reward.adapter_digest, **loading}
    return {CANDIDATES: {"count": config.generation.candidates, "reward": judge}}


def _csv_output(config: SummarizeConfig) -> Mapping[str, Any]:
    """Return the section `csv_output` if it matters here.

    It does for a .csv file, and with other values than the defaults: identities of outputs that are
    older than the section have no such key.
    """
    is_csv = names_one_file(config.output) and config.output.lower().endswith(".csv")
    if is_csv and config.csv_output != CsvOutputSection():
        return {"csv_output": to_plain(config.csv_output)}
    return {}
