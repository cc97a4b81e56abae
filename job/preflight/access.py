"""Ask the base, the output and the Hub whether the job could use them; fetch no weights.

Each function contacts the service. Returns a report line or raises the error that the job would
get.
"""

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from job.config.sections import PromptSection, StorageSection
from job.errors import ForbiddenError
from job.model import Tokenizer
from job.model.fetch import fetch_small_files, open_base
from job.model.files import check_index, check_weights
from job.model.load import load_tokenizer
from job.model.remote_code import check_code
from job.model.thoughts import MAY_THINK, may_think
from job.model.tokenizer_files import check_chat_template, check_tokenizer
from job.preflight.checks import Found
from job.prompt.template import make_prompt
from job.storage.hub_errors import hub_errors
from job.storage.keys import local_path, scheme_of, split_file, split_hub
from job.storage.lease import keeps_guard
from job.storage.open import open_store
from job.storage.s3 import S3Store

WRITE = "repo.write"  # the Hub's name of the permission
READERS = ("read", "no_access")  # roles in an organization
MAX_QUIET_SECONDS = 60  # of a clock that is off without a warning


@dataclass(frozen=True)
class SmallFiles:
    """The small files of a base: fetched, and its tokenizer loaded, when first asked for."""

    uri: str
    fetch: Callable[[], Path]

    @cached_property
    def folder(self) -> Path:
        """The folder that has them. Raise what `fetch_small_files` raises."""
        return self.fetch()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer in them. Raise what `load_tokenizer` raises."""
        return load_tokenizer(self.folder, uri=self.uri)


@contextmanager
def small_files(uri: str, revision: str | None, storage: StorageSection) -> Iterator[SmallFiles]:
    """Yield the small files of a base. The end of the block deletes what was fetched."""
    with tempfile.TemporaryDirectory() as folder:
        yield SmallFiles(uri, lambda: fetch_small_files(uri, revision, storage, Path(folder)))


def describe_base(
    uri: str,
    revision: str | None,
    storage: StorageSection,
    prompt: PromptSection | None = None,
    trust_remote_code: bool = False,
    small: SmallFiles | None = None,
) -> str:
    """Return a line with the number and size of the base's weights, and one if it may think.

    Raise what fetching the base would raise. Reads its config and the headers of its weights,
    except on the Hub, which stores them whole. With a prompt section, the base's tokenizer must be
    there and have what the prompt needs (an adapter has a tokenizer and a prompt of its own): it is
    loaded from `small`, unless its code must be trusted, which no plan runs.
    """
    store, files = open_base(uri, revision, storage)
    check_code(files, trust_remote_code)
    is_on_hub = store is not None and scheme_of(store.uri) == "hf"
    names = check_index(files) if is_on_hub else check_weights(files)
    if prompt:
        check_tokenizer(files)
    if prompt and prompt.style == "chat":
        check_chat_template(files)
    warning = ""
    if prompt and small and not trust_remote_code:
        make_prompt(prompt, small.tokenizer)
        warning = f"\nwarning: it {MAY_THINK}" if may_think(small.tokenizer) else ""
    sizes = [files.sizes[key] for key in names]
    plural = "s" if len(sizes) > 1 else ""
    where = store.uri if store else uri
    return f"{where}  {len(sizes)} weight file{plural}, {sum(sizes) / 2**20:,.1f} MiB{warning}"


def probe_output(uri: str, storage: StorageSection, guarded: bool = True) -> str:
    """Write a small object below `uri`, delete it, and return report lines.

    Raise the error that a write would raise. With `guarded`, for a command that makes guarded
    writes, try one, too. A store that ignores the guard is a warning: a run warns and goes on.
    """
    store = open_store(uri, storage)
    missing = _missing_folders(uri)
    probe = _new_probe()
    try:
        store.write(probe, b"")
        try:
            is_kept = not guarded or keeps_guard(store, probe, b"")
        finally:
            store.delete(probe)
    finally:
        _delete_empty(missing)
    if not guarded:
        return f"{store.uri}  writable"
    if is_kept:
        return f"{store.uri}  writable, and conditional writes are honoured"
    return (
        f"{store.uri}  writable\nwarning: this service ignores conditional writes "
        "(If-None-Match), so two runs of one name would not be kept apart: start one at a time"
    )


def probe_pointer(uri: str, storage: StorageSection) -> None:
    """Switch a small object beside the pointer at `uri` twice, and delete it.

    Raise the error that a switch of the pointer would raise: OutputError if the service does not
    honour conditions. A repository of the Hub is only asked if the token may write there.
    """
    if scheme_of(uri) == "hf":
        _check_token("publish.champion", split_hub(uri).repository)
        return
    folder, _ = split_file(uri)
    store = open_store(folder, storage)
    missing = _missing_folders(folder)
    probe = _new_probe()
    try:
        try:
            store.replace(probe, b"1", None)
            store.replace(probe, b"2", b"1")
        finally:
            store.delete(probe)
    finally:
        _delete_empty(missing)


def check_clock(uri: str, storage: StorageSection) -> Found[None]:
    """Compare this machine's clock with that of the S3 service at `uri`, by an answer of it."""
    store = open_store(uri, storage)
    assert isinstance(store, S3Store), "no other store has a clock"
    ahead = store.seconds_ahead()
    if ahead is None:
        return Found("not checked: the service sends no date", None, is_known=False)
    # The date has whole seconds.
    if abs(ahead) < 2:
        return Found("as that of the S3 service", None)
    way = "ahead of" if ahead > 0 else "behind"
    text = f"{abs(ahead):,.0f} seconds {way} that of the S3 service"
    if abs(ahead) <= MAX_QUIET_SECONDS:
        return Found(text, None)
    warning = f"warning: {text}, and AWS refuses requests beyond 15 minutes (77): set the clock"
    return Found(warning, None, is_known=False)


def check_hub_access(repository: str) -> str:
    """Return the account of HF_TOKEN, in a report line.

    Raise ForbiddenError if there is no token, or the Hub refuses it or says that it may not write
    the repository. Only a push can prove that it may.
    """
    return f"{repository}  as {_check_token('publish.hub', repository)}"


def _check_token(key: str, repository: str) -> str:
    """Return the name of HF_TOKEN's account; raise what `check_hub_access` raises."""
    from huggingface_hub import HfApi

    where = f"{key}: {repository}"
    if not os.environ.get("HF_TOKEN"):
        raise ForbiddenError(f"{where} needs a token that may write there: set HF_TOKEN")
    with hub_errors(where, writes=True):
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ["HF_TOKEN"])
        account = api.whoami()
    reason = why_not_writable(account, repository)
    if reason:
        raise ForbiddenError(
            f"{where}: {reason}: set HF_TOKEN to a token of the kind 'write', or to a fine-grained "
            f"one with write access to {repository.partition('/')[0]} "
            f"({api.endpoint}/settings/tokens)"
        )
    return str(account["name"])


def why_not_writable(account: Mapping[str, Any], repository: str) -> str | None:
    """Return why the token cannot write the repository.

    `account` is the Hub's answer to "who am I" for that token.
    Return None if it can, and if the answer does not decide it (unknown roles, groups).
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
        # The answer does not list the repositories of a group.
        is_group = entity.get("type") == "resource-group"
        if WRITE in (grant.get("permissions") or []) and (is_there or is_group):
            return True
    return False


def _new_probe() -> str:
    return f".recap-probe-{uuid.uuid4().hex}"


def _delete_empty(folders: Sequence[Path]) -> None:
    """Delete the folders that a probe made: a plan leaves nothing behind."""
    for folder in folders:
        # rmdir fails on a folder that somebody else filled meanwhile, which then stays.
        with suppress(OSError):
            folder.rmdir()


def _missing_folders(uri: str) -> list[Path]:
    """Return the folders that a write below `uri` would create, the deepest first."""
    if scheme_of(uri) != "file":
        return []
    path = Path(local_path(uri))
    return [folder for folder in (path, *path.parents) if not folder.exists()]
