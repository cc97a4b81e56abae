"""Publish a local folder as one commit of a Hub repository.

It is one commit so that no reader ever finds half an adapter there.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from job.errors import ForbiddenError, OutputError, RetryError
from job.storage.hub_errors import hub_errors
from job.storage.local import LocalStore
from job.telemetry import warn

TRIES = 5
FIRST_WAIT_SECONDS = 2.0  # doubles after each try
Result = TypeVar("Result")


def publish_to_hub(
    local_dir: Path,
    repository: str,
    *,
    private: bool,
    message: str,
    token: str | None = None,
    endpoint: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Commit every file of `local_dir` to the model repository `org/name`; return the commit's URL.

    Creates the repository if there is none. Raise ForbiddenError without a token that may write
    there; OutputError if the repository is public and `private` is wanted, or there are no files;
    RetryError if the Hub stays busy or unreachable through five tries.
    """
    token = token or os.environ.get("HF_TOKEN")
    where = f"hf://{repository}"
    if not token:
        raise ForbiddenError(
            f"{where}: publishing needs a token with write access: set HF_TOKEN in the environment",
        )
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint or os.environ.get("HF_ENDPOINT"), token=token)

    def commit() -> str:
        with hub_errors(where, writes=True):
            _create_repository(api, repository, private)
            return _commit(api, local_dir, repository, message)

    return _with_retries(commit, where, sleep)


def _create_repository(api: Any, repository: str, private: bool) -> None:
    """Create the repository unless it exists.

    Raise OutputError if it exists, is public, and should be private.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        found = api.repo_info(repository)
    except RepositoryNotFoundError:
        api.create_repo(repository, private=private, exist_ok=True)
        return
    if private and not found.private:
        raise OutputError(
            f"hf://{repository} is there and public: "
            "make the repository private on its page, or set publish.private: false"
        )


def _commit(api: Any, local_dir: Path, repository: str, message: str) -> str:
    from huggingface_hub import CommitOperationAdd

    # Not `upload_folder`: it may split a large folder into several commits, and a reader may see
    # the first alone.
    additions = [
        CommitOperationAdd(path_in_repo=entry.key, path_or_fileobj=local_dir / entry.key)
        for entry in LocalStore(str(local_dir)).list()
    ]
    if not additions:
        raise OutputError(f"{local_dir} holds no files to publish")
    try:
        return str(api.create_commit(repository, additions, commit_message=message).commit_url)
    except ValueError as error:
        if "README.md" not in str(error):
            raise
        # The Hub checks the front matter of a card before it takes a commit.
        why = " ".join(str(error).split())
        raise OutputError(
            f"hf://{repository}: the Hub does not take the model card ({why}): correct "
            "publish.license or publish.language"
        ) from error


def _with_retries(
    action: Callable[[], Result],
    where: str,
    sleep: Callable[[float], None],
) -> Result:
    for attempt in range(TRIES):
        try:
            return action()
        except RetryError as error:
            if attempt == TRIES - 1:
                raise
            wait_seconds = FIRST_WAIT_SECONDS * 2**attempt
            warn(
                "the Hub is busy; trying again",
                repository=where,
                wait_seconds=wait_seconds,
                reason=str(error),
            )
            sleep(wait_seconds)
    raise AssertionError
