"""The base model and its adapter: fetch, verify, quantize, attach, merge, save."""

from typing import Any

# The libraries publish no types that strict checking could use.
Model = Any  # a transformers PreTrainedModel, or a peft PeftModel around one
Tokenizer = Any  # a transformers PreTrainedTokenizerBase
