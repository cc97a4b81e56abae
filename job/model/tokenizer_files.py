"""Find the files of a base's tokenizer and its chat template, and check that they were read right.

transformers reads most forms of a tokenizer. The functions here add the form of a template that it
does not read, and refuse the forms that it reads otherwise than they are meant.
"""

from pathlib import Path
from typing import Any

from job.errors import ConfigError, DataError, MissingError
from job.model import Tokenizer
from job.model.files import (
    CHAT_TEMPLATES,
    TEMPLATE_FOLDER,
    TOKENIZER_CONFIG,
    VOCABULARIES,
    BaseFiles,
    read_json,
)

WHOLE = "tokenizer.json"
TEKKEN = "tekken.json"
PIECES = ("*.model", "tokenizer.model.*")
TEMPLATE_JSON = "chat_template.json"
DEFAULT = "default"

# Ordinary texts, which each reading of a vocabulary must cut into the same pieces.
SAMPLES = (
    "Where is my parcel? It is 3 days late.",
    "customer: hello agent, I'd like a refund of 25 euros (order A-17)",
    "Größe, déjà vu: 日本語",
)

SAVE_WHOLE = (
    "put a tokenizer.json there: load the tokenizer where it is read right, and call "
    "tokenizer.save_pretrained(...)"
)


def check_tokenizer(files: BaseFiles) -> None:
    """Raise MissingError if the vocabulary is missing, ConfigError for a form that is not read."""
    if WHOLE in files.sizes:
        return
    vocabularies = files.matching(VOCABULARIES)
    if not vocabularies:
        raise MissingError(
            f"model.base: {files.uri} has no tokenizer (tokenizer.json or tokenizer.model); "
            "put the tokenizer's files there with tokenizer.save_pretrained(...)"
        )
    if vocabularies == [TEKKEN]:
        raise ConfigError(
            f"model.base: {files.uri} has its tokenizer as {TEKKEN} only, which recap does not "
            f"read; use a copy of the base with tokenizer.json, or {SAVE_WHOLE} (with "
            "mistral-common installed)"
        )
    if "vocab.json" in files.sizes and "merges.txt" not in files.sizes:
        # Without it, transformers makes merges up, and a text has other tokens than the base knows.
        raise MissingError(
            f"model.base: {files.uri} has vocab.json without merges.txt; copy the tokenizer's "
            "files again, or save it as tokenizer.json"
        )


def check_chat_template(files: BaseFiles) -> None:
    """Raise ConfigError if no file has a chat template, or none that may be chosen.

    Reads small files only. A template in a file of its own has precedence over one in the config.
    """
    names = _template_names(files)
    if not names:
        raise ConfigError(no_template(f"model.base {files.uri}"))
    if DEFAULT not in names:
        raise ConfigError(undecided(names, f"model.base {files.uri}"))


def no_template(where: str) -> str:
    """Return the message for a tokenizer without a chat template."""
    return (
        f"prompt.style is chat, but the tokenizer of {where} has no chat template: use an instruct "
        "model, or prompt.style: instruction"
    )


def undecided(names: list[str], where: str) -> str:
    """Return the message for templates of which none is the default one."""
    there = ", ".join(sorted(names))
    return (
        f"prompt.style is chat, but {where} has several chat templates ({there}) and none is named "
        f"{DEFAULT}: save the one to be used as chat_template.jinja beside the "
        "base's tokenizer, or set prompt.style: instruction"
    )


def add_chat_template(tokenizer: Tokenizer, files: BaseFiles) -> None:
    """Give the tokenizer the template in chat_template.json if it has none.

    Multimodal bases (Gemma 3, Qwen2-VL) were published with it; only their processors read the
    file.
    """
    if not tokenizer.chat_template and TEMPLATE_JSON in files.sizes:
        tokenizer.chat_template = _template_in_json(files)


def check_pieces(tokenizer: Tokenizer, folder: Path, files: BaseFiles) -> None:
    """Raise ConfigError if the tokenizer cuts texts otherwise than its sentencepiece model does.

    transformers 5.19 builds a fast tokenizer from the model where there is no tokenizer.json, and
    not for all classes rightly: XGLM's then has a vocabulary of eleven tokens, and Mistral's leaves
    out the space before the first word. Nothing fails, but the base reads texts that it never saw.
    """
    pieces = files.matching(PIECES)
    if WHOLE in files.sizes or not pieces:
        return
    from sentencepiece import SentencePieceProcessor

    try:
        model = SentencePieceProcessor(model_file=str(folder / pieces[0]))
    except (RuntimeError, OSError):
        return  # no sentencepiece: files of tiktoken are called so, too
    for text in SAMPLES:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        got = tokenizer.convert_ids_to_tokens(ids)
        if [_known(piece, tokenizer) for piece in got] != _pieces(text, model):
            raise ConfigError(
                f"model.base: transformers reads {pieces[0]} of {files.uri} otherwise than "
                f"sentencepiece does ({type(tokenizer).__name__}); {SAVE_WHOLE}"
            )


def _pieces(text: str, model: Any) -> list[str | None]:
    """Return the pieces of a text; None for those that the vocabulary lacks."""
    pieces: list[str | None] = []
    for id in model.encode(text):
        pieces.append(None if model.is_unknown(id) else model.id_to_piece(id))
    return pieces


def _known(token: str, tokenizer: Tokenizer) -> str | None:
    return None if token == tokenizer.unk_token else token


def _template_names(files: BaseFiles) -> list[str]:
    """Return the names of the chat templates, as transformers finds them."""
    names = [DEFAULT] if CHAT_TEMPLATES[0] in files.sizes else []
    for key in files.sizes:
        if key.startswith(TEMPLATE_FOLDER) and key.endswith(".jinja"):
            names.append(key.removeprefix(TEMPLATE_FOLDER).removesuffix(".jinja"))
    if names:
        return names

    # Older tokenizers have it in their config.
    found = None
    if TOKENIZER_CONFIG in files.sizes:
        found = read_json(files, TOKENIZER_CONFIG).get("chat_template")
    if not found and TEMPLATE_JSON in files.sizes:
        found = _template_in_json(files)
    if isinstance(found, dict):
        return list(found)
    if isinstance(found, list):
        return [str(each.get("name")) for each in found if isinstance(each, dict)]
    return [DEFAULT] if found else []


def _template_in_json(files: BaseFiles) -> str | dict[str, str]:
    """Return the template in chat_template.json: a text, or several by name."""
    found = read_json(files, TEMPLATE_JSON).get("chat_template")
    if isinstance(found, list) and all(isinstance(each, dict) for each in found):
        found = {each.get("name"): each.get("template") for each in found}
    if isinstance(found, dict):
        if all(isinstance(text, str) for text in [*found, *found.values()]):
            return found
    elif isinstance(found, str):
        return found
    raise DataError(
        f"model.base: {files.uri}/{TEMPLATE_JSON} has no chat template; copy or fetch it again"
    )
