"""`publish.gate`: what an adapter must beat before it serves, in trainings and in evaluations."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from job.config.sections import Name, Section, Uri, Uris

# Opponents by kind; `evaluation.others` names more.
Opponent = Literal["floors", "base", "champion", "others"]

# Shares by which a summarizer may be worse than people, and than the champion.
DEFAULT_GUARDS = {
    "empty": 0.01,
    "cut": 0.02,
    "repeating": 0.02,
    "invented_numbers": 0.05,
    "copied": 0.25,
}
POINTER = ".json"  # the ending of a champion's pointer
MIN_CONVERSATIONS = 40  # of fewer, intervals do not hold where nine of ten values are zero


class GateSection(Section):
    """The opponents that an adapter must beat, and what must not get worse."""

    metric: Name = Field(
        "rougeL",
        description="Metric by which the adapter is compared with its opponents. Its mean over the "
        "references of a conversation counts.",
    )
    better_than: list[Name] | None = Field(
        None,
        description="Opponents that the adapter must beat: the 95% interval of the paired "
        "difference is above 0. They are floors, base, champion, others (all files of "
        "evaluation.others), or a name in evaluation.others. Naming base scores the base too. null "
        "is floors and base, or only floors for a file of summaries.",
    )
    no_worse_than: list[Name] | None = Field(
        None,
        description="Opponents of which the adapter must be no worse: the interval is above "
        "-margin. The champion that the config names is always one of them, unless better_than "
        "names it.",
    )
    margin: float = Field(
        0.01,
        ge=0,
        description="How much worse no_worse_than allows, in the unit of the metric. What the "
        "champion lost to those before it, by the gains recorded in its pointer, is taken from it.",
    )
    guards: dict[Name, Annotated[float, Field(ge=0)]] | None = Field(
        None,
        description="Metrics that must not get worse, each with the amount by which its mean may. "
        "They are compared with the human references, and with the champion: what it is already "
        "worse than people is taken from the amount, so that small steps do not add up. "
        "null is empty: 0.01, cut: 0.02, repeating: 0.02, invented_numbers: 0.05, copied: 0.25. A "
        "mapping replaces all of these, so name those that shall stay. {} guards nothing.",
    )


class RegressionSection(Section):
    """An older test set, on which a new adapter must be no worse than the champion."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}$")] = Field(
        description="Name of the test set in reports."
    )
    input: Uris = Field(
        description="Its conversations with reference summaries: a file, a prefix, or a list of "
        "them. They are read as the data of the config."
    )


class PairsSection(Section):
    """Held-out corrections: which of two adapters agents would have kept."""

    input: Uris = Field(
        description="Pairs as recap feedback writes them: turns, chosen (the agent's edit) and "
        "rejected (what was shown); TRL's and OpenAI's formats are read, too. It is a file such as "
        "…/pairs/test.jsonl, or a list of files. None of their conversations may be in the "
        "training data, exactly or nearly."
    )
    min_win_rate: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="The adapter wins a pair if its summary is nearer to the agent's edit than "
        "that of the champion, by the edit distance in words, and a tie is half a win. The 95% "
        "interval of its win rate must be above this number. Without a champion, the base is the "
        "opponent.",
    )
    margin: float = Field(
        0.01,
        ge=0,
        description="How much farther from the edits its summaries may be than those of the "
        "champion, as a share of words. The 95% interval of the paired difference must not be "
        "beyond it.",
    )


class PromotionSection(Section):
    """The gate of an adapter, and the pointer that follows the adapters that pass."""

    champion: Uri | None = Field(
        None,
        description="Pointer to the adapter that serves: a file whose name ends in .json. An "
        "adapter that passes the gate becomes the champion. The file need not exist yet.",
    )
    gate: GateSection | None = Field(
        None,
        description="What the adapter must beat. A run whose adapter does not pass ends with 76. "
        "{} is the default gate, and null is none.",
    )
    regressions: list[RegressionSection] = Field(
        [],
        description="Older test sets, on each of which the adapter must be no worse than the "
        "champion by the gate's metric and margin.",
    )
    pairs: PairsSection | None = Field(
        None,
        description="Held-out corrections by agents, on which the gate compares the adapter with "
        "the champion. null compares on none.",
    )

    @field_validator("champion")
    @classmethod
    def _champion_is_a_pointer(cls, uri: str | None) -> str | None:
        if uri is not None and not uri.endswith(POINTER):
            raise ValueError(f"'{uri}' is no pointer: name a file that ends in {POINTER}")
        return uri
