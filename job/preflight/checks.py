"""Can everything be read and written? Each question asked of the real place, with the answer in a line.

Knows nothing of torch: no weights are fetched.
"""

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from job.base_files import (
    check_chat_template,
    check_names,
    check_tokenizer,
    check_weights,
    files_in_folder,
    files_in_store,
    hub_id_of,
)
from job.config.sections import PromptSection, StorageSection
from job.errors import DataError, ForbiddenError, RecapError
from job.storage.hub_errors import hub_errors
from job.storage.keys import local_path, scheme_of
from job.storage.open import open_store


@dataclass(frozen=True)
class Check:
    """One question of a plan, what was found, and the error if it stands in the way."""

    name: str
    found: str
    error: RecapError | None = None


def check(name: str, question: Callable[[], str], key: str | None = None) -> Check:
    """Ask; a RecapError becomes the answer, so that one plan tells all that is wrong. `key` is the config's."""
    try:
        return Check(name, question())
    except RecapError as error:
        # What is wrong with the data names its file and line; anything else is about what the config says.
        if key and not isinstance(error, DataError) and not str(error).startswith((key, "model.", "prompt.")):
            error = type(error)(f"{key}: {error}")
        return Check(name, str(error), error)


def base_is_there(uri: str, revision: str | None, storage: StorageSection, prompt: PromptSection | None = None) -> str:
    """The base's weights, how many files, how large; raises what fetching them would.

    Config and the heads of the weights are read where that is cheap: not from the Hub, which keeps them whole. With a
    prompt section, which an adapter brings itself, the base's tokenizer must be there and able to serve it.
    """
    hub_id = hub_id_of(uri, revision)
    if hub_id:
        uri = f"hf://{hub_id}" + (f"@{revision.replace('/', '%2F')}" if revision else "")
        files = files_in_store(open_store(uri, storage), uri)
        check_names(files)
    else:
        is_s3 = uri.startswith("s3://")
        files = files_in_store(open_store(uri, storage), uri) if is_s3 else files_in_folder(Path(uri), uri)
        check_weights(files)
    if prompt:
        check_tokenizer(files)
    if prompt and prompt.style == "chat" and not hub_id:
        check_chat_template(files)
    sizes = [files.sizes[key] for key in files.weights]
    return f"{uri}  {len(sizes)} weight file{'s' if len(sizes) > 1 else ''}, {sum(sizes) / 2**20:,.1f} MiB"


def is_writable(uri: str, storage: StorageSection) -> str:
    """Write a small object below `uri` and remove it again; raises what the run would meet at its end."""
    store = open_store(uri, storage)
    missing = _missing_folders(uri)
    probe = f".recap-probe-{uuid.uuid4().hex}"
    try:
        store.write(probe, b"")
        store.delete(probe)
    finally:
        for folder in missing:  # a plan leaves nothing behind; what somebody else has filled meanwhile stays
            with suppress(OSError):
                folder.rmdir()
    return f"{store.uri}  writable"


def hub_accepts(repository: str) -> str:
    """The Hub knows HF_TOKEN; ForbiddenError if there is none or it is refused."""
    from huggingface_hub import HfApi

    if not os.environ.get("HF_TOKEN"):
        raise ForbiddenError(f"publish.hub: {repository} needs a token that may write there: set HF_TOKEN")
    with hub_errors(f"publish.hub: {repository}", writes=True):
        name = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ["HF_TOKEN"]).whoami()["name"]
    return f"{repository}  as {name}"


def _missing_folders(uri: str) -> list[Path]:
    """The folders that a write below `uri` would make, the deepest first."""
    if scheme_of(uri) != "file":
        return []
    path = Path(local_path(uri))
    return [folder for folder in (path, *path.parents) if not folder.exists()]
