"""Can everything be read and written? Each question asked of the real place, with the answer in a line.

Knows nothing of torch: no weights are fetched.
"""

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from job.config.sections import StorageSection
from job.errors import ForbiddenError, MissingError, PreemptedError, RecapError
from job.model import BASE_PATTERNS, HUB_ID
from job.storage.hub_errors import hub_errors
from job.storage.open import open_store


@dataclass(frozen=True)
class Check:
    """One question of a plan, what was found, and the error if it stands in the way."""

    name: str
    found: str
    error: RecapError | None = None


def check(name: str, question: Callable[[], str]) -> Check:
    """Ask; a RecapError becomes the answer, so that one plan tells all that is wrong."""
    try:
        return Check(name, question())
    except PreemptedError:
        raise
    except RecapError as error:
        return Check(name, str(error), error)


def base_is_there(uri: str, revision: str | None, storage: StorageSection) -> str:
    """The base's weights, listed: how many files, how large; raises what fetching them would."""
    hub_id = uri.removeprefix("hf://")
    if not uri.startswith("s3://") and not Path(uri).is_dir() and HUB_ID.fullmatch(hub_id):
        uri = f"hf://{hub_id}" + (f"@{revision}" if revision else "")
    elif not uri.startswith("s3://") and not Path(uri).is_dir():
        raise MissingError(f"model.base: '{uri}' is no folder here, no Hub id (org/name) and no s3:// prefix")
    sizes = {entry.key: entry.size for entry in open_store(uri, storage).list()}
    weights = [size for key, size in sizes.items() if key.endswith(".safetensors")]
    if "config.json" not in sizes or not weights:
        raise MissingError(
            f"model.base: {uri} needs config.json and *.safetensors, found {', '.join(list(sizes)[:8]) or 'nothing'}; "
            f"of what recap reads there is {', '.join(BASE_PATTERNS)}"
        )
    return f"{uri}  {len(weights)} weight file{'s' if len(weights) > 1 else ''}, {sum(weights) / 2**20:,.1f} MiB"


def is_writable(uri: str, storage: StorageSection) -> str:
    """Write a small object below `uri` and remove it again; raises what the run would meet at its end."""
    store = open_store(uri, storage)
    probe = f".recap-probe-{uuid.uuid4().hex}"
    store.write(probe, b"")
    store.delete(probe)
    return f"{store.uri}  writable"


def hub_accepts(repository: str) -> str:
    """The Hub knows HF_TOKEN; ForbiddenError if there is none or it is refused."""
    from huggingface_hub import HfApi

    if not os.environ.get("HF_TOKEN"):
        raise ForbiddenError(f"publish.hub: {repository} needs a token that may write there: set HF_TOKEN")
    with hub_errors(f"publish.hub: {repository}", writes=True):
        name = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ["HF_TOKEN"]).whoami()["name"]
    return f"{repository}  as {name}"
