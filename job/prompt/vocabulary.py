"""Check that a base has an embedding for every token that its tokenizer makes.

A tokenizer may know more tokens than its base: somebody added some and did not resize the model. To
look up one of them fails with an IndexError on a CPU, and breaks the process's GPU.
"""

from job.conversations.record import Conversation, Source, Turn
from job.errors import ConfigError
from job.model import Tokenizer
from job.prompt.encode import Encoder
from job.prompt.template import Prompt
from job.telemetry import warn

ANY_TEXT = Conversation("any", (Turn("customer", "Hello"),), Source("any", 1))
NO_LIMIT = 1 << 30

REMEDY = (
    "take a base whose embedding was resized with its tokenizer "
    "(resize_token_embeddings), or the tokenizer that the base was trained with"
)


def check_vocabulary(tokenizer: Tokenizer, prompt: Prompt, embeddings: int) -> None:
    """Make the end token the pad token if the base lacks an embedding of that.

    `embeddings` is the number of rows of the base's embedding. Raise ConfigError if it has none for
    the end token, or for a token of the prompt.
    """
    end = tokenizer.eos_token_id
    if end >= embeddings:
        raise ConfigError(
            f"model.base: its tokenizer ends a text with {_name(end, tokenizer)}, and the base has "
            f"embeddings of {embeddings:,} tokens only; {REMEDY}"
        )
    pad = tokenizer.pad_token_id
    if pad >= embeddings:
        # Padding is masked and has no label, so that any token will do.
        warn(
            "the base has no embedding of its pad token: the end token is taken",
            pad=_name(pad, tokenizer),
            embeddings=embeddings,
        )
        tokenizer.pad_token = tokenizer.eos_token
    check_prompt(tokenizer, prompt, embeddings)


def check_prompt(tokenizer: Tokenizer, prompt: Prompt, embeddings: int) -> None:
    """Raise ConfigError if the base has no embedding of a token of the prompt.

    To generate takes no more: the end token and padding are not looked up.
    """
    ids = Encoder(prompt, tokenizer, NO_LIMIT).encode(ANY_TEXT).ids
    largest = max(ids)
    if prompt.control_tokens and largest >= embeddings:
        raise ConfigError(
            f"prompt.style: the chat template writes {_name(largest, tokenizer)}, and the base has "
            f"embeddings of {embeddings:,} tokens only; use prompt.style: instruction, or {REMEDY}"
        )
    check_ids(largest, tokenizer, embeddings)


def check_ids(largest: int, tokenizer: Tokenizer, embeddings: int) -> None:
    """Raise ConfigError if the largest id of a text has no embedding in the base."""
    if largest >= embeddings:
        raise ConfigError(
            f"model.base: its tokenizer makes {_name(largest, tokenizer)} of the text, and the "
            f"base has embeddings of {embeddings:,} tokens only; {REMEDY}"
        )


def _name(id: int, tokenizer: Tokenizer) -> str:
    return f"token {id} ('{tokenizer.convert_ids_to_tokens(id)}')"
