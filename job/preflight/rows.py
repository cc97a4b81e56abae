"""Count the conversations that fit into a row, by encoding them as the training will.

Needs the tokenizer, so only a base in a folder of this machine can be asked.
"""

from pathlib import Path

from job.config.commands import TrainConfig
from job.errors import RecapError
from job.model.load import context_tokens, load_tokenizer
from job.preflight.checks import Check, check
from job.prompt.encode import Encoder
from job.prompt.template import make_prompt
from job.training.examples import Examples
from job.training.rows import RowSettings, make_rows, row_tokens

MAX_CONVERSATIONS = 20_000  # about a minute


def rows_that_fit(config: TrainConfig, examples: Examples) -> list[Check]:
    """Return a check of the rows that fit into `training.max_tokens`, or none if not known.

    Code that a base brings along is not run for a plan, and what is wrong with its files is for the
    check of the base.
    """
    base = Path(config.model.base)
    too_many = len(examples.train) + len(examples.validation) > MAX_CONVERSATIONS
    if too_many or not base.is_dir() or config.model.trust_remote_code:
        return []
    try:
        tokenizer = load_tokenizer(base)
        context = context_tokens(base)
        prompt = make_prompt(config.prompt, tokenizer, examples.cleaning)
    except RecapError:
        return []
    settings = RowSettings(
        Encoder(prompt, tokenizer, row_tokens(config.training.max_tokens, context)),
        config.data.references,
        config.limits.max_excluded_fraction,
    )
    return [check("rows", lambda: _counts(examples, settings))]


def _counts(examples: Examples, settings: RowSettings) -> str:
    lines = []
    for name, conversations in (("train", examples.train), ("validation", examples.validation)):
        rows = make_rows(conversations, settings)
        line = f"{name:11}{len(rows.dataset):>7,} rows of at most {rows.longest:,} tokens"
        if rows.shortened:
            line += f", {rows.shortened:,} without some turns"
        if rows.excluded:
            line += f"; warning: {rows.excluded:,} fit no way and are left out"
        lines.append(line)
    return "\n".join(lines)
