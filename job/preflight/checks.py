"""Can everything be read and written? Each question asked of the real place, with the answer in a line.

Knows nothing of torch: no weights are fetched.
"""

import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.config.sections import PromptSection, StorageSection
from job.errors import DataError, ForbiddenError, RecapError
from job.model.files import (
    check_chat_template,
    check_names,
    check_tokenizer,
    check_weights,
    files_in_folder,
    files_in_store,
    hub_id_of,
)
from job.storage.hub_errors import hub_errors
from job.storage.keys import local_path, scheme_of
from job.storage.open import open_store

WRITE = "repo.write"  # the Hub's name of the permission
READERS = ("read", "no_access")  # roles in an organization


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
        if (
            key
            and not isinstance(error, DataError)
            and not str(error).startswith((key, "model.", "prompt."))
        ):
            error = type(error)(f"{key}: {error}")
        return Check(name, str(error), error)


def base_is_there(
    uri: str, revision: str | None, storage: StorageSection, prompt: PromptSection | None = None
) -> str:
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
        files = (
            files_in_store(open_store(uri, storage), uri)
            if is_s3
            else files_in_folder(Path(uri), uri)
        )
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
        for (
            folder
        ) in missing:  # a plan leaves nothing behind; what somebody else has filled meanwhile stays
            with suppress(OSError):
                folder.rmdir()
    return f"{store.uri}  writable"


def hub_accepts(repository: str) -> str:
    """Ask the Hub for whom HF_TOKEN is; return it in a line.

    Raise ForbiddenError if there is no token, or the Hub refuses it or says that it may not write
    the repository. Only a push can prove that it may.
    """
    from huggingface_hub import HfApi

    where = f"publish.hub: {repository}"
    if not os.environ.get("HF_TOKEN"):
        raise ForbiddenError(f"{where} needs a token that may write there: set HF_TOKEN")
    with hub_errors(where, writes=True):
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ["HF_TOKEN"])
        account = api.whoami()
    reason = why_not_writable(account, repository)
    if reason:
        raise ForbiddenError(
            f"{where}: {reason}: set HF_TOKEN to a token of the kind 'write', or to a fine-grained one "
            f"with write access to {repository.partition('/')[0]} ({api.endpoint}/settings/tokens)"
        )
    return f"{repository}  as {account['name']}"


def why_not_writable(account: Mapping[str, Any], repository: str) -> str | None:
    """Return why the token of `account`, the Hub's answer to "who am I", cannot write the repository.

    None where it can, and where the answer does not decide it: roles that are not known here, groups.
    """
    namespace = repository.partition("/")[0]
    token = (account.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        return f"the token of {account['name']} may only read"
    for organization in account.get("orgs") or []:
        if organization.get("name") == namespace and organization.get("roleInOrg") in READERS:
            return f"{account['name']} may only read in {namespace}"
    grants = token.get("fineGrained")
    if token.get("role") == "fineGrained" and grants and not _grants(grants, namespace, repository):
        return f"the fine-grained token of {account['name']} may not write there"
    return None


def _grants(grants: Mapping[str, Any], namespace: str, repository: str) -> bool:
    if WRITE in (grants.get("global") or []):
        return True
    for grant in grants.get("scoped") or []:
        entity = grant.get("entity") or {}
        is_there = entity.get("name") in (namespace, repository)
        is_group = (
            entity.get("type") == "resource-group"
        )  # of whose repositories the Hub says nothing
        if WRITE in (grant.get("permissions") or []) and (is_there or is_group):
            return True
    return False


def _missing_folders(uri: str) -> list[Path]:
    """The folders that a write below `uri` would make, the deepest first."""
    if scheme_of(uri) != "file":
        return []
    path = Path(local_path(uri))
    return [folder for folder in (path, *path.parents) if not folder.exists()]
